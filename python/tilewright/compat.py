"""How much of PyTorch's surface is here, measured on the code itself.

`census.txt` lists the names that at least three of 110 public repositories use, with their kind, how many repositories
and how many uses, and the keywords (of those that PyTorch takes) with the repositories that pass them. `report()` looks
each up in tilewright.

>>> import tilewright as tw
>>> {row.status for row in tw.compat.coverage()} <= {"offered", "refused", "elsewhere", "missing"}
True
"""

from __future__ import annotations

import functools
import importlib
import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tilewright as tw
from tilewright.refused import Refusal

# Names, or what they begin with, that concern another system; what is not offered of them refuses with a hint.
ELSEWHERE = {
    "torch.jit": "models run as Python; there is no second language to compile to",
    "torch.hub": "an engine downloads nothing",
    "torch.utils.model_zoo": "an engine downloads nothing",
    "torch.utils.serialization.load_lua": "files of Lua Torch, which PyTorch itself no longer reads",
    "torch.onnx": "exchange is the onnx package's job",
    "torch.fx": "models are not traced to graphs",
    "torch.sparse_coo_tensor": "sparse tensors are SciPy's",
    "torch.spmm": "sparse tensors are SciPy's",
    "Tensor.values": "the stored values of sparse tensors, which are SciPy's",
    "torch.view_as_real": "complex tensors are NumPy's",
    "torch.distributed": "many processes are the job of mpi4py and NCCL; a group of one process is offered",
}


@dataclass
class Row:
    """A name of the census and what became of it."""

    name: str
    kind: str
    repos: int
    uses: int
    keywords: dict[str, int]
    status: str = "missing"
    unknown: list[str] = field(default_factory=list)  # keywords that our function does not take


def census() -> list[Row]:
    """The names and counts of `census.txt`."""
    rows = []
    for line in (Path(__file__).parent / "census.txt").read_text().splitlines():
        name, kind, repos, uses, *keywords = line.split()
        pairs = (k.rsplit(":", 1) for k in keywords)
        rows.append(Row(name, kind, int(repos), int(uses), {k: int(n) for k, n in pairs}))
    return rows


def _walk(found: Any, parts: list[str]) -> Any:
    for part in parts:
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return None
    return True if found is None else found


def _owners(row: Row) -> list[Any]:
    """Where the census's kinds of names live; a method of several classes must be on each."""
    owners: dict[str, list[Any]] = {
        "module_method": [tw.nn.Module], "tensor/module_method": [tw.Tensor, tw.nn.Module],
        "optim_method": [tw.optim.lr_scheduler.LRScheduler if "lr" in row.name else tw.optim.Optimizer],
        "tensor_method": [tw.Tensor], "tensor_attr": [tw.Tensor]}
    return owners.get(row.kind, [tw])


def _resolve(row: Row) -> list[Any]:
    parts = row.name.removeprefix("torch.").removeprefix("Tensor.").split(".")
    if row.name == "param_groups":  # made by the constructor
        parameter = tw.nn.Parameter(tw.zeros(1))
        return [getattr(tw.optim.SGD([parameter], 0.1), row.name, None)]
    if row.name in ("Tensor.grad", "Tensor.requires_grad"):
        return [getattr(tw.Tensor, row.name.partition(".")[2], None)]
    try:
        return [_walk(owner, parts) for owner in _owners(row)]
    except NotImplementedError:  # a namespace that refuses at the first touch
        return [Refusal(row.name, "")]


def _takes(function: Any, keyword: str) -> bool:
    if isinstance(function, property) or not callable(function):
        return True
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return keyword in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@functools.cache
def coverage() -> list[Row]:
    """Each name of the census with its status: offered, refused (it says what to use instead), elsewhere (it concerns
    another system, and is not even refused), or missing; and with the keywords that ours does not take."""
    rows = census()
    for row in rows:
        found = _resolve(row)
        other = any(row.name == n or row.name.startswith(n + ".") for n in ELSEWHERE)
        if any(f is None for f in found):
            row.status = "elsewhere" if other else "missing"
        elif any(isinstance(f, Refusal) for f in found) or row.name in ("Tensor.values",):
            row.status = "refused"
        else:
            row.status = "offered"
            row.unknown = [k for k in row.keywords if not any(_takes(f, k) for f in found)]
    return rows


def report() -> None:
    """Prints how many names of the census are offered, by kind and weighted by their uses; then each that is not, with
    the reason, and each keyword that is not taken."""
    rows = coverage()
    kinds = sorted({row.kind for row in rows})
    print(f"{'kind':24}{'names':>7}{'offered':>9}{'refused':>9}{'elsewhere':>11}{'missing':>9}{'of uses':>10}")
    for kind in [*kinds, "all"]:
        group = [row for row in rows if kind in (row.kind, "all")]
        counts = [sum(row.status == s for row in group) for s in ("offered", "refused", "elsewhere", "missing")]
        uses = sum(row.uses for row in group if row.status == "offered") / sum(row.uses for row in group)
        print(f"{kind:24}{len(group):7}{counts[0]:9}{counts[1]:9}{counts[2]:11}{counts[3]:9}{uses:10.1%}")
    for row in rows:
        if row.status != "offered":
            reason = next((why for name, why in ELSEWHERE.items() if row.name.startswith(name)), "")
            print(f"{row.status}: {row.name} ({row.repos} repositories){': ' + reason if reason else ''}")
    for row in rows:
        if row.unknown:
            print(f"keywords not taken: {row.name}: {', '.join(row.unknown)}")
