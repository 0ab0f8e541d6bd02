"""What `tilewright` itself offers; it cannot stand in the package `ops`, where `ops.softmax` is the module."""



__all__ = [n for n in globals() if not n.startswith("_")]
