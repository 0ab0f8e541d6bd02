"""Matrix products."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.families.common import Case, Setup, small
from tilewright import kernels


@small("m=5 n=7 k=9", "m=5 n=7 k=9 layout=TN", "batch=2 m=3 n=4 k=5 layout=NT")
def matmul(s: Setup, m: int, n: int, k: int, layout: str = "NN", batch: int = 0) -> Case:
    """c = a @ b, of M x K and K x N; a T in the layout: that operand is stored transposed."""
    if len(layout) != 2 or set(layout) - set("NT"):
        raise ValueError(f"layout must be NN, NT, TN or TT, got {layout}")
    lead = (batch,) if batch else ()
    a = s.normal(*lead, m, k, transposed=layout[0] == "T")
    b = s.normal(*lead, k, n, transposed=layout[1] == "T")
    count = max(batch, 1)
    calls = s.each(s.named("matmul"), a, b) | s.alone(kernels.gemm, a, b, shape=(*lead, m, n))
    return Case(calls, np.matmul(a["exact"], b["exact"]), flops=2.0 * count * m * n * k,
                read=count * (m * k + k * n) * s.itemsize, written=count * m * n * s.itemsize,
                tolerance=4 * math.sqrt(k), shape=(*lead, m, n))
