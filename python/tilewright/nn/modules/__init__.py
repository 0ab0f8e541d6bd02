"""The import paths of `torch.nn.modules`: every layer, here and in a submodule of PyTorch's name (`.batchnorm`)."""

from __future__ import annotations

import sys
from types import ModuleType

from tilewright.nn import (
    activation,
    adaptive,
    containers,
    conv,
    dropout,
    lazy,
    linear,
    loss,
    module,
    norm,
    padding,
    pooling,
    rearrange,
    rnn,
    transformer,
)
from tilewright.nn.attention import MultiheadAttention
from tilewright.nn.modules import utils as utils

_HOMES: dict[str, ModuleType] = {
    "activation": activation, "adaptive": adaptive, "batchnorm": norm, "channelshuffle": rearrange,
    "container": containers, "conv": conv, "distance": rearrange, "dropout": dropout, "flatten": linear,
    "fold": rearrange, "instancenorm": norm, "lazy": lazy, "linear": linear, "loss": loss, "module": module,
    "normalization": norm, "padding": padding, "pixelshuffle": rearrange, "pooling": pooling, "rnn": rnn,
    "sparse": linear, "transformer": transformer, "upsampling": pooling,
}

for _name, _home in _HOMES.items():
    _made = ModuleType(f"{__name__}.{_name}", f"The layers of `tilewright.nn.{_home.__name__.rpartition('.')[2]}`.")
    _made.__dict__.update({key: value for key, value in vars(_home).items() if not key.startswith("__")})
    sys.modules[_made.__name__] = globals()[_name] = _made
    for _key, _value in vars(_home).items():
        if isinstance(_value, type) and issubclass(_value, module.Module) and not _key.startswith("_"):
            globals()[_key] = _value
for _key in list(vars(lazy)):  # PyTorch has lazy layers beside the ordinary ones
    for _word, _name in (("BatchNorm", "batchnorm"), ("InstanceNorm", "instancenorm"), ("Conv", "conv"),
                         ("Linear", "linear")):
        if _key.startswith("Lazy" + _word):
            setattr(sys.modules[f"{__name__}.{_name}"], _key, getattr(lazy, _key))
sys.modules[f"{__name__}.activation"].MultiheadAttention = MultiheadAttention  # type: ignore[attr-defined]
