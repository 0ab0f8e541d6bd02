"""Docstrings, annotations and the type checker: help() on each public name says something, and a user's script is
checked against the package's own annotations."""

from __future__ import annotations

import enum
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tilewright as tw

MODULES = ("", "amp", "autograd", "cuda", "distributed", "distributions", "kernels", "linalg", "models", "nn",
           "nn.functional", "nn.init", "nn.utils", "nn.utils.rnn", "optim", "optim.lr_scheduler", "sklearn", "testing",
           "train", "utils.checkpoint", "utils.data", "vision.datasets", "vision.models", "vision.ops",
           "vision.transforms", "vision.transforms.functional")
IN_C = {"Node", "OutOfMemoryError", "get_default_dtype", "record", "set_default_dtype", "wrap"}  # no signature is kept


def public(module):
    """(name, object) of a module's own functions and classes."""
    found = importlib.import_module(f"tilewright.{module}".rstrip("."))
    listed = getattr(found, "__all__", None)
    for name in listed or [n for n in vars(found) if not n.startswith("_")]:
        value, home = getattr(found, name), ("tilewright" if listed else (found.__name__, "tilewright.ops"))
        if callable(value) and str(getattr(value, "__module__", "")).startswith(home) and name not in IN_C:
            yield name, value


def methods(cls):
    for name, value in vars(cls).items():
        if not name.startswith("_") and (callable(value) or isinstance(value, property | staticmethod | classmethod)):
            yield name, value.fget if isinstance(value, property) else getattr(value, "__func__", value)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    lacking = []
    for name, value in public(module):
        own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        if not (own or "").strip():
            lacking.append(name)
        if inspect.isclass(value):  # a method may have its base class's words, as help() shows them
            lacking += [f"{name}.{method}" for method, function in methods(value)
                        if not inspect.isclass(function) and not inspect.getdoc(getattr(value, method, function))
                        and not inspect.getdoc(function)]
    assert not lacking


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_annotated(module):
    lacking = []
    for name, value in public(module):
        plain = inspect.isclass(value) and issubclass(value, BaseException | enum.Enum | tuple)
        if name in ("device", "dtype") or plain:
            continue
        signature = inspect.signature(value)
        bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
        if bare or (not inspect.isclass(value) and signature.return_annotation is signature.empty):
            lacking.append(f"{name}({', '.join(bare)})")
    assert not lacking


SCRIPT = '''
from typing import assert_type

import tilewright as tw
import tilewright.nn as nn
import tilewright.nn.functional as F
from tilewright.utils.data import DataLoader, TensorDataset
from tilewright.vision import transforms


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        y = self.body(x)
        return F.log_softmax(y, dim=1)


x = tw.randn(8, 4)
y = tw.randint(0, 3, (8,))
assert_type(x, tw.Tensor)
assert_type(tw.softmax(x, dim=1), tw.Tensor)
assert_type((x @ x.t()).relu().sum(), tw.Tensor)
assert_type(2 * x + 1, tw.Tensor)
assert_type(x[:, 1:].float(), tw.Tensor)
assert_type(tw.cat([x, x]), tw.Tensor)
assert_type(tw.allclose(x, x), bool)
assert_type(x.exp().mean(dim=0, keepdim=True), tw.Tensor)
net = Net(width=5)
optimizer = tw.optim.Adam(net.parameters(), lr=1e-3)
for inputs, labels in DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True):
    optimizer.zero_grad()
    loss = F.cross_entropy(net(inputs), labels)
    assert_type(loss, tw.Tensor)
    loss.backward()
    optimizer.step()
augment = transforms.Compose([transforms.RandomCrop(8, padding=2), transforms.RandomHorizontalFlip()])
tw.save(net.state_dict(), "net.safetensors")
# Each of these is a mistake, and an ignore that nothing needs is an error.
nn.Linear("4", 3)  # type: ignore[arg-type]
tw.softmax("text", dim=1)  # type: ignore[arg-type]
F.relu(x, inplce=True)  # type: ignore[call-arg]
x.nosuch()  # type: ignore[attr-defined]
DataLoader(TensorDataset(x), batch_size="2")  # type: ignore[arg-type]
'''


def test_a_users_script_is_checked(tmp_path):
    pytest.importorskip("mypy")
    package = Path(tw.__file__).parent
    assert all((package / name).exists() for name in ("py.typed", "_engine.pyi", "_kernels.pyi"))
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["--warn-unused-ignores", "--follow-imports=silent"]
    done = subprocess.run([sys.executable, "-m", "mypy", *options, "script.py"], cwd=tmp_path, capture_output=True,
                          env={"MYPYPATH": str(package.parent), "PATH": "/usr/bin:/bin"}, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
