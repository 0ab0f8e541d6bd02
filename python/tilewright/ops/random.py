"""Random numbers: generators, random tensors, dropout.

Philox 4x32-10 with the element's index as counter (Salmon et al., SC 2011; `csrc/philox.h` has the rules): a seed gives
the same numbers for any number of threads, on any device.
"""

from __future__ import annotations

import os

from tilewright import _engine, autograd
from tilewright.autograd import record, wrap
from tilewright.creation import _dtype, _shape, check_device


class Generator:
    """A stream of random numbers: a seed, and an offset that each draw moves on.

    >>> import tilewright as tw
    >>> g = tw.Generator().manual_seed(7)
    >>> a = tw.rand(3, generator=g)
    >>> g.manual_seed(7).initial_seed(), bool((tw.rand(3, generator=g) == a).all())
    (7, True)
    """

    def __init__(self, device="cpu"):
        self.device = check_device("Generator", device)
        self._seed, self._offset = 67280421310721, 0

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of `seed`, an integer in [-2**63, 2**64)."""
        if not hasattr(seed, "__index__"):
            raise TypeError(f"manual_seed: seed must be an integer, got {type(seed).__name__}")
        seed = seed.__index__()
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"manual_seed: seed must be in [-2**63, 2**64), got {seed}")
        self._seed, self._offset = seed % 2**64, 0
        return self

    def seed(self) -> int:
        """Starts a stream of a seed from the operating system, and returns the seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return self._seed

    def get_state(self):
        """Seed and offset as a tensor, for `set_state`."""
        return autograd.Tensor([self._signed(self._seed), self._signed(self._offset)], dtype=_engine.int64)

    def set_state(self, state) -> None:
        """Goes on from where `get_state` was called."""
        self._seed, self._offset = (v % 2**64 for v in state.tolist())

    @staticmethod
    def _signed(v: int) -> int:
        return v - 2**64 if v >= 2**63 else v

    def advance(self, used: int) -> None:
        self._offset = (self._offset + used) % 2**64


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seeds the default generator, which every random function uses unless given another."""
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The default generator's seed."""
    return default_generator.initial_seed()


def seed() -> int:
    """Seeds the default generator from the operating system."""
    return default_generator.seed()


def get_rng_state():
    """The default generator's state, for `set_rng_state`."""
    return default_generator.get_state()


def set_rng_state(state) -> None:
    """Puts the default generator back to a state."""
    default_generator.set_state(state)


def _fill(draw, array, *parameters, generator):
    g = generator or default_generator
    g.advance(draw(array, *parameters, g._seed, g._offset))
    return array


def _new(op, draw, size, parameters, dtype, device, requires_grad, generator):
    array = _engine.empty(_shape(op, size), _dtype(op, dtype), check_device(op, device))
    t = wrap(_fill(draw, array, *parameters, generator=generator))
    return t.requires_grad_() if requires_grad else t


def rand(*size, generator=None, dtype=None, device=None, requires_grad: bool = False):
    """Uniform numbers in [0, 1), of shape `size`."""
    return _new("rand", _engine.uniform_, size, (0.0, 1.0), dtype, device, requires_grad, generator)


def randn(*size, generator=None, dtype=None, device=None, requires_grad: bool = False):
    """Normal numbers of mean 0 and variance 1, of shape `size`."""
    return _new("randn", _engine.normal_, size, (0.0, 1.0), dtype, device, requires_grad, generator)


def randint(low, high=None, size=None, *, generator=None, dtype=None, device=None, requires_grad: bool = False):
    """Integers in [low, high), of shape `size`; `randint(high, size)` counts from 0.

    Raises:
        ValueError: low is not below high.
    """
    if size is None:
        low, high, size = 0, low, high
    return _new("randint", _engine.randint_, (size,), (low, high), dtype or _engine.int64, device, requires_grad,
                generator)


