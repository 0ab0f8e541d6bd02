"""save and load: what goes in comes out, files are plain safetensors, and bad files and objects are refused by name."""

import io
import json
import math
import os
import struct
from collections import OrderedDict

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn, optim, serialization

DTYPES = ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32", "int64", "bool"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def values(tensor):
    return np.array(tensor.detach().double().numpy())


@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (129,)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_bit_for_bit(path, dtype, shape):
    data = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape)
    tensor = (tw.tensor(data).double() / (1 if "int" in dtype or dtype == "bool" else 7)).to(getattr(tw, dtype))
    tw.save({"x": tensor}, path)
    found = tw.load(path)["x"]
    assert found.dtype == tensor.dtype and tuple(found.shape) == shape and not found.requires_grad
    np.testing.assert_array_equal(values(found), values(tensor))


def test_special_floats_keep_their_bits(path):
    special = np.array([math.nan, math.inf, -math.inf, -0.0, 1e-45], dtype=np.float32)
    tw.save(tw.tensor(special), path)
    assert np.array(tw.load(path).numpy()).tobytes() == special.tobytes()


def test_loaded_tensors_can_be_written(path):
    tw.save([tw.ones(3), tw.ones(2, dtype=tw.bfloat16)], path)
    for tensor in tw.load(path):
        tensor.fill_(4)
        assert (values(tensor) == 4).all()


def test_nested_structure(path):
    obj = {"epoch": 3, "loss": 0.1 + 0.2, "nan": math.nan, "low": -math.inf, "name": 'a "b"\n é', "none": None,
           "flags": (True, False, ()), "big": 2**70, 5: "int key", None: 1, 1.5: 2, "empty": {},
           "list": [[], [1, [2.0]]], "net": OrderedDict(w=tw.ones(2, 2)),
           "pair": (tw.zeros(1), [tw.full((2,), 7, dtype=tw.int64)])}
    tw.save(obj, path)
    found = tw.load(path)
    assert list(found) == list(obj)
    assert math.isnan(found.pop("nan")) and found["low"] == -math.inf
    assert values(found["net"]["w"]).tolist() == [[1, 1], [1, 1]] and type(found["net"]) is dict
    first, (second,) = found["pair"]
    assert values(first).tolist() == [0] and second.tolist() == [7, 7] and type(found["pair"]) is tuple
    for key in ("epoch", "loss", "name", "none", "flags", "big", 5, None, 1.5, "empty", "list"):
        assert found[key] == obj[key] and type(found[key]) is type(obj[key])
    assert type(found["flags"][0]) is bool


def test_numpy_scalars_become_pythons(path):
    tw.save({"acc": np.float32(0.5), "n": np.int64(3)}, path)
    assert tw.load(path) == {"acc": 0.5, "n": 3} and type(tw.load(path)["n"]) is int


def test_names_that_would_clash(path):
    tw.save({"a.b": tw.zeros(1), "a": {"b": tw.ones(1)}, "__metadata__": tw.full((1,), 2.0), "": tw.full((1,), 3.0)},
            path)
    found = tw.load(path)
    assert [found["a.b"].item(), found["a"]["b"].item(), found["__metadata__"].item(), found[""].item()] == [0, 1, 2, 3]


def test_noncontiguous_and_shared_tensors(path):
    base = tw.tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    tw.save({"t": base.t(), "column": base[:, 1], "wide": base[:1].expand(2, 4), "again": base, "row": base[1]}, path)
    found = tw.load(path)
    np.testing.assert_array_equal(values(found["t"]), np.arange(12).reshape(3, 4).T)
    assert found["column"].tolist() == [1, 5, 9] and found["wide"].tolist() == [[0, 1, 2, 3]] * 2
    assert found["row"].tolist() == [4, 5, 6, 7]


def checkpoint():
    tw.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = optim.Adam([{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.5}], lr=0.1)
    return net, optimizer


def train(net, optimizer, steps):
    x = tw.tensor(np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32))
    for _ in range(steps):
        optimizer.zero_grad()
        (net(x) ** 2).sum().backward()
        optimizer.step()
    return [values(p) for p in net.parameters()]


