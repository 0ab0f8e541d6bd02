"""The op table: one row an op. tests/test_op_table.py turns each row into tests; benchmarks read its costs.

Every module here that has ROWS is part of it.
"""

from __future__ import annotations

import importlib
import pkgutil

from op_table.row import Row

ROWS: dict[str, Row] = {}
for info in pkgutil.iter_modules(__path__):
    for row in getattr(importlib.import_module(f"{__name__}.{info.name}"), "ROWS", ()):
        assert row.name not in ROWS, f"two rows are called {row.name}"
        ROWS[row.name] = row
