"""The names of tilewright.nn: where scripts import them from, how classes relate, signatures, and how layers start."""

import inspect
import math

import numpy as np
import pytest

import tilewright as tw
from arrays import to_np
from tilewright import nn
from tilewright.nn import functional as F

torch = pytest.importorskip("torch")


def test_paths_of_pytorch():
    from tilewright.nn.modules.batchnorm import _BatchNorm
    from tilewright.nn.modules.instancenorm import _InstanceNorm
    from tilewright.nn.modules.linear import NonDynamicallyQuantizableLinear
    from tilewright.nn.modules.module import Module
    from tilewright.nn.modules.transformer import _get_activation_fn

    from tilewright.nn.attention import SDPBackend, sdpa_kernel
    from tilewright.nn.modules.utils import _pair, _reverse_repeat_tuple, _triple
    from tilewright.nn.parallel import DistributedDataParallel, data_parallel
    from tilewright.nn.parameter import Parameter

    assert issubclass(nn.BatchNorm3d, _BatchNorm) and issubclass(nn.InstanceNorm1d, _InstanceNorm)
    assert issubclass(nn.SyncBatchNorm, _BatchNorm) and Module is nn.Module and Parameter is nn.Parameter
    assert isinstance(nn.MultiheadAttention(4, 2).out_proj, NonDynamicallyQuantizableLinear)
    assert _pair(3) == (3, 3) and _triple([1, 2, 3]) == (1, 2, 3) and _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)
    assert _get_activation_fn("gelu") is F.gelu and nn.modules.conv.Conv2d is nn.modules.Conv2d is nn.Conv2d
    model = DistributedDataParallel(nn.Linear(2, 3), device_ids=[0], find_unused_parameters=True)
    with model.no_sync(), sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]):
        assert list(model.state_dict()) == ["module.weight", "module.bias"]
        assert (model(tw.ones(1, 2)) == data_parallel(model.module, tw.ones(1, 2))).all()
    for call, kind, words in ((lambda: nn.parallel.scatter, NotImplementedError, "one device"),
                              (lambda: nn.FractionalMaxPool2d, NotImplementedError, "use MaxPool2d"),
                              (lambda: DistributedDataParallel(model, bucket=1), TypeError, "bucket"),
                              (lambda: sdpa_kernel([3]).__enter__(), TypeError, "backends must be SDPBackend, got 3"),
                              (lambda: nn.utils.fuse_conv_bn_eval(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), ValueError,
                               "must be in evaluation mode"),
                              (lambda: nn.utils.spectral_norm(nn.ReLU()), ValueError, "ReLU has no parameter 'weight'"),
                              (lambda: nn.SyncBatchNorm(3, process_group=1), NotImplementedError, "one process")):
        with pytest.raises(kind, match=words):
            call()
    assert not hasattr(nn, "quantized")


def layers():
    """The names of the classes that both libraries have."""
    return [n for n in nn.__all__ if isinstance(getattr(nn, n), type) and hasattr(torch.nn, n)]


def test_classes_stand_in_pytorchs_relations():
    for a in layers():
        for b in layers():
            if not a.startswith("Lazy"):  # PyTorch's lazy norms are no BatchNorm1d until they know their size
                ours, theirs = (issubclass(getattr(lib, a), getattr(lib, b)) for lib in (nn, torch.nn))
                assert ours == theirs, (a, b)


def arguments(call):
    try:
        found = inspect.signature(call).parameters.values()
    except ValueError:  # PyTorch's built-in functions say nothing of themselves
        return [("args", None)]
    return [(p.name, getattr(p.default, "__name__", p.default)) for p in found]


