"""Random numbers: generators, random tensors, dropout.

Philox 4x32-10 with the element's index as counter (Salmon et al., SC 2011; `csrc/philox.h` has the rules): a seed gives
the same numbers for any number of threads, on any device.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.arguments import into
from tilewright.autograd import record, wrap
from tilewright.creation import _dtype, _finish, _shape, check_device

if TYPE_CHECKING:
    from tilewright.tensor import Tensor


class Generator:
    """A stream of random numbers: a seed, and an offset that each draw moves on.

    >>> import tilewright as tw
    >>> g = tw.Generator().manual_seed(7)
    >>> a = tw.rand(3, generator=g)
    >>> g.manual_seed(7).initial_seed(), bool((tw.rand(3, generator=g) == a).all())
    (7, True)
    """

    def __init__(self, device: Any = "cpu") -> None:
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
        state = [self._signed(self._seed), self._signed(self._offset)]
        return autograd.Tensor(state, dtype=_engine.int64, device="cpu")

    def set_state(self, state) -> None:
        """Goes on from where `get_state` was called."""
        self._seed, self._offset = (v % 2**64 for v in state.tolist())

    def clone_state(self) -> Generator:
        """Another generator that stands where this one does."""
        made = Generator(self.device)
        made._seed, made._offset = self._seed, self._offset
        return made

    @staticmethod
    def _signed(v: int) -> int:
        return v - 2**64 if v >= 2**63 else v

    def advance(self, used: int) -> None:
        """Moves the stream on by `used` numbers."""
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


def get_rng_state() -> Tensor:
    """The default generator's state, for `set_rng_state`."""
    return default_generator.get_state()


def set_rng_state(new_state: Any) -> None:
    """Puts the default generator back to a state."""
    default_generator.set_state(new_state)


def _fill(draw, array, *parameters, generator):
    g = generator or default_generator
    g.advance(draw(array, *parameters, g._seed, g._offset))
    return array


def _new(op, draw, size, parameters, dtype, device, requires_grad, generator, out=None, **rest):
    if out is not None and dtype is None:
        dtype = out.dtype
    if device is None and generator is not None and generator.device.type != "cpu":
        device = generator.device
    array = _engine.empty(_shape(op, size), _dtype(op, dtype), check_device(op, device))
    t = wrap(_fill(draw, array, *parameters, generator=generator))
    if out is not None or rest:
        return _finish(op, t, out, requires_grad=requires_grad, **rest)
    return t.requires_grad_() if requires_grad else t


def _rest(layout, pin_memory, memory_format=None) -> dict:
    """The arguments of a new tensor that are seldom given."""
    given = {"layout": layout, "pin_memory": pin_memory, "memory_format": memory_format}
    return {k: v for k, v in given.items() if v}


