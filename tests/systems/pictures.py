"""Classifying nets, transfer learning, what a net sees, segmentation, detection."""

from __future__ import annotations

from typing import Any

import pytest

import tilewright as tw
from systems import System, flipped, frozen

# --- segmentation and detection --------------------------------------------------------------------------------------


def segmented(size: tuple[int, ...], n: int, batch: int, epochs: int, seed: int, **more: Any) -> float:
    """The mean Dice score of lesions and cysts on 16 further pictures."""
    from generated import lesions
    from segmentation import predict, train

    from tilewright.utils.data import DataLoader, TensorDataset
    from tilewright.vision.models import dice_score

    (x, y, _), (x_test, y_test, _) = ([tw.tensor(a) for a in lesions(k, size, seed=s)] for k, s in ((n, 1), (16, 2)))
    tw.manual_seed(seed)
    batches = DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=True)
    model = train(batches, epochs, seed, progress=False, **more)
    return dice_score(predict(model, x_test)[0], y_test)[1:].mean().item()


def unet(seed: int = 0) -> float:
    return segmented((48, 48), 64, 8, 10, seed, widths=(8, 16, 32))


def unet_3d(seed: int = 0) -> float:
    return segmented((16, 16, 16), 32, 2, 8, seed, widths=(8, 16), dims=3)


def detected(name: str, n: int, epochs: int, seed: int, rate: float) -> float:
    """Mean average precision at 0.5 on 32 further pictures of lesions and cysts."""
    from detection import detect, pictures, train

    from tilewright.vision.models import mean_average_precision

    model = train(name, pictures("lesions", n, 1, 48, 0.15), 2, epochs, seed, rate=rate, progress=False)
    x, targets = pictures("lesions", 32, 2, 48, 0.15)
    return mean_average_precision(detect(model, x), targets)


def yolo(seed: int = 0) -> float:
    return detected("YOLO", 192, 10, seed, 8e-3)


def faster_rcnn(seed: int = 0) -> float:
    return detected("Faster R-CNN", 128, 8, seed, 4e-3)


def dice_turned(patch: pytest.MonkeyPatch) -> None:
    """The Dice loss asks for the smallest overlap."""
    import segmentation

    loss = segmentation.dice_loss
    patch.setattr(segmentation, "dice_loss", lambda *rest: -loss(*rest))


def crossed(patch: pytest.MonkeyPatch) -> None:
    """The shortcuts bring what another picture of the batch gave."""
    cat = tw.cat
    patch.setattr(tw, "cat", lambda parts, dim=0: cat([parts[0].roll(1, 0), *parts[1:]] if dim == 1 else parts, dim))


def unmoved(patch: pytest.MonkeyPatch) -> None:
    """Boxes stay where their anchors and proposals are."""
    from tilewright.vision.models import detection

    decode = detection.decode_boxes
    patch.setattr(detection, "decode_boxes", lambda deltas, *rest: decode(deltas * 0, *rest))


SYSTEMS: list[System] = [
    System("U-Net", unet, 0.7, "Dice 0.91; with another picture's shortcuts 0.44, with only the head trained 0.04", {
        "gradients flipped": flipped, "Dice turned": dice_turned, "shortcuts crossed": crossed}),
    System("U-Net in 3-D", unet_3d, 0.6, "Dice 0.83; with only the way up and the head learned 0.23", {
        "gradients flipped": flipped, "Dice turned": dice_turned,
        "features not learned": frozen("^(down|merge)")}),
    System("YOLO", yolo, 0.65, "mAP 0.94 to 1.0; with its first features 0.2, with its first head 0.3", {
        "gradients flipped": flipped, "backbone frozen": frozen("^backbone"), "head frozen": frozen("^head")}),
    System("Faster R-CNN", faster_rcnn, 0.5, "mAP 0.72 to 0.87; with proposals by chance 0.2, unmoved boxes 0.3", {
        "gradients flipped": flipped, "proposals not learned": frozen("^rpn"), "boxes unmoved": unmoved}),
]
