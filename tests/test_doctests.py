"""Every example in a public docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest

import tilewright

MODULES = sorted(m.name for m in pkgutil.walk_packages(tilewright.__path__, "tilewright.")
                 if not m.name.rpartition(".")[2].startswith("_"))


@pytest.mark.parametrize("name", ["tilewright", *MODULES])
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
