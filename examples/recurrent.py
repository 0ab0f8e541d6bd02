"""Recurrent nets: what an LSTM keeps and an RNN loses, a chaotic series ahead, and slices.

    python examples/recurrent.py

A recurrent net reads a sequence step by step into a state, by the same weights; backpropagation through time goes the
way back, and its gradient shrinks or grows geometrically with the steps (Bengio, Simard and Frasconi 1994; Pascanu et
al., arXiv:1211.5063). The gates of the LSTM (Hochreiter and Schmidhuber 1997) and of the GRU (Cho et al.,
arXiv:1406.1078) let a state pass unchanged. A study of a patient, too, is a sequence: of slices, as many as there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from generated import adding, mackey_glass, studies

import tilewright as tw
from tilewright import nn
from tilewright.models import RecurrentNet
from tilewright.nn import functional as F
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset


def train(model: nn.Module, step: Any, data: Any, test: Any, epochs: int, rate: float,
          resume: bool = False, **more: Any) -> list[float]:
    """The held-out loss after each epoch; the rate falls to a tenth along a cosine."""
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, rate / 10)
    trainer = Trainer(model, optimizer, step, clip_norm=1.0, schedule=schedule, **more)
    return [row["val_loss"] for row in trainer.fit(data, test, epochs=epochs, resume=resume)]


def loader(*arrays: np.ndarray, size: int = 64) -> DataLoader:
    return DataLoader(TensorDataset(*(tw.tensor(a) for a in arrays)), size, shuffle=True)


def gap(model: nn.Module, batch: Any) -> tw.Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


# --- the adding problem ----------------------------------------------------------------------------------------------
def gradients(model: RecurrentNet, x: tw.Tensor) -> tw.Tensor:
    """How much the answer changes with what was read at each step (T,): the norm that came back through time."""
    x = x.clone().requires_grad_()
    model(x).sum().backward()
    return x.grad.norm(dim=2).mean(0)


def add(kind: str, steps: int, epochs: int, n: int = 6400, rate: float = 1e-2, device: str = "cpu",
        **more: Any) -> dict[str, Any]:
    """Errors after each epoch, and the gradients by time step before training and after."""
    model, x = RecurrentNet(kind, 2, 32, 1).to(device), tw.tensor(adding(100, steps, seed=2)[0]).to(device)
    before = gradients(model, x)
    errors = train(model, gap, loader(*adding(n, steps)), loader(*adding(1000, steps, seed=1), size=500), epochs, rate,
                   **more)
    return {"errors": errors, "before": before.cpu(), "after": gradients(model, x).cpu()}


# --- a series --------------------------------------------------------------------------------------------------------
def forecast(n: int, epochs: int, ahead: int = 40, window: int = 60, device: str = "cpu",
             **more: Any) -> dict[str, Any]:
    """Root mean squared errors by horizon (ahead,) on the series' last fifth: of a GRU, of a linear autoregression
    over the same window, and of saying the last value again; and one forecast."""
    series = mackey_glass(n)
    series = (series - series.mean()) / series.std()
    rows = np.lib.stride_tricks.sliding_window_view(series, window + ahead)
    parts = rows[:int(0.8 * n) - window - ahead], rows[int(0.8 * n):]  # no held-out number is in a training window
    (x, y), (x_test, y_test) = ((p[:, :window, None].copy(), p[:, window:].copy()) for p in parts)
    model = RecurrentNet("gru", 1, 48, ahead).to(device)
    train(model, gap, loader(x, y), loader(x_test, y_test, size=500), epochs, 5e-3, **more)
    with tw.no_grad():
        said = {"GRU": model(tw.tensor(x_test).to(device)).cpu().numpy()}
    line = np.linalg.lstsq(np.c_[x[..., 0], np.ones(len(x))], y, rcond=None)[0]
    said |= {"linear": np.c_[x_test[..., 0], np.ones(len(y_test))] @ line, "last value": x_test[:, -1].repeat(ahead, 1)}
    return {"errors": {k: tw.tensor(np.sqrt(((v - y_test) ** 2).mean(0))) for k, v in said.items()},
            "example": tw.tensor(np.stack([y_test[50], said["GRU"][50], said["linear"][50]])),
            "before": tw.tensor(x_test[50, :, 0])}


# --- slices ----------------------------------------------------------------------------------------------------------
class StudyReader(nn.Module):
    """Slices (N, T, 1, 16, 16), of which each study has `lengths`, by a convolutional net each and a GRU over them to a
    logit (N,); kind "bag": by the mean over a study's slices, in which their order is lost."""

    def __init__(self, kind: str = "both", width: int = 24, hidden: int = 32):
        super().__init__()
        self.slice = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
                                   nn.Flatten(), nn.Linear(256, width), nn.ReLU())
        self.net = nn.Linear(width, 1) if kind == "bag" else \
            RecurrentNet("gru", width, hidden, 1, bidirectional=kind == "both")

    def forward(self, x: tw.Tensor, lengths: tw.Tensor) -> tw.Tensor:
        h = self.slice(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        if isinstance(self.net, RecurrentNet):
            return self.net(h, lengths).squeeze(1)
        there = (tw.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)).unsqueeze(2)
        return self.net((h * there).sum(1) / lengths.unsqueeze(1)).squeeze(1)


