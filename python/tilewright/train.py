"""A training loop for scripts that need just one: progress, validation, early stopping, schedule, checkpoints."""

from __future__ import annotations

import csv
import importlib
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tilewright.grad_mode import no_grad
from tilewright.nn.module import Module
from tilewright.nn.utils import clip_grad_norm_
from tilewright.ops.random import get_rng_state, set_rng_state
from tilewright.serialization import load, save
from tilewright.tensor import Tensor

__all__ = ["Trainer"]

Step = Callable[[Module, Any], Any]


def _moved(batch: Any, device: Any) -> Any:
    """A batch's tensors on the device, in the tuples, lists and dicts that they come in."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {k: _moved(v, device) for k, v in batch.items()}
    return type(batch)(_moved(v, device) for v in batch) if isinstance(batch, list | tuple) else batch


def _count(batch: Any) -> int:
    """Samples in a batch: the first tensor's first size."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return next((n for n in map(_count, parts) if n), 0)


class Trainer:
    """Trains a model for epochs over batches.

    step(model, batch) returns the loss, or a dict with "loss" and further numbers to report, each a mean over the
    batch. It is called in training mode for training batches, in evaluation mode without gradients for others.

    Args:
        schedule: an lr_scheduler, stepped after each epoch (ReduceLROnPlateau with the monitored number), or with
            schedule_every="batch" after each batch.
        clip_norm: the largest norm of all gradients together.
        monitor: the number that says which epoch is best, of `fit`'s rows; higher=True where more is better.
        patience: so many epochs without a better one end the training, and the best one's weights are put back.
        checkpoint: a file, written whole after each epoch: model, optimizer, schedule, random numbers, history. After
            Ctrl-C, or in another process, `fit(resume=True)` goes on from it as if nothing had happened; what was
            drawn by other generators than tilewright's default one is not in it.
        log: a CSV file with a row an epoch.
        progress: a line an epoch, ten to twenty where there are many, and within one a bar where tqdm is installed.

    Raises:
        ValueError: a checkpoint is to be resumed and none is named, or `monitor` is not among the numbers.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> x = tw.linspace(-1, 1, 64).unsqueeze(1)
    >>> model = nn.Linear(1, 1)
    >>> optimizer = tw.optim.SGD(model.parameters(), lr=0.3)
    >>> trainer = Trainer(model, optimizer, lambda m, b: nn.functional.mse_loss(m(b), 2 * b), progress=False)
    >>> history = trainer.fit(x.split(16), epochs=20)
    >>> history[-1]["loss"] < 1e-3 < history[0]["loss"]
    True
    """

    def __init__(self, model: Module, optimizer: Any, step: Step, *, schedule: Any = None,
                 schedule_every: str = "epoch", clip_norm: float | None = None, monitor: str | None = None,
                 higher: bool = False, patience: int | None = None, checkpoint: str | os.PathLike | None = None,
                 log: str | os.PathLike | None = None, device: Any = None, progress: bool = True):
        if schedule_every not in ("epoch", "batch"):
            raise ValueError(f"Trainer: schedule_every must be epoch or batch, got {schedule_every!r}")
        self.model, self.optimizer, self.step, self.schedule = model, optimizer, step, schedule
        self.schedule_every, self.clip_norm, self.higher = schedule_every, clip_norm, higher
        self.monitor, self.patience, self.progress = monitor, patience, progress
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None
        self.log = Path(log) if log is not None else None
        self.device = device if device is not None else next(model.parameters()).device
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] | None = None  # the best epoch's row and weights

    def fit(self, train: Iterable, validation: Iterable | None = None, *, epochs: int,
            resume: bool = False) -> list[dict[str, float]]:
        """Trains until `epochs` epochs are done. Returns a row an epoch: epoch, lr, seconds, the training batches'
        numbers, and those of validation with "val_" before them."""
        if resume:
            if self.checkpoint is None:
                raise ValueError("Trainer: resume needs a checkpoint, got None")
            if self.checkpoint.exists():
                self._read()
        for epoch in range(len(self.history) + 1, epochs + 1):
            if self._waited():
                break
            begin = time.perf_counter()
            row = {"epoch": float(epoch), "lr": float(self.optimizer.param_groups[0]["lr"])} | self._pass(train, epoch)
            if validation is not None:
                row |= {f"val_{k}": v for k, v in self.evaluate(validation).items()}
            row["seconds"] = time.perf_counter() - begin
            self.history.append(row)
            self._judge(row, validation is not None)
            if self.schedule is not None and self.schedule_every == "epoch":
                plateau = hasattr(self.schedule, "num_bad_epochs")
                self.schedule.step(*((row[self._name(row)],) if plateau else ()))
            if self.checkpoint is not None:
                self._write()
            if self.log is not None:
                self._log()
            if self.progress and (epoch % max(epochs // 10, 1) == 0 or epoch == epochs):
                print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
        if self.patience is not None and self.best is not None:
            self.model.load_state_dict(self.best["weights"])
        return self.history

    @no_grad()
    def evaluate(self, batches: Iterable) -> dict[str, float]:
        """The means over all samples of what `step` reports, in evaluation mode."""
        training = self.model.training
        self.model.eval()
        sums, count = {}, 0  # type: ignore[var-annotated]
        for batch in batches:
            count += self._add(sums, self._numbers(self.step(self.model, _moved(batch, self.device))), _count(batch))
        self.model.train(training)
        return {k: float(v) / max(count, 1) for k, v in sums.items()}

    # --- inside ------------------------------------------------------------------------------------------------------
    def _pass(self, batches: Iterable, epoch: int) -> dict[str, float]:
        self.model.train()
        sums, count = {}, 0  # type: ignore[var-annotated]
        for batch in self._bar(batches, epoch):
            numbers = self._numbers(self.step(self.model, _moved(batch, self.device)))
            self.optimizer.zero_grad()
            numbers["loss"].backward()
            if self.clip_norm is not None:
                clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
            if self.schedule is not None and self.schedule_every == "batch":
                self.schedule.step()
            count += self._add(sums, numbers, _count(batch))
        return {k: float(v) / max(count, 1) for k, v in sums.items()}

    @staticmethod
    def _numbers(result: Any) -> dict[str, Any]:
        return result if isinstance(result, dict) else {"loss": result}

    @staticmethod
    def _add(sums: dict[str, Any], numbers: dict[str, Any], n: int) -> int:
        for k, v in numbers.items():  # tensors stay where they are: nothing waits for a GPU within an epoch
            sums[k] = sums.get(k, 0.0) + (v.detach() if isinstance(v, Tensor) else v) * n
        return n

    def _bar(self, batches: Iterable, epoch: int) -> Iterable:
        if not self.progress:
            return batches
        try:
            tqdm = importlib.import_module("tqdm")
        except ImportError:
            return batches
        return tqdm.tqdm(batches, desc=f"epoch {epoch}", leave=False, disable=None)

    def _name(self, row: dict[str, float]) -> str:
        name = self.monitor or ("val_loss" if "val_loss" in row else "loss")
        if name not in row:
            raise ValueError(f"Trainer: monitor must be of {', '.join(row)}, got {name!r}")
        return name

    def _judge(self, row: dict[str, float], validated: bool) -> None:
        if self.monitor is None and self.patience is None and not validated:
            return
        value = row[self._name(row)]
        before = None if self.best is None else self.best["value"]
        if before is None or (not math.isnan(value) and (value > before if self.higher else value < before)):
            weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
            self.best = {"epoch": int(row["epoch"]), "value": value, "weights": weights}

    def _waited(self) -> bool:
        return (self.patience is not None and self.best is not None
                and len(self.history) - self.best["epoch"] >= self.patience)

    def _write(self) -> None:
        assert self.checkpoint is not None
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
              "schedule": None if self.schedule is None else self.schedule.state_dict(),
              "random": get_rng_state(), "history": self.history, "best": self.best}, self.checkpoint)

    def _read(self) -> None:
        assert self.checkpoint is not None
        state = load(self.checkpoint)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        set_rng_state(state["random"])
        self.history, self.best = state["history"], state["best"]

    def _log(self) -> None:
        assert self.log is not None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for row in self.history for k in row)))
            writer.writeheader()
            writer.writerows(self.history)
