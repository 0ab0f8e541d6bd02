"""tilewright.kernels: every function on NumPy, PyTorch, JAX and our own arrays, bit for bit as the Tensor ops; what is
refused, and how; that no slot of the table is forgotten."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from kernel_cases import CASES, FUNCTIONS, array, empty, numpy_of, signed
from tilewright import kernels

# Slots that are not for users: the machine's own limits.
INTERNAL = {"fma_peak", "stream_read", "stream_copy", "stream_triad"}
# Functions beside the slots' own: another mode of a slot.
BESIDE = {"mean", "log_softmax", "log_softmax_backward", "adamw_step", "rms_norm", "rms_norm_backward", "group_norm",
          "group_norm_backward"}
LIBRARIES = ("numpy", "tilewright", "torch", "jax")


def in_library(a: np.ndarray, library: str, output: bool = False):
    """The same memory as an array of a library; JAX takes float32 inputs (by copy), its outputs are NumPy's."""
    if library == "tilewright":
        return tw.from_numpy(a)
    if library == "torch":
        return pytest.importorskip("torch").from_numpy(a)
    if library == "jax":
        jnp = pytest.importorskip("jax.numpy")
        return a if output or a.dtype != np.float32 else jnp.asarray(a)
    return a


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_as_the_op(case, library):
    outs = [a.copy() for a in case.outs]
    case.call(*[in_library(a, library) for a in case.ins], *[in_library(a, library, output=True) for a in outs])
    expected = case.expect(*map(array, case.ins))
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(expected) == len(outs)
    for number, (got, want) in enumerate(zip(outs, expected, strict=True)):
        want = numpy_of(want).reshape(got.shape) if want is not None else got
        assert got.dtype == want.dtype and got.tobytes() == want.tobytes(), f"output {number} of {case}"


def test_every_function_has_a_case():
    covered = {case.name.partition("-")[0] for case in CASES}
    assert set(FUNCTIONS) - covered == set()


def test_every_slot_has_a_function():
    assert set(kernels.names()) - INTERNAL - set(FUNCTIONS) == set(), "a slot without a function in tilewright.kernels"
    assert set(FUNCTIONS) - set(kernels.names()) == BESIDE


