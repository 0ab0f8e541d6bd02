"""The row of the op table: one op, its reference, its samples, its refusals; everything else is derived from it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import tilewright as tw
from arrays import FLOATS, NUMPY_DTYPE, dtype_of, name_of, quantize, spacing, to_np, to_tw

SIZES = (0, 1, 3, 127, 128, 129)
SHAPES = ((), *((n,) for n in SIZES), (3, 5), (2, 0, 3), (2, 3, 33))


class Sample:
    """Positional and keyword arguments of one call. NumPy arrays become tensors, the rest is passed as it is."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        self.spots = [(i, a) for i, a in enumerate(args) if isinstance(a, np.ndarray)]
        self.spots += [(k, a) for k, a in kwargs.items() if isinstance(a, np.ndarray)]

    def with_arrays(self, make: Callable[[int | str, np.ndarray], object]) -> tuple[tuple, dict]:
        new = {spot: make(spot, a) for spot, a in self.spots}
        args = tuple(new.get(i, a) for i, a in enumerate(self.args))
        return args, {k: new.get(k, v) for k, v in self.kwargs.items()}

    def __repr__(self) -> str:
        def show(v):
            return f"{v.dtype}{v.shape}" if isinstance(v, np.ndarray) else repr(v)

        return ", ".join([show(a) for a in self.args] + [f"{k}={show(v)}" for k, v in self.kwargs.items()])