def rand(*args: Any, size: Any = None, generator: Any = None, out: Tensor | None = None, dtype: Any = None,
         layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """Uniform numbers in [0, 1), of shape `size`, given as one or as several numbers."""
    return _new("rand", _engine.uniform_, args if size is None else (size,), (0.0, 1.0), dtype, device, requires_grad,
                generator, out, **_rest(layout, pin_memory))


def randn(*args: Any, size: Any = None, generator: Any = None, out: Tensor | None = None, dtype: Any = None,
          layout: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """Normal numbers of mean 0 and variance 1, of shape `size`, given as one or as several numbers."""
    return _new("randn", _engine.normal_, args if size is None else (size,), (0.0, 1.0), dtype, device, requires_grad,
                generator, out, **_rest(layout, pin_memory))


def randint(low: Any = None, high: Any = None, size: Any = None, *, generator: Any = None, out: Tensor | None = None,
            dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
            pin_memory: bool = False) -> Tensor:
    """Integers in [low, high), of shape `size`; `randint(high, size)` and `randint(high=.., size=..)` count from 0.

    Raises:
        ValueError: low is not below high.
    """
    if size is None and isinstance(high, tuple | list) and low is not None:
        low, high, size = 0, low, high
    low, high = (0, low) if high is None else (low or 0, high)
    if size is None or high is None:
        raise TypeError(f"randint: expects high and size, got high={high!r}, size={size!r}")
    return _new("randint", _engine.randint_, (size,), (int(low), int(high)), dtype or (out.dtype if out is not None
                else _engine.int64), device, requires_grad, generator, out, **_rest(layout, pin_memory))


def randperm(n: int, *, generator: Any = None, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """A random permutation of 0 .. n-1, int64."""
    where = check_device("randperm", device)
    g = generator or default_generator
    array, used = _engine.randperm(n, g._seed, g._offset)
    g.advance(used)
    t = wrap(_engine.to_device(array if dtype is None else _engine.cast(array, dtype), where))
    return _finish("randperm", t, out, requires_grad=requires_grad, **_rest(layout, pin_memory))


def rand_like(input: Tensor, *, generator: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
              requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """`rand` of the input's shape and dtype."""
    return _new("rand_like", _engine.uniform_, (input.shape,), (0.0, 1.0), dtype or input.dtype, device or input.device,
                requires_grad, generator, **_rest(layout, False, memory_format))


def randn_like(input: Tensor, *, generator: Any = None, dtype: Any = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, memory_format: Any = None) -> Tensor:
    """`randn` of the input's shape and dtype."""
    return _new("randn_like", _engine.normal_, (input.shape,), (0.0, 1.0), dtype or input.dtype, device or input.device,
                requires_grad, generator, **_rest(layout, False, memory_format))


def randint_like(input: Tensor, low: Any = 0, high: Any = None, *, generator: Any = None, dtype: Any = None,
                 layout: Any = None, device: Any = None, requires_grad: bool = False,
                 memory_format: Any = None) -> Tensor:
    """`randint` of the input's shape and dtype."""
    low, high = (0, low) if high is None else (low, high)
    return _new("randint_like", _engine.randint_, (input.shape,), (int(low), int(high)), dtype or input.dtype,
                device or input.device, requires_grad, generator, **_rest(layout, False, memory_format))


def normal(mean: Any = 0.0, std: Any = 1.0, size: Any = None, *, generator: Any = None, out: Tensor | None = None,
           dtype: Any = None, layout: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
    """Normal numbers of the given mean and deviation, numbers (with `size`) or Tensors that broadcast.

    Raises:
        ValueError: a negative deviation.
    """
    least = std.min().item() if isinstance(std, autograd.Tensor) and std.numel() else 0 if isinstance(
        std, autograd.Tensor) else std
    if least < 0:
        raise ValueError(f"normal: std must not be negative, got {least}")
    if size is not None or not any(isinstance(v, autograd.Tensor) for v in (mean, std)):
        size = size if size is not None else out.shape if out is not None else ()
        return _new("normal", _engine.normal_, (size,), (float(mean), float(std)), dtype, device, requires_grad,
                    generator, out, **_rest(layout, pin_memory))
    with autograd.no_grad():
        like = mean + std
        t = randn(like.shape, generator=generator, dtype=like.dtype, device=like.device) * std + mean
    return t if out is None else into("normal", t, out, mean, std)


def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None, out: Tensor | None = None) -> Tensor:
    """1 with the probability that the input gives for each element, else 0; of the input's dtype. With the number `p`,
    that probability for all.

    Raises:
        ValueError: probabilities outside [0, 1]. TypeError: an input of integers without p.
    """
    if p is not None:
        t = bernoulli_(autograd.wrap(_engine.empty(input.shape, input.dtype, input.device)), p, generator=generator)
        return t if out is None else into("bernoulli", t, out)
    if not input.is_floating_point():
        raise TypeError(f"bernoulli: probabilities must be floating-point, got {input.dtype.name}")
    if bool(((input < 0) | (input > 1) | input.isnan()).any()):
        raise ValueError(f"bernoulli: probabilities must be in [0, 1], got {input}")
    with autograd.no_grad():
        t = (rand(input.shape, generator=generator, device=input.device) < input).to(input.dtype)
    return t if out is None else into("bernoulli", t, out)


def poisson(input: Tensor, generator: Any = None) -> Tensor:
    """Counts of the Poisson distribution whose rate each element gives; of the input's dtype.

    Small rates by Knuth's product of uniform numbers (1969), in steps of at most 16; large ones are sums of such.
    """
    if not input.is_floating_point() or bool((input < 0).any()):
        raise ValueError(f"poisson: rates must be floating-point and not negative, got {input.dtype.name} "
                         f"{tuple(input.shape)}")
    with autograd.no_grad():
        left, count = input.detach().double().clone(), 0
        while bool((left > 0).any()):
            now = left.clamp(max=16.0)
            left = left - now
            product, limit, alive = rand(left.shape, generator=generator, dtype=left.dtype, device=left.device), (
                -now).exp(), now > 0
            alive = alive & (product > limit)
            while bool(alive.any()):
                count = count + alive
                product = product * rand(left.shape, generator=generator, dtype=left.dtype, device=left.device)
                alive = alive & (product > limit)
        return (count + wrap(_engine.full(input.shape, 0, _engine.int64, input.device))).to(input.dtype)


def _inplace_draw(rule, x, draw, *parameters, generator):
    return autograd.inplace(rule, x, lambda: _fill(draw, x.array, *parameters, generator=generator), (x,))


def draw__grad(node, dy):
    return (None,)


def uniform_(input: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills with uniform numbers in [a, b)."""
    return _inplace_draw(draw__grad, input, _engine.uniform_, float(a), float(b), generator=generator)


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills with normal numbers of the given mean and deviation."""
    return _inplace_draw(draw__grad, input, _engine.normal_, float(mean), float(std), generator=generator)


def bernoulli_(input: Tensor, p: float = 0.5, *, generator: Any = None) -> Tensor:
    """Fills with 1 of probability p, else 0."""
    return _inplace_draw(draw__grad, input, _engine.bernoulli_, float(p), generator=generator)


def random_(input: Tensor, *args: Any, generator: Any = None, **bounds: Any) -> Tensor:
    """Fills with integers: `random_()` over the dtype's range, `random_(to)` in [0, to), `random_(from, to)`."""
    low, high = bounds.get("from", 0), bounds.get("to")
    if len(args) == 2:
        low, high = args
    elif args:
        low, high = (0, args[0]) if "to" not in bounds else (args[0], high)
    if high is None:
        digits = {_engine.float64: 53, _engine.float32: 24, _engine.float16: 11, _engine.bfloat16: 8, _engine.bool: 1}
        dtype = input.array.dtype
        bits = digits.get(dtype) or 8 * dtype.itemsize - (dtype is not _engine.uint8)
        high = min(2**bits + input.array.is_float, 2**63 - 1)
    return _inplace_draw(draw__grad, input, _engine.randint_, int(low), int(high), generator=generator)


def _draw_from_uniform(input, transform, generator, integers=False):
    """Fills with transform(u), u uniform in [0, 1), computed in float32 or better."""
    if not input.array.is_float and not integers:
        raise TypeError(f"random: only floating-point tensors can be filled so, got {input.dtype.name}")
    with autograd.no_grad():
        dtype = _engine.float64 if input.dtype is _engine.float64 else _engine.float32
        values = transform(rand(input.shape, generator=generator, dtype=dtype, device=input.device))
    return autograd.inplace(draw__grad, input, lambda: _engine.copy_into(input.array, values.array), (input,))


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills with exponential numbers of rate lambd."""
    if not lambd > 0:
        raise ValueError(f"exponential_: lambd must be positive, got {lambd}")
    return _draw_from_uniform(input, lambda u: (-u).log1p() * (-1.0 / lambd), generator)


def geometric_(input: Tensor, p: float, *, generator: Any = None) -> Tensor:
    """Fills with the number of trials up to the first success of probability p: 1, 2, ..."""
    if not 0 < p < 1:
        raise ValueError(f"geometric_: p must be in (0, 1), got {p}")
    return _draw_from_uniform(input, lambda u: ((-u).log1p() / math.log1p(-p)).ceil().clamp(min=1), generator,
                              True)


def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Tensor:
    """Fills with Cauchy numbers."""
    if not sigma > 0:
        raise ValueError(f"cauchy_: sigma must be positive, got {sigma}")
    return _draw_from_uniform(input, lambda u: ((u - 0.5) * math.pi).tan() * sigma + median, generator)


def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Tensor:
    """Fills with exp of normal numbers of the given mean and deviation."""
    if not std > 0:
        raise ValueError(f"log_normal_: std must be positive, got {std}")
    with autograd.no_grad():
        values = normal_(wrap(_engine.empty(input.shape, input.dtype, input.device)), mean, std,
                         generator=generator).exp()
    return autograd.inplace(draw__grad, input, lambda: _engine.copy_into(input.array, values.array), (input,))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
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
