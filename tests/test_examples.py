"""The main job, as a user runs it: real digits, learned to the accuracy that the README promises."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw

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
