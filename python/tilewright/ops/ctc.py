"""Connectionist temporal classification: the probability of a labelling, summed over all its alignments.

Graves, Fernandez, Gomez and Schmidhuber, ICML 2006. A labelling of S labels becomes L = 2 S + 1 states, a blank round
each label; an alignment stays in a state, moves to the next, or skips a blank between two labels that differ. The sum
over alignments goes forward through time (alpha), and backward for the gradient (beta, which is alpha of the reversed
sequence); both in the log domain, a batch at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tilewright import _engine
from tilewright.autocast import widen
from tilewright.autograd import first_order, record, wrap
from tilewright.grad_mode import no_grad
from tilewright.ops import elementary as _m
from tilewright.ops import elementwise as _e
from tilewright.ops import index, shape
from tilewright.ops import reduce as _r
from tilewright.ops.loss import reduced, reduction_of

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

NEVER = -1e30  # log of the probability of what cannot be; finite, so that differences of two of them are 0, not NaN


def _integers(rows, device):
    from tilewright.creation import tensor
    return tensor(rows, dtype=_engine.int64, device=device)


def _lengths(what, lengths, n, most):
    values = lengths.reshape(-1).tolist() if hasattr(lengths, "tolist") else lengths
    values = [int(v) for v in (values if isinstance(values, (tuple, list)) else [values])]
    if len(values) != n:
        raise ValueError(f"ctc_loss: {what} must have one length a sequence, got {len(values)} for {n}")
    if any(not 0 <= v <= most for v in values):
        raise ValueError(f"ctc_loss: {what} must be in [0, {most}], got {values}")
    return values


def _labels(targets, lengths, classes, blank):
    """Each sequence's labels, from padded rows (N, S) or from one row of them all."""
    if targets.array.is_float or targets.ndim not in (1, 2):
        raise ValueError(f"ctc_loss: targets must be integers, (N, S) or concatenated (sum of lengths,), got "
                         f"{targets.dtype.name} {targets.shape}")
    if targets.ndim == 2:
        rows = [row[:n] for row, n in zip(targets.tolist(), lengths, strict=True)]
    else:
        if sum(lengths) > targets.shape[0]:
            raise ValueError(f"ctc_loss: concatenated targets must hold {sum(lengths)} labels, got {targets.shape[0]}")
        values, rows, start = targets.tolist(), [], 0
        for n in lengths:
            rows.append(values[start:start + n])
            start += n
    for row in rows:
        for label in row:
            if not 0 <= label < classes:
                raise IndexError(f"ctc_loss: labels must be in [0, {classes}), got {label}")
    return rows


def _states(rows, blank):
    """(N, L) states of the labellings, padded with blanks, and (N, L) whether one may be entered over a blank."""
    most = 2 * max(map(len, rows)) + 1
    states, skips = [], []
    for row in rows:
        line = [blank] * most
        line[1:2 * len(row):2] = row
        states.append(line)
        skips.append([k > 1 and line[k] != blank and line[k] != line[k - 2] for k in range(most)])
    return states, skips


def _sums(log_probs, rows, blank):
    """alpha (T, N, L): the log of the sum over alignments that are in a state at a time, that state included; and the
    log probabilities (T, N, L) of the states."""
    states, skips = _states(rows, blank)
    device, dtype = log_probs.device, log_probs.dtype
    T, N, L = log_probs.shape[0], len(states), len(states[0])
    emitted = _e.clamp(index.gather(log_probs, 2, _integers(states, device).expand(T, N, L)), min=NEVER)
    # Two columns on the left that are never reached; windows[k] is the state before last, the last, and the same one.
    alpha = wrap(_engine.full((T + 1, N, L + 2), NEVER, dtype, device))
    alpha[0, :, 2] = 0.0  # before the first step: entering states 0 and 1, which no skip enters
    barred = wrap(_engine.full((3, N, L), 0.0, dtype, device))
    barred[0] = _e.where(_integers(skips, device) != 0, 0.0, NEVER)
    for t in range(T):
        windows = shape.as_strided(alpha, (3, N, L), (1, L + 2, 1), t * N * (L + 2)) + barred
        top = _r.amax(windows, 0)
        alpha[t + 1, :, 2:] = _m.log(_r.sum(_m.exp(windows - top), 0)) + top + emitted[t]
    return alpha[1:, :, 2:], emitted


