"""Every layer against PyTorch: built from one expression in both libraries, given PyTorch's weights, compared in
outputs, gradients of inputs and parameters, buffers, names and shapes of the state, and printed form."""

import numpy as np
import pytest

import tilewright as tw
from arrays import to_np

torch = pytest.importorskip("torch")
pytest.importorskip("torch.nn.utils.prune")

# float32 against float32 by another engine: both err by a few ulp of sums of at most some hundred terms, which are of
# the order of the largest element. Gradients pass more such sums, those of norms cancel.
OUTPUT, GRADIENT = 4e-6, 1e-5


def real(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-2.0, 2.0, shape).astype(np.float32)


def ints(high, *shape):
    return np.random.default_rng(7).integers(0, high, shape)


HIDDEN = np.arange(5) >= np.array([[5], [3], [4]])  # (3, 5): which places of 3 sequences are padding
ENCODER = "nn.TransformerEncoderLayer(8, 2, 12, 0.0"
DECODER = "nn.TransformerDecoderLayer(8, 2, 12, 0.0"

# The layer, its inputs (a shape, or a list of shapes and arrays), and the call if it is not m(*x).
LAYERS = [
    ("nn.Linear(5, 3)", (4, 5)),
    ("nn.Linear(5, 3, bias=False)", (2, 4, 5)),
    ("nn.Linear(5, 3)", (5,)),
    ("nn.Conv2d(3, 4, 3)", (2, 3, 7, 6)),
    ("nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 2), (1, 2), bias=False)", (2, 3, 8, 9)),
    ("nn.Conv2d(4, 6, 3, groups=2, padding=1)", (2, 4, 5, 5)),
    ("nn.Conv2d(2, 3, 3, padding='same', dilation=2)", (1, 2, 6, 7)),
    ("nn.Conv2d(2, 3, (4, 3), padding='same')", (1, 2, 6, 7)),
    ("nn.Conv2d(2, 3, 3, padding='valid')", (1, 2, 6, 7)),
    ("nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode='reflect')", (2, 2, 6, 7)),
    ("nn.Conv2d(2, 3, (4, 3), padding='same', padding_mode='circular')", (2, 2, 6, 7)),
    ("nn.Conv1d(4, 6, 3, 2, 1, groups=2)", (2, 4, 9)),
    ("nn.Conv1d(2, 3, 3, padding=2, dilation=2, padding_mode='replicate')", (2, 2, 9)),
    ("nn.Conv3d(2, 3, (3, 2, 1), (1, 2, 1), (1, 0, 2), bias=False)", (2, 2, 4, 5, 3)),
    ("nn.Conv3d(2, 3, (2, 3, 4), padding='same', dilation=(1, 2, 1))", (2, 4, 5, 6)),
    ("nn.ConvTranspose1d(4, 6, 4, 2, 1, groups=2)", (2, 4, 7)),
    ("nn.ConvTranspose2d(3, 4, 3, 2, 1, 1)", (2, 3, 5, 6)),
    ("nn.ConvTranspose2d(3, 4, (3, 2), 1, 0, (1, 0), 1, False, 2)", (2, 3, 5, 6)),
    ("nn.ConvTranspose3d(3, 2, 2, 2)", (2, 3, 2, 3, 4)),
    ("nn.MaxPool2d(2)", (2, 3, 6, 7)),
    ("nn.MaxPool2d(3, 2, 1)", (2, 3, 6, 7)),
    ("nn.MaxPool2d((2, 3), ceil_mode=True)", (2, 3, 7, 7)),
    ("nn.AvgPool2d(3, 2, 1)", (2, 3, 6, 7)),
    ("nn.AvgPool2d(3, 2, 1, count_include_pad=False)", (2, 3, 6, 7)),
    ("nn.AdaptiveAvgPool2d((2, 3))", (2, 3, 7, 8)),
    ("nn.AdaptiveAvgPool2d(1)", (2, 3, 7, 8)),
    ("nn.AdaptiveAvgPool2d((None, 2))", (2, 3, 7, 8)),
    ("nn.BatchNorm1d(4)", (6, 4)),
    ("nn.BatchNorm1d(4)", (6, 4, 5)),
    ("nn.BatchNorm2d(3)", (4, 3, 5, 5)),
    ("nn.BatchNorm2d(3, affine=False, track_running_stats=False)", (4, 3, 5, 5)),
    ("nn.BatchNorm2d(3, momentum=None)", (4, 3, 5, 5)),
    ("nn.LayerNorm(6)", (4, 5, 6)),
    ("nn.LayerNorm((5, 6), eps=1e-3, bias=False)", (4, 5, 6)),
    ("nn.LayerNorm(6, elementwise_affine=False)", (4, 6)),
    ("nn.BatchNorm3d(3)", (4, 3, 5, 5, 2)),
    ("nn.GroupNorm(2, 6)", (4, 6, 5, 5)),
    ("nn.GroupNorm(3, 6, eps=1e-3, affine=False)", (4, 6)),
    ("nn.InstanceNorm1d(3)", (4, 3, 5)),
    ("nn.InstanceNorm1d(3, affine=True)", (3, 5)),
    ("nn.InstanceNorm2d(3, affine=True, track_running_stats=True)", (4, 3, 5, 9)),
    ("nn.InstanceNorm3d(3, momentum=0.3, track_running_stats=True)", (2, 3, 5, 3, 2)),
    ("nn.RMSNorm(6)", (4, 5, 6)),
    ("nn.RMSNorm((5, 6), eps=1e-3, elementwise_affine=False)", (4, 5, 6)),
    ("nn.ReLU()", (4, 5)),
    ("nn.LeakyReLU(0.2)", (4, 5)),
    ("nn.ELU(0.7)", (4, 5)),
    ("nn.Hardtanh(-0.5, 1.5)", (4, 5)),
    ("nn.ReLU6()", (4, 5)),
    ("nn.SiLU()", (4, 5)),
    ("nn.Sigmoid()", (4, 5)),
    ("nn.Tanh()", (4, 5)),
    ("nn.GELU()", (4, 5)),
    ("nn.GELU(approximate='tanh')", (4, 5)),
    ("nn.Softplus(2.0, 1.5)", (4, 5)),
    ("nn.SELU()", (4, 5)),
    ("nn.CELU(1.5)", (4, 5)),
    ("nn.Mish()", (4, 5)),
    ("nn.Hardswish()", (4, 5)),
    ("nn.Hardsigmoid()", (4, 5)),
    ("nn.Softsign()", (4, 5)),
    ("nn.Tanhshrink()", (4, 5)),
    ("nn.LogSigmoid()", (4, 5)),
    ("nn.Hardshrink(0.4)", (4, 5)),
    ("nn.Softshrink(0.4)", (4, 5)),
    ("nn.Threshold(0.3, -1.0)", (4, 5)),
    ("nn.PReLU()", (4, 5)),
    ("nn.PReLU(5, 0.1)", (4, 5, 3)),
    ("nn.RReLU(0.1, 0.3).eval()", (4, 5)),
    ("nn.GLU(1)", (4, 6)),
    ("nn.Softmin(1)", (4, 5)),
    ("nn.Softmax(dim=1)", (4, 5, 3)),
    ("nn.LogSoftmax(dim=-1)", (4, 5, 3)),
    ("nn.Flatten()", (2, 3, 4)),
    ("nn.Unflatten(1, (2, -1))", (3, 6)),
    ("nn.Dropout(0.0)", (4, 5)),
    ("nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 2))", (4, 5)),
    ("nn.Softmin()", (4, 5)),
    ("nn.Softmax()", (2, 4, 5)),
    ("nn.Softmax2d()", (2, 4, 5, 3)),
    ("nn.Softmax2d()", (4, 5, 3)),
    ("nn.LogSoftmax()", (2, 4)),
    ("nn.ReLU(inplace=True)", (4, 5), "m(x[0] * 1)"),
    ("nn.Hardtanh(min_value=-1.5, max_value=0.5)", (4, 5)),
    ("nn.Identity(54, unused=0.1)", (4, 5)),
    ("nn.Flatten(0, 1)", (2, 3, 4)),
    ("nn.Bilinear(4, 3, 5)", [(6, 4), (6, 3)]),
    ("nn.Bilinear(4, 3, 5, bias=False)", [(2, 6, 4), (2, 6, 3)]),
    ("nn.LazyLinear(3)", (2, 5)),
    ("nn.LazyConv2d(4, 3, padding=1, groups=2)", (2, 6, 5, 5)),
    ("nn.LazyConv1d(4, 3, bias=False)", (2, 3, 5)),
    ("nn.LazyConvTranspose2d(4, 3, stride=2)", (2, 3, 5, 5)),
    ("nn.LazyBatchNorm2d()", (2, 3, 5, 5)),
    ("nn.LazyBatchNorm1d(momentum=0.3)", (6, 3)),
    ("nn.LazyInstanceNorm1d(affine=True)", (2, 3, 5)),
    ("nn.BatchNorm1d(3)", (0, 3, 5)),
    ("nn.SyncBatchNorm(3)", (4, 3, 5, 5), "m(x[0]) if t is tw else (F.batch_norm(x[0], m.running_mean, m.running_var, "
     "m.weight, m.bias, m.training, m.momentum, m.eps), m.num_batches_tracked.add_(int(m.training)))[0]"),
    ("nn.LocalResponseNorm(3, 0.2, 0.6, 1.5)", (2, 7, 4, 3)),
    ("nn.LocalResponseNorm(4)", (2, 7, 5)),
    ("nn.LayerNorm(6, elementwise_affine=False)", (4, 0, 6)),
    ("nn.MaxPool1d(3, 2, 1, return_indices=True)", (2, 3, 9)),
    ("nn.MaxPool2d(3, 2, 1, 2, True, True)", (2, 3, 9, 8)),
    ("nn.MaxPool3d(2, return_indices=True)", (2, 3, 4, 5, 6)),
    ("nn.MaxUnpool1d(2)", (2, 3, 8), "m(*F.max_pool1d(x[0], 2, return_indices=True))"),
    ("nn.MaxUnpool2d(3, 2, 1)", (2, 3, 7, 9), "m(*F.max_pool2d(x[0], 3, 2, 1, return_indices=True), (7, 9))"),
    ("nn.MaxUnpool3d((1, 2, 2))", (2, 3, 3, 4, 4), "m(*F.max_pool3d(x[0], (1, 2, 2), return_indices=True))"),
    ("nn.AvgPool1d(3, 2, 1, True, False)", (2, 3, 9)),
    ("nn.AvgPool2d(2, divisor_override=3)", (2, 3, 6, 7)),
    ("nn.AvgPool3d(2, 1, 1)", (2, 3, 4, 5, 6)),
    ("nn.LPPool1d(2, 3)", (2, 3, 9), "m(x[0].abs())"),
    ("nn.LPPool2d(3.0, (2, 3), stride=2, ceil_mode=True)", (2, 3, 7, 8), "m(x[0].abs())"),
    ("nn.LPPool3d(2, 2)", (2, 3, 4, 5, 6)),
    ("nn.AdaptiveAvgPool1d(3)", (2, 3, 8)),
    ("nn.AdaptiveAvgPool3d((2, None, 3))", (2, 3, 4, 5, 6)),
    ("nn.AdaptiveMaxPool1d(3, return_indices=True)", (2, 3, 8)),
    ("nn.AdaptiveMaxPool2d((2, 3), True)", (2, 3, 7, 8)),
    ("nn.AdaptiveMaxPool2d(2)", (3, 7, 8)),
    ("nn.AdaptiveMaxPool3d((2, 1, 3), return_indices=True)", (2, 3, 4, 5, 6)),
    ("nn.Upsample(scale_factor=2)", (2, 3, 4, 5)),
    ("nn.Upsample((7, 9), mode='bilinear', align_corners=True)", (2, 3, 4, 5)),
    ("nn.Upsample(scale_factor=(1.5, 2.0), mode='bicubic')", (2, 3, 4, 5)),
    ("nn.Upsample(scale_factor=2, mode='trilinear')", (1, 2, 3, 4, 5)),
    ("nn.UpsamplingNearest2d(scale_factor=2)", (2, 3, 4, 5)),
    ("nn.UpsamplingBilinear2d((6, 7))", (2, 3, 4, 5)),
    ("nn.ConstantPad1d(2, 3.5)", (2, 3, 5)),
    ("nn.ConstantPad2d((1, -1, 2, 0), 3.5)", (2, 3, 5, 4)),
    ("nn.ConstantPad3d(1, 3.5)", (2, 3, 5, 4, 3)),
    ("nn.ZeroPad1d((1, 2))", (2, 3, 5)),
    ("nn.ZeroPad2d(2)", (2, 3, 5, 4)),
    ("nn.ZeroPad3d((1, 2, 0, 1, 3, 0))", (2, 3, 5, 4, 3)),
    ("nn.ReflectionPad1d(2)", (2, 3, 5)),
    ("nn.ReflectionPad2d((1, 2, 0, 3))", (3, 5, 4)),
    ("nn.ReflectionPad3d(1)", (2, 3, 5, 4, 3)),
    ("nn.ReplicationPad1d((3, 1))", (2, 3, 5)),
    ("nn.ReplicationPad2d(2)", (2, 3, 5, 4)),
    ("nn.ReplicationPad3d(1)", (2, 3, 5, 4, 3)),
    ("nn.CircularPad1d(2)", (2, 3, 5)),
    ("nn.CircularPad2d((1, 2, 0, 3))", (2, 3, 5, 4)),
    ("nn.CircularPad3d(1)", (2, 3, 5, 4, 3)),
    ("nn.PixelShuffle(2)", (2, 8, 3, 4)),
    ("nn.PixelUnshuffle(2)", (2, 3, 4, 6)),
    ("nn.ChannelShuffle(2)", (2, 6, 3, 4)),
    ("nn.Unfold((2, 3), 1, (1, 0), 2)", (2, 3, 6, 7)),
    ("nn.Fold((6, 7), (2, 3), 1, (1, 0), 2)", (2, 18, 12)),
    ("nn.CosineSimilarity(dim=-1)", [(4, 5), (4, 5)]),
    ("nn.PairwiseDistance(1.0, keepdim=True)", [(4, 5), (4, 5)]),
    ("nn.Dropout2d(0.0)", (2, 3, 4, 5)),
    ("nn.AlphaDropout(0.3).eval()", (4, 5)),
    ("nn.FeatureAlphaDropout(0.0)", (4, 5, 3)),
    ("nn.Embedding(7, 3, padding_idx=-2)", [ints(7, 4, 5)]),
    ("nn.Embedding(7, 3, max_norm=1.0, norm_type=1.0, scale_grad_by_freq=True)", [ints(7, 4, 5)]),
    ("nn.Embedding.from_pretrained(t.ones(7, 3), False, 2)", [ints(7, 4, 5)]),
    ("nn.EmbeddingBag(7, 3)", [ints(7, 4, 5)]),
    ("nn.EmbeddingBag(7, 3, mode='sum')", [ints(7, 9), np.array([0, 3, 3, 7])]),
    ("nn.EmbeddingBag(7, 3, mode='sum', padding_idx=2)", [ints(7, 3, 5), (3, 5)], "m(x[0], None, x[1])"),
    ("nn.EmbeddingBag(7, 3, mode='max')", [ints(7, 9), np.array([0, 3, 3, 7])]),
    ("nn.EmbeddingBag(7, 3, mode='max', padding_idx=4)", [ints(7, 3, 5)]),
    ("nn.EmbeddingBag(7, 3, include_last_offset=True, padding_idx=1)", [ints(7, 9), np.array([0, 3, 3, 9])]),
    ("nn.EmbeddingBag(7, 3, max_norm=1.0)", [ints(7, 9), np.array([0, 4])]),
    ("nn.EmbeddingBag.from_pretrained(t.ones(7, 3), mode='sum')", [ints(7, 2, 3)]),
    ("nn.RNN(4, 5, 2, nonlinearity='relu', bidirectional=True)", (6, 3, 4)),
    ("nn.GRU(4, 5, bias=False, batch_first=True)", (3, 6, 4)),
    ("nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True)", (3, 6, 4)),
    ("nn.LSTM(4, 5, proj_size=3)", (6, 3, 4)),
    ("nn.LSTM(4, 5, 2, bias=False, batch_first=True, bidirectional=True, proj_size=2)", (3, 6, 4)),
    ("nn.LSTM(4, 5, proj_size=3)", [(6, 4), (1, 3), (1, 5)], "m(x[0], (x[1], x[2]))"),
    ("nn.LSTM(4, 5, 2, bidirectional=True, proj_size=3)", (6, 3, 4),
     "m(nn.utils.rnn.pack_padded_sequence(x[0], t.tensor([4, 6, 1]), enforce_sorted=False))"),
    ("nn.LSTM(4, 5, bidirectional=True)", (6, 3, 4),
     "m(nn.utils.rnn.pack_sequence([x[0][:5, 0], x[0][:, 1], x[0][:2, 2]], enforce_sorted=False))"),
    ("nn.RNNCell(4, 5, nonlinearity='relu')", [(3, 4), (3, 5)]),
    ("nn.LSTMCell(4, 5, bias=False)", [(3, 4), (3, 5), (3, 5)], "m(x[0], (x[1], x[2]))"),
    ("nn.GRUCell(4, 5)", (3, 4)),
    ("nn.MultiheadAttention(8, 2, batch_first=True)", (3, 5, 8), "m(x[0], x[0], x[0])"),
    ("nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True, kdim=6, vdim=4)",
     [(3, 2, 8), (5, 2, 6), (5, 2, 4)], "m(*x, average_attn_weights=False)"),
    ("nn.MultiheadAttention(8, 2)", [(4, 3, 8), (5, 3, 8), HIDDEN], "m(x[0], x[1], x[1], key_padding_mask=x[2])"),
    (f"{ENCODER})", (5, 3, 8)),
    (f"{ENCODER}, 'gelu', batch_first=True)", [(3, 5, 8), HIDDEN], "m(x[0], src_key_padding_mask=x[1])"),
    (f"{ENCODER}, norm_first=True, bias=False)", (5, 3, 8),
     "m(x[0], nn.Transformer.generate_square_subsequent_mask(5), is_causal=True)"),
    (f"{ENCODER}, nn.SiLU(), 1e-3)", (5, 8)),
    (f"{DECODER}, batch_first=True)", [(3, 4, 8), (3, 5, 8), HIDDEN], "m(x[0], x[1], memory_key_padding_mask=x[2])"),
    (f"{DECODER}, F.gelu, norm_first=True)", [(4, 3, 8), (5, 3, 8)],
     "m(*x, nn.Transformer.generate_square_subsequent_mask(4), tgt_is_causal=True)"),
    (f"nn.TransformerEncoder({ENCODER}), 2, nn.LayerNorm(8), enable_nested_tensor=False)", [(5, 3, 8), HIDDEN],
     "m(x[0], nn.Transformer.generate_square_subsequent_mask(5), t.zeros(3, 5).masked_fill(x[1], float('-inf')))"),
    (f"nn.TransformerEncoder({ENCODER}, norm_first=True), 2)", (5, 3, 8),
     "m(x[0], nn.Transformer.generate_square_subsequent_mask(5))"),
    (f"nn.TransformerDecoder({DECODER}), 2)", [(4, 3, 8), (5, 3, 8)],
     "m(*x, nn.Transformer.generate_square_subsequent_mask(4))"),
    ("nn.Transformer(8, 2, 1, 2, 12, 0.0, 'gelu', batch_first=True)", [(3, 5, 8), (3, 4, 8), HIDDEN],
     "m(x[0], x[1], tgt_mask=m.generate_square_subsequent_mask(4), memory_key_padding_mask=x[2])"),
    ("nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], 2.0, True)", [(6, 8), np.array([0, 3, 4, 9, 10, 19])]),
    ("nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], 2.0)", (6, 8), "m.log_prob(x[0]), m.predict(x[0])"),
    ("nn.utils.weight_norm(nn.Conv2d(2, 3, 3))", (2, 2, 5, 5)),
    ("nn.utils.weight_norm(nn.Linear(4, 3), dim=None)", (2, 4)),
    ("nn.utils.weight_norm(nn.Linear(4, 3), 'bias', 0)", (2, 4)),
    ("nn.utils.weight_norm(nn.LSTM(4, 3), 'weight_hh_l0')", (5, 2, 4)),
    ("nn.utils.spectral_norm(nn.Linear(4, 3), n_power_iterations=2)", (2, 4)),
    ("nn.utils.spectral_norm(nn.ConvTranspose2d(2, 3, 3))", (2, 2, 5, 5)),
    ("nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3), dim=1)", (2, 2, 5, 5)),
    ("nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3))", (2, 2, 5, 5)),
    ("nn.utils.parametrizations.weight_norm(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), 'bias')", (2, 4)),
    ("nn.utils.prune.l1_unstructured(nn.Linear(4, 3), 'weight', 0.5)", (2, 4)),
    ("nn.utils.prune.remove(nn.utils.prune.l1_unstructured(nn.Linear(4, 3), 'bias', 1), 'bias')", (2, 4)),
    ("nn.utils.skip_init(nn.Linear, 4, 3)", (2, 4)),
    ("nn.utils.fuse_conv_bn_eval(nn.Conv2d(2, 3, 3, bias=False).eval(), nn.BatchNorm2d(3).eval())", (2, 2, 5, 5)),
    ("nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 2), nn.Tanh())])", (4, 5),
     "m[3](m[2](m[1](m[0](x[0]))))"),
    ("nn.ModuleDict({'a': nn.Linear(5, 3), 'b': nn.Tanh()})", (4, 5), "m['b'](m['a'](x[0]))"),
    ("nn.ParameterList([t.ones(2, 3), t.ones(3)])", (3,), "m[0] @ x[0] + m[1].sum()"),
    ("nn.DataParallel(nn.Linear(5, 3))", (4, 5)),
    ("nn.Sequential(nn.Linear(5, 3), nn.ModuleDict({'a': nn.ReLU()})['a'], nn.Sequential())", (4, 5), "m[:2](x[0])"),
]

