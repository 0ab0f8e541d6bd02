"""The engine's stub names what the engine has, no more and no less."""

from __future__ import annotations

import ast
from pathlib import Path

import tilewright
from tilewright import _engine


def test_the_stub_names_every_op():
    tree = ast.parse((Path(tilewright.__file__).parent / "_engine.pyi").read_text())
    named = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            named.add(node.target.id)
    public = {n for n in dir(_engine) if not n.startswith("_")}
    assert public - named == set(), "in the engine, not in the stub"
    assert {n for n in named if not n.startswith("_")} - public == set(), "in the stub, not in the engine"
