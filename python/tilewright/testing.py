"""`assert_close`, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

import tilewright as tw

_TOLERANCES = {tw.float16: (1e-3, 1e-5), tw.bfloat16: (1.6e-2, 1e-5), tw.float32: (1.3e-6, 1e-5),
               tw.float64: (1e-7, 1e-7)}


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_device: bool = True,
                 check_dtype: bool = True, check_layout: bool = True, check_stride: bool = False,
                 msg: Any = None) -> None:
    """Raises AssertionError unless |actual - expected| <= atol + rtol |expected| everywhere, and dtypes and shapes are
    the same. Sequences and dicts are compared item by item. The tolerances follow the wider dtype, as in PyTorch.

    >>> import tilewright as tw
    >>> tw.testing.assert_close(tw.ones(2), tw.ones(2) + 1e-7)
    """
    same = {"rtol": rtol, "atol": atol, "equal_nan": equal_nan, "check_dtype": check_dtype, "msg": msg}
    if isinstance(expected, dict):
        if not isinstance(actual, dict) or actual.keys() != expected.keys():
            raise AssertionError(f"assert_close: keys differ, got {actual!r:.80} and {expected!r:.80}")
        for key in expected:
            assert_close(actual[key], expected[key], **same)
        return
    if isinstance(expected, list | tuple):
        if len(actual) != len(expected):
            raise AssertionError(f"assert_close: lengths differ, got {len(actual)} and {len(expected)}")
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b, **same)
        return
    a, b = (x.detach().cpu() if isinstance(x, tw.Tensor) else tw.as_tensor(x) for x in (actual, expected))
    if check_dtype and a.dtype != b.dtype:
        raise AssertionError(f"assert_close: dtypes differ, got {a.dtype} and {b.dtype}")
    if a.shape != b.shape:
        raise AssertionError(f"assert_close: shapes differ, got {tuple(a.shape)} and {tuple(b.shape)}")
    choices = [_TOLERANCES.get(x.dtype, (0.0, 0.0)) for x in (a, b)]
    most = [max(pair) for pair in zip(*choices, strict=True)]
    rtol, atol = most[0] if rtol is None else rtol, most[1] if atol is None else atol
    x, y = (v.double().numpy() for v in (a, b))
    with np.errstate(invalid="ignore"):
        good = (x == y) | (np.abs(x - y) <= atol + rtol * np.abs(y)) | (equal_nan & np.isnan(x) & np.isnan(y))
    if not good.all():
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        text = f"assert_close: {(~good).sum()} of {good.size} values differ, first {x[at]:.9g} and {y[at]:.9g} at {at}"
        raise AssertionError(msg(text) if callable(msg) else msg or text)