IGNORED = [f"ignore:{words}" for words in (  # PyTorch's warnings
    "Using padding=.same. with even kernel", "Implicit dimension choice", "Lazy modules are", "enable_nested_tensor",
    ".*weight_norm. is deprecated", "Initializing zero-element", "Support for mismatched", "keyword argument",
    "RNN module weights", "LSTM with projections")]


def tensors(result):
    """The float tensors of a layer's result, nested as it may be, and the others."""
    if isinstance(result, (tw.Tensor, torch.Tensor)):
        return [result]
    if result is None or isinstance(result, int):
        return []
    return [t for part in result for t in tensors(part)]


def run(lib, expr, m, arrays, call):
    x = [lib.tensor(a).requires_grad_(a.dtype == np.float32) for a in arrays]
    given = {"nn": lib.nn, "F": lib.nn.functional, "t": lib, "m": m, "x": x, "tw": tw}
    ys = tensors(eval(call, given))
    for p in m.parameters():
        p.grad = None
    total = sum((y * lib.tensor(real(*y.shape, seed=50 + i))).sum() for i, y in enumerate(ys)
                if y.is_floating_point() and y.requires_grad)
    if isinstance(total, (tw.Tensor, torch.Tensor)):
        total.backward()
    return ys, [v.grad for v in x], {name: p.grad for name, p in m.named_parameters()}


