"""Where is what? Boxes round shapes and lesions on noise, by a two-stage and a single-shot detector.

    python examples/detection.py

Faster R-CNN (Ren et al., arXiv:1506.01497) scores anchors of several sizes at each place of the features (the region
proposal network), pools the features of the best ones (RoI align, He et al., arXiv:1703.06870), and classifies and
moves each once more. YOLO (Redmon et al., arXiv:1506.02640, with the anchors of arXiv:1612.08242) says box, objectness
and class of every cell at once. Of overlapping boxes non-maximum suppression keeps the best. Beside them a rule:
smooth, threshold, connected components, and a shape's kind by how much of its box it fills.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from generated import SHAPES, lesions, shapes
from scipy import ndimage

import tilewright as tw
from tilewright import nn
from tilewright.optim.lr_scheduler import OneCycleLR
from tilewright.train import Trainer
from tilewright.utils.data import DataLoader
from tilewright.vision.models import YOLO, FasterRCNN, anchor_boxes, decode_boxes, mean_average_precision

KINDS = {"shapes": SHAPES, "lesions": ("lesion", "cyst")}
Found = list[dict[str, tw.Tensor]]


def pictures(what: str, n: int, seed: int, size: int = 64, waves: float = 0.3) -> tuple[tw.Tensor, Found]:
    """Pictures (n, 1, size, size), and of each the boxes and labels of its things; a lesion's box is its mask's."""
    if what == "shapes":
        x, targets = shapes(n, size, noise=0.6, kinds=3, seed=seed)
    else:
        x, masks, _ = lesions(n, (size, size), waves=waves, seed=seed)
        targets = []
        for mask in masks:
            boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop, kind) for kind in (1, 2)
                     for s in ndimage.find_objects(ndimage.label(mask == kind)[0])]
            rows = np.array(boxes, np.float32).reshape(-1, 5)
            targets.append({"boxes": rows[:, :4], "labels": rows[:, 4].astype(np.int64)})
    return tw.tensor(x), [{k: tw.tensor(v) for k, v in t.items()} for t in targets]


def backbone(*strides: int) -> nn.Module:
    layers: list[nn.Module] = []
    c = 1
    for o, stride in zip((16, 32, 64), strides, strict=True):
        for step in (stride, 1):
            layers += [nn.Conv2d(c, o, 3, step, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            c = o
    return nn.Sequential(*layers)


def detector(name: str, classes: int) -> nn.Module:
    if name == "YOLO":
        return YOLO(backbone(2, 2, 2), 64, 8, classes + 1, [(12, 12), (18, 18)])
    return FasterRCNN(backbone(2, 2, 2), 64, 8, classes + 1, sizes=(12, 18), proposals=20, hidden=64, pool=4)


def train(name: str, data: tuple[tw.Tensor, Found], classes: int, epochs: int, seed: int, device: str = "cpu",
          checkpoint: Path | None = None, resume: bool = False, rate: float | None = None,
          progress: bool = True) -> nn.Module:
    tw.manual_seed(seed)
    model = detector(name, classes).to(device)
    size, usual = (16, 4e-3) if name == "YOLO" else (8, 2e-3)
    rate = rate or usual
    loader = DataLoader(list(zip(*data, strict=True)), batch_size=size, shuffle=True, drop_last=True,
                        collate_fn=lambda rows: (tw.stack([x for x, _ in rows]), [t for _, t in rows]))
    optimizer = tw.optim.Adam(model.parameters(), lr=rate)
    schedule = OneCycleLR(optimizer, rate, total_steps=epochs * len(loader) + 1)

    def step(model: nn.Module, batch: Any) -> dict[str, tw.Tensor]:
        losses = model(*batch)
        return {"loss": sum(losses.values())} | losses

    trainer = Trainer(model, optimizer, step, schedule=schedule, schedule_every="batch", clip_norm=10.0,
                      checkpoint=checkpoint, progress=progress)
    trainer.fit(loader, epochs=epochs, resume=resume)
    return model.eval()


def detect(model: nn.Module, x: tw.Tensor, device: str = "cpu") -> Found:
    return [{k: v.cpu() for k, v in found.items()} for part in x.split(32) for found in model(part.to(device))]


@tw.no_grad()
def proposals(model: Any, x: tw.Tensor, most: int = 10) -> list[tw.Tensor]:
    """The region proposal network's likeliest boxes in each picture, of any kind, as they come."""
    features = model.backbone(x)
    objectness, moves = model.rpn(features)
    anchors = anchor_boxes(*features.shape[2:], model.stride, model.sizes, model.ratios).to(x.device)
    return [decode_boxes(m, anchors)[o.topk(most)[1]].cpu() for o, m in zip(objectness, moves, strict=True)]


