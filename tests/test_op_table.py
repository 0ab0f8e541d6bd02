"""The generated tests: from each row of the op table come accuracy, gradients, layouts, repeatability, refusals."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

import tilewright as tw
from arrays import (
    FLOATS,
    LAYOUTS,
    bits,
    check_same_bits,
    dtype_of,
    expanded,
    expanded_copy,
    name_of,
    poison_cache,
    slack,
    to_np,
    to_tw,
)
from op_table import ROWS
from op_table.row import (
    Sample,
    check_forward,
    check_gradient,
    check_gradient_dtype,
    check_second_gradient,
    listed,
    run_backward,
)

HALVES = ("float16", "bfloat16")
DIFFERENTIABLE = [row for row in ROWS.values() if row.grad]
WITH_FLOATS = [row for row in ROWS.values() if set(row.dtypes) & set(FLOATS)]


# Rows where Python reads values: how many elements a mask chooses, how many boxes stay.
READS_VALUES = {"index", "index_put", "nms", "batched_nms"}
# Evaluated by NumPy on the host, so that a plan has no launch to record.
ON_THE_HOST = {"erfc", "erfinv", "lgamma", "digamma", "polygamma", "mvlgamma", "scatter_reduce"}


def each(rows, **ids):
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows])


def for_samples(samples, check, *args) -> None:
    """Run a check over a row's samples; a failure names the sample."""
    count = 0
    for sample in samples:
        count += 1
        try:
            check(sample, *args)
        except AssertionError as error:
            raise AssertionError(f"sample ({sample}): {error}") from None
        except Exception as error:
            raise RuntimeError(f"sample ({sample}) raised {type(error).__name__}: {error}") from error
    assert count, "the row has no samples for this dtype"


def grad_samples(row, dtype):
    return (row.grad_samples or row.samples)(row.generator(dtype))


@pytest.mark.parametrize(
    ("row", "dtype"), [pytest.param(row, d, id=f"{row.name}-{d}") for row in ROWS.values() for d in row.dtypes]
)
def test_forward(row, dtype):
    for_samples(row.samples(row.generator(dtype)), lambda s: check_forward(row, s, dtype))


@each(DIFFERENTIABLE)
def test_gradient(row):
    for_samples(grad_samples(row, "float64"), lambda s: check_gradient(row, s))


@each(DIFFERENTIABLE)
def test_second_gradient(row):
    small = (s for s in grad_samples(row, "float64") if all(0 < a.size < 5000 for _, a in s.spots))
    for_samples(itertools.islice(small, 4), lambda s: check_second_gradient(row, s))


@pytest.mark.parametrize(
    ("row", "dtype"),
    [
        pytest.param(row, d, id=f"{row.name}-{d}")
        for row in DIFFERENTIABLE
        for d in row.dtypes
        if d in FLOATS and d != "float64"
    ],
)
def test_gradient_dtype(row, dtype):
    for_samples(grad_samples(row, dtype), lambda s: check_gradient_dtype(row, s, dtype))


def layout_dtypes(row):
    """Float32 and one half stand for the floats, one integer dtype and bool for the rest: layouts know sizes only."""
    wanted = {"float32": "float32", "bfloat16": "bfloat16", "int64": "int64", "uint8": "uint8", "bool": "bool"}
    return [d for d in row.dtypes if d in wanted]


@pytest.mark.parametrize(
    ("row", "dtype"),
    [pytest.param(row, d, id=f"{row.name}-{d}") for row in ROWS.values() if row.layouts for d in layout_dtypes(row)],
)
def test_layout_forward(row, dtype):
    """Transposed, strided, offset, windowed and expanded arguments give the bits of contiguous ones."""

    def check(sample):
        args, kwargs = row.tensors(sample, dtype)
        want = bits(listed(row.resolve()(*args, **kwargs)))
        for name, layout in LAYOUTS.items():
            args, kwargs = row.tensors(sample, dtype, make=layout)
            check_same_bits(bits(listed(row.resolve()(*args, **kwargs))), want, f"{name} arguments")
        if row.name in READS_VALUES and any(a.dtype == bool for _, a in sample.spots):
            return  # another mask would choose another number of elements
        shown = Sample(*sample.args, **sample.kwargs).with_arrays(lambda _, a: expanded_copy(a))
        flat = Sample(*shown[0], **shown[1])
        args, kwargs = row.tensors(flat, dtype)
        want = bits(listed(row.resolve()(*args, **kwargs)))
        args, kwargs = row.tensors(sample, dtype, make=expanded)
        check_same_bits(bits(listed(row.resolve()(*args, **kwargs))), want, "expanded arguments")

    for_samples(row.samples(row.generator(dtype)), check)