def same(ours, theirs, tolerance, what):
    assert (ours is None) == (theirs is None), what
    if ours is not None:
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1], what
        want = theirs.detach().numpy()
        largest = float(np.abs(want[np.isfinite(want)]).max(initial=1.0))
        np.testing.assert_allclose(to_np(ours.detach()), want, rtol=0, atol=tolerance * largest, err_msg=what)


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def twins(expr, inputs):
    """The layer in both libraries, with PyTorch's names and shapes of the state, and the same parameters."""
    torch.manual_seed(0)
    ours, theirs = (eval(expr, {"nn": lib.nn, "F": lib.nn.functional, "t": lib}) for lib in (tw, torch))
    assert repr(ours).replace("tilewright.", "torch.") == repr(theirs)
    if "Lazy" in expr:  # the first call gives them their shapes
        for lib, m in ((tw, ours), (torch, theirs)):
            m(lib.tensor(real(*inputs)))
        assert repr(ours) == repr(theirs)
    with torch.no_grad():  # norms start at ones and zeros, which would hide a swapped weight and bias
        for i, p in enumerate(theirs.parameters()):
            p.copy_(torch.tensor(real(*p.shape, seed=100 + i)) / 2)
    state = theirs.state_dict()
    shapes_of = [[(k, tuple(v.shape)) for k, v in s.items()] for s in (ours.state_dict(), state)]
    assert shapes_of[0] == shapes_of[1]
    ours.load_state_dict({k: tw.tensor(v.numpy()) for k, v in state.items()})
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    return ours, theirs


