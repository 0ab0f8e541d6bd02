"""Recurrent modules against PyTorch, step for step; packed sequences; the ways a step's work is shared out."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import tilewright as tw
from arrays import DEVICE, bits, to_np
from tilewright import nn
from tilewright.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
)

NETS = (("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {}))
FORMS = (
    {"num_layers": 1},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
)


def uniform(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def tensor(lib, value, **kwargs):
    """Of ours on the tests' device, of PyTorch on its own."""
    return lib.tensor(value, **kwargs, **({"device": DEVICE} if lib is tw else {}))


def flat(result):
    """Output and states as one list; a packed output by its data."""
    y, last = result
    return [y.data if hasattr(y, "batch_sizes") else y, *(last if isinstance(last, tuple) else (last,))]


def twins(torch, name, *args, **kwargs):
    """A double precision net of ours and one of PyTorch's with its parameters."""
    ours = getattr(nn, name)(*args, dtype=tw.float64, device=DEVICE, **kwargs)
    theirs = getattr(torch.nn, name)(*args, dtype=torch.float64, **kwargs)
    assert [(n, tuple(p.shape)) for n, p in ours.named_parameters()] == \
        [(n, tuple(p.shape)) for n, p in theirs.named_parameters()]
    theirs.load_state_dict({k: torch.from_numpy(to_np(v)) for k, v in ours.state_dict().items()})
    return ours, theirs


def compare(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        size = 1 + b.abs().max().item()
        np.testing.assert_allclose(to_np(a.detach()), b.detach().numpy(), rtol=0, atol=1e-12 * size)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("name", "kind"), NETS, ids=str)
def test_net_trains_as_pytorch(name, kind, form):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(torch, name, 5, 7, **kind, **form)
    a, b = tw.optim.SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    states = (form["num_layers"] * (2 if form.get("bidirectional") else 1), 3, 7)
    for step in range(3):
        x, *hx = (uniform(10 * step + k, *shape) for k, shape in enumerate(((3, 3, 5), states, states)))
        results = []
        for lib, net, optimizer in ((tw, ours, a), (torch, theirs, b)):
            tensors = [tensor(lib, v, requires_grad=True) for v in (x, *hx[:2 if name == "LSTM" else 1])]
            given = tuple(tensors[1:]) if name == "LSTM" else tensors[1]
            outs = flat(net(tensors[0], given) if step else net(tensors[0]))
            optimizer.zero_grad()
            sum((o * o * (k + 1)).sum() for k, o in enumerate(outs)).backward()
            optimizer.step()
            used = tensors if step else tensors[:1]
            results.append([*outs, *(t.grad for t in used), *net.parameters()])
        compare(*results)


@pytest.mark.parametrize("lengths", ([5, 3, 3, 1], [2, 5, 1, 4]), ids=str)
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize(("name", "kind"), NETS, ids=str)
def test_packed_as_pytorch(name, kind, bidirectional, lengths):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(torch, name, 5, 7, 2, bidirectional=bidirectional, **kind)
    states = (4 if bidirectional else 2, 4, 7)
    results = []
    for lib, net in ((tw, ours), (torch, theirs)):
        rnn = lib.nn.utils.rnn
        tensors = [tensor(lib, uniform(k, *s), requires_grad=True) for k, s in enumerate(((5, 4, 5), states, states))]
        packed = rnn.pack_padded_sequence(tensors[0], lengths, enforce_sorted=lengths == [5, 3, 3, 1])
        y, last = net(packed, tuple(tensors[1:]) if name == "LSTM" else tensors[1])
        padded, counts = rnn.pad_packed_sequence(y, batch_first=True, padding_value=0.5, total_length=6)
        assert counts.tolist() == lengths
        outs = [padded, *flat((y, last))]
        sum((o * o * (k + 1)).sum() for k, o in enumerate(outs)).backward()
        used = tensors if name == "LSTM" else tensors[:2]
        results.append([*outs, *(t.grad for t in used), *(p.grad for p in net.parameters())])
    compare(*results)


