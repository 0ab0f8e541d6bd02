"""Data that the examples make themselves, each by a process that its docstring tells; the same seed, the same data."""

from __future__ import annotations

import numpy as np

Boxes = list[dict[str, np.ndarray]]


# --- pictures --------------------------------------------------------------------------------------------------------
def _grid(*size: int) -> list[np.ndarray]:
    return [g.astype(np.float32) for g in np.meshgrid(*(np.arange(s) for s in size), indexing="ij")]


def lesions(n: int, size: tuple[int, ...] = (64, 64), noise: float = 0.25, waves: float = 0.15,
            seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tissue with lesions: pictures (n, 1, *size), masks (n, *size) and how many lesions each has (n,).

    A smooth background (three random waves, each `waves` high), two to zero bright ellipsoids of soft edge for lesions
    (mask 1), as many dark ones for cysts (mask 2), none overlapping, and normal noise.
    """
    rng, grid = np.random.default_rng(seed), _grid(*size)
    x, masks = np.zeros((n, *size), np.float32), np.zeros((n, *size), np.int64)
    counts = np.zeros(n, np.int64)
    for i in range(n):
        for _ in range(3):
            wave = sum(g / s * f for g, s, f in zip(grid, size, rng.normal(0, 2, len(size)), strict=True))
            x[i] += waves * np.sin(2 * np.pi * (wave + rng.random()))
        for kind in rng.permutation([1] * rng.integers(0, 3) + [2] * rng.integers(0, 3)):
            radius = [rng.uniform(0.08, 0.18) * s for s in size]
            centre = [rng.uniform(r, s - r) for r, s in zip(radius, size, strict=True)]
            distance = np.sqrt(sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True)))
            if (masks[i][distance < 1.3] != 0).any():
                continue
            x[i] += (1 if kind == 1 else -1) / (1 + np.exp(np.minimum(12 * (distance - 1), 50)))
            masks[i][distance < 1] = kind
            counts[i] += kind == 1
    x += rng.normal(0, noise, x.shape).astype(np.float32)
    return x[:, None], masks, counts


SHAPES = ("square", "disc", "cross")


def shapes(n: int, size: int = 64, most: int = 3, noise: float = 0.15, kinds: int = 2,
           seed: int = 0) -> tuple[np.ndarray, Boxes]:
    """Pictures (n, 1, size, size) of one to `most` shapes apart from each other, 10 to 22 pixels wide, on noise.

    The second is a target a picture: "boxes" (k, 4), x1 y1 x2 y2, and "labels" (k,), 1 + the index in SHAPES.
    """
    rng = np.random.default_rng(seed)
    x, targets = rng.normal(0, noise, (n, 1, size, size)).astype(np.float32), []
    for picture in x[:, 0]:
        boxes: list[tuple[int, int, int, int]] = []
        labels = []
        for _ in range(rng.integers(1, most + 1)):
            w, h = rng.integers(10, 23, 2)
            x0, y0, kind = rng.integers(0, size - w), rng.integers(0, size - h), int(rng.integers(kinds))
            if any(x0 < b[2] and x0 + w > b[0] and y0 < b[3] and y0 + h > b[1] for b in boxes):
                continue
            v, u = _grid(h, w)
            v, u = (v - (h - 1) / 2) / (h / 2), (u - (w - 1) / 2) / (w / 2)
            figure = (np.ones((h, w), bool), u**2 + v**2 <= 1, (abs(u) < 0.3) | (abs(v) < 0.3))[kind]
            picture[y0:y0 + h, x0:x0 + w] += figure
            boxes.append((x0, y0, x0 + w, y0 + h))
            labels.append(kind + 1)
        targets.append({"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels, np.int64)})
    return x, targets


WORDS = ["", "<start>", "<stop>", "a", "large", "small", *SHAPES, "left", "right", "of", "above", "below"]


def scenes(n: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 1, size, size) of two shapes, and captions (n, 11) as numbers in WORDS, padded with 0.

    "<start> a large disc left of a small cross <stop>" or above, below, right; noise of 0.1.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.1, (n, 1, size, size)).astype(np.float32)
    captions = np.zeros((n, 11), np.int64)
    half = size // 2
    for picture, caption in zip(x[:, 0], captions, strict=True):
        across = bool(rng.integers(2))
        order = rng.permutation(2)
        words = ["<start>"]
        for place in order:
            large, kind = bool(rng.integers(2)), int(rng.integers(3))
            side = half - 3 if large else half // 2 - 1
            room = half - side
            along, other = place * half + rng.integers(0, room), rng.integers(0, size - side)
            y0, x0 = (other, along) if across else (along, other)
            v, u = _grid(side, side)
            v, u = (v - (side - 1) / 2) / (side / 2), (u - (side - 1) / 2) / (side / 2)
            picture[y0:y0 + side, x0:x0 + side] += (np.ones((side, side), bool), u**2 + v**2 <= 1,
                                                    (abs(u) < 0.3) | (abs(v) < 0.3))[kind]
            words += ["a", "large" if large else "small", SHAPES[kind]]
            if place == order[0]:
                words += (["left", "of"] if place == 0 else ["right", "of"]) if across else \
                    ["above" if place == 0 else "below"]
        caption[:len(words) + 1] = [WORDS.index(w) for w in [*words, "<stop>"]]
    return x, captions


TERMS = ["", "<start>", "<stop>", "no", "finding", "a", "small", "large", "nodule", "cyst", "cavity", "in", "the",
         "upper", "lower", "left", "right", "zone"]


def reports(n: int, size: int = 32, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (n, 1, size, size), reports (n, 4, 10) as numbers in TERMS, padded with 0, and how many sentences each.

    In each quarter of the picture there is a finding by a chance of 0.4: bright (nodule), dark (cyst) or a bright ring
    (cavity), small or large. The report goes through the quarters as one reads, with a sentence for each finding,
    "<start> a small cyst in the upper left zone <stop>", or is "<start> no finding <stop>".
    """
    rng, (v, u) = np.random.default_rng(seed), _grid(size, size)
    x = rng.normal(0, noise, (n, 1, size, size)).astype(np.float32)
    tokens, counts, half = np.zeros((n, 4, 10), np.int64), np.zeros(n, np.int64), size // 2
    for i in range(n):
        sentences = []
        for quarter in np.flatnonzero(rng.random(4) < 0.4):
            kind, large = int(rng.integers(3)), int(rng.integers(2))
            radius = (0.08, 0.16)[large] * size
            place = rng.uniform(radius + 1, half - radius - 1, 2) + np.array(divmod(quarter, 2)) * half
            r = np.hypot(v - place[0], u - place[1]) / radius
            disc = 1 / (1 + np.exp(np.clip(8 * (r - 1), -50, 50)))
            x[i, 0] += (disc, -disc, disc * (r > 0.55))[kind]
            sentences.append(["a", ("small", "large")[large], ("nodule", "cyst", "cavity")[kind], "in", "the",
                              ("upper", "lower")[quarter // 2], ("left", "right")[quarter % 2], "zone"])
        for row, words in zip(tokens[i], sentences or [["no", "finding"]], strict=False):
            row[:len(words) + 2] = [1, *(TERMS.index(w) for w in words), 2]
        counts[i] = max(len(sentences), 1)
    return x, tokens, counts


# --- sequences -------------------------------------------------------------------------------------------------------
MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december"]
CHARACTERS = ["", "<start>", "<stop>", *"0123456789abcdefghijlmnoprstuvyz -/.,"]


def dates(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Days written in six ways (n, 20), and as 2026-11-21 (n, 12) with <start> and <stop>: numbers in CHARACTERS."""
    rng = np.random.default_rng(seed)
    days = np.datetime64("1930-01-01") + rng.integers(0, 40000, n)
    source, target = np.zeros((n, 20), np.int64), np.zeros((n, 12), np.int64)
    for i, day in enumerate(days):
        y, m, d = str(day).split("-")
        name = MONTHS[int(m) - 1]
        ways = (f"{int(d)} {name} {y}", f"{name} {int(d)}, {y}", f"{d}/{m}/{y}", f"{int(d)}. {int(m)}. {y}",
                f"{name[:3]} {d} {y}", f"{int(d)}-{name[:3]}-{y}")
        text = ways[rng.integers(6)]
        source[i, :len(text)] = [CHARACTERS.index(c) for c in text]
        target[i] = [1, *(CHARACTERS.index(c) for c in str(day)), 2]
    return source, target


def adding(n: int, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hochreiter and Schmidhuber's adding problem: (n, steps, 2) of random numbers and two marks; their sum (n, 1)."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, steps, 2), np.float32)
    x[..., 0] = rng.random((n, steps))
    first, second = rng.integers(0, steps // 2, n), rng.integers(steps // 2, steps, n)
    x[np.arange(n), first, 1] = x[np.arange(n), second, 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(1, keepdims=True)


def mackey_glass(n: int, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """A chaotic series (n,): x' = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x, each second, with noise of measurement.

    After Mackey and Glass (1977), who had blood cells in mind: it oscillates, but never twice the same way.
    """
    rng, step = np.random.default_rng(seed), 10
    x = [*(1.2 + 0.1 * rng.normal(size=17 * step + 1))]
    for _ in range((n + 200) * step):
        x.append(x[-1] + (0.2 * x[-17 * step] / (1 + x[-17 * step] ** 10) - 0.1 * x[-1]) / step)
    return (np.array(x[-n * step::step]) + rng.normal(0, noise, n)).astype(np.float32)


def studies(n: int, size: int = 16, most: int = 12, noise: float = 0.6,
            seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Studies of 4 to `most` slices (n, most, 1, size, size), their numbers of slices (n,), and a label each (n,).

    A bright spot is in three slices of each, at one place. A study is positive when they follow each other, as through
    a nodule thicker than a slice; in others there is a slice without between them. No slice alone tells, nor all of
    them without their order.
    """
    rng, (v, u) = np.random.default_rng(seed), _grid(size, size)
    x = rng.normal(0, noise, (n, most, 1, size, size)).astype(np.float32)
    counts, labels = rng.integers(4, most + 1, n), rng.integers(0, 2, n)
    for i in range(n):
        at, places = rng.uniform(3, size - 3, 2), np.arange(3) + rng.integers(0, counts[i] - 2)
        while not labels[i] and places[2] - places[0] == 2:
            places = np.sort(rng.choice(counts[i], 3, replace=False))
        x[i, places, 0] += 1.5 * np.exp(-((v - at[0]) ** 2 + (u - at[1]) ** 2) / 6)
        x[i, counts[i]:] = 0
    return x, counts, labels


# --- tables ----------------------------------------------------------------------------------------------------------
def plans(n: int, faulty: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Radiotherapy plans of 30 features (n + faulty, 30), which of these are wrong (same shape), and their names.

    Ten beams of three: source-to-surface distance (cm), gantry angle and meterset, and they hang together: angles are
    spread evenly from a random start with a little jitter; the distance follows the angle round an elliptic patient;
    the metersets share a prescribed dose by depth. A faulty plan has two or three faults: distances of two beams
    swapped, an angle moved by 3 to 10 degrees, a meterset a tenth more or less. Each value by itself is a common one,
    so that only their relation betrays it; a swap of two beams of nearly the same depth cannot be seen at all.
    """
    rng = np.random.default_rng(seed)
    total = n + faulty
    start = rng.uniform(0, 36, (total, 1))
    angle = start + 36 * np.arange(10) + rng.normal(0, 1, (total, 10))
    wide, deep = rng.normal(18, 1.5, (total, 1)), rng.normal(11, 1.0, (total, 1))
    t = np.radians(angle)
    depth = wide * deep / np.sqrt((deep * np.sin(t)) ** 2 + (wide * np.cos(t)) ** 2)
    share = np.exp(0.05 * depth)
    meterset = 900 * share / share.sum(1, keepdims=True) * rng.normal(1, 0.02, (total, 10))
    x = np.stack([100 - depth + rng.normal(0, 0.2, depth.shape), angle % 360, meterset], 2)
    wrong = np.zeros(x.shape, bool)
    for row, bad in zip(x[n:], wrong[n:], strict=True):
        for _ in range(rng.integers(2, 4)):
            beam, kind = rng.integers(10), rng.integers(3)
            if kind == 0:
                other = (beam + rng.integers(2, 4)) % 10
                row[[beam, other], 0] = row[[other, beam], 0]
                bad[other, kind] = True
            elif kind == 1:
                row[beam, 1] = (row[beam, 1] + rng.choice([-1, 1]) * rng.uniform(3, 10)) % 360
            else:
                row[beam, 2] *= rng.choice([0.9, 1.1])
            bad[beam, kind] = True
    order = rng.permutation(total)
    names = [f"{what} {beam}" for beam in range(1, 11) for what in ("ssd", "gantry", "meterset")]
    return x[order].reshape(total, 30).astype(np.float32), wrong[order].reshape(total, 30), names


def records(n: int, visits: int = 8, codes: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    """Patients' records: "codes" (n, visits, 5) from 1 to `codes`, 0 where none, "visits" (n,) how many there were,
    "labs" (n, visits, 3) of each visit, "outcome" (n,).

    A patient has a hidden severity that walks from visit to visit, and one of four chronic conditions. Each code
    belongs to a condition and is drawn more often with severity; labs are severity seen through three different
    scales with noise; the outcome is drawn with odds that grow with the last severity and with two conditions.
    """
    rng = np.random.default_rng(seed)
    count, condition = rng.integers(3, visits + 1, n), rng.integers(0, 4, n)
    severity = np.cumsum(rng.normal(0.1, 0.5, (n, visits)), 1) + rng.normal(0, 0.7, (n, 1))
    seen = np.arange(visits) < count[:, None]
    table = np.zeros((n, visits, 5), np.int64)
    for i in range(n):
        for k in range(count[i]):
            for slot in range(rng.integers(1, 6)):
                if rng.random() < 1 / (1 + np.exp(-severity[i, k])):
                    table[i, k, slot] = 1 + condition[i] * (codes // 6) + rng.integers(codes // 6)
                else:
                    table[i, k, slot] = 1 + 4 * (codes // 6) + rng.integers(codes - 4 * (codes // 6))
    labs = np.stack([np.tanh(severity), severity**2 / 4, 0.5 * severity], 2) + rng.normal(0, 0.2, (n, visits, 3))
    last = severity[np.arange(n), count - 1]
    odds = 2.0 * last + np.array([-0.6, 0.6, -0.6, 0.6])[condition] - 0.5
    return {"codes": table, "visits": count, "labs": (labs * seen[..., None]).astype(np.float32),
            "outcome": (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64)}