def test_the_stub_names_every_function():
    tree = ast.parse((Path(tw.__file__).parent / "_kernels.pyi").read_text())
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert named == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples(name):
    doc = getattr(kernels, name).__doc__
    assert "Raises:" in doc and ">>>" in doc
    scope = {"np": np, "kernels": kernels}
    test = doctest.DocTestParser().get_doctest(doc, scope, name, None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


# Layouts and dtypes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_dtypes_of_torch(dtype):
    torch = pytest.importorskip("torch")
    x = torch.randn(5, 9).to(getattr(torch, dtype))
    y = torch.empty_like(x)
    kernels.softmax(x, out=y)
    ours = tw.softmax(tw.from_dlpack(x), 1)
    assert torch.equal(y, torch.from_dlpack(ours))
    kernels.gemm(x, x.T, out=(c := torch.empty(5, 5, dtype=x.dtype)))
    assert torch.equal(c, torch.from_dlpack(tw.from_dlpack(x) @ tw.from_dlpack(x).T))


def test_halves_may_give_float32():
    a = signed(4, 8).astype(np.float16)
    c = kernels.gemm(a, a.T, out=np.empty((4, 4), np.float32))
    np.testing.assert_allclose(c, a.astype(np.float64) @ a.T.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_strides_are_taken_as_they_are():
    x, y = signed(6, 8), empty(4, 12)
    kernels.exp(x[::2, 1:5].T, out=y[:, ::4])
    np.testing.assert_array_equal(y[:, ::4], np.array(tw.exp(tw.from_numpy(np.ascontiguousarray(x[::2, 1:5].T)))))
    assert (y[:, 1:4] == 77).all()


def test_numbers_and_mixed_dtypes():
    x = np.arange(4, dtype=np.int32)
    assert kernels.add(x, 2, out=np.empty(4, np.int32)).tolist() == [2, 3, 4, 5]
    assert kernels.mul(0.5, x, out=np.empty(4, np.float64)).tolist() == [0, 0.5, 1, 1.5]
    assert kernels.add(x, signed(4).astype(np.float16), out=np.empty(4, np.float32)).shape == (4,)
    assert kernels.bitwise_not(x > 1, out=np.empty(4, bool)).tolist() == [True, True, False, False]
    assert kernels.copy(3.5, out=empty(2)).tolist() == [3.5, 3.5]


def test_in_place_where_it_is_safe():
    for shape in ((3, 5), (2, 700), (40, 64), (3, 5, 9)):
        for dim in range(len(shape)):
            x = signed(*shape)
            for f in (kernels.softmax, kernels.log_softmax):
                want = f(x, out=np.empty_like(x), dim=dim)
                np.testing.assert_array_equal(f(x.copy(), out=(y := x.copy()), dim=dim), want)
                np.testing.assert_array_equal(f(y := x.copy(), out=y, dim=dim), want)
    x = signed(5)
    np.testing.assert_array_equal(kernels.add(y := x.copy(), 1, out=y), kernels.add(x, 1, out=empty(5)))


def test_empty_arrays():
    y = empty(0, 3)
    assert kernels.softmax(empty(0, 3), out=y) is y and kernels.exp(y, out=y) is y
    assert kernels.topk(empty(3, 2), out=empty(3, 0)).shape == (3, 0)
    assert kernels.avg_pool_backward(empty(1, 2, 0), empty(1, 2, 3), None).tolist() == [[[0] * 3] * 2]


def test_the_result_is_the_output_itself():
    x, y = signed(3), empty(3)
    assert kernels.exp(x, out=y) is y and kernels.softmax(x, y) is y
    t = tw.zeros(3)
    assert kernels.exp(tw.ones(3), out=t) is t


def test_the_next_draw_begins_where_this_one_ends():
    whole, parts = empty(24), empty(24)
    kernels.uniform(whole, seed=5)
    at = 0
    for i in range(0, 24, 8):
        at = kernels.uniform(parts[i:i + 8], seed=5, offset=at)
    np.testing.assert_array_equal(whole, parts)


def test_threads_may_call_at_once():
    x = signed(64, 4096)
    want = kernels.softmax(x, out=np.empty_like(x))
    outs = [np.empty_like(x) for _ in range(4)]
    threads = [threading.Thread(target=kernels.softmax, args=(x, y)) for y in outs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((y == want).all() for y in outs)


# With the rest of tilewright ------------------------------------------------------------------------------------------


def test_a_write_raises_the_version():
    x = tw.ones(3).requires_grad_()
    y = tw.exp(x)
    kernels.exp(tw.ones(3), out=y.detach())
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_plans_record_and_keep_the_arrays():
    x, y = signed(4), empty(4)
    with kernels.Plan() as plan:
        kernels.exp(x, out=y)
        kernels.take(np.ones((3, 2), np.float32), np.array([2, 0]), out=np.empty((2, 2), np.float32))
        kernels.sgd_step([y], [np.ones(4, np.float32)], lr=0.5)
    assert plan.names() == ["exp", "take", "sgd_step"]
    first = y.copy()
    x[:] = 0
    plan.replay(2)
    np.testing.assert_array_equal(y, np.full(4, 0.5, np.float32))
    assert (first != y).any()


def test_import_does_not_load_the_module():
    code = ("import sys, tilewright as tw\nassert 'tilewright._kernels' not in sys.modules\n"
            "tw.kernels.names(), tw.kernels.which('exp')\nassert 'tilewright._kernels' not in sys.modules\n"
            "tw.kernels.softmax\nassert 'tilewright._kernels' in sys.modules\n"
            "try: tw.kernels.no_such\nexcept AttributeError as e: print(e)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "module 'tilewright.kernels' has no attribute 'no_such'", done.stderr


# Refusals -------------------------------------------------------------------------------------------------------------

X, Y = signed(3, 4), empty(3, 4)


def readonly(*shape: int) -> np.ndarray:
    a = empty(*shape)
    a.flags.writeable = False
    return a


REFUSALS = {
    "shape": (lambda: kernels.softmax(X, out=empty(3, 5)), ValueError,
              "softmax: out must have shape (3, 4), got (3, 5)"),
    "dtype": (lambda: kernels.softmax(X, out=empty(3, 4, dtype=np.float64)), TypeError,
              "softmax: out must be float32, got float64"),
    "integers": (lambda: kernels.softmax(X.astype(int), out=Y), TypeError,
                 "softmax: must have a floating-point dtype, got int64 (3, 4)"),
    "complex": (lambda: kernels.softmax(X.astype(complex), out=Y), TypeError, "softmax: x has a dtype that no kernel"),
    "layout": (lambda: kernels.softmax(X.T, out=empty(4, 3)), ValueError,
               "softmax: x must be contiguous (row-major), got shape (4, 3) with strides (1, 4)"),
    "list": (lambda: kernels.softmax([1.0], out=Y), TypeError, "softmax: x must be an array, got list"),
    "text": (lambda: kernels.softmax(np.array(["a"]), out=Y), TypeError, "softmax: x must be an array that DLPack can"),
    "read-only": (lambda: kernels.softmax(X, out=readonly(3, 4)), ValueError,
                  "softmax: out's memory is read-only, so it cannot be an output"),
    "expanded": (lambda: kernels.exp(X, out=np.lib.stride_tricks.as_strided(Y, (3, 4), (0, 4))), ValueError,
                 "exp: out's elements share memory, got shape (3, 4) with strides (0, 1)"),
    "overlap": (lambda: kernels.softmax(Y[:2], out=Y[1:]), ValueError,
                "softmax: out's memory must not overlap x's, unless both are the same view"),
    "overlap-elementwise": (lambda: kernels.add(Y[:, 1:], 1, out=Y[:, :3]), ValueError,
                            "add: out's memory must not overlap a's, unless both are the same view"),
    "overlap-gemm": (lambda: kernels.gemm(Y[:, :3], Y[:, :3], out=Y[:, :3]), ValueError,
                     "gemm: out's memory must not overlap a's"),
    "overlap-list": (lambda: kernels.sgd_step([np.zeros(4)[i:i + 2] for i in (0, 2)] + [p := np.zeros(9)] +
                                              [np.zeros(2) for _ in range(9)] + [p[3:5]],
                                              [np.ones(n) for n in (2, 2, 9, *[2] * 10)]), ValueError,
                     "sgd_step: params's memory must not overlap params's"),
    "overlap-outputs": (lambda: kernels.dropout(X, out=Y, mask=Y.view(np.uint8)[:, :4]), ValueError,
                        "dropout: mask must be contiguous"),
    "negative": (lambda: kernels.exp(X[::-1], out=Y), ValueError, "exp: x's strides must not be negative"),
    "unaligned": (lambda: kernels.exp(np.zeros(17, np.uint8)[1:].view(np.float32), out=empty(4)), ValueError,
                  "exp: x's memory must be aligned to its item size; copy the array first"),
    "tracked": (lambda: kernels.exp(tw.ones(3).requires_grad_(), out=empty(3)), RuntimeError,
                "exp: x requires grad, and kernels record nothing; pass .detach()"),
    "dim": (lambda: kernels.softmax(X, out=Y, dim=2), IndexError,
            "softmax: dim must be in [-2, 1] for 2 dimensions, got 2"),
    "ranks": (lambda: kernels.exp(np.zeros((1,) * 9, np.float32), out=Y), ValueError,
              "exp: x must have at most 8 dimensions, got 9"),
    "broadcast": (lambda: kernels.add(X, empty(3), out=Y), ValueError, "add: "),
    "elementwise-shape": (lambda: kernels.add(X, X, out=empty(4)), ValueError,
                          "add: the output's shape must be the result's, got (4,) for (3, 4)"),
    "category": (lambda: kernels.add(X, 1, out=empty(3, 4, dtype=np.int32)), TypeError,
                 "add: a result of dtype float32 cannot be stored in an output of dtype int32"),
    "numbers": (lambda: kernels.add(1, 2, out=Y), TypeError, "add: at most one operand may be a number"),
    "fits": (lambda: kernels.add(X.astype(np.int32), 1 << 40, out=empty(3, 4, dtype=np.int32)), OverflowError,
             "add: the number must fit int32"),
    "bits": (lambda: kernels.bitwise_and(X, X, out=Y), TypeError,
             "bitwise_and: dtype must be an integer or bool, got float32"),
    "condition": (lambda: kernels.where(X, X, X, out=Y), TypeError,
                  "where: the condition must be bool, got float32 (3, 4)"),
    "reduce-shape": (lambda: kernels.sum(X, out=empty(3), dim=0), ValueError,
                     "sum: out must have shape (4,), got (3,)"),
    "reduce-dims": (lambda: kernels.argmax(empty(2, 3, 4), out=empty(4), dim=(0, 1)), ValueError,
                    "argmax: dim must be one dimension or None, got (0, 1)"),
    "reduce-twice": (lambda: kernels.sum(X, out=empty(), dim=(0, 0)), ValueError,
                     "sum: dims must name each dimension once, got (0, 0)"),
    "reduce-empty": (lambda: kernels.amax(empty(3, 0), out=empty(3), dim=1), ValueError,
                     "amax: cannot reduce a dimension of size 0, got shape (3, 0)"),
    "reduce-dtype": (lambda: kernels.argmax(X, out=empty(3), dim=1), TypeError,
                     "argmax: out must be int64, got float32"),
    "inner": (lambda: kernels.gemm(X, X, out=empty(3, 4)), ValueError,
              "gemm: inner sizes must match, got (3, 4) @ (3, 4)"),
    "gemm-dtype": (lambda: kernels.gemm(X, X.T.astype(np.float64), out=empty(3, 3)), TypeError,
                   "gemm: dtypes must match, got float32 and float64"),
    "gemm-columns": (lambda: kernels.gemm(X, X.T, out=empty(3, 3).T), ValueError,
                     "gemm: the output's columns must be contiguous, got strides (1, 3)"),
    "activation": (lambda: kernels.gemm(X, X.T, out=empty(3, 3), activation="swish"), ValueError,
                   "gemm: activation must be none, relu, gelu"),
    "labels": (lambda: kernels.cross_entropy(X, np.array([0, 4, 1]), out=empty()), IndexError,
               "cross_entropy: labels must be in [0, 4) or ignore_index -100, got 4 at 1"),
    "labels-backward": (lambda: kernels.cross_entropy_backward(empty(), X, np.array([0, 4, 1]), empty(7), out=Y),
                        IndexError, "cross_entropy_backward: labels must be in [0, 4) or ignore_index -100, got 4"),
    "reduction": (lambda: kernels.cross_entropy(X, np.zeros(3, int), out=empty(), reduction="max"), ValueError,
                  "cross_entropy: reduction must be 'none', 'mean' or 'sum', got 'max'"),
    "statistics": (lambda: kernels.batch_norm(X, out=Y), ValueError,
                   "batch_norm: running_mean and running_var must be given in evaluation, got None"),
    "parameter": (lambda: kernels.layer_norm(X, out=Y, weight=empty(3)), ValueError,
                  "layer_norm: weight must have shape (4,), got (3,)"),
    "conv-out": (lambda: kernels.conv(empty(1, 2, 5, 5), empty(3, 2, 3, 3), out=empty(1, 3, 4, 4)), ValueError,
                 "conv: out must have shape (1, 3, 3, 3), got (1, 3, 4, 4)"),
    "conv-channels": (lambda: kernels.conv(empty(1, 2, 5, 5), empty(3, 1, 3, 3), out=empty(1, 3, 3, 3)), ValueError,
                      "conv: weight (3, 1, 3, 3) with 1 groups must take input of 1 channels, got 2"),
    "pool-indices": (lambda: kernels.max_pool_backward(empty(1, 1, 1, 1), np.full((1, 1, 1, 1), 4),
                                                       empty(1, 1, 2, 2), 2), IndexError,
                     "max_pool_backward: indices must be in [0, 4), got 4"),
    "pool-negative": (lambda: kernels.max_pool_backward(empty(1, 1, 1), np.full((1, 1, 1), -1, np.int32),
                                                        empty(1, 1, 2), None), IndexError,
                      "max_pool_backward: indices must be in [0, 2), got -1"),
    "pool-index-dtype": (lambda: kernels.max_pool(X[None], empty(1, 3, 2), 2, indices=empty(1, 3, 2)), TypeError,
                         "max_pool: indices must be int32 or int64, got float32"),
    "pool-adaptive": (lambda: kernels.avg_pool(X[None], empty(1, 3, 2), None, stride=2), ValueError,
                      "avg_pool: without a kernel_size (adaptive) there is no stride, padding or dilation, got (2,)"),
    "pool-out": (lambda: kernels.avg_pool(empty(1, 2, 6), empty(1, 2, 4), 2), ValueError,
                 "avg_pool: out must have shape (1, 2, 3), got (1, 2, 4)"),
    "pool-channels": (lambda: kernels.avg_pool(empty(1, 2, 6), empty(1, 3, 3), 2), ValueError,
                      "avg_pool: out must have shape (1, 2, 3), got (1, 3, 3)"),
    "interpolate-index": (lambda: kernels.interpolate(X[None], empty(1, 3, 2), [np.array([[0, 4]], np.int32)],
                                                      [np.ones((1, 2), np.float32)]), IndexError,
                          "interpolate: indices must be in [0, 4), got 4"),
    "interpolate-table": (lambda: kernels.interpolate(X[None], empty(1, 3, 2), [np.array([[0, 4, 1]], np.int32)],
                                                      [np.ones((1, 3), np.float32)]), ValueError,
                          "interpolate: indices must be (taps, out's size), got (1, 3) for out (1, 3, 2)"),
    "interpolate-tables": (lambda: kernels.interpolate(X[None], empty(1, 3, 2), [], []), ValueError,
                           "interpolate: indices and weights must hold 1 arrays each"),
    "groups": (lambda: kernels.group_norm(X, Y, 3), ValueError,
               "group_norm: the channels must be a multiple of num_groups, got 4 and 3"),
    "no-groups": (lambda: kernels.group_norm(X, Y, 0), ValueError,
                  "group_norm: the channels must be a multiple of num_groups, got 4 and 0"),
    "scan-op": (lambda: kernels.scan(X, Y, op="mean"), ValueError,
                "scan: op must be sum, prod, max, min or logsumexp, got 'mean'"),
    "scan-reverse": (lambda: kernels.scan(X, Y, op="max", reverse=True), ValueError,
                     "scan: only a sum goes in reverse, got op 'max'"),
    "scan-dtype": (lambda: kernels.scan(X.astype(np.int32), empty(3, 4, dtype=np.int32)), TypeError,
                   "scan: out must be int64, got int32"),
    "sort-indices": (lambda: kernels.sort(X, Y, empty(3, dtype=np.int64)), ValueError,
                     "sort: indices must have shape (3, 4), got (3,)"),
    "topk": (lambda: kernels.topk(X, empty(3, 5)), ValueError,
             "topk: k must be in [0, 4], the size of the dimension, got 5"),
    "kth": (lambda: kernels.kth(X, empty(3), 5), ValueError, "kth: k must be in [1, 4], got 5"),
    "kth-empty": (lambda: kernels.kth(empty(3, 0), empty(3)), ValueError,
                  "kth: cannot reduce a dimension of size 0, got shape (3, 0)"),
    "take": (lambda: kernels.take(X, np.array([0, 3]), out=empty(2, 4)), IndexError,
             "take: index 3 is out of range for 3 rows, at position 1"),
    "take-int32": (lambda: kernels.take(X, np.array([0], np.int32), out=empty(1, 4)), TypeError,
                   "take: index must be int64, got int32"),
    "gather": (lambda: kernels.gather(X, np.array([[-1, 0, 0, 0]]), out=empty(1, 4), dim=0), IndexError,
               "gather: index -1 is out of range for dimension 0 of size 3, at position 0"),
    "index": (lambda: kernels.index(X, [np.array([3])], out=empty(1, 4)), IndexError,
              "index: index 3 is out of range for dimension 0 of size 3, at position 0"),
    "add-bool": (lambda: kernels.scatter(np.ones(1, bool), np.zeros(1, int), out=np.ones(1, bool), dim=0, add=True),
                 TypeError, "scatter: sums need a number dtype, got bool"),
    "bounds": (lambda: kernels.uniform(Y, 2.0, 1.0), ValueError,
               "uniform: bounds must be finite and in order, got 2 and 1"),
    "probability": (lambda: kernels.bernoulli(Y, 1.5), ValueError, "bernoulli: p must be in [0, 1], got 1.5"),
    "step": (lambda: kernels.adam_step([Y], [X], [X.copy()], [X.copy()], step=0), ValueError,
             "adam_step: step must be >= 1, got 0"),
    "lengths": (lambda: kernels.sgd_step([Y], []), ValueError,
                "sgd_step: there must be one of grads a parameter, got 0 for 1"),
    "buffers": (lambda: kernels.sgd_step([Y], [X], momentum=0.9), ValueError,
                "sgd_step: momentum needs momentum_buffers"),
    "keys": (lambda: kernels.attention(X, empty(3, 8)[:, ::2], X, out=Y), ValueError,
             "attention: k must be contiguous (row-major), got shape (3, 4) with strides (8, 2)"),
    "heads": (lambda: kernels.attention(X, empty(3, 5), X, out=Y), ValueError,
              "attention: query and key must have the same last size, got (3, 4), (3, 5), (3, 4)"),
    "cell": (lambda: kernels.rnn("tree", empty(1, 1, 1), [X] * 4, out=Y), ValueError,
             "rnn: cell must be rnn_tanh, rnn_relu, lstm or gru, got 'tree'"),
    "rnn-result": (lambda: kernels.rnn("gru", empty(1, 1, 1), [empty(3, 1)] * 2 + [None] * 2, out=empty(1, 1, 1),
                                       cn=empty(1, 1, 1)), ValueError,
                   "rnn: cn and cells are an LSTM's, gates also a GRU's, got cell 'gru'"),
    "pad-crop": (lambda: kernels.pad(X, out=Y, pad=(-3, -3)), ValueError,
                 "pad: a crop must not take more than there is, got -3 and -3 for dimension 1 of size 4"),
    "pad-mode": (lambda: kernels.pad(X, X.copy(), (0, 0), "mirror"), ValueError,
                 "pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got 'mirror'"),
    "scan-indices": (lambda: kernels.scan(X, Y, indices=empty(3, 4, dtype=np.int64)), ValueError,
                  "scan: only max and min have indices, got op 'sum'"),
    "copied": (lambda: kernels.index_put(X[:2].astype(np.float64), [np.array([0, 1])], Y), TypeError,
               "index_put: values must be float32, got float64"),
    "pad-shape": (lambda: kernels.pad(X, out=Y, pad=(1, 0)), ValueError, "pad: out must have shape (3, 5), got (3, 4)"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name):
    call, error, words = REFUSALS[name]
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(words)


def test_bad_indices_write_nothing():
    y = empty(2, 4)
    with pytest.raises(IndexError):
        kernels.take(X, np.array([0, 3]), out=y)
    assert (y == 77).all()


def test_jax_arrays_are_inputs_only():
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(ValueError, match="softmax: out must be writable, got a JAX array, which is immutable"):
        kernels.softmax(X, out=jnp.ones((3, 4)))


def test_torch_tensors_that_require_grad_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=r"softmax: x requires grad, and kernels record nothing; pass \.detach\(\)"):
        kernels.softmax(torch.ones(3, 4, requires_grad=True), out=Y)
