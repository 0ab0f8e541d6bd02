"""Whole training steps of models that users write, in PyTorch's names: one text for every library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright as tw
from benchmarks.families.common import OURS, Case, Setup, small, to_numpy


def mlp(nn: Any, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """64-128-128-10 with ReLU."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, rng.standard_normal((batch, 64)), rng.integers(0, 10, batch)


def lenet(nn: Any, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """LeNet-5 on 28 x 28 (LeCun et al. 1998) with ReLU and max pooling."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    return model, rng.standard_normal((batch, 1, 28, 28)), rng.integers(0, 10, batch)


def resnet18(nn: Any, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """ResNet-18 (He et al. 2015) with the 3 x 3 first layer used for 32 x 32 images."""

    class Block(nn.Module):
        def __init__(self, c: int, o: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(c, o, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(o)
            self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(o)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Identity() if stride == 1 and c == o else nn.Sequential(
                nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    rng = np.random.default_rng(0)
    widths = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = [block for c, o, stride in widths for block in (Block(c, o, stride), Block(o, o, 1))]
    model = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), *blocks,
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    return model, rng.standard_normal((batch, 3, 32, 32)), rng.integers(0, 10, batch)


def resnet50(nn: Any, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """ResNet-50 (He et al. 2015) on 224 x 224, the stride in the 3 x 3 convolution as PyTorch's has it."""

    class Bottleneck(nn.Module):
        def __init__(self, c: int, width: int, stride: int):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Identity() if stride == 1 and c == 4 * width else nn.Sequential(
                nn.Conv2d(c, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            y = self.relu(self.bn2(self.conv2(y)))
            return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))

    rng = np.random.default_rng(0)
    blocks, c = [], 64
    for depth, (count, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for i in range(count):
            blocks.append(Bottleneck(c, width, 2 if depth and not i else 1))
            c = 4 * width
    model = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                          nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    return model, rng.standard_normal((batch, 3, 224, 224), np.float32), rng.integers(0, 1000, batch)


def gpt(nn: Any, batch: int, layers: int = 4, width: int = 128, steps: int = 128, vocabulary: int = 256,
        heads: int = 4) -> tuple[Any, np.ndarray, np.ndarray]:
    """A decoder of GPT-2's form (Radford et al. 2019), learned positions, no dropout."""
    functional = nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, d = x.shape
            q, k, v = (part.view(b, t, heads, d // heads).transpose(1, 2)
                       for part in self.qkv(self.ln1(x)).split(d, dim=2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.proj(y.transpose(1, 2).contiguous().view(b, t, d))
            return x + self.fc2(functional.gelu(self.fc1(self.ln2(x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(steps, width)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, x: Any) -> Any:
            y = self.tokens(x) + self.positions.weight
            for block in self.blocks:
                y = block(y)
            return self.head(self.ln(y)).view(-1, vocabulary)

    text = np.random.default_rng(0).integers(0, vocabulary, (batch, steps + 1))
    return Gpt(), text[:, :-1].copy(), text[:, 1:].ravel().copy()


def gpt2(nn: Any, batch: int) -> tuple[Any, np.ndarray, np.ndarray]:
    """GPT-2 of 124 million parameters, the head's weight being the tokens'."""
    model, x, target = gpt(nn, batch, layers=12, width=768, steps=1024, vocabulary=50257, heads=12)
    model.head.weight = model.tokens.weight
    return model, x, target


def lstm(nn: Any, batch: int, hidden: int = 256, steps: int = 64) -> tuple[Any, np.ndarray, np.ndarray]:
    """One LSTM layer over sequences of 64 x 128 features, classified by its last output."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(128, hidden, batch_first=True), nn.Linear(hidden, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    rng = np.random.default_rng(0)
    return Classifier(), rng.standard_normal((batch, steps, 128)), rng.integers(0, 10, batch)


def unet(nn: Any, batch: int, width: int = 32) -> tuple[Any, np.ndarray, np.ndarray]:
    """A U-Net (Ronneberger et al. 2015) of four levels on 64 x 64, padded convolutions, batch norm, two classes."""

    def double(c: int, o: int) -> Any:
        return nn.Sequential(nn.Conv2d(c, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True),
                             nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))

    class Level(nn.Module):
        """Two convolutions, what lies below, and the way back up."""

        def __init__(self, c: int, o: int, below: Any):
            super().__init__()
            self.down, self.pool, self.below = double(c, o), nn.MaxPool2d(2), below
            self.up, self.merge = nn.ConvTranspose2d(2 * o, o, 2, 2), double(2 * o, o)

        def forward(self, x: Any) -> Any:
            skip = self.down(x)
            return self.merge(nn.cat([skip, self.up(self.below(self.pool(skip)))], 1))

    levels = double(4 * width, 8 * width)
    for depth in (2, 1, 0):
        levels = Level(1 if depth == 0 else width << (depth - 1), width << depth, levels)
    rng = np.random.default_rng(0)
    return (nn.Sequential(levels, nn.Conv2d(width, 2, 1)), rng.standard_normal((batch, 1, 64, 64)),
            rng.integers(0, 2, (batch, 64, 64)))


MODELS: dict[str, Callable] = {f.__name__: f for f in (mlp, lenet, resnet18, resnet50, gpt, gpt2, lstm, unet)}


class _Names:
    """nn of a library, and the few functions from its top level that the models use."""

    def __init__(self, module: Any):
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module.nn, name, None) or getattr(self._module, name)


def training_step(module: Any, name: str, batch: int, dtype: str, weights: dict[str, np.ndarray] | None = None,
                  device: str = "cpu", rate: float = 1e-3) -> tuple[Callable[[], Any], Any]:
    """A step of Adam with cross-entropy on one batch, and the model; `weights` replace its own parameters."""
    model, x, target = MODELS[name](_Names(module), batch)
    kind = getattr(module, dtype)
    model = model.to(device, kind)
    if weights is not None:
        with module.no_grad():
            for key, p in model.named_parameters():
                p.copy_(module.as_tensor(weights[key]).to(kind))
    images, labels = module.as_tensor(x).to(device), module.as_tensor(target).to(device)
    if x.dtype.kind == "f":
        images = images.to(kind)
    optimizer = module.optim.Adam(model.parameters(), lr=rate)

    def step() -> Any:
        optimizer.zero_grad()
        loss = module.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step, model


@small("name=mlp batch=4", "name=lenet batch=2")
def model(s: Setup, name: str, batch: int) -> Case:
    """One training step with Adam. Checked: the losses of the first two, against the same model in float64 on the CPU,
    or, on a GPU, where those sizes ask for one, in float32 there.
    """
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name}")
    libraries = {k: m for k, m in {OURS: tw, **s.peers}.items() if k in (OURS, "torch")}
    oracle, on_cpu = libraries.get("torch", tw), s.device == "cpu"
    exact, start = training_step(oracle, name, batch, "float64" if on_cpu else "float32", device=s.device)
    weights = {k: np.array(to_numpy(p)) for k, p in start.named_parameters()}
    expected = np.array([float(to_numpy(exact())) for _ in range(2)])
    del exact, start
    calls = {k: training_step(m, name, batch, s.dtype, weights, s.device)[0] for k, m in libraries.items()}
    count = sum(w.size for w in weights.values())
    return Case(calls, expected, flops=0, read=7 * count * s.itemsize, written=4 * count * s.itemsize, tolerance=1024,
                shape=(2,), result=lambda call: np.array([float(to_numpy(call())) for _ in range(2)]),
                fresh=f"{name} {batch} {s.dtype}" if on_cpu else None)
