"""U-Net, Ronneberger et al. (arXiv:1505.04597), and its 3-D form, Çiçek et al. (arXiv:1606.06650)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor

__all__ = ["UNet", "UNetOutput", "dice_loss", "dice_score"]


class UNetOutput(NamedTuple):
    masks: Tensor   # (N, classes, *size), logits
    scores: Tensor  # (N, scores), from the deepest features


def _double(conv: Any, norm: Any, c: int, o: int) -> nn.Sequential:
    return nn.Sequential(conv(c, o, 3, padding=1, bias=False), norm(o), nn.ReLU(inplace=True),
                         conv(o, o, 3, padding=1, bias=False), norm(o), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Images (N, in_channels, *size) to logits (N, num_classes, *size), of 2 or 3 dimensions and any size.

    widths: channels of each level, the first at full resolution. Convolutions are padded and normalized by batch;
    where a size is odd on its way down, the way up is padded to meet it. skip=False leaves out the connections across,
    which makes it a plain encoder and decoder. scores > 0: a second head on the mean of the deepest features, and the
    result is a `UNetOutput`.

    Raises:
        ValueError: dims is neither 2 nor 3, or fewer than two widths.

    >>> import tilewright as tw
    >>> tuple(UNet(1, 2, widths=(4, 8, 16))(tw.rand(1, 1, 21, 30)).shape)
    (1, 2, 21, 30)
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 2, widths: Sequence[int] = (64, 128, 256, 512, 1024),
                 dims: int = 2, skip: bool = True, scores: int = 0):
        super().__init__()
        if dims not in (2, 3) or len(widths) < 2:
            raise ValueError(f"UNet: dims must be 2 or 3 and widths at least two, got {dims} and {tuple(widths)}")
        kinds = {2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ConvTranspose2d),
                 3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.ConvTranspose3d)}
        conv, norm, pool, up = kinds[dims]
        self.dims, self.skip, self.pool = dims, skip, pool(2)
        self.down = nn.ModuleList([_double(conv, norm, c, o)
                                   for c, o in zip((in_channels, *widths), widths, strict=False)])
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList([up(c, o, 2, 2) for c, o in pairs])
        self.merge = nn.ModuleList([_double(conv, norm, o * (2 if skip else 1), o) for _, o in pairs])
        self.head = conv(widths[0], num_classes, 1)
        self.score = nn.Linear(widths[-1], scores) if scores else None

    def forward(self, x: Tensor) -> Tensor | UNetOutput:
        across: list[Tensor] = []
        for level, double in enumerate(self.down):
            x = double(self.pool(x) if level else x)
            across.append(x)
        deepest = across.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            same = across.pop()
            x = up(x)
            missing = [want - have for want, have in zip(same.shape[2:], x.shape[2:], strict=True)]
            if any(missing):
                x = nn.functional.pad(x, [side for n in reversed(missing) for side in (0, n)])
            x = merge(tw.cat([same, x], 1) if self.skip else x)
        masks = self.head(x)
        if self.score is None:
            return masks
        return UNetOutput(masks, self.score(deepest.flatten(2).mean(2)))


def _overlap(op: str, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """2 sum(x t) and sum(x) + sum(t) of probabilities (N, C, ...) and classes (N, ...), by class."""
    if x.ndim < 3 or tuple(target.shape) != (x.shape[0], *x.shape[2:]):
        raise ValueError(f"{op}: expects (N, C, ...) and classes (N, ...), got {tuple(x.shape)} and "
                         f"{tuple(target.shape)}")
    hot = nn.functional.one_hot(target.long(), x.shape[1]).movedim(-1, 1).to(x.dtype)
    over = [0, *range(2, x.ndim)]
    return 2 * (x * hot).sum(over), (x + hot).sum(over)


def dice_loss(input: Tensor, target: Tensor, smooth: float = 1.0, background: bool = False) -> Tensor:
    """1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth), over the batch, mean over classes.

    p = softmax of the logits (N, C, ...), t = the classes (N, ...), one-hot. Class 0 counts only with background=True.
    Milletari et al., V-Net (arXiv:1606.04797).
    """
    top, bottom = _overlap("dice_loss", nn.functional.softmax(input, 1), target)
    loss = 1 - (top + smooth) / (bottom + smooth)
    return (loss if background or input.shape[1] == 1 else loss[1:]).mean()


def dice_score(input: Tensor, target: Tensor) -> Tensor:
    """2 |A and B| / (|A| + |B|) by class (C,); A: where its logit of (N, C, ...) is highest; 1 if both are empty."""
    best = nn.functional.one_hot(input.argmax(1), input.shape[1]).movedim(-1, 1).float()
    top, bottom = _overlap("dice_score", best, target)
    return tw.where(bottom > 0, top / bottom.clamp(min=1), 1.0)