@each([row for row in DIFFERENTIABLE if row.layouts])
def test_layout_backward(row):
    """The layout of saved values and of incoming gradients never shows in a gradient's bits."""

    def gradients(sample, make=to_tw, dy_make=None):
        return bits(list(run_backward(row, sample, "float32", make, dy_make)[0].values()))

    def check(sample):
        want = gradients(sample)
        for name, layout in LAYOUTS.items():
            check_same_bits(gradients(sample, make=layout), want, f"gradients of {name} arguments")
            check_same_bits(gradients(sample, dy_make=layout), want, f"gradients from {name} incoming gradients")
        if row.name in READS_VALUES and any(a.dtype == bool for _, a in sample.spots):
            return
        flat = gradients(sample, dy_make=lambda dy, d: to_tw(expanded_copy(dy), d))
        check_same_bits(gradients(sample, dy_make=expanded), flat, "gradients from expanded incoming gradients")
        args, kwargs = sample.with_arrays(lambda _, a: expanded_copy(a))
        want = gradients(Sample(*args, **kwargs))
        check_same_bits(gradients(sample, make=expanded), want, "gradients of expanded arguments")

    for_samples(grad_samples(row, "float32"), check)


@each([row for row in ROWS.values() if row.dtypes])
def test_repeatable(row):
    """Two runs give the same bits."""
    dtype = row.dtypes[0]

    def check(sample):
        runs = []
        for _ in range(2):
            args, kwargs = row.tensors(sample, dtype)
            runs.append(bits(listed(row.resolve()(*args, **kwargs))))
        check_same_bits(runs[1], runs[0], "second run")

    for_samples(row.samples(row.generator(dtype)), check)


@each([row for row in ROWS.values() if "float32" in row.dtypes and row.name not in READS_VALUES | ON_THE_HOST])
def test_launches_are_data(row):
    """Replaying the recorded launches over new values gives what the op gives for them: a kernel reads its arguments
    only."""

    def check(sample):
        args, kwargs = row.tensors(sample, "float32")
        with tw.kernels.Plan() as plan:
            results = listed(row.resolve()(*args, **kwargs))
        for spot, a in sample.spots:
            if a.dtype.kind == "f" and a.size:
                t = args[spot] if isinstance(spot, int) else kwargs[spot]
                t.copy_(to_tw(np.flip(a).copy()))
        plan.replay()
        again = listed(row.resolve()(*args, **kwargs))
        check_same_bits(bits(results), bits(again), "replayed launches")

    for_samples(row.samples(row.generator("float32")), check)


def inplace_of(row):
    """The in-place method of an elementwise row: exp -> Tensor.exp_."""
    name = row.name.rpartition(".")[2] + "_"
    return name if isinstance(row.fn, str) and hasattr(tw.Tensor, name) else None


@each([row for row in ROWS.values() if inplace_of(row)])
def test_inplace_guard(row):
    """In-place forms give the bits of the op, write their window only, and raise the version of the storage."""
    for dtype in [d for d in ("float32", "bfloat16", "int32", "bool") if d in row.dtypes]:

        def check(sample, dtype=dtype):
            (x, *rest), kwargs = row.tensors(sample, dtype)
            want = row.resolve()(x, *rest, **kwargs)
            if want.dtype != x.dtype or want.shape != x.shape:
                return
            base = tw.full([n + 4 for n in x.shape], 1, dtype=x.dtype, device=x.device)
            window = base[tuple(slice(2, 2 + n) for n in x.shape)] if x.ndim else base
            window.copy_(x)
            version = base._version
            result = getattr(window, inplace_of(row))(*rest, **kwargs)
            assert result is window
            check_same_bits(bits(window), bits(want), "in-place form")
            assert base._version > version or bits(window) == bits(x), "the version tells of a change"
            if x.ndim:
                window.fill_(1)
                assert bool((base == 1).all()), "elements outside the window were written"

        for_samples(row.samples(row.generator(dtype)), check)


@each([row for row in ROWS.values() if row.dtypes])
def test_output_guard(row):
    """Every element of a result is written and nothing behind the last one: with blocks full of one byte pattern or
    another to allocate from, results and gradients have the same bits, and the rest of each block keeps the pattern."""
    dtype = "float32" if "float32" in row.dtypes else row.dtypes[0]

    def run(sample, backward):
        """The results and the addresses of the arguments, which a result may share."""
        if backward:
            return list(run_backward(row, sample, dtype)[0].values()), set()
        args, kwargs = row.tensors(sample, dtype)
        inputs = {t.data_ptr() for t in (*args, *kwargs.values()) if isinstance(t, tw.Tensor)}
        results = listed(row.resolve()(*args, **kwargs))
        return [r for r in results if isinstance(r, tw.Tensor)], inputs

    def check(sample, backward):
        results = run(sample, backward)[0]
        want, sizes = bits(results), {64, 4096, *(r.numel() * r.element_size() for r in results)}
        del results
        for pattern in (0x7F, 0xFF):
            poisoned = poison_cache({n for n in sizes if n <= 1 << 16}, pattern)
            with tw.kernels.Plan():  # keeps intermediates alive, so that no result gets a block they have written
                results, inputs = run(sample, backward)
            check_same_bits(bits(results), want, f"memory full of {pattern:#x}")
            for r in results:
                if r.numel() and r._base is None and r.is_contiguous() and r.data_ptr() in poisoned - inputs:
                    wrong = set(slack(r)) - {pattern}
                    assert not wrong, f"bytes behind the last element were written: {sorted(wrong)[:4]}"

    for_samples(row.samples(row.generator(dtype)), check, False)
    if row.grad:
        for_samples(grad_samples(row, "float32"), check, True)