def rule(what: str, x: tw.Tensor, sigma: float, level: float, full: float) -> Found:
    """Threshold and connected components; the score is the contrast summed over the component.

    Lesions and cysts are what stands out from a wider mean, above or below; a square fills more of its box than
    `full`, a disc 0.785, a cross half of it.
    """
    results = []
    for picture in x[:, 0].numpy():
        rows = []
        smooth = ndimage.gaussian_filter(picture, sigma)
        if what == "lesions":
            smooth = smooth - ndimage.gaussian_filter(picture, 12)
        for sign in (1,) if what == "shapes" else (1, -1):
            parts, _ = ndimage.label(sign * smooth > level)
            for k, s in enumerate(ndimage.find_objects(parts)):
                part = parts[s] == k + 1
                kind = 1.5 - sign / 2
                if what == "shapes":
                    kind = 1 if part.mean() > full else 2 if part.mean() > 0.63 else 3
                if part.sum() >= 20:
                    rows.append((s[1].start, s[0].start, s[1].stop, s[0].stop, kind, (part * sign * smooth[s]).sum()))
        table = tw.tensor(np.array(rows, np.float32).reshape(-1, 6))
        results.append({"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]})
    return results


def best_rule(what: str, data: tuple[tw.Tensor, Found]) -> tuple[float, float, float]:
    """The rule's three numbers that do best on training pictures."""
    tried = itertools.product((0.7, 1.0, 1.5, 2.0), (0.45, 0.55, 0.65), (0.84, 0.9) if what == "shapes" else (1.0,))
    return max(tried, key=lambda t: mean_average_precision(rule(what, data[0], *t), data[1]))


def draw(axis: Any, picture: tw.Tensor, found: dict[str, tw.Tensor], kinds: tuple[str, ...], least: float) -> None:
    axis.imshow(picture[0].numpy(), cmap="gray", vmin=-1.2, vmax=2)
    axis.axis("off")
    scores = found["scores"].tolist() if "scores" in found else [None] * len(found["boxes"])
    for (x0, y0, x1, y1), label, score in zip(found["boxes"].tolist(), found["labels"].tolist(), scores, strict=True):
        if score is not None and score < least:
            continue
        color = ("#999999", "#ff5555", "#55ddff", "#ffdd33")[label]
        axis.add_patch(plt.Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec=color, lw=1.2))
        if label:
            axis.text(x0, y0 - 1.5, kinds[label - 1] + (f" {score:.2f}" if score is not None and score <= 1 else ""),
                      color=color, fontsize=6)


def main() -> None:
    options = arguments(__doc__)
    study, device = Study(options, "detection"), options.device
    n, longer = (3000, 2) if options.full else (768, 1)
    epochs = {"Faster R-CNN": 6 * longer, "YOLO": 12 * longer}
    columns = ["true boxes", "ten likeliest proposals", *epochs, "rule"]
    figure, axes = plt.subplots(4, len(columns), figsize=(10.4, 8.8))
    for row, (what, kinds) in enumerate(KINDS.items()):
        data, held = pictures(what, n, 1000 + options.seed), pictures(what, 128, 2000 + options.seed)

        def learn(name: str, part: str, what: str = what, data: Any = data, held: Any = held) -> dict[str, Any]:
            model = train(name, data, len(KINDS[what]), epochs[name], options.seed, device, study.file(part),
                          options.resume)
            found = detect(model, held[0], device)
            shown = proposals(model, held[0][:8].to(device)) if name == "Faster R-CNN" else []
            return {"mAP": mean_average_precision(found, held[1]), "found": found[:8], "proposals": shown}

        results = {}
        for name in epochs:
            part = f"{what} {name}"
            results[name] = study.run(part, lambda name=name, part=part, learn=learn: learn(name, part))
        sigma, level, full = study.run(f"{what} rule", lambda what=what, data=data: best_rule(
            what, (data[0][:128], data[1][:128])))
        by_rule = rule(what, held[0], sigma, level, full)
        figures = {name: result["mAP"] for name, result in results.items()}
        figures["rule"] = mean_average_precision(by_rule, held[1])
        print(f"{what}: mean average precision at overlap 0.5 on {len(held[0])} held-out pictures: "
              f"{', '.join(f'{name} {value:.3f}' for name, value in figures.items())} (smoothed by {sigma}, "
              f"threshold {level})")
        shown = sorted(range(8), key=lambda k: -len(held[1][k]["boxes"]))[:2]
        for line, k in zip(axes[2 * row:2 * row + 2], shown, strict=True):
            boxes = results["Faster R-CNN"]["proposals"][k]
            first = {"boxes": boxes, "labels": tw.zeros(len(boxes), dtype=tw.int64)}
            each = [held[1][k], first, *(results[name]["found"][k] for name in epochs), by_rule[k]]
            for axis, found in zip(line, each, strict=True):
                draw(axis, held[0][k], found, kinds, 0.4)
        for axis, name in zip(axes[2 * row], columns, strict=True):
            axis.set_title(f"{name}: mAP {figures[name]:.3f}" if name in figures else name, fontsize=9)
    save_picture(figure, options, "detection")


if __name__ == "__main__":
    main()