def test_signatures_are_pytorchs():
    """Names, order and defaults of the arguments of every layer, function, initializer and method of Module."""
    ours_only = {"multi_head_attention_forward": ["batch_first"], "softmax": ["axis"], "log_softmax": ["axis"],
                 "sigmoid": ["out"], "tanh": ["out"]}  # what other names of the same function take
    apart = {"forward", "UninitializedBuffer", "PackedSequence"}
    count = 0
    for lib, peer in ((nn, torch.nn), (F, torch.nn.functional), (nn.init, torch.nn.init), (nn.utils, torch.nn.utils),
                      (nn.utils.rnn, torch.nn.utils.rnn), (nn.Module, torch.nn.Module),
                      (nn.utils.parametrize, torch.nn.utils.parametrize)):
        for name in [n for n in dir(lib) if not n.startswith("_") and n not in apart and callable(getattr(peer, n, 0))]:
            ours, theirs = arguments(getattr(lib, name)), arguments(getattr(peer, name))
            if not {"args", "kwargs"} & {n for n, _ in theirs}:
                ours = [a for a in ours if a[0] not in ours_only.get(name, ())]
                assert ours == theirs, name
                count += 1
    assert count > 250


STARTS = ["Bilinear(40, 30, 20)", "EmbeddingBag(50, 40, padding_idx=3)", "LSTM(30, 64, proj_size=20)",
          "GRUCell(30, 50)", "MultiheadAttention(64, 4, add_bias_kv=True)",
          "MultiheadAttention(64, 4, kdim=32, vdim=16)",
          "TransformerDecoderLayer(64, 4, 96)", "Transformer(64, 4, 1, 1, 96)", "ConvTranspose1d(32, 48, 5)",
          "AdaptiveLogSoftmaxWithLoss(64, 300, [30, 100])", "LazyLinear(70)", "PReLU(7, 0.3)",
          "utils.weight_norm(nn.Linear(40, 50))"]


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated", "ignore:Lazy modules", "ignore:enable_nested")
@pytest.mark.parametrize("expr", STARTS)
def test_parameters_start_as_pytorchs(expr):
    """Constants the same; random values of the same range and spread."""
    tw.manual_seed(0), torch.manual_seed(0)
    ours, theirs = (eval(f"nn.{expr}", {"nn": lib.nn}) for lib in (tw, torch))
    if "Lazy" in expr:
        ours(tw.zeros(1, 60)), theirs(torch.zeros(1, 60))
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        a, b = to_np(p.detach()).astype(np.float64), q.detach().numpy().astype(np.float64)
        assert a.shape == b.shape
        if np.ptp(b) == 0:
            np.testing.assert_array_equal(a, b, err_msg=name)
            continue
        if b.size < 300:
            continue
        # Of n values the spread is known to about 1 / sqrt(2 n); a uniform range is reached within some parts in n.
        assert abs(a.std() / b.std() - 1) < 8 / math.sqrt(b.size), name
        assert abs(a.mean() - b.mean()) < 8 * b.std() / math.sqrt(b.size), name
        if np.abs(b).max() < 1.75 * b.std():  # uniform
            assert abs(np.abs(a).max() / np.abs(b).max() - 1) < 20 / b.size, name


@pytest.mark.filterwarnings("ignore:.*is now deprecated")
def test_initializers_as_pytorchs():
    kinds = ["linear", "conv1d", "conv3d", "conv_transpose2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
    for kind in kinds:
        assert nn.init.calculate_gain(kind) == torch.nn.init.calculate_gain(kind)
    assert nn.init.calculate_gain("leaky_relu", 0.3) == torch.nn.init.calculate_gain("leaky_relu", 0.3)
    for shape in ((6, 4, 3, 3), (2, 5, 3), (4, 4, 1, 2, 3)):
        ours, theirs = nn.init.dirac_(tw.ones(*shape), 2), torch.nn.init.dirac_(torch.ones(*shape), 2)
        assert ours.tolist() == theirs.tolist()
    tw.manual_seed(3)
    sparse = to_np(nn.init.sparse_(tw.empty(40, 50), 0.33, std=0.5))
    assert ((sparse == 0).sum(0) == 14).all() and abs(sparse[sparse != 0].std() - 0.5) < 0.05
    assert len({tuple(column) for column in (sparse == 0).T}) > 40  # other rows in each column
    for old in ("uniform", "normal", "constant", "xavier_uniform", "xavier_normal", "kaiming_uniform",
                "kaiming_normal", "orthogonal", "eye", "dirac", "sparse"):
        assert getattr(nn.init, old) is getattr(nn.init, old + "_")
