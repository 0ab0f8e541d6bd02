"""Scripts as people post them: each runs unchanged under PyTorch and, with its imports changed, under tilewright, and
prints the same words and, to 1e-4, the same numbers."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
_IMPORTS = (  # the change that a user makes
    (r"^import torch(?:\.[\w.]+)?$", "import tilewright as torch"),
    (r"^import torch\.([\w.]+) as (\w+)$", r"import tilewright.\1 as \2"),
    (r"^from torch((?:\.[\w.]+)?) import ", r"from tilewright\1 import "),
)
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def ours(text):
    for pattern, replacement in _IMPORTS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def run(text, path, monkeypatch):
    """What the script prints."""
    monkeypatch.setattr(sys, "argv", [str(path)])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of old names
        exec(compile(text, str(path), "exec"), {"__name__": "__main__", "__file__": str(path)})
    return printed.getvalue()


def test_there_are_at_least_ten():
    assert len(SCRIPTS) >= 10


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path, monkeypatch):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # its threads spin, which on a busy machine takes longer than the work
    text = path.read_text()
    changed = ours(text)
    assert "import torch" not in changed.replace("tilewright as torch", "").replace("from tilewright", "")
    theirs, mine = run(text, path, monkeypatch), run(changed, path, monkeypatch)
    theirs = re.sub(r"torch\.Size\(\[(.*?)\]\)", r"(\1)", theirs)  # shapes are plain tuples here, and print so
    assert _NUMBER.sub("#", mine) == _NUMBER.sub("#", theirs)
    numbers = [list(map(float, _NUMBER.findall(out))) for out in (mine, theirs)]
    assert len(numbers[0]) >= 3
    for a, b in zip(*numbers, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4), theirs