@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize("row", LAYERS, ids=[f"{row[0]} {i}" for i, row in enumerate(LAYERS)])
def test_layer_as_pytorch(row):
    expr, inputs, call = (*row, "m(*x)")[:3]
    ours, theirs = twins(expr, inputs)
    shapes = [inputs] if isinstance(inputs, tuple) else inputs
    for step in range(3):
        if step == 2:
            ours.eval(), theirs.eval()
        arrays = [s if isinstance(s, np.ndarray) else real(*s, seed=step + 10 * i) for i, s in enumerate(shapes)]
        y, dx, dp = run(tw, expr, ours, arrays, call)
        ty, tdx, tdp = run(torch, expr, theirs, arrays, call)
        assert len(y) == len(ty)
        for i, (a, b) in enumerate(zip(y, ty, strict=True)):
            same(a, b, OUTPUT, f"output {i}")
        for i, (a, b) in enumerate(zip(dx, tdx, strict=True)):
            same(a, b, GRADIENT, f"gradient of input {i}")
        for name, grad in dp.items():
            same(grad, tdp[name], GRADIENT, f"gradient of {name}")
        for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            same(a, b, OUTPUT, name)


# PyTorch's own second derivatives of these are wrong: its weight norm takes the norms as constants (ours agree with the
# formula in plain ops, by its autograd too), its embedding forgets the frequencies.
WRONG_THERE = ("weight_norm(nn.Conv2d(2, 3, 3))", "'bias'", "'weight_hh_l0'", "scale_grad_by_freq")
SECOND = [row for row in LAYERS if not any(words in row[0] for words in WRONG_THERE)]