def diagnose(kind: str, n: int, epochs: int, device: str = "cpu", **more: Any) -> float:
    """Held-out accuracy."""
    def step(model: nn.Module, batch: Any) -> dict[str, tw.Tensor]:
        x, lengths, y = batch
        said = model(x, lengths)
        return {"loss": F.binary_cross_entropy_with_logits(said, y.float()),
                "accuracy": ((said > 0).long() == y).float().mean()}

    model, test = StudyReader(kind).to(device), loader(*studies(1000, seed=1), size=500)
    train(model, step, loader(*studies(n), size=32), test, epochs, 3e-3, **more)
    return Trainer(model, None, step).evaluate(test)["accuracy"]


def draw(options: Any, sums: dict, series: dict, right: dict) -> None:
    figure, axes = plt.subplot_mosaic("abc\ndff", figsize=(11, 6.3))
    a, b, c, d, f = axes.values()
    for k, (name, result) in enumerate(sums.items()):
        a.semilogy(range(1, len(result["errors"]) + 1), result["errors"], f"C{k}", label=name)
        for when, style in ("before", ":"), ("after", "-"):
            b.semilogy(range(1, len(result[when]) + 1), result[when].clamp(min=1e-12), f"C{k}{style}",
                       label=name if when == "after" else None)
    a.axhline(1 / 6, color="k", ls="--", lw=0.8, label="always 1")
    a.set(title=f"the sum of two numbers of {len(result[when])}", xlabel="epoch", ylabel="squared error, held out")
    b.set(title="gradient through time (dotted: untrained)", xlabel="step that was read", ylabel="norm")
    for name, errors in series["errors"].items():
        c.plot(range(1, len(errors) + 1), errors, label=name)
    c.set(title="Mackey-Glass series: error by horizon", xlabel="seconds ahead", ylabel="in deviations of the series")
    seen, (truth, gru, line) = series["before"], series["example"]
    d.plot(range(1 - len(seen), 1), seen, "k.-", lw=0.5, ms=3)
    for what, style, name in (truth, "k.", "truth"), (gru, "C0", "GRU"), (line, "C1", "linear"):
        d.plot(range(1, len(what) + 1), what, style, label=name, ms=3)
    d.set(title="one forecast", xlabel="seconds from now")
    x, counts, labels = studies(200, seed=1)
    pair = [next(i for i in range(200) if labels[i] == label and counts[i] == 8) for label in (1, 0)]
    f.imshow(np.vstack([np.hstack([np.pad(s[0], 1, constant_values=3) for s in x[i, :8]]) for i in pair]), cmap="gray")
    f.set(xticks=[], yticks=[9, 27], yticklabels=["positive", "negative"], xlabel="\n".join(
        f"{what}: {right[kind]:.3f} of studies right" for kind, what in (
            ("both", "GRU, both directions"), ("forward", "GRU, forward"), ("bag", "mean of the slices"))),
          title="studies: do the three slices with a spot follow each other?")
    for axis in (a, b, c, d):
        axis.legend(fontsize=7)
    save_picture(figure, options, "recurrent")


def main() -> None:
    options = arguments(__doc__)
    study, more = Study(options, "recurrent"), 2 if options.full else 1

    def run(part: str, function: Any, *sizes: Any, **rest: Any) -> Any:
        return study.run(part, lambda: function(*sizes, **rest, device=options.device, resume=options.resume,
                                                checkpoint=study.file(part)))

    steps = 100 * more
    sums = {name: run(f"adding {name}", add, kind, steps, 18 * more, rate=rate) for name, kind, rate in (
        ("LSTM", "lstm", 1e-2), ("GRU", "gru", 1e-2), ("RNN", "rnn", 1e-2), ("RNN, rate 0.001", "rnn", 1e-3))}
    series = run("series", forecast, 5000, 15 * more)
    right = {kind: run(f"studies {kind}", diagnose, kind, 1500, 6) for kind in ("both", "forward", "bag")}

    draw(options, sums, series, right)
    print(f"adding, {steps} steps: squared error (always saying 1: 0.167):",
          ", ".join(f"{k} {r['errors'][-1]:.4f}" for k, r in sums.items()))
    for k in (1, 10, 20, 40):
        print(f"Mackey-Glass, {k} ahead: error", ", ".join(f"{n} {e[k - 1]:.3f}" for n, e in series["errors"].items()))
    print("studies: accuracy", ", ".join(f"{k} {v:.3f}" for k, v in right.items()))


if __name__ == "__main__":
    main()
