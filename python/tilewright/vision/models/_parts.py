"""What the models share: a convolution with its normalization, and the loading of weights from a file."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from tilewright import nn
from tilewright.serialization import load
from tilewright.tensor import Tensor

Model = TypeVar("Model", bound=nn.Module)


def with_weights(model: Model, weights: Any) -> Model:
    """The model, with the state dict of a local file in it if `weights` names one.

    The public files hold auxiliary heads, too; those that the model was made without (None) are left out.

    Raises:
        TypeError: weights is neither None nor a path. Nothing is ever downloaded.
    """
    if weights is None:
        return model
    if not isinstance(weights, str | os.PathLike) or str(weights) in ("DEFAULT", "IMAGENET1K_V1", "IMAGENET1K_V2"):
        raise TypeError("weights: must be None or the path of a local file (tilewright downloads nothing), "
                        f"got {weights!r}")
    state = load(weights)
    model.load_state_dict({k: v for k, v in state.items() if getattr(model, k.partition(".")[0], model) is not None})
    return model


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm with eps 0.001, ReLU: `conv` and `bn` in the Inception family's weights."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(x)))


def normal_start(model: nn.Module) -> None:
    """Kaiming's normal weights by fan-out for convolutions, 1 and 0 for norms, N(0, 0.01) for linear layers."""
    for m in model.modules():
        for name, p in m.named_parameters(recurse=False):
            if name == "bias":
                nn.init.zeros_(p)
            elif isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(p, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, nn.Linear):
                nn.init.normal_(p, 0, 0.01)
            else:
                nn.init.ones_(p)