@widen
def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int = 0,
             reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """-log of the probability of labellings, summed over all their alignments with the steps of the input.

    The mean is over the batch, of each loss divided by its number of labels (at least 1). As in PyTorch the gradient is
    exp(log_probs) - P(class at the step | labelling), which is right where log_probs come from `log_softmax`.

    Args:
        log_probs: (T, N, C), or (T, C) of one sequence.
        targets: labels (N, S), or those of all sequences one after the other, (sum of target_lengths,).
        input_lengths, target_lengths: N numbers, in a tensor or tuple.
        blank: the class that stands for no label.
        zero_infinity: an input too short for its labels has loss and gradient 0, not infinity and NaN.

    Raises:
        ValueError: lengths or shapes that do not fit. IndexError: a label that is no class.

    Source: Graves et al., ICML 2006, equations 5 to 15.

    >>> import tilewright as tw
    >>> even = tw.full((2, 1, 2), 0.5).log()
    >>> round(tw.nn.functional.ctc_loss(even, tw.tensor([[1]]), (2,), (1,)).exp().item(), 4)  # 3 of 4 alignments
    1.3333
    """
    reduction = reduction_of("ctc_loss", None, None, reduction)
    single = log_probs.ndim == 2
    if not log_probs.array.is_float or log_probs.ndim not in (2, 3):
        raise ValueError(f"ctc_loss: log_probs must be (T, N, C) or (T, C) of floats, got {log_probs.dtype.name} "
                         f"{log_probs.shape}")
    x = log_probs.unsqueeze(1) if single else log_probs
    if single and targets.ndim == 1:
        targets = targets.unsqueeze(0)
    dtype, (T, N, C) = x.dtype, x.shape
    if not 0 <= blank < C:
        raise ValueError(f"ctc_loss: blank must be a class in [0, {C}), got {blank}")
    if targets.ndim == 2 and targets.shape[0] != N:
        raise ValueError(f"ctc_loss: targets must have {N} rows, got {targets.shape}")
    steps = _lengths("input_lengths", input_lengths, N, T)
    counts = _lengths("target_lengths", target_lengths, N, targets.shape[-1])
    rows = _labels(targets, counts, C, blank)
    if not N:
        loss = _r.sum(x, (0, 2))
    else:
        x = x.float() if dtype.itemsize == 2 else x
        loss = _ctc(x, rows, steps, counts, blank, zero_infinity)
    if reduction == "mean":
        loss = loss / _e.clamp(_integers(counts, x.device), min=1)
    return reduced(loss.reshape(()) if single else loss, reduction, dtype)


def _ctc(x, rows, steps, counts, blank, zero_infinity):
    with no_grad():
        alpha, emitted = _sums(x, rows, blank)
        # The last step may be in the last blank or in the last label; without labels only in the blank.
        batch = list(range(len(rows)))
        last = _integers([max(s - 1, 0) for s in steps], x.device)
        ends = [alpha[last, batch, [2 * n for n in counts]], alpha[last, batch, [max(2 * n - 1, 0) for n in counts]]]
        ends[1] = _e.where(_integers(counts, x.device) > 0, ends[1], NEVER)
        loss = -_r.logsumexp(shape.stack(ends), 0)
        if 0 in steps:  # no step: certain for an empty labelling, impossible for another
            empty = _e.where(_integers(counts, x.device) > 0, math.inf, 0.0)
            loss = _e.where(_integers(steps, x.device) > 0, loss, empty.to(x.dtype))
        loss = _e.where(loss > -0.5 * NEVER, math.inf, loss)
        shown = _e.where(loss == math.inf, 0.0, loss) if zero_infinity else loss
    return record(ctc_loss_grad, shown.array, (x,), (x, alpha, emitted, loss),
                  (rows, steps, counts, blank, zero_infinity))


@first_order
def ctc_loss_grad(node, dy):
    (x, alpha, emitted, loss), (rows, steps, counts, blank, zero_infinity) = node.saved, node.attrs
    with no_grad():
        (T, N, L), device = alpha.shape, x.device
        batch = _integers(range(N), device)
        # beta: the same sums over each sequence turned round, in time and in labels, and turned back.
        times = _integers([[s - 1 - t if t < s else t for s in steps] for t in range(T)], device)
        turned = _integers([[2 * n - k if k <= 2 * n else k for k in range(L)] for n in counts], device)
        beta, _ = _sums(x[times, batch], [row[::-1] for row in rows], blank)
        beta = index.gather(beta[times, batch], 2, turned.expand(T, N, L))
        outside = _integers([[k > 2 * n for k in range(L)] for n in counts], device)
        share = _e.where(outside != 0, 0.0, _m.exp(alpha + beta - emitted + loss.unsqueeze(1)))
        states = _integers(_states(rows, blank)[0], device).expand(T, N, L)
        posterior = index.scatter_add(x.new_zeros(x.shape), 2, states, share)
        dx = (_m.exp(x) - posterior) * dy.unsqueeze(1)
        bad = (loss == math.inf).unsqueeze(1)
        dx = _e.where(bad, 0.0 if zero_infinity else math.nan, dx)
        unused = _integers([[t >= s for s in steps] for t in range(T)], device).unsqueeze(2) != 0
        return (_e.where(unused, 0.0, dx),)
