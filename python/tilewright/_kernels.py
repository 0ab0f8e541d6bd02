"""Each kernel as a function over any DLPack array: a second extension module in `_engine`'s own file.

So there is one of each kernel, one thread pool, one allocator and one plan being recorded. Importing this module puts
the extension in its place.
"""

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location

from tilewright import _engine

_spec = spec_from_file_location(__name__, loader=ExtensionFileLoader(__name__, _engine.__file__))
_module = module_from_spec(_spec)
_spec.loader.exec_module(_module)
sys.modules[__name__] = _module