@pytest.mark.parametrize("bidirectional", (False, True))
def test_packed_sequences_do_not_see_one_another(bidirectional):
    """Each sequence of a packed batch gives what it gives alone."""
    net = nn.LSTM(4, 6, bidirectional=bidirectional, dtype=tw.float64)
    rows = [tw.tensor(uniform(k, n, 4)) for k, n in enumerate((2, 5, 3))]
    y, (h, _) = net(pack_sequence(rows, enforce_sorted=False))
    for k, part in enumerate(unpack_sequence(y)):
        alone, (last, _) = net(rows[k])
        np.testing.assert_allclose(to_np(part.detach()), to_np(alone.detach()), rtol=0, atol=1e-14)
        np.testing.assert_allclose(to_np(h[:, k].detach()), to_np(last.detach()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ("RNN", "LSTM", "GRU"))
def test_unbatched_is_a_batch_of_one(name):
    net = getattr(nn, name)(4, 6, 2)
    x, h = tw.tensor(uniform(1, 5, 4), dtype=tw.float32), tw.tensor(uniform(2, 2, 6), dtype=tw.float32)
    alone = flat(net(x, (h, h) if name == "LSTM" else h))
    h = h.unsqueeze(1)
    batch = flat(net(x.unsqueeze(1), (h, h) if name == "LSTM" else h))
    for a, b in zip(alone, batch, strict=True):
        assert bits([a]) == bits([b.squeeze(1)])


@pytest.mark.parametrize(("name", "kind"), [(f"{n}Cell", k) for n, k in NETS], ids=str)
def test_cell_as_pytorch(name, kind):
    torch = pytest.importorskip("torch")
    for bias, shape in ((True, (3, 5)), (False, (5,))):
        ours, theirs = twins(torch, name, 5, 7, bias=bias, **kind)
        results = []
        for lib, cell in ((tw, ours), (torch, theirs)):
            x, state = tensor(lib, uniform(1, *shape), requires_grad=True), None
            outs = []
            for _ in range(3):
                state = cell(x, state)
                outs += state if isinstance(state, tuple) else (state,)
            sum((o * o).sum() for o in outs).backward()
            results.append([*outs, x.grad, *(p.grad for p in cell.parameters())])
        compare(*results)


@pytest.mark.parametrize("name", ("RNN", "LSTM", "GRU"))
@pytest.mark.parametrize("batch", (1, 5, 40))
def test_bits_do_not_depend_on_threads(name, batch):
    """Rows shared out, columns shared out with a meeting after every step, and one thread alone."""
    net = getattr(nn, name)(9, 200)
    x = tw.tensor(uniform(3, 6, batch, 9), dtype=tw.float32, requires_grad=True)
    seen, before = [], tw.get_num_threads()
    try:
        for threads in (1, 2, 5):
            tw.set_num_threads(threads)
            outs = flat(net(x))
            grads = tw.autograd.grad(sum((o * o).sum() for o in outs), [x, *net.parameters()])
            seen.append(bits([*outs, *grads]))
    finally:
        tw.set_num_threads(before)
    assert seen[0] == seen[1] == seen[2]


def test_batch_size_does_not_change_a_sequence():
    """A sequence's bits are the same in a batch of 1, 8 or 100: every sum is one chain, whatever tile it falls in."""
    net = nn.GRU(6, 37)
    x = tw.tensor(uniform(4, 5, 100, 6), dtype=tw.float32)
    whole = net(x)[0]
    for first, last in ((8, 16), (70, 100)):
        assert bits([net(x[:, first:last])[0]]) == bits([whole[:, first:last]])


@pytest.mark.skipif(DEVICE == "cpu", reason="compares a device with the CPU")
@pytest.mark.parametrize(("name", "kind"), NETS, ids=str)
def test_wide_states_as_on_the_cpu(name, kind):
    """So many hidden values that a step's product is cut along K, rows that end in the second block of the batch."""
    host = getattr(nn, name)(3, 520, bidirectional=True, **kind)
    rows, states = uniform(7, 38, 3).astype(np.float32), uniform(8, 2, 33, 520).astype(np.float32)
    results = []
    for device in ("cpu", DEVICE):
        net = copy.deepcopy(host).to(device)
        x, h = (tw.tensor(v, device=device, requires_grad=True) for v in (rows, states))
        y, last = net(PackedSequence(x, tw.tensor([33, 5])), (h, h) if name == "LSTM" else h)
        outs = flat((y, last))
        grads = tw.autograd.grad(sum((o * o * (k + 1)).sum() for k, o in enumerate(outs)), [x, h, *net.parameters()])
        results.append([to_np(t) for t in (*outs, *grads)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * (1 + np.abs(a).max()))


def test_initial_values():
    """Uniform in +-1/sqrt(hidden_size), filled in the order of the parameters."""
    net = nn.LSTM(3, 16, 2, bidirectional=True)
    assert [n for n, _ in net.named_parameters()][:5] == [
        "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]
    for p in net.parameters():
        assert 0.15 < to_np(p.detach()).max() <= 0.25 and -0.25 <= to_np(p.detach()).min() < -0.15
    tw.manual_seed(3)
    net.reset_parameters()
    tw.manual_seed(3)
    for p in net.parameters():
        want = tw.empty(tuple(p.shape)).uniform_(-0.25, 0.25)
        assert bits([p]) == bits([want])


def test_dropout_stands_between_layers():
    net = nn.RNN(3, 8, 2, dropout=1.0)
    x = tw.tensor(uniform(5, 4, 2, 3), dtype=tw.float32)
    bare = copy.deepcopy(net)
    bare.dropout = 0.0
    with tw.no_grad():
        lower = list(bare.parameters())[:4]
        first = tw.rnn_tanh(x, tw.zeros(1, 2, 8), lower, True, 1, 0.0, False, False, False)[0]
        upper = list(bare.parameters())[4:]
        want = tw.rnn_tanh(first * 0, tw.zeros(1, 2, 8), upper, True, 1, 0.0, False, False, False)[0]
        assert bits([net(x)[0]]) == bits([want])
        assert bits([net.eval()(x)[0]]) == bits([bare(x)[0]])
    with pytest.warns(UserWarning, match="LSTM: dropout acts between layers"):
        nn.LSTM(2, 2, dropout=0.5)


def test_empty_batch():
    net = nn.LSTM(3, 4)
    x = tw.zeros(2, 0, 3, requires_grad=True)
    y, (h, c) = net(x)
    assert tuple(y.shape) == (2, 0, 4) and tuple(h.shape) == tuple(c.shape) == (1, 0, 4)
    y.sum().backward()
    assert tuple(x.grad.shape) == (2, 0, 3)
    assert all(not to_np(p.grad).any() for p in net.parameters())


def test_halves_are_storage():
    """A bfloat16 net carries its state in float32: its result is the float32 net's, rounded once."""
    net = nn.LSTM(4, 6).bfloat16()
    x = tw.tensor(uniform(6, 30, 2, 4), dtype=tw.bfloat16)
    with tw.no_grad():
        got = flat(net(x))
        want = flat(copy.deepcopy(net).float()(x.float()))
    assert bits(got) == bits([w.to(tw.bfloat16) for w in want])


def test_pad_sequence_as_pytorch():
    torch = pytest.importorskip("torch")
    rows = [uniform(k, n, 2) for k, n in enumerate((3, 1, 4))]
    for kwargs in ({}, {"batch_first": True, "padding_value": 2.0}, {"padding_side": "left"}):
        ours = pad_sequence([tw.tensor(r) for r in rows], **kwargs)
        theirs = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], **kwargs)
        assert np.array_equal(to_np(ours), theirs.numpy())
    packed = pack_sequence([tw.tensor(r) for r in rows], enforce_sorted=False)
    theirs = torch.nn.utils.rnn.pack_sequence([torch.tensor(r) for r in rows], enforce_sorted=False)
    for a, b in zip(packed, theirs, strict=True):
        assert np.array_equal(to_np(a), b.numpy())
    assert isinstance(packed, PackedSequence)
    padded, lengths = pad_packed_sequence(packed)
    assert lengths.tolist() == [3, 1, 4] and tuple(padded.shape) == (4, 3, 2)


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "LSTM: proj_size must be below hidden_size 4, got 4"),
    (lambda: nn.LSTM(3, 0), ValueError, "LSTM: hidden_size.*0"),
    (lambda: nn.RNN(3, 4, nonlinearity="elu"), ValueError, "RNN: nonlinearity.*elu"),
    (lambda: nn.GRU(3, 4, dropout=2), ValueError, "GRU: dropout.*2"),
    (lambda: nn.GRU(3, 4)(tw.zeros(2, 2, 5)), ValueError, r"GRU: input_size 3|GRU: input.*3.*\(2, 2, 5\)"),
    (lambda: nn.GRU(3, 4)(tw.zeros(3)), ValueError, r"GRU: input.*\(3,\)"),
    (lambda: nn.GRU(3, 4)(tw.zeros(2, 2, 3), tw.zeros(1, 3, 4)), ValueError, r"GRU: h_0.*\(1, 2, 4\).*\(1, 3, 4\)"),
    (lambda: nn.LSTM(3, 4)(tw.zeros(2, 2, 3), tw.zeros(1, 2, 4)), ValueError, "LSTM: hx must be a pair"),
    (lambda: nn.LSTM(3, 4)([1.0]), TypeError, "LSTM: input.*list"),
    (lambda: nn.LSTMCell(3, 4)(tw.zeros(2, 4)), ValueError, r"LSTMCell: input.*\(2, 4\)"),
    (lambda: nn.GRUCell(3, 4)(tw.zeros(2, 3), tw.zeros(1, 4)), ValueError, r"GRUCell: hx.*\(2, 4\).*\(1, 4\)"),
    (lambda: pack_padded_sequence(tw.zeros(3, 2), [1, 2]), ValueError, "pack_padded_sequence: lengths must fall"),
    (lambda: pack_padded_sequence(tw.zeros(3, 2), [4, 2]), ValueError, "pack_padded_sequence: lengths.*1 to 3.*4"),
    (lambda: pack_padded_sequence(tw.zeros(3, 2), [3]), ValueError, "pack_padded_sequence: lengths.*2 sequences"),
    (lambda: pad_packed_sequence(pack_padded_sequence(tw.zeros(3, 2), [3, 2]), total_length=2), ValueError,
     "pad_packed_sequence: total_length must be at least 3, got 2"),
    (lambda: pad_sequence([tw.zeros(3, 2), tw.zeros(3, 1)]), ValueError, r"pad_sequence: .*\(3, 2\), \(3, 1\)"),
    (lambda: tw.gru(tw.zeros(3, 2), tw.tensor([1, 2]), tw.zeros(1, 1, 4), [tw.zeros(12, 2), tw.zeros(12, 4)], False, 1,
                    0.0, True, False), ValueError, "gru: batch_sizes.*2 at 1"),
])  # fmt: skip
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()
