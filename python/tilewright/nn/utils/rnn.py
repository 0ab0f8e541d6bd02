"""Batches of sequences of different lengths: padded to one length, or packed step by step without the padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import tilewright as tw
from tilewright.tensor import Tensor


class PackedSequence(NamedTuple):
    """What the recurrent layers take for sequences of different lengths; made by `pack_padded_sequence`.

    data holds the items of step 0 of all sequences, longest sequence first, then those of step 1, and so on: (rows,
    ...). batch_sizes[t] says how many sequences reach step t. sorted_indices are the sequences' places in the batch,
    longest first, and unsorted_indices undo them; None where the batch was given in that order. batch_sizes stay in
    host memory, where the steps are counted; the rest is on one device.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data in another dtype or on another device."""
        data = self.data.to(*args, **kwargs)
        indices = (None if i is None else i.to(data.device) for i in self[2:])
        return PackedSequence(data, self.batch_sizes, *indices)

    def float(self) -> PackedSequence:
        """The data in float32."""
        return self.to(tw.float32)

    def double(self) -> PackedSequence:
        """The data in float64."""
        return self.to(tw.float64)

    def half(self) -> PackedSequence:
        """The data in float16."""
        return self.to(tw.float16)

    def cpu(self) -> PackedSequence:
        """The data on the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None, non_blocking: Any = False) -> PackedSequence:
        """The data on a GPU."""
        return self.to("cuda" if device is None else device, non_blocking=non_blocking)

    @property
    def is_cuda(self) -> bool:
        """Whether the data is on a GPU."""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another."""
    if permutation is None:
        return None
    order = permutation.tolist()
    inverse = [0] * len(order)
    for place, index in enumerate(order):
        inverse[index] = place
    return tw.tensor(inverse, dtype=tw.int64, device=permutation.device)


def _rows(batch_sizes: list[int], stride: int, order: list[int], device: Any) -> Tensor:
    """The rows of a padded (time * stride, ...) that packing keeps, in its order."""
    step, place = np.nonzero(np.arange(stride) < np.array(batch_sizes)[:, None])
    return tw.from_numpy(step * stride + np.array(order)[place]).to(device)


def pack_padded_sequence(input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Packs a padded batch (T, B, ...), or (B, T, ...) with batch_first, of sequences of these lengths.

    Raises:
        ValueError: lengths not one a sequence and from 1 to T; with enforce_sorted, lengths that grow.

    >>> import tilewright as tw
    >>> from tilewright.nn.utils.rnn import pack_padded_sequence
    >>> packed = pack_padded_sequence(tw.tensor([[1, 2, 0], [3, 4, 5]]), [2, 3], batch_first=True, enforce_sorted=False)
    >>> packed.data.tolist(), packed.batch_sizes.tolist()
    ([3, 1, 4, 2, 5], [2, 2, 1])
    """
    if input.dim() < 2:
        raise ValueError(f"pack_padded_sequence: input must have at least 2 dimensions, got {tuple(input.shape)}")
    count = [int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths)]
    x = input.transpose(0, 1) if batch_first else input
    steps, batch = x.shape[:2]
    if len(count) != batch or not count or min(count) < 1 or max(count) > steps:
        raise ValueError(f"pack_padded_sequence: lengths must be one for each of the {batch} sequences, from 1 to "
                         f"{steps}, got {count}")
    order = sorted(range(batch), key=lambda n: -count[n])
    indices = inverse = None
    if enforce_sorted:
        if order != list(range(batch)):
            raise ValueError(f"pack_padded_sequence: lengths must fall along the batch unless enforce_sorted=False, "
                             f"got {count}")
    else:
        indices = tw.tensor(order, dtype=tw.int64)
        inverse = tw.tensor(sorted(range(batch), key=order.__getitem__), dtype=tw.int64).to(x.device)
        indices = indices.to(x.device)
    falling = sorted(count, reverse=True)
    sizes, active = [], batch
    for t in range(falling[0]):
        while falling[active - 1] <= t:
            active -= 1
        sizes.append(active)
    data = x.reshape((steps * batch, *x.shape[2:])).index_select(0, _rows(sizes, batch, order, x.device))
    return PackedSequence(data, tw.tensor(sizes, dtype=tw.int64), indices, inverse)


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """The padded batch (T, B, ...), or (B, T, ...), of a packed one, in the order it was given, and the lengths.

    Raises:
        ValueError: a total_length shorter than the longest sequence.
    """
    sizes = sequence.batch_sizes.tolist()
    steps, batch = total_length if total_length is not None else len(sizes), sizes[0]
    if steps < len(sizes):
        raise ValueError(f"pad_packed_sequence: total_length must be at least {len(sizes)}, got {total_length}")
    indices = sequence.sorted_indices
    order = list(range(batch)) if indices is None else indices.tolist()
    data = sequence.data
    padded = tw.full((steps * batch, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device)
    padded = padded.index_copy(0, _rows(sizes, batch, order, data.device), data)
    padded = padded.reshape((steps, batch, *data.shape[1:]))
    lengths = np.zeros(batch, np.int64)
    lengths[order] = (np.arange(batch) < np.array(sizes)[:, None]).sum(0)
    return padded.transpose(0, 1) if batch_first else padded, tw.from_numpy(lengths)


def pad_sequence(sequences: Tensor | Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Sequences (L_n, ...) as one (T, B, ...), or (B, T, ...) with batch_first, padded to the longest.

    Raises:
        ValueError: no sequences; trailing sizes that differ; a padding_side that is not "left" or "right".

    >>> import tilewright as tw
    >>> from tilewright.nn.utils.rnn import pad_sequence
    >>> pad_sequence([tw.tensor([1, 2, 3]), tw.tensor([4])], batch_first=True).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    rows = list(sequences)
    if padding_side not in ("left", "right"):
        raise ValueError(f"pad_sequence: padding_side must be 'left' or 'right', got {padding_side!r}")
    if not rows or any(r.shape[1:] != rows[0].shape[1:] for r in rows):
        raise ValueError(f"pad_sequence: sequences must share their trailing sizes, got "
                         f"{[tuple(r.shape) for r in rows]}")
    longest = max(r.shape[0] for r in rows)
    padded = []
    for r in rows:
        missing = longest - r.shape[0]
        side = (missing, 0) if padding_side == "left" else (0, missing)
        padded.append(tw.nn.functional.pad(r, (0, 0) * (r.dim() - 1) + side, value=padding_value) if missing else r)
    return tw.stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch, each of its own length."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [x[n, :int(length)] for n, length in enumerate(lengths.tolist())]


def pack_sequence(sequences: Iterable[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences (L_n, ...) of different lengths."""
    rows = list(sequences)
    return pack_padded_sequence(pad_sequence(rows), [r.shape[0] for r in rows], enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed batch, in the order they were given."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences))