def test_a_checkpoint_resumes_bit_for_bit(path):
    net, optimizer = checkpoint()
    train(net, optimizer, 3)
    tw.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    expected = train(net, optimizer, 3)
    other, other_optimizer = checkpoint()
    loaded = tw.load(path)
    other.load_state_dict(loaded["net"])
    other_optimizer.load_state_dict(loaded["optimizer"])
    for a, b in zip(train(other, other_optimizer, 3), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_files_are_plain_safetensors_both_ways(path):
    numpy_io = pytest.importorskip("safetensors.numpy")
    net, _ = checkpoint()
    tw.save(net.state_dict(), path)
    elsewhere = numpy_io.load_file(path)
    assert set(elsewhere) == set(net.state_dict())
    np.testing.assert_array_equal(elsewhere["0.weight"], net[0].weight.detach().numpy())
    numpy_io.save_file({"b": np.arange(3, dtype=np.int16), "a": np.eye(2)}, path, metadata={"format": "np"})
    found = tw.load(path)
    assert set(found) == {"a", "b"} and found["b"].tolist() == [0, 1, 2] and found["a"].tolist() == [[1, 0], [0, 1]]


def test_file_objects(path):
    buffer = io.BytesIO()
    tw.save({"x": tw.ones(2)}, buffer)
    buffer.seek(0)
    assert tw.load(buffer)["x"].tolist() == [1, 1]
    with open(path, "wb") as file:
        tw.save([1, 2], file)
    with open(path, "rb") as file:
        assert tw.load(file, map_location="cpu") == [1, 2]
    with pytest.raises(TypeError, match="opened in binary mode, got str"):
        tw.load(io.StringIO("text"))
    for bad in (3, None):
        with pytest.raises(TypeError, match="must be a path or a binary file"):
            tw.load(bad)
        with pytest.raises(TypeError, match="must be a path or a binary file"):
            tw.save({}, bad)
    with pytest.raises(FileNotFoundError):
        tw.load(path.parent / "nothing")


class Thing:
    pass


@pytest.mark.parametrize("obj, words", [
    ({"a": [1, {"b": Thing()}]}, "got Thing at 'a.1.b'"),
    (Thing(), "got Thing at the top level"),
    ({"f": print}, "got builtin_function_or_method at 'f'"),
    ({"s": {1, 2}}, "got set at 's'"),
    ({"b": b"x"}, "got bytes at 'b'"),
    ({"c": 1j}, "got complex at 'c'"),
    ({"n": np.zeros(2)}, "got ndarray at 'n'"),
    ({"k": {(1, 2): 3}}, "dict keys must be strings, numbers or None, got tuple at 'k'"),
])
def test_what_cannot_be_stored_is_named(path, obj, words):
    path.write_bytes(b"older")
    with pytest.raises(TypeError, match=words):
        tw.save(obj, path)
    assert path.read_bytes() == b"older" and os.listdir(path.parent) == [path.name]


def test_cycles_and_depth(path):
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="not hold themselves"):
        tw.save({"a": loop}, path)
    deep = 1
    for _ in range(64):
        deep = [deep]
    tw.save(deep, path)
    assert tw.load(path) == deep
    with pytest.raises(ValueError, match="at most 64 deep"):
        tw.save([deep], path)


def test_an_interrupted_save_leaves_the_older_file(path, monkeypatch):
    tw.save({"x": tw.ones(3)}, path)
    os.chmod(path, 0o640)

    def fail(*_):
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(serialization.os, step, fail)
            with pytest.raises(KeyboardInterrupt):
                tw.save({"x": tw.zeros(3)}, path)
        assert tw.load(path)["x"].tolist() == [1, 1, 1] and os.listdir(path.parent) == [path.name]
    tw.save({"x": tw.zeros(3)}, path)
    assert tw.load(path)["x"].tolist() == [0, 0, 0]
    assert path.stat().st_mode & 0o777 == 0o640  # the file's mode is kept


