"""The main job, as a user runs it: real digits, learned to the accuracy that the README promises."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright.utils.data import DataLoader, TensorDataset

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_are_learned(seed, tmp_path, capsys):
    digits = example("digits")
    accuracy = digits.train(seed, epochs=80, patience=20, out=tmp_path)
    assert accuracy >= 0.98
    assert f"seed {seed}: test accuracy {accuracy:.2%} on 359 held-out digits" in capsys.readouterr().out
    for picture in ("curves.png", "confusion.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    # The saved weights are the ones that were measured.
    model = digits.LeNet()
    model.load_state_dict(tw.load(tmp_path / "digits.safetensors"))
    _, _, held_out = digits.split(seed)
    loader = digits.DataLoader(held_out, batch_size=100)
    assert digits.evaluate(model, loader)[1] == pytest.approx(accuracy)


def test_digits_are_split_without_overlap():
    parts = example("digits").split(0)
    assert [len(p) for p in parts] == [1259, 179, 359]
    images = np.concatenate([p.tensors[0].numpy().reshape(len(p), -1) for p in parts])
    assert len(images) == 1797
    assert len(np.unique(images, axis=0)) == 1797  # no image stands in two parts


def test_the_loop_of_the_readme_agrees_with_numpy(capsys):
    example("mlp_numpy_vs_tilewright").main()
    assert "largest difference" in capsys.readouterr().out


# --- a study that was cut --------------------------------------------------------------------------------------------
def study_options(out, resume=False, seed=0):
    out.mkdir(exist_ok=True)  # as arguments() does
    return argparse.Namespace(seed=seed, device="cpu", full=False, resume=resume, out=out)


def study_results(study, cut=None, trained=True):
    """Three parts that draw random numbers; the second is cut after so many batches of its training."""
    batches = 0

    def step(model, batch):
        nonlocal batches
        batches += 1
        if batches == cut:
            raise KeyboardInterrupt
        return tw.nn.functional.mse_loss(model(batch[0]), batch[1])

    def train():
        x = tw.randn(60, 3)
        model = tw.nn.Sequential(tw.nn.Linear(3, 8), tw.nn.Dropout(0.3), tw.nn.ReLU(), tw.nn.Linear(8, 1))
        loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=20, shuffle=True)
        optimizer = tw.optim.Adam(model.parameters(), lr=0.02)
        schedule = tw.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
        trainer = tw.train.Trainer(model, optimizer, step, schedule=schedule, progress=False,
                                   checkpoint=study.file("train it") if trained else None)
        rows = trainer.fit(loader, loader, epochs=6, resume=trained and study.options.resume)
        return {"losses": [(row["loss"], row["val_loss"], row["lr"]) for row in rows],
                "weight": model[0].weight.detach()}

    parts = {"first": lambda: {"numbers": tw.randn(5), "name": "a"}, "train it": train, "last": lambda: [tw.rand(3), 7]}
    return {name: study.run(name, function) for name, function in parts.items()}, batches


@pytest.mark.parametrize("trained", [True, False], ids=["checkpoint in the part", "plain part"])
def test_a_study_that_was_cut_goes_on_as_if_nobody_had(trained, tmp_path):
    common = example("common")
    whole, batches = study_results(common.Study(study_options(tmp_path / "whole"), "s"), trained=trained)
    per_epoch = 6  # three batches of training, three of validation
    assert batches == 6 * per_epoch
    folder = tmp_path / "cut"
    with pytest.raises(SystemExit, match="stopped in train it; --resume goes on there"):
        study_results(common.Study(study_options(folder), "s"), cut=3 * per_epoch + 2, trained=trained)
    study = common.Study(study_options(folder, resume=True), "s")
    assert list(study.done) == ["first"]
    resumed, batches = study_results(study, trained=trained)
    assert batches == (3 if trained else 6) * per_epoch  # the checkpoint's epochs are not trained again
    assert resumed["train it"]["losses"] == whole["train it"]["losses"]
    assert tw.equal(resumed["train it"]["weight"], whole["train it"]["weight"])
    assert tw.equal(resumed["first"]["numbers"], whole["first"]["numbers"]) and resumed["first"]["name"] == "a"
    assert tw.equal(resumed["last"][0], whole["last"][0]) and resumed["last"][1] == 7
    # Nothing is left to do, and without --resume all is done anew.
    assert study_results(common.Study(study_options(folder, resume=True), "s"), trained=trained)[1] == 0
    assert study_results(common.Study(study_options(folder), "s"), trained=trained)[1] == 6 * per_epoch


def test_a_study_does_not_resume_another_run(tmp_path):
    common = example("common")
    common.Study(study_options(tmp_path), "s").run("part", lambda: 1)
    with pytest.raises(SystemExit, match=r"--resume: .*s\.results is of a run with .*'seed': 0.*, not .*'seed': 1"):
        common.Study(study_options(tmp_path, resume=True, seed=1), "s")
    assert common.Study(study_options(tmp_path, resume=True), "s").run("part", lambda: 2) == 1
    assert common.Study(study_options(tmp_path, seed=1), "s").run("part", lambda: 3) == 3


def test_a_new_study_leaves_no_checkpoint_of_an_older_one(tmp_path):
    """A part that the new run never reached would else be resumed from a run with another seed."""
    common = example("common")
    folder = tmp_path / "out"
    study_results(common.Study(study_options(folder, seed=1), "s"))
    with pytest.raises(SystemExit, match="stopped in first"):
        common.Study(study_options(folder), "s").run("first", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not list(folder.glob("*.checkpoint"))
