"""Files of torch.save: what they hold loads with PyTorch's meaning, into our layers, and what could run is refused."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn
from tilewright.torch_files import MAGIC

try:
    import torch
except ImportError:
    torch = None
needs_torch = pytest.mark.skipif(torch is None, reason="writes its files with PyTorch")


def saved(obj, zipped=True):
    file = io.BytesIO()
    torch.save(obj, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def load(data, **options):
    return tw.load(io.BytesIO(data), **options)


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_every_kind_of_value(zipped):
    obj = {"count": collections.Counter("aab"), "default": collections.defaultdict(list, {1: [2]}), "set": {1, 2},
           "frozen": frozenset({3}), "bytes": b"\xff\x00", "array": bytearray(b"ab"), "none": None, "big": 2**70,
           "flags": (True, [False, (1,), ()]), "float": 1e300, "text": "é" * 300, -7: "key", "empty": [{}, []],
           "ordered": collections.OrderedDict(a=1)}
    found = load(saved(obj, zipped))
    assert found == obj and [type(v) for v in found.values()] == [type(v) for v in obj.values()]
    assert found["default"][5] == []
    found = load(saved({"scalar": np.float64(0.25), "array": np.arange(6, dtype=np.int16).reshape(2, 3).T,
                        "size": torch.Size([2, 3]), "device": torch.device("cpu"), "dtype": torch.float16}, zipped))
    assert found["scalar"] == 0.25 and type(found["scalar"]) is float and isinstance(found["size"], tw.Size)
    assert found["array"].tolist() == [[0, 3], [1, 4], [2, 5]] and found["array"].dtype == np.int16
    assert found["device"] == tw.device("cpu") and found["dtype"] is tw.float16


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "int32",
                                   "int64", "bool"])
@pytest.mark.parametrize("form", ["zip", "older", "mapped"])
def test_every_dtype_and_layout(dtype, form, tmp_path):
    base = (torch.arange(24) % (2 if dtype == "bool" else 100)).to(getattr(torch, dtype)).reshape(2, 3, 4)
    obj = {"whole": base, "turned": base.permute(2, 0, 1), "part": base[1, 1:, ::2],
           "wide": base[:1, :1].expand(2, 5, 4), "scalar": base[1, 1, 1], "none": base[:, :0]}
    if form == "mapped":
        (tmp_path / "w.pt").write_bytes(saved(obj))
        found = tw.load(tmp_path / "w.pt", mmap=True)
    else:
        found = load(saved(obj, form == "zip"))
    for name, want in obj.items():
        got = found[name]
        assert got.dtype == getattr(tw, dtype) and got.shape == tuple(want.shape)
        assert not want.numel() or got.stride() == want.stride()
        assert got.double().tolist() == want.double().tolist(), name
    found["whole"][1, 1, 0] = 0  # they share memory, as they did
    assert found["part"][0, 0].item() == 0 and found["turned"][0, 1, 1].item() == 0
    if form == "mapped":
        assert (tmp_path / "w.pt").read_bytes() == saved(obj)  # and the file does not


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_parameters_and_attributes(zipped):
    p = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    q = torch.nn.Parameter(torch.ones(3))
    q.tag, q.numpy = "mine", None
    leaf = torch.zeros(2, requires_grad=True)
    leaf.note = 5
    p2, q2, leaf2 = load(saved([p, q, leaf], zipped))
    assert isinstance(p2, nn.Parameter) and isinstance(q2, nn.Parameter) and not isinstance(leaf2, nn.Parameter)
    assert (p2.requires_grad, q2.requires_grad, leaf2.requires_grad) == (False, True, True)
    assert q2.tag == "mine" and leaf2.note == 5 and q2.detach().numpy().sum() == 3  # a method is not replaced


LAYERS = {
    "Linear": ((3, 4), [(2, 3)]), "Bilinear": ((3, 4, 5), [(2, 3), (2, 4)]),
    "Conv1d": ((4, 6, 3, 1, 1, 1, 2), [(2, 4, 7)]), "Conv2d": ((3, 4, 3), [(2, 3, 6, 6)]),
    "Conv3d": ((2, 3, 2), [(1, 2, 4, 4, 4)]), "ConvTranspose1d": ((3, 4, 3, 2), [(2, 3, 5)]),
    "ConvTranspose2d": ((3, 4, 3, 2), [(2, 3, 5, 5)]), "ConvTranspose3d": ((2, 3, 2), [(1, 2, 3, 3, 3)]),
    "BatchNorm1d": ((4,), [(5, 4)]), "BatchNorm2d": ((4,), [(2, 4, 3, 3)]), "BatchNorm3d": ((2,), [(2, 2, 2, 3, 3)]),
    "LayerNorm": ((4,), [(3, 4)]), "GroupNorm": ((2, 4), [(2, 4, 3)]),
    "InstanceNorm2d": ((3, 1e-05, 0.1, True, True), [(2, 3, 4, 4)]), "RMSNorm": ((4,), [(3, 4)]),
    "PReLU": ((3,), [(2, 3)]), "RNN": ((3, 4, 2), [(5, 2, 3)]),
    "LSTM": ((3, 4, 2, True, False, 0.0, True), [(5, 2, 3)]), "GRU": ((3, 4), [(5, 2, 3)]),
    "RNNCell": ((3, 4), [(2, 3)]), "LSTMCell": ((3, 4), [(2, 3)]), "GRUCell": ((3, 4), [(2, 3)]),
    "MultiheadAttention": ((8, 2), [(3, 2, 8), (3, 2, 8), (3, 2, 8)]),
    "TransformerEncoderLayer": ((8, 2, 16, 0.0), [(3, 2, 8)]),
    "TransformerDecoderLayer": ((8, 2, 16, 0.0), [(3, 2, 8), (3, 2, 8)]),
    "Transformer": ((8, 2, 1, 1, 16, 0.0), [(3, 2, 8), (3, 2, 8)]), "Embedding": ((7, 3), None),
    "EmbeddingBag": ((7, 3), None),
}  # fmt: skip


@needs_torch
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_weights(name):
    args, shapes = LAYERS[name]
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args)
    with torch.no_grad():
        for value in theirs.state_dict().values():
            value.copy_(torch.rand_like(value) * 0.5 + 0.1 if value.is_floating_point() else value + 3)
    ours = getattr(nn, name)(*args)
    found = load(saved(theirs.state_dict()))
    assert {k: tuple(v.shape) for k, v in ours.state_dict().items()} == {k: tuple(v.shape) for k, v in found.items()}
    ours.load_state_dict(found)
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 7, (2, 5))] if shapes is None else [rng.standard_normal(s).astype(np.float32) for s in shapes]
    with torch.no_grad(), tw.no_grad():
        y, z = ours.eval()(*map(tw.tensor, x)), theirs.eval()(*map(torch.tensor, x))
    y, z = (v[0] if isinstance(v, tuple) else v for v in (y, z))
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=2e-5, atol=2e-6)


@needs_torch
@pytest.mark.parametrize("name, options", [("SGD", {"momentum": 0.9, "nesterov": True}), ("Adam", {"amsgrad": True}),
                                           ("AdamW", {}), ("RMSprop", {"momentum": 0.5}), ("Adagrad", {})])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_goes_on(name, options, zipped):
    """Three steps there, a file, and three steps on both sides: net, optimizer and schedule resume."""
    x = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)

    def parts(library):
        net = library.nn.Sequential(library.nn.Linear(3, 4), library.nn.Tanh(), library.nn.Linear(4, 1))
        optimizer = getattr(library.optim, name)(net.parameters(), lr=0.05, **options)
        return net, optimizer, library.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)

    def train(library, net, optimizer, schedule):
        for _ in range(3):
            optimizer.zero_grad()
            (net(library.tensor(x)) ** 2).mean().backward()
            optimizer.step()
            schedule.step()
        return [p.detach().numpy() for p in net.parameters()]

    torch.manual_seed(0)
    theirs = parts(torch)
    train(torch, *theirs)
    found = load(saved({"epoch": 3, "parts": [part.state_dict() for part in theirs]}, zipped))
    ours = parts(tw)
    for part, state in zip(ours, found["parts"], strict=True):
        part.load_state_dict(state)
    for a, b in zip(train(tw, *ours), train(torch, *theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert found["epoch"] == 3 and ours[2].get_last_lr() == theirs[2].get_last_lr()


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_map_location(zipped, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    monkeypatch.setattr(torch.storage.UntypedStorage, "cpu", lambda self: self, raising=False)
    data = saved([torch.ones(2), torch.arange(3)], zipped)
    asked = []

    def function(values, place):
        asked.append((values.tolist(), place))
        return values

    for location in ("cpu", tw.device("cpu"), {"cuda:0": "cpu"}, function):
        assert [t.tolist() for t in load(data, map_location=location)] == [[1, 1], [0, 1, 2]]
    assert asked == [([1, 1], "cuda:0"), ([0, 1, 2], "cuda:0")]
    if not tw.cuda.is_available():
        with pytest.raises(RuntimeError, match="saved from 'cuda:0', and there is no GPU; use map_location='cpu'"):
            load(data)


# --- refusals --------------------------------------------------------------------------------------------------------
def zip_of(pickled, **entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, data in entries.items():
            archive.writestr(f"a/{name.replace('__', '/')}", data)
    return file.getvalue()


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def storage(key="0", numel=4, kind="FloatStorage"):
    return b"(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\n" + b"".join(
        b"X" + struct.pack("<I", len(t)) + t for t in (key.encode(), b"cpu")) + b"J" + struct.pack("<i", numel) + b"tQ"


def tensor(offset=0, size=(4,), stride=(1,), **options):
    def numbers(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", v) for v in values) + b"t"

    return (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage(**options) + b"J" + struct.pack("<i", offset)
            + numbers(size) + numbers(stride) + b"\x89NtR.")


FLOATS = {"data__0": bytes(16)}


def test_the_hand_made_file_is_sound():
    assert load(zip_of(tensor(), **FLOATS)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("data, words", [
    (zip_of(pickle.dumps(Runs(os.system, "touch /tmp/owned"), 2)), r"it names posix\.system, which is no part"),
    (zip_of(pickle.dumps(Runs(os.system, "touch /tmp/owned"), 4)), r"it names posix\.system"),
    (zip_of(pickle.dumps(Runs(eval, "1"), 2)), r"it names __builtin__\.eval"),
    (zip_of(pickle.dumps(Runs(getattr, [], "append"), 2)), r"it names __builtin__\.getattr"),
    (zip_of(pickle.dumps(collections.deque([1]), 2)), r"it names collections\.deque"),
    (zip_of(b"(cos\nsystem\no."), r"it names os\.system"),
    (zip_of(b"(ios\nsystem\n."), "opcode INST"),
    (zip_of(b"\x82\x01."), "opcode EXT1"),
    (zip_of(b"P0\n."), "opcode PERSID"),
    (zip_of(b"ctorch\nTensor\n)R."), "only a known name can be called"),
    (zip_of(b"c__builtin__\nint\n(J\x01\x00\x00\x00tR."), "only a known name can be called"),
    (zip_of(b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR."), "a bytearray must be made of bytes, got int"),
    (zip_of(b"ccollections\nOrderedDict\n)R}(X\x01\x00\x00\x00aK\x01ub."), "a OrderedDict cannot have the state"),
    (zip_of(b"\x80\x02]]e."), "it is broken"),
    (zip_of(b"K\x01"), "it is broken"),
    (zip_of(b"."), "a pickle must end with one value, got 0"),
    (zip_of(b"K\x01K\x02."), "a pickle must end with one value, got 2"),
    (zip_of(b"K\x01a."), "it is broken"),
    (zip_of(b"}K\x01a."), "it is broken|APPEND must go to a list"),
    (zip_of(b"h\x05."), "it is broken"),
    (zip_of(tensor()), "it is broken .*data/0"),
    (zip_of(tensor(), data__0=bytes(12)), "storage 0 must have 16 bytes, got 12"),
    (zip_of(tensor(numel=-1), **FLOATS), "a storage must have a count"),
    (zip_of(tensor(offset=1), **FLOATS), r"must lie in its storage of 4 elements, got offset 1, size \(4,\)"),
    (zip_of(tensor(offset=-1), **FLOATS), "must be counts"),
    (zip_of(tensor(stride=(2,)), **FLOATS), "must lie in its storage"),
    (zip_of(tensor(stride=(-1,)), **FLOATS), "must be counts"),
    (zip_of(tensor(size=(2, 2)), **FLOATS), "must be counts"),
    (zip_of(tensor(size=(1,) * 9, stride=(1,) * 9), **FLOATS), "it is broken"),
    (zip_of(tensor(kind="BoolStorage"), data__0=b"\0\1\2\3"), "bool storage must hold bytes 0 and 1"),
    (zip_of(tensor(), byteorder="big", **FLOATS), "little-endian"),
    (zip_of(tensor(), **{"constants.pkl": b""}, **FLOATS), "TorchScript archive is not read"),
    (MAGIC, "it is broken"),
    (MAGIC + b"M\xe8\x03.}.", "protocol 1001"),
], ids=range(34))  # fmt: skip
def test_refused_by_name(tmp_path, data, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    for mmap in (False, True):
        with pytest.raises(ValueError, match=rf"load: {path} must hold weights of PyTorch, but .*({words})"):
            tw.load(path, weights_only=False, mmap=mmap)
    assert not os.path.exists("/tmp/owned")


@needs_torch
def test_kinds_that_are_no_weights_are_named():
    for obj, zipped, words in (
            (torch.nn.Linear(1, 1), True, r"it names torch\.nn\.modules\.linear\.Linear"),
            (torch.nn.Linear(1, 1), False, r"it names torch\.nn\.modules\.linear\.Linear"),
            ({"a": torch.zeros(2, dtype=torch.complex64)}, True, r"dtypes must be bool.*got torch\.Complex"),
            (torch.zeros(2).to_sparse(), True, r"it names torch\._utils\._rebuild_sparse_tensor")):
        with pytest.raises(ValueError, match=words):
            load(saved(obj, zipped))


def test_compressed_entries_and_other_zips_are_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", tensor(numel=1 << 20, size=(1 << 20,)))
        archive.writestr("a/data/0", bytes(4 << 20))
    with pytest.raises(ValueError, match="entries must be stored as they are"):
        load(file.getvalue())
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"with one data.pkl, got \['readme.txt'\]"):
        load(file.getvalue())


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_or_altered_never_loads_wrong(zipped, tmp_path):
    data = saved({"a": torch.arange(5.0), "b": [1, torch.ones(2, dtype=torch.bool)]}, zipped)
    for size in range(16, len(data), 7):
        with pytest.raises(ValueError, match="load: "):
            load(data[:size])
    rng = np.random.default_rng(0)
    for _ in range(300):  # any byte changed: an error by name or an object, never a crash
        altered = bytearray(data)
        altered[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            load(bytes(altered))
        except (ValueError, RuntimeError) as error:
            assert "load: " in str(error)


@needs_torch
def test_options():
    data = saved([1])
    with pytest.raises(NotImplementedError, match="nothing is unpickled"):
        load(data, pickle_module=pickle)
    with pytest.raises(ValueError, match="mmap=True needs a path"):
        load(data, mmap=True)
