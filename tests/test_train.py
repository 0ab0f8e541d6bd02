"""tilewright.train.Trainer: resumed runs are the uninterrupted ones, early stopping keeps the best, logs, refusals."""

import csv

import pytest

import tilewright as tw
from tilewright import nn
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader, TensorDataset


def made(tmp_path, seed=0, **options):
    tw.manual_seed(seed)
    x = tw.randn(96, 6)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    optimizer = tw.optim.AdamW(model.parameters(), lr=0.02)

    def step(model, batch):
        logits = model(batch[0])
        return {"loss": nn.functional.cross_entropy(logits, batch[1]),
                "accuracy": (logits.argmax(1) == batch[1]).float().mean()}

    options.setdefault("schedule", tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8))
    trainer = Trainer(model, optimizer, step, checkpoint=tmp_path / "run.pt", progress=False, **options)
    loaders = [DataLoader(TensorDataset(x[part], y[part]), batch_size=16, shuffle=i == 0)
               for i, part in enumerate((slice(0, 64), slice(64, 96)))]
    return trainer, loaders


def figures(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]




def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """Interrupted within an epoch; dropout, shuffling, batch norm, AdamW and the schedule go on as they were."""
    whole, loaders = made(tmp_path / "a")
    expected = figures(whole.fit(*loaders, epochs=6))

    first, loaders = made(tmp_path / "b")
    inner, calls = first.step, [0]

    def interrupted(model, batch):
        calls[0] += 1
        if calls[0] == 21:
            raise KeyboardInterrupt
        return inner(model, batch)

    first.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        first.fit(*loaders, epochs=6)
    assert 2 <= len(first.history) < 6
    second, loaders = made(tmp_path / "b", seed=0)
    tw.manual_seed(99)  # what the new process has drawn meanwhile does not matter
    assert figures(second.fit(*loaders, epochs=6, resume=True)) == expected
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert tw.equal(a, b)
    assert second.fit(*loaders, epochs=6, resume=True) == second.history


def test_early_stopping_keeps_the_best(tmp_path):
    trainer, loaders = made(tmp_path, patience=3, monitor="val_accuracy", higher=True)
    history = trainer.fit(*loaders, epochs=200)
    best = max(range(len(history)), key=lambda i: history[i]["val_accuracy"])
    assert len(history) == best + 4 < 200
    assert trainer.evaluate(loaders[1])["accuracy"] == pytest.approx(history[best]["val_accuracy"])


def test_numbers_are_means_over_samples(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.0)
    trainer = Trainer(model, optimizer, lambda m, b: (m(b) * 0 + b).mean(), progress=False)
    batches = [tw.tensor([[1.0], [2.0], [3.0]]), tw.tensor([[10.0]])]
    assert trainer.evaluate(batches)["loss"] == 4.0 == trainer.fit(batches, epochs=1)[0]["loss"]


def test_log_clipping_and_batches_schedule(tmp_path):
    trainer, loaders = made(tmp_path, log=tmp_path / "logs" / "run.csv", clip_norm=1e-9, schedule=None)
    weights = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.optimizer = tw.optim.SGD(trainer.model.parameters(), lr=1.0)
    trainer.schedule, trainer.schedule_every = tw.optim.lr_scheduler.StepLR(trainer.optimizer, 2, 0.5), "batch"
    history = trainer.fit(*loaders, epochs=2)
    assert all(tw.allclose(a, b, atol=1e-7) for a, b in zip(weights, trainer.model.parameters(), strict=True))
    assert [row["lr"] for row in history] == [1.0, 0.25]
    with open(tmp_path / "logs" / "run.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["val_loss"]) for r in rows] == [r["val_loss"] for r in history]


def test_plateau(tmp_path):
    trainer, loaders = made(tmp_path, schedule=None)
    trainer.optimizer = tw.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.schedule = tw.optim.lr_scheduler.ReduceLROnPlateau(trainer.optimizer, patience=0)
    trainer.step = lambda m, b: m(b[0]).sum() * 0 + 1
    assert [row["lr"] for row in trainer.fit(loaders[1], epochs=4)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_refusals(tmp_path):
    trainer, loaders = made(tmp_path, monitor="val_f1")
    with pytest.raises(ValueError, match="monitor must be of epoch, lr, loss, accuracy, val_loss"):
        trainer.fit(*loaders, epochs=1)
    trainer.checkpoint = None
    with pytest.raises(ValueError, match="resume needs a checkpoint"):
        trainer.fit(*loaders, epochs=1, resume=True)
    with pytest.raises(ValueError, match="epoch or batch"):
        made(tmp_path, schedule_every="step")
