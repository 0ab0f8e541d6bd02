"""AdaptiveLogSoftmaxWithLoss (Grave et al., 2017, arXiv:1609.04309)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tilewright as tw
from tilewright.nn import functional as F
from tilewright.nn.checks import check_number, check_size
from tilewright.nn.containers import ModuleList, Sequential
from tilewright.nn.linear import Linear
from tilewright.nn.module import Module
from tilewright.tensor import Tensor


class _ASMoutput(NamedTuple):
    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """log softmax over many classes, the frequent ones first: classes below cutoffs[0] in the head, each later range
    behind one value of the head, through a projection to in_features / div_value^(1 + range) values.

    Called with x (N, in_features) or (in_features,) and the classes (N,) or (), it gives `output`, the log probability
    of each target, and `loss`, minus their mean.

    Raises:
        ValueError: cutoffs not rising integers from 1 to n_classes - 1; on a call, sizes that do not fit or a target
            outside [0, n_classes).
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
                 head_bias: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        name, kind = "AdaptiveLogSoftmaxWithLoss", {"device": device, "dtype": dtype}
        self.in_features = check_size(name, "in_features", in_features, 1)
        self.n_classes = check_size(name, "n_classes", n_classes, 1)
        given = [check_size(name, "cutoffs", c, 1) for c in cutoffs]
        if not given or sorted(set(given)) != given or given[-1] > n_classes - 1:
            raise ValueError(f"{name}: cutoffs must be rising integers from 1 to n_classes - 1 = {n_classes - 1}, got "
                             f"{list(cutoffs)}")
        self.cutoffs = [*given, n_classes]
        self.div_value = check_number(name, "div_value", div_value, 0)
        self.head_bias = head_bias
        self.shortlist_size, self.n_clusters = given[0], len(given)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, **kind)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            hidden = int(in_features // div_value ** (i + 1))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(Sequential(Linear(in_features, hidden, bias=False, **kind),
                                        Linear(hidden, size, bias=False, **kind)))

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        for layer in (self.head, *(part for pair in self.tail for part in pair.children())):
            layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> _ASMoutput:
        batched = target_.dim() > 0
        x, target = (input_, target_) if batched else (input_.unsqueeze(0), target_.unsqueeze(0))
        if x.dim() != 2 or target.dim() != 1 or x.shape[0] != target.shape[0]:
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: input must be (N, in_features) and target (N,), got "
                             f"{tuple(input_.shape)} and {tuple(target_.shape)}")
        if target.numel() and not 0 <= target.min().item() <= target.max().item() < self.n_classes:
            raise ValueError(f"AdaptiveLogSoftmaxWithLoss: target must be in [0, {self.n_classes}), got "
                             f"{target.min().item()} to {target.max().item()}")
        head = F.log_softmax(self.head(x), 1)
        place = target.clamp(max=self.shortlist_size - 1)
        total = x.new_zeros(x.shape[0])
        for i, tail in enumerate(self.tail):
            rows = ((target >= self.cutoffs[i]) & (target < self.cutoffs[i + 1])).nonzero().squeeze(1)
            if rows.numel():
                inside = F.log_softmax(tail(x.index_select(0, rows)), 1)
                picked = inside.gather(1, (target[rows] - self.cutoffs[i]).unsqueeze(1)).squeeze(1)
                total = total.index_add(0, rows, picked)
                place = place.index_fill(0, rows, self.shortlist_size + i)
        output = total + head.gather(1, place.unsqueeze(1)).squeeze(1)
        return _ASMoutput(output if batched else output.squeeze(0), -output.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """The log probabilities (N, n_classes) of all classes."""
        head = F.log_softmax(self.head(input), 1)
        parts = [head[:, :self.shortlist_size]]
        for i, tail in enumerate(self.tail):
            parts.append(F.log_softmax(tail(input), 1) + head[:, self.shortlist_size + i].unsqueeze(1))
        return tw.cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row (N,)."""
        return self.log_prob(input).argmax(1)
