"""The ops, one file a family: forward call, gradient rule, docstring. `exports` lists what `tilewright` offers."""
