"""The problem families: each function makes one problem ready for every library, and is named by `problems/<name>.txt`.

A function's keyword arguments are the keys a problem line may have; its defaults are theirs. It returns a Case. Every
module here is searched, so a family is added by writing it.
"""

import importlib
import pkgutil
from collections.abc import Callable

FAMILIES: dict[str, Callable] = {
    name: f for info in pkgutil.iter_modules(__path__)
    for name, f in vars(importlib.import_module(f"{__name__}.{info.name}")).items() if hasattr(f, "small")}
