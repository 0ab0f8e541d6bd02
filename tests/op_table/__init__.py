"""The op table: one row an op. tests/test_op_table.py turns each row into tests; benchmarks read its costs."""

from __future__ import annotations

from op_table import composed, conv, elementwise, indexing, nn, products, reduce, steps
from op_table.row import Row

ROWS: dict[str, Row] = {}
for family in (elementwise, reduce, products, conv, nn, indexing, steps, composed):
    for row in family.ROWS:
        assert row.name not in ROWS, f"two rows are called {row.name}"
        ROWS[row.name] = row