@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize("row", SECOND, ids=[f"{row[0]} {i}" for i, row in enumerate(SECOND)])
def test_second_order_as_pytorch(row):
    """The gradient of a sum of squares of gradients, in float64."""
    expr, inputs, call = (*row, "m(*x)")[:3]
    ours, theirs = (m.double() for m in twins(expr, inputs))
    for mask in ("subsequent_mask(4", "subsequent_mask(5", "t.zeros(3, 5"):
        call = call.replace(mask, mask + ", dtype=t.float64")
    shapes = [inputs] if isinstance(inputs, tuple) else inputs
    arrays = [s if isinstance(s, np.ndarray) else real(*s, seed=10 * i).astype(np.float64)
              for i, s in enumerate(shapes)]
    results = []
    for lib, m in ((torch, theirs), (tw, ours)):
        x = [lib.tensor(a).requires_grad_(a.dtype == np.float64) for a in arrays]
        given = {"nn": lib.nn, "F": lib.nn.functional, "t": lib, "m": m, "x": x, "tw": tw}
        ys = [y for y in tensors(eval(call, given)) if y.is_floating_point() and y.requires_grad]
        leaves = [v for v in [*x, *m.parameters()] if v.requires_grad]
        if not ys or not leaves:
            pytest.skip("nothing to differentiate")
        grads = lib.autograd.grad([y.square().sum() for y in ys], leaves, create_graph=True, allow_unused=True)
        again = [g.square().sum() for g in grads if g is not None and g.requires_grad]
        try:
            more = lib.autograd.grad(again, leaves, allow_unused=True) if again else []
        except (NotImplementedError, RuntimeError) as error:
            if lib is tw:
                raise
            pytest.skip(f"PyTorch has none: {error}")
        results.append([*grads, *more])
    for want, got in zip(*results, strict=True):
        if want is None or got is None:  # one library's None is the other's zeros
            assert all(g is None or not g.abs().max().item() for g in (want, got))
        else:
            scale = max(1.0, float(want.detach().abs().max())) if want.numel() else 1.0
            np.testing.assert_allclose(to_np(got.detach()), want.detach().numpy(), rtol=0, atol=1e-11 * scale)