class Generator:
    """Random arguments for one row and one dtype, the same in every run."""

    def __init__(self, name: str, dtype: str):
        self.dtype = dtype
        self.kind = "f" if dtype in FLOATS else NUMPY_DTYPE[dtype].kind
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def array(self, *shape: int, low: float = -3.0, high: float = 3.0, dtype: str | None = None) -> np.ndarray:
        """Uniform in [low, high) for floats; integers of that range (at least 0 for unsigned); any bool."""
        dtype = dtype or self.dtype
        if dtype == "bool":
            return self.mask(*shape)
        if dtype in FLOATS:
            return quantize(self.rng.uniform(low, high, shape), dtype)
        low = max(low, 0) if dtype == "uint8" else low
        return np.asarray(self.rng.integers(int(low), int(high) + 1, shape)).astype(dtype)

    def distinct(self, *shape: int) -> np.ndarray:
        """Values that differ from one another in every dtype as long as the dtype has so many, in random order."""
        n = int(np.prod(shape))
        if self.dtype == "bool":
            return self.array(*shape)
        values = self.rng.permutation(n) - (0 if self.dtype == "uint8" else n // 2)
        return quantize(values.reshape(shape) / (8.0 if self.kind == "f" else 1), self.dtype)

    def indices(self, *shape: int, n: int, low: int = 0) -> np.ndarray:
        return np.asarray(self.rng.integers(low, n, shape))

    def mask(self, *shape: int) -> np.ndarray:
        return np.asarray(self.rng.random(shape) < 0.5)


@dataclass(frozen=True)
class Tolerance:
    """The error allowed against the exact result: `ulps` plus twice the error of the reference in the op's own dtype.

    `scale="element"`: both parts are taken element by element (elementwise ops, whose results stand alone).
    `scale="array"`: both are taken at the largest term of the array (sums, whose error comes from their terms).
    Halves get half an ulp of their own on top, because they are rounded once from a float32 result.
    """

    ulps: float
    scale: str = "element"
    reason: str = ""
    grad_ulps: float = 32.0
    half_ulps: float = 0.5  # of the largest term, where an op is composed of others that each round to the half


EXACT = Tolerance(0.0, reason="moves or selects values, or IEEE rounds it correctly")
ROUNDED = Tolerance(1.0, reason="a few correctly rounded operations")
ELEMENTARY = Tolerance(4.0, reason="a polynomial of at most 4 ulp, measured by test_ulp.py")
SUMS = Tolerance(2.0, "array", "a sum whose order differs from NumPy's; its error scales with its terms")


@dataclass(frozen=True)
class Bad:
    """A call that must be refused: `call(g)` with the generator, the exception's class, words of its message."""

    name: str
    call: Callable[..., object]
    error: type[Exception]
    words: str


@dataclass
class Row:
    name: str
    fn: str | Callable  # "exp" is tw.exp, "F.relu" is tw.nn.functional.relu, "Tensor.add_" a method
    ref: Callable  # works in the dtype of its arguments, so that it also gives the plain float32 evaluation
    samples: Callable[[Generator], Iterator[Sample]]
    dtypes: tuple[str, ...] = FLOATS
    tol: Tolerance = ROUNDED
    grad: bool = True  # checked along random directions against central differences of `ref`
    grad_samples: Callable[[Generator], Iterator[Sample]] | None = None  # where the samples touch kinks
    no_grad: tuple = ()  # arguments, by position or name, that have no gradient
    slots: tuple[str, ...] = ()  # kernel slots that this row exercises
    ops: tuple[str, ...] = ()  # public names in tilewright.ops that this row covers, beside its own
    bad: tuple[Bad, ...] = ()
    properties: tuple[Callable, ...] = ()  # functions without arguments that assert
    large: Callable[[Generator], Sample] | None = None  # big enough to be cut into pieces for several threads
    magnitude: Callable | None = None  # size of the terms that make a result, where it may be larger than the result
    out_dtype: str | None = None  # of float results; default: the op's dtype, float32 for integers
    layouts: bool = True
    flops: Callable[[Sample], int] | None = None  # operations, for benchmarks; default: one per output element

    def resolve(self) -> Callable:
        if callable(self.fn):
            return self.fn
        target = tw
        for part in self.fn.split("."):
            target = tw.nn.functional if part == "F" else getattr(target, part)
        return target

    def generator(self, dtype: str) -> Generator:
        return Generator(self.name, dtype)

    def is_differentiable(self, spot, a: np.ndarray) -> bool:
        return a.dtype.kind == "f" and spot not in self.no_grad

    def tensors(self, sample: Sample, dtype: str, grad: bool = False, make: Callable = to_tw) -> tuple[tuple, dict]:
        """The sample's arguments as tensors; its float arrays in `dtype`, its other arrays in their own."""

        def convert(spot, a):
            t = make(a, dtype if a.dtype.kind == "f" and dtype in FLOATS else None)
            return t.detach().requires_grad_() if grad and self.is_differentiable(spot, a) else t

        return sample.with_arrays(convert)

    def reference(self, sample: Sample, work, ref: Callable | None = None) -> list[np.ndarray]:
        """The reference's results with float arguments cast to the NumPy dtype `work`."""
        args, kwargs = sample.with_arrays(lambda _, a: a.astype(work) if a.dtype.kind == "f" else a)
        with np.errstate(all="ignore"):
            return listed((ref or self.ref)(*args, **kwargs))

    def bytes_moved(self, sample: Sample, dtype: str) -> int:
        """Bytes a kernel must at least read and write."""
        args, kwargs = self.tensors(sample, dtype)
        inputs = [t for t in (*args, *kwargs.values()) if isinstance(t, tw.Tensor)]
        outputs = [t for t in listed(self.resolve()(*args, **kwargs)) if isinstance(t, tw.Tensor)]
        return sum(t.numel() * t.element_size() for t in inputs + outputs)

    def operations(self, sample: Sample) -> int:
        return self.flops(sample) if self.flops else sum(a.size for a in self.reference(sample, np.float64))


def listed(result) -> list:
    return list(result) if isinstance(result, (tuple, list)) else [result]


# The dtype that a result is compared in, and the one its exact value is computed in.
PLAIN = {"float32": np.float32, "float16": np.float32, "bfloat16": np.float32, "float64": np.float64}
EXACTLY = {"float32": np.float64, "float16": np.float64, "bfloat16": np.float64, "float64": np.longdouble}


def check_close(got: np.ndarray, exact: np.ndarray, plain: np.ndarray, dtype: str, tol: Tolerance, terms=None) -> None:
    """Assert the accuracy rule (see Tolerance) for a float result of a dtype, inf and nan included."""
    assert got.shape == exact.shape, f"shape {got.shape}, expected {exact.shape}"
    if got.size == 0:
        return
    compute = "float64" if dtype == "float64" else "float32"
    with np.errstate(all="ignore"):
        rounded = quantize(exact, dtype)
        unit = spacing(exact, compute).astype(np.longdouble)
        slip = np.abs(plain.astype(np.longdouble) - exact)
        slip = np.where(np.isfinite(slip), slip, 0)
        if terms is not None:
            terms = np.abs(np.asarray(terms, np.float64))
            terms = np.where(np.isfinite(terms), terms, 0)
        if tol.scale == "array":
            terms = np.max(terms if terms is not None else np.where(np.isfinite(exact), np.abs(exact), 0), initial=0)
            slip = slip.max()
        if terms is not None:
            unit = np.maximum(unit, spacing(terms, compute))
        bound = tol.ulps * unit + 2 * slip
        if dtype in ("float16", "bfloat16"):
            size = exact if tol.half_ulps <= 0.5 else np.maximum(np.abs(exact), 0 if terms is None else terms)
            bound = bound + tol.half_ulps * spacing(size, dtype)
        wide = got.astype(np.longdouble)
        good = (got == rounded) | (np.isnan(got) & np.isnan(exact)) | (np.abs(wide - exact) <= bound)
    if good.all():
        return
    at = tuple(int(i) for i in np.argwhere(~good)[0])
    raise AssertionError(
        f"{(~good).sum()} of {got.size} elements off; first at {at}: got {got[at]!r}, exact {exact[at]!r}, "
        f"allowed error {np.broadcast_to(bound, got.shape)[at]:.3g}, plain evaluation {plain[at]!r}"
    )


def check_forward(row: Row, sample: Sample, dtype: str) -> None:
    """The op's results against the float64 reference (values, dtype, shape); its inputs keep their bits."""
    args, kwargs = row.tensors(sample, dtype)
    results = listed(row.resolve()(*args, **kwargs))
    for spot, a in sample.spots:
        after = to_np(args[spot] if isinstance(spot, int) else kwargs[spot])
        assert np.array_equal(after, a, equal_nan=a.dtype.kind == "f"), f"input {spot} was changed"
    is_float = dtype in FLOATS
    exact = row.reference(sample, EXACTLY.get(dtype, np.float64))
    plain = row.reference(sample, PLAIN.get(dtype, np.float64))
    assert len(results) == len(exact), f"{len(results)} results, expected {len(exact)}"
    terms = row.reference(sample, np.float64, row.magnitude)[0] if row.magnitude and is_float else None
    for got, want, by_hand in zip(results, exact, plain, strict=True):
        want, by_hand, values = np.asarray(want), np.asarray(by_hand), to_np(got)
        if want.dtype.kind == "f":
            out, expected = name_of(got.dtype), row.out_dtype or (dtype if is_float else "float32")
            assert out == expected, f"result dtype {out}, expected {expected}"
            check_close(values, want, by_hand, out, row.tol, terms)
        else:
            assert values.dtype == want.dtype, f"result dtype {values.dtype}, expected {want.dtype}"
            assert values.shape == want.shape, f"shape {values.shape}, expected {want.shape}"
            wrong = np.argwhere(values != want)
            first = tuple(wrong[0]) if len(wrong) else None
            assert first is None, f"{len(wrong)} elements wrong; at {first}: {values[first]}, expected {want[first]}"


def run_backward(row: Row, sample: Sample, dtype: str, make: Callable = to_tw, dy_make: Callable | None = None):
    """Forward and backward with random incoming gradients. Returns {spot: gradient}, the gradients dy, the results."""
    args, kwargs = row.tensors(sample, dtype, grad=True, make=make)
    results = [r for r in listed(row.resolve()(*args, **kwargs)) if isinstance(r, tw.Tensor)]
    outputs = [r for r in results if name_is_float(r) and r.requires_grad]
    rng = np.random.default_rng(11)
    dys = [quantize(rng.uniform(-1, 1, tuple(r.shape)), dtype) for r in outputs]
    leaves = {
        spot: args[spot] if isinstance(spot, int) else kwargs[spot]
        for spot, a in sample.spots
        if row.is_differentiable(spot, a)
    }
    seeds = [(dy_make or to_tw)(dy, dtype) for dy in dys]
    grads = tw.autograd.grad(outputs, list(leaves.values()), seeds)
    return dict(zip(leaves, grads, strict=True)), dys, results


def name_is_float(t) -> bool:
    return t.dtype in {dtype_of(name) for name in FLOATS}


def check_gradient(row: Row, sample: Sample) -> None:
    """Float64 gradients against central differences of the reference, each input along a random direction.

    The reference runs in long double with step 1e-5, so the difference is good to about 1e-10 of the terms' size.
    """
    grads, dys, _ = run_backward(row, sample, "float64")
    args, kwargs = sample.with_arrays(lambda _, a: a.astype(np.longdouble) if a.dtype.kind == "f" else a)

    def total(spot, moved) -> np.longdouble:
        new_args = tuple(moved if i == spot else a for i, a in enumerate(args))
        new_kwargs = {k: moved if k == spot else v for k, v in kwargs.items()}
        with np.errstate(all="ignore"):
            out = [r for r in listed(row.ref(*new_args, **new_kwargs)) if np.asarray(r).dtype.kind == "f"]
        return sum((np.sum(r * dy) for r, dy in zip(out, dys, strict=True)), np.longdouble(0))

    rng, h = np.random.default_rng(5), np.longdouble(1e-5)
    for spot, grad in grads.items():
        x = args[spot] if isinstance(spot, int) else kwargs[spot]
        got = to_np(grad)
        assert got.shape == x.shape, f"gradient of {spot} has shape {got.shape}, expected {x.shape}"
        for _ in range(2):
            v = np.asarray(rng.uniform(-1, 1, x.shape))
            want = (total(spot, x + h * v) - total(spot, x - h * v)) / (2 * h)
            along = np.sum(got * v)
            size = np.sum(np.abs(got * v)) + abs(want)
            assert abs(along - want) <= 1e-6 * size + 1e-9, (
                f"gradient of argument {spot}: {along} along the direction, central difference {want}"
            )


def check_second_gradient(row: Row, sample: Sample) -> None:
    """The gradient of the gradient along a direction, against central differences of the first gradients. An op whose
    rule cannot be differentiated again must say so by name."""
    args, kwargs = row.tensors(sample, "float64", grad=True)
    outputs = [r for r in listed(row.resolve()(*args, **kwargs)) if isinstance(r, tw.Tensor) and name_is_float(r)]
    spots = [spot for spot, a in sample.spots if row.is_differentiable(spot, a)]
    leaves = [args[s] if isinstance(s, int) else kwargs[s] for s in spots]
    rng = np.random.default_rng(23)
    dys = [to_tw(rng.uniform(-1, 1, tuple(r.shape))) for r in outputs]
    directions = [rng.uniform(-1, 1, tuple(x.shape)) for x in leaves]
    try:
        first = tw.autograd.grad(outputs, leaves, dys, create_graph=True)
        total = sum((g * to_tw(v)).sum() for g, v in zip(first, directions, strict=True))
        second = tw.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
    except NotImplementedError as refusal:
        assert "second derivative" in str(refusal), str(refusal)
        return

    def slope(step: float) -> list[np.ndarray]:
        moves = dict(zip(spots, directions, strict=True))
        shifted = sample.with_arrays(lambda s, a: np.asarray(a + step * moves[s]) if s in moves else a)
        args, kwargs = row.tensors(Sample(*shifted[0], **shifted[1]), "float64", grad=True)
        results = listed(row.resolve()(*args, **kwargs))
        results = [r for r in results if isinstance(r, tw.Tensor) and name_is_float(r)]
        leaves = [args[s] if isinstance(s, int) else kwargs[s] for s in spots]
        return [to_np(g) for g in tw.autograd.grad(results, leaves, dys)]

    h = 1e-5
    for spot, got, up, down in zip(spots, second, slope(h), slope(-h), strict=True):
        # The Hessian is symmetric, so its product with the direction is the change of the gradient along it.
        want = (up - down) / (2 * h)
        values = np.zeros(want.shape) if got is None else to_np(got)
        size = np.abs(want).max(initial=1.0)
        assert np.abs(values - want).max(initial=0.0) <= 1e-6 * size, (
            f"second gradient of argument {spot} off by {np.abs(values - want).max():.3g}, of {size:.3g}"
        )


def check_gradient_dtype(row: Row, sample: Sample, dtype: str) -> None:
    """Gradients of a narrow dtype against those in float64, which check_gradient compares with the reference.

    Halves save their results rounded, so an error of some of their own ulps enters the gradient.
    """
    narrow = run_backward(row, sample, dtype)[0]
    wide = run_backward(row, sample, "float64", dy_make=lambda dy, _: to_tw(quantize(dy, dtype).astype(np.float64)))[0]
    for spot, grad in narrow.items():
        got, want = to_np(grad), to_np(wide[spot])
        assert name_of(grad.dtype) == dtype, f"gradient of {spot} is {grad.dtype}"
        assert got.shape == want.shape
        if not want.size:
            continue
        ulps = row.tol.grad_ulps if dtype == "float32" else 8.0
        unit = spacing(np.abs(want).max(), dtype)
        worst = np.abs(got.astype(np.float64) - want).max()
        assert worst <= ulps * unit, f"{dtype} gradient of {spot} off by {worst / unit:.1f} ulp of its largest element"
