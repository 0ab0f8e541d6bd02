"""Do two devices agree? Runs every forward of the op table on TILEWRIGHT_TEST_DEVICE and keeps the results.

    TILEWRIGHT_TEST_DEVICE=cuda TILEWRIGHT_CUDA=simt python tests/agree.py save emulator.npz
    TILEWRIGHT_TEST_DEVICE=cuda TILEWRIGHT_CUDA=on   python tests/agree.py save device.npz
    python tests/agree.py compare emulator.npz device.npz

Each file was made by sources that the op table holds to float64; here the two are held to each other: floats within 64
ulp of the array's largest element (a GPU's matrix units truncate, its elementary functions are its own), the rest by
their bits. Prints the rows that differ most; the exit status is 1 where one differs too much.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np

import tilewright as tw
from arrays import EPS, FLOATS, to_np
from op_table import ROWS
from op_table.row import listed

ULPS = 64


def save(path: str) -> None:
    warnings.simplefilter("ignore")
    results: dict[str, np.ndarray] = {}
    for row in ROWS.values():
        for dtype in [d for d in row.dtypes if d in ("float32", "bfloat16", "int64")]:
            for i, sample in enumerate(row.samples(row.generator(dtype))):
                args, kwargs = row.tensors(sample, dtype if dtype in FLOATS else None)
                for k, y in enumerate(listed(row.resolve()(*args, **kwargs))):
                    if isinstance(y, tw.Tensor):
                        results[f"{row.name} {dtype} {i} {k}"] = to_np(y)
    np.savez(path, **results)


def compare(first: str, second: str) -> int:
    a, b = np.load(first), np.load(second)
    assert a.files == b.files, "the two files come from different sources"
    worst: dict[str, float] = {}
    for name in a.files:
        x, y, dtype = a[name], b[name], name.split()[-3]
        if x.dtype.kind != "f":
            error = 0.0 if x.tobytes() == y.tobytes() else np.inf
        elif not (x.shape == y.shape and (np.isfinite(x) == np.isfinite(y)).all()):
            error = np.inf
        else:
            x, y = (np.where(np.isfinite(v), v, 0).astype(np.float64) for v in (x, y))
            unit = EPS[dtype if dtype in EPS else "float32"] * max(np.abs(x).max(initial=0), 1e-30)
            error = float(np.abs(x - y).max(initial=0) / unit)
        row = name.rsplit(" ", 2)[0]
        worst[row] = max(worst.get(row, 0.0), error)
    order = sorted(worst, key=worst.__getitem__, reverse=True)
    for row in order[:10]:
        print(f"{worst[row]:10.2f} ulp of the largest element  {row}")
    bad = [row for row in order if worst[row] > ULPS]
    print(f"{len(a.files)} results of {len(worst)} rows and dtypes, {len(bad)} apart by more than {ULPS} ulp")
    return bool(bad)


if __name__ == "__main__":
    if sys.argv[1:2] == ["save"] and len(sys.argv) == 3:
        save(sys.argv[2])
    elif sys.argv[1:2] == ["compare"] and len(sys.argv) == 4:
        sys.exit(compare(*sys.argv[2:]))
    else:
        sys.exit(__doc__)
