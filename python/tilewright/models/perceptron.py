"""The beginnings: Rosenblatt's perceptron (1958), Widrow and Hoff's delta rule (1960), the multilayer perceptron, and
radial bases (Broomhead and Lowe 1988)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tilewright as tw
from tilewright import nn
from tilewright.tensor import Tensor

__all__ = ["MLP", "Adaline", "Perceptron", "RBFNetwork"]


class _Linear(nn.Module):
    """What both rules have: s = x w + b and the targets' check."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("weight", tw.zeros(features))
        self.register_buffer("bias", tw.zeros(()))

    def score(self, x: Tensor) -> Tensor:
        """x w + b of (N, features), as (N,)."""
        return x @ self.weight + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """The class of each row: 1 where the score is not negative, else 0, by a step."""
        return (self.score(x) >= 0).long()

    def _check(self, x: Tensor, y: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != len(self.weight) or tuple(y.shape) != (len(x),):
            raise ValueError(f"{type(self).__name__}: expects (N, {len(self.weight)}) and classes (N,), got "
                             f"{tuple(x.shape)} and {tuple(y.shape)}")


class Perceptron(_Linear):
    """Learns from mistakes only: w += rate (y - prediction) x, a sample at a time.

    On two classes that a plane parts it stops after finitely many mistakes, at most (R / margin)^2 (Novikoff 1962); on
    others, such as exclusive or, it never does.

    >>> import tilewright as tw
    >>> x, y = tw.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]), tw.tensor([0, 0, 0, 1])
    >>> Perceptron(2).fit(x, y)[-1]
    0
    """

    def fit(self, x: Tensor, y: Tensor, epochs: int = 100, rate: float = 1.0) -> list[int]:
        """Goes through (N, features) and classes 0 and 1 (N,) until an epoch without a mistake, or so many epochs.

        Returns the mistakes of each epoch.
        """
        self._check(x, y)
        mistakes: list[int] = []
        for _ in range(epochs):
            wrong = 0
            for row, target in zip(x, y.tolist(), strict=True):
                error = target - int(self.score(row) >= 0)
                if error:
                    self.weight += rate * error * row
                    self.bias += rate * error
                    wrong += 1
            mistakes.append(wrong)
            if not wrong:
                break
        return mistakes


class Adaline(_Linear):
    """Learns from the score itself: w += rate mean((y - s) x), the gradient of half the mean squared error.

    Targets are -1 and 1 inside, so that the step between the classes lies at 0.
    """

    def fit(self, x: Tensor, y: Tensor, epochs: int = 100, rate: float = 0.1) -> list[float]:
        """So many steps on all of (N, features) and classes 0 and 1 (N,); gives the mean squared error before each."""
        self._check(x, y)
        target, errors = 2 * y.to(x.dtype) - 1, []
        for _ in range(epochs):
            error = target - self.score(x)
            errors.append(error.square().mean().item())
            self.weight += rate * (error @ x) / len(x)
            self.bias += rate * error.mean()
        return errors


class MLP(nn.Sequential):
    """Linear layers of the given widths with an activation between them, and a norm or dropout where asked for.

    widths: inputs, hidden layers, outputs. norm: a module's class that takes a width (nn.BatchNorm1d, nn.LayerNorm).

    Raises:
        ValueError: fewer than two widths.
    """

    def __init__(self, widths: Sequence[int], activation: type[nn.Module] = nn.ReLU,
                 norm: type[nn.Module] | None = None, dropout: float = 0.0):
        if len(widths) < 2:
            raise ValueError(f"MLP: widths must be two or more, got {tuple(widths)}")
        parts: list[nn.Module] = []
        for i, (c, o) in enumerate(itertools.pairwise(widths)):
            parts.append(nn.Linear(c, o))
            if i < len(widths) - 2:
                parts += [norm(o)] if norm is not None else []  # type: ignore[call-arg]
                parts.append(activation())
                parts += [nn.Dropout(dropout)] if dropout else []
        super().__init__(*parts)


class RBFNetwork(nn.Module):
    """y = sum_k w_k exp(-|x - c_k|^2 / (2 s_k^2)) + b of (N, in_features), as (N, out_features).

    `centre(x)` puts the centres on rows of the data, far from each other, and takes the widths from their distances
    (of a single one from the data's); all of it then learns by gradient.
    """

    def __init__(self, in_features: int, bases: int, out_features: int):
        super().__init__()
        self.centres = nn.Parameter(tw.randn(bases, in_features))
        self.log_width = nn.Parameter(tw.zeros(bases))
        self.head = nn.Linear(bases, out_features)

    @tw.no_grad()
    def centre(self, x: Tensor) -> RBFNetwork:
        """Each next centre is the row farthest from all before it (Gonzalez 1985), the first nearest the mean."""
        chosen = [int((x - x.mean(0)).square().sum(1).argmin())]
        distance = (x - x[chosen[0]]).square().sum(1)
        for _ in range(len(self.centres) - 1):
            chosen.append(int(distance.argmax()))
            distance = tw.minimum(distance, (x - x[chosen[-1]]).square().sum(1))
        self.centres.copy_(x[tw.tensor(chosen)])
        apart = tw.cdist(self.centres, self.centres)
        apart.diagonal().fill_(float("inf") if len(apart) > 1 else (x - self.centres).square().sum(1).mean().sqrt())
        self.log_width.copy_(apart.min(1)[0].clamp(min=1e-3).log())
        return self

    def bases(self, x: Tensor) -> Tensor:
        """How near each row is to each centre: (N, bases), 1 at the centre."""
        distance = (x.unsqueeze(1) - self.centres).square().sum(2)
        return tw.exp(-distance / (2 * tw.exp(2 * self.log_width)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bases(x))