def test_a_link_stays_a_link(path):
    link = path.parent / "link"
    tw.save([1], path)
    link.symlink_to(path)
    tw.save([2], link)
    assert link.is_symlink() and tw.load(path) == [2]


def file_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def described(structure):
    text = structure if isinstance(structure, str) else json.dumps(structure)
    return file_bytes({"__metadata__": {"tilewright": text}, "x": entry()}, bytes(8))


@pytest.mark.parametrize("content, words", [
    (b"", "whole safetensors file, got 0 bytes"),
    (b"\x10\x00", "whole safetensors file, got 2 bytes"),
    (struct.pack("<Q", 2**63) + b"{}", "whole safetensors file"),
    (struct.pack("<Q", 100) + b"{}", "whole safetensors file"),
    (file_bytes(b"not json"), "whole safetensors file"),
    (file_bytes(b"[1, 2]"), "whole safetensors file"),
    (file_bytes({"x": entry()}, bytes(7)), "whole safetensors file"),
    (file_bytes({"x": entry()}, bytes(9)), "whole safetensors file"),
    (file_bytes({"x": entry(offsets=(0, 4))}, bytes(4)), "whole safetensors file"),
    (file_bytes({"x": entry(), "y": entry()}, bytes(8)), "whole safetensors file"),
    (file_bytes({"x": entry(), "y": entry(offsets=(4, 12))}, bytes(12)), "whole safetensors file"),
    (file_bytes({"x": entry(shape=(-2,))}, bytes(8)), "whole safetensors file"),
    (file_bytes({"x": entry(shape=(2**62, 2**62))}, bytes(8)), "whole safetensors file"),
    (file_bytes({"x": entry(dtype="F31")}, bytes(8)), "whole safetensors file"),
    (file_bytes({"x": entry(dtype="U64", shape=(1,))}, bytes(8)), "got U64 for 'x'"),
    (file_bytes({"x": entry(dtype="BOOL", shape=(8,))}, b"\0\1\2" + bytes(5)), "0 or 1 in bool tensors"),
    (b"PK\x03\x04rest of a zip", "must hold weights of PyTorch, but it is broken"),
    (b"\x80\x02}q\x00.", "got a plain pickle"),
    (described("{"), "broken description"),
    (described("[" * 100000), "broken description"),
    (described({"t": "y"}), "broken description"),
    (described({"t": ["x"]}), "broken description"),
    (described({"q": 1}), "broken description"),
    (described({"l": 5}), "broken description"),
    (described({"d": [1]}), "broken description"),
    (described({"d": [[{"l": []}, 1]]}), "broken description"),
    (described({"t": "x", "l": []}), "broken description"),
    (described([1]), "broken description"),
    (described({"f": "__import__('os')"}), "broken description"),
], ids=range(29))
def test_bad_files_are_refused_by_name(path, content, words):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        tw.load(path)
    assert str(path) in str(caught.value)


def test_every_truncation_is_refused(path):
    tw.save({"a": tw.ones(5), "b": [1, 2]}, path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="load: "):
            tw.load(path)


def test_map_location(path):
    tw.save({"x": tw.ones(1)}, path)
    for location in ("cpu", tw.device("cpu"), {"cuda:0": "cpu"}, lambda storage, place: storage, lambda *_: None):
        assert tw.load(path, location)["x"].tolist() == [1]
    with pytest.raises(RuntimeError, match="map_location failed on values saved from 'cpu': division"):
        tw.load(path, lambda storage, place: 1 / 0)


def test_header_of_any_length_loads():
    import io
    lengths = set()
    for n in range(1, 600, 2):  # the first two bytes of some are those of a zip or pickle file
        file = io.BytesIO()
        tw.save({"x" * n: tw.ones(2)}, file)
        lengths.add(int.from_bytes(file.getvalue()[:8], "little"))
        file.seek(0)
        assert tw.load(file)["x" * n].tolist() == [1.0, 1.0]
    assert {640, 1152} <= lengths
