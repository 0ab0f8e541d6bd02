"""nn.MultiheadAttention and scaled_dot_product_attention against PyTorch where it is installed."""

import numpy as np
import pytest

import tilewright as tw
from arrays import DEVICE, to_np
from tilewright import nn

torch = pytest.importorskip("torch")

CONFIGS = {
    "plain": {}, "batch_first": {"batch_first": True}, "no_bias": {"bias": False, "batch_first": True},
    "kdim": {"kdim": 6, "vdim": 10}, "bias_kv": {"add_bias_kv": True}, "zero_attn": {"add_zero_attn": True},
    "both": {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True, "kdim": 12},
}  # fmt: skip
N, L, S, E, H = 3, 7, 5, 12, 3


def put(value):
    return tw.tensor(value, device=DEVICE)


def paired(config):
    """Ours and PyTorch's with the same parameters."""
    ours, theirs = nn.MultiheadAttention(E, H, device=DEVICE, **config), torch.nn.MultiheadAttention(E, H, **config)
    names = dict(ours.named_parameters())
    assert list(names) == [n for n, _ in theirs.named_parameters()]
    rng = np.random.default_rng(1)
    for name, p in theirs.named_parameters():
        assert tuple(names[name].shape) == tuple(p.shape)
        p.data = torch.tensor(rng.uniform(-0.5, 0.5, tuple(p.shape)).astype(np.float32))
    ours.load_state_dict({k: tw.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


def masks(name, rng):
    if name == "none":
        return {}
    if name == "padding":
        hidden = rng.random((N, S)) < 0.4
        hidden[:, 0] = False
        return {"key_padding_mask": hidden}
    if name == "bool":
        hidden = rng.random((L, S)) < 0.4
        hidden[:, 1] = False
        return {"attn_mask": hidden}
    if name == "heads":
        return {"attn_mask": rng.uniform(-1, 1, (N * H, L, S)).astype(np.float32),
                "key_padding_mask": rng.uniform(-1, 1, (N, S)).astype(np.float32)}
    return {"attn_mask": np.triu(np.full((L, S), -np.inf, np.float32), 1), "is_causal": True}


@pytest.mark.parametrize("weights", [True, False, "heads"])
@pytest.mark.parametrize("mask", ["none", "padding", "bool", "heads", "causal"])
@pytest.mark.parametrize("config", CONFIGS)
def test_multihead_attention_as_pytorch(config, mask, weights):
    config = CONFIGS[config]
    if mask == "causal" and not weights and (config.get("add_bias_kv") or config.get("add_zero_attn")):
        pytest.skip("PyTorch then drops the mask, and its result is not the one it gives with need_weights")
    ours, theirs = paired(config)
    rng = np.random.default_rng(2)
    first = config.get("batch_first", False)
    sizes = ((L, E), (S, config.get("kdim", E)), (S, config.get("vdim", E)))
    arrays = [rng.uniform(-1, 1, (N, r, c) if first else (r, N, c)).astype(np.float32) for r, c in sizes]
    kwargs = {"need_weights": bool(weights), "average_attn_weights": weights != "heads"}
    chosen = masks(mask, rng)

    def call(layer, make):
        xs = [make(a).requires_grad_() for a in arrays]
        y, w = layer(*xs, **kwargs, **{k: make(v) if isinstance(v, np.ndarray) else v for k, v in chosen.items()})
        total = (y * make(np.arange(y.shape[-1], dtype=np.float32))).sum()
        (total if w is None else total + (w * w).sum()).backward()
        return [y, *([] if w is None else [w]), *(x.grad for x in xs), *(p.grad for p in layer.parameters())]

    for got, want in zip(call(ours, put), call(theirs, torch.tensor), strict=True):
        np.testing.assert_allclose(to_np(got), want.detach().numpy(), rtol=2e-4, atol=2e-5)


def test_self_attention_and_one_item():
    ours, theirs = paired({"batch_first": True})
    x = np.random.default_rng(4).uniform(-1, 1, (L, E)).astype(np.float32)
    for shape in ((L, E), (1, L, E)):
        a, b = put(x.reshape(shape)), torch.tensor(x.reshape(shape))
        for need in (True, False):
            (y, w), (want, want_w) = ours(a, a, a, need_weights=need), theirs(b, b, b, need_weights=need)
            np.testing.assert_allclose(to_np(y), want.detach().numpy(), rtol=1e-4, atol=1e-5)
            assert (w is None) == (want_w is None)
            if w is not None:
                np.testing.assert_allclose(to_np(w), want_w.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_dropout_and_refusals():
    layer = nn.MultiheadAttention(8, 2, dropout=0.5)
    x = tw.randn(6, 2, 8)
    assert not bool((layer(x, x, x)[0] == layer(x, x, x)[0]).all())
    layer.eval()
    assert bool((layer(x, x, x)[0] == layer(x, x, x)[0]).all())
    with pytest.raises(ValueError, match="multiple of num_heads, got 8 and 3"):
        nn.MultiheadAttention(8, 3)
    with pytest.raises(ValueError, match=r"embed_dim, kdim and vdim.*\(6, 2, 7\)"):
        layer(x, tw.ones(6, 2, 7), x)
    with pytest.raises(ValueError, match=r"attn_mask must have shape \(6, 6\).*got \(6, 5\)"):
        layer(x, x, x, attn_mask=tw.ones(6, 5))
    with pytest.raises(TypeError, match=r"key_padding_mask must be bool or floating-point, got.*int64"):
        layer(x, x, x, key_padding_mask=tw.ones(2, 6, dtype=tw.int64))


@pytest.mark.parametrize("case", ["plain", "causal", "bool", "float", "grouped", "dead_rows"])
def test_attention_as_pytorch(case):
    rng = np.random.default_rng(6)
    q, k, v = (rng.uniform(-1, 1, (2, h, n, 16)).astype(np.float32)
               for h, n in ((4, 70), (2 if case == "grouped" else 4, 150), (2 if case == "grouped" else 4, 150)))
    mask = {"bool": rng.random((70, 150)) < 0.7, "float": rng.uniform(-2, 2, (2, 1, 70, 150)).astype(np.float32),
            "dead_rows": np.tile(np.arange(70)[:, None] % 3 > 0, (1, 150))}.get(case)
    kwargs = {"is_causal": case == "causal", "enable_gqa": case == "grouped"}

    def call(function, make):
        xs = [make(a).requires_grad_() for a in (q, k, v)]
        y = function(*xs, attn_mask=None if mask is None else make(mask), **kwargs)
        (y * y).sum().backward()
        return [y, *(x.grad for x in xs)]

    want = call(torch.nn.functional.scaled_dot_product_attention, torch.tensor)
    for got, by in zip(call(nn.functional.scaled_dot_product_attention, put), want, strict=True):
        np.testing.assert_allclose(to_np(got), by.detach().numpy(), rtol=1e-4, atol=2e-5)
