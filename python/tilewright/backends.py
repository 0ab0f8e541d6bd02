"""PyTorch's switches for the libraries under it. Here none stands behind them, and results are deterministic in any
case; scripts set them, and those of `allow_tf32` are real: float32 products and convolutions on CUDA then round their
operands to TF32 (10 bits of fraction, a relative error of at most 2^-11 each; sums stay float32), for the tensor cores.

`cuda.matmul.allow_tf32` is False as in PyTorch. `cudnn.allow_tf32` is False too, where PyTorch's is True: float32 means
float32 on every device until a script says otherwise. Recurrent layers compute in float32 in either case, and so does
the CPU.

>>> import tilewright as tw
>>> tw.backends.cudnn.benchmark = True
>>> with tw.backends.cudnn.flags(allow_tf32=True):
...     tw.backends.cudnn.allow_tf32
True
>>> tw.backends.cudnn.allow_tf32, tw.backends.cuda.matmul.allow_tf32
(False, False)
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

from tilewright import _engine, runtime


class _Library(types.ModuleType):
    """A module of its own, for `import tilewright.backends.cudnn as cudnn`."""

    def __init__(self, name: str, available: bool = False, version: int | None = None, **switches: Any) -> None:
        super().__init__(f"{__name__}.{name}", f"Switches of {name}.")
        sys.modules[self.__name__] = self
        self.__dict__.update(is_available=lambda: available, version=lambda: version, **switches)


class _Matmul(types.SimpleNamespace):
    @property
    def allow_tf32(self) -> bool:
        return _engine.matmul_tf32()

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        runtime.set_float32_matmul_precision("high" if allow else "highest")


class _Cudnn(_Library):
    @property
    def allow_tf32(self) -> bool:
        return _engine.conv_tf32()

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        _engine.set_conv_tf32(bool(allow))

    @contextlib.contextmanager
    def flags(self, enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10,
              deterministic: bool = True, allow_tf32: bool | None = None) -> Iterator[None]:
        """A block with another `allow_tf32`, where one is given; the rest changes nothing."""
        before = self.allow_tf32
        if allow_tf32 is not None:
            self.allow_tf32 = allow_tf32
        try:
            yield
        finally:
            self.allow_tf32 = before


@contextlib.contextmanager
def _nothing(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


cudnn = _Cudnn("cudnn", benchmark=False, deterministic=True, enabled=False)
mkl, mkldnn, openmp, mps = (_Library(name) for name in ("mkl", "mkldnn", "openmp", "mps"))
cuda = _Library("cuda", matmul=_Matmul(allow_fp16_reduced_precision_reduction=False,
                                       allow_bf16_reduced_precision_reduction=False),
                sdp_kernel=_nothing, enable_flash_sdp=lambda enabled: None, enable_math_sdp=lambda enabled: None,
                enable_mem_efficient_sdp=lambda enabled: None)