REFUSALS = [pytest.param(row, bad, id=f"{row.name}-{bad.name}") for row in ROWS.values() for bad in row.bad]


@pytest.mark.parametrize(("row", "bad"), REFUSALS)
def test_refusal(row, bad):
    """The error's class and words. That a refused call changes nothing is in test_errors.py."""
    with pytest.raises(bad.error, match=re.compile(bad.words, re.S)) as caught:
        bad.call(row.generator("float32"))
    assert not isinstance(caught.value, AssertionError)


PROPERTIES = [pytest.param(p, id=f"{row.name}-{p.__name__}") for row in ROWS.values() for p in row.properties]


@pytest.mark.parametrize("check", PROPERTIES)
def test_property(check):
    check()


# Completeness -------------------------------------------------------------------------------------------------------


def test_every_slot_has_a_row():
    covered = {slot for row in ROWS.values() for slot in row.slots}
    slots = set(tw.kernels.names())
    assert slots, "the engine names no kernel slots"
    assert not slots - covered, f"kernel slots without a row: {sorted(slots - covered)}"
    assert not covered - slots, f"rows name slots that do not exist: {sorted(covered - slots)}"


def test_every_slot_is_reached_by_its_row():
    """A row's samples really launch the slots it names."""
    unreached = {}
    for row in ROWS.values():
        with tw.kernels.Plan() as plan:
            for dtype in row.dtypes:
                for sample in row.samples(row.generator(dtype)):
                    args, kwargs = row.tensors(sample, dtype)
                    row.resolve()(*args, **kwargs)
            if row.grad:
                for sample in grad_samples(row, "float32"):
                    run_backward(row, sample, "float32")
            for check in row.properties if not row.dtypes or row.name == "dropout" else ():
                check()
        missing = set(row.slots) - set(plan.names())
        if missing:
            unreached[row.name] = sorted(missing)
    assert not unreached, f"slots never launched by their row: {unreached}"


def public_ops() -> set[str]:
    """The functions that tilewright and nn.functional offer and tilewright.ops defines."""
    found = set()
    for module, names in ((tw, tw.__all__), (tw.nn.functional, dir(tw.nn.functional))):
        for name in names:
            value = getattr(module, name)
            home = getattr(value, "__module__", None) or ""
            if callable(value) and home.startswith(("tilewright.ops", "tilewright.nn.functional")):
                found.add(name)
    return found


def test_every_public_op_has_a_row():
    named = {row.fn if isinstance(row.fn, str) else row.name for row in ROWS.values()}
    covered = {name.rpartition(".")[2] for name in named} | {op for row in ROWS.values() for op in row.ops}
    # In-place forms are tested with the op they belong to (test_inplace_guard).
    missing = sorted({name for name in public_ops() if name.removesuffix("_") not in covered})
    assert len(public_ops()) > 100
    assert not missing, f"public ops without a row: {missing}"


def test_rows_that_skip_gradients_have_none():
    """A row without a gradient test is an op without a gradient: a missing row of one fails here."""
    skipped = []
    for row in ROWS.values():
        if row.grad or not set(row.dtypes) & set(FLOATS):
            continue
        for sample in list(row.samples(row.generator("float32")))[1:3]:
            args, kwargs = row.tensors(sample, "float32", grad=True)
            results = listed(row.resolve()(*args, **kwargs))
            if any(isinstance(r, tw.Tensor) and r.requires_grad for r in results):
                inputs = [t for t in (*args, *kwargs.values()) if isinstance(t, tw.Tensor) and t.requires_grad]
                out = next(r for r in results if r.requires_grad)
                grads = tw.autograd.grad(out.sum(), inputs, allow_unused=True)
                if any(g is not None and np.any(to_np(g) != 0) for g in grads):
                    skipped.append(row.name)
                    break
    twins = {row.fn for row in DIFFERENTIABLE}
    skipped = [name for name in skipped if ROWS[name].fn not in twins and not name.startswith("cast_")]
    assert not skipped, f"differentiable ops without a gradient test: {skipped}"


def test_dtypes_of_rows_exist():
    for row in ROWS.values():
        for dtype in row.dtypes:
            assert name_of(dtype_of(dtype)) == dtype