def randperm(n: int, *, generator=None, dtype=None, device=None):
    """A random permutation of 0 .. n-1, int64."""
    where = check_device("randperm", device)
    g = generator or default_generator
    array, used = _engine.randperm(n, g._seed, g._offset)
    g.advance(used)
    return wrap(_engine.to_device(array if dtype is None else _engine.cast(array, dtype), where))


def rand_like(input, *, dtype=None, device=None, requires_grad: bool = False):
    """`rand` of the input's shape and dtype."""
    return rand(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randn_like(input, *, dtype=None, device=None, requires_grad: bool = False):
    """`randn` of the input's shape and dtype."""
    return randn(input.shape, dtype=dtype or input.dtype, device=device or input.device, requires_grad=requires_grad)


def randint_like(input, low, high=None, *, dtype=None, device=None, requires_grad: bool = False):
    """`randint` of the input's shape and dtype."""
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.shape, dtype=dtype or input.dtype, device=device or input.device,
                   requires_grad=requires_grad)


def normal(mean, std=1.0, size=None, *, generator=None, dtype=None, device=None):
    """Normal numbers of the given mean and deviation, numbers (with `size`) or Tensors that broadcast."""
    if size is not None:
        return _new("normal", _engine.normal_, (size,), (float(mean), float(std)), dtype, device, False, generator)
    tensors = [t for t in (mean, std) if isinstance(t, autograd.Tensor)]
    shape = (mean + std).shape if tensors else ()
    where = device or (tensors[0].device if tensors else None)
    return randn(shape, generator=generator, dtype=dtype, device=where) * std + mean


def bernoulli(input, *, generator=None):
    """1 with the probability that the input gives for each element, else 0; of the input's dtype."""
    if bool(((input < 0) | (input > 1) | input.isnan()).any()):
        raise ValueError(f"bernoulli: probabilities must be in [0, 1], got {input}")
    with autograd.no_grad():
        return (rand(input.shape, generator=generator, device=input.device) < input).to(input.dtype)


def _inplace_draw(rule, x, draw, *parameters, generator):
    return autograd.inplace(rule, x, lambda: _fill(draw, x.array, *parameters, generator=generator), (x,))


def draw__grad(node, dy):
    return (None,)


def uniform_(input, a: float = 0.0, b: float = 1.0, *, generator=None):
    """Fills with uniform numbers in [a, b)."""
    return _inplace_draw(draw__grad, input, _engine.uniform_, float(a), float(b), generator=generator)


def normal_(input, mean: float = 0.0, std: float = 1.0, *, generator=None):
    """Fills with normal numbers of the given mean and deviation."""
    return _inplace_draw(draw__grad, input, _engine.normal_, float(mean), float(std), generator=generator)


def bernoulli_(input, p: float = 0.5, *, generator=None):
    """Fills with 1 of probability p, else 0."""
    return _inplace_draw(draw__grad, input, _engine.bernoulli_, float(p), generator=generator)


def random_(input, low: int = 0, high: int | None = None, *, generator=None):
    """Fills with integers in [low, high); with one number, in [0, low)."""
    if high is None:
        low, high = (0, low) if low else (0, 2**24 if input.array.is_float else 2**(8 * input.array.dtype.itemsize - 1))
    return _inplace_draw(draw__grad, input, _engine.randint_, low, high, generator=generator)


def dropout(input, p: float = 0.5, training: bool = True, inplace: bool = False):
    """Zeros each element with probability p and scales the others by 1 / (1 - p); the input itself when not training.

    Raises:
        ValueError: p outside [0, 1].

    Source: Srivastava et al., JMLR 15 (2014).
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}")
    if not training or p == 0.0:
        return input
    g = default_generator
    y, mask, used = _engine.dropout(input.array, p, g._seed, g._offset)
    g.advance(used)
    if inplace:
        return autograd.inplace(dropout_grad, input, lambda: _engine.copy_into(input.array, y), (input,), (mask,), (p,))
    return record(dropout_grad, y, (input,), (mask,), (p,))


def dropout_grad(node, dy):
    (mask,), (p,) = node.saved, node.attrs
    return (dy * mask * (1.0 / (1.0 - p) if p < 1.0 else 0.0),)
