"""RNN, LSTM and GRU over whole sequences, and their cells. `tilewright.ops.rnn` has the formulas and sources."""

from __future__ import annotations

import math
import warnings
from typing import Any

from tilewright.nn import init
from tilewright.nn.checks import check_choice, check_number, check_size
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.nn.utils.rnn import PackedSequence
from tilewright.ops import rnn as _ops
from tilewright.tensor import Tensor

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


def _make_parameters(module: Module, names: list[str], sizes: tuple[int, int, int], gates: int, device: Any,
                     dtype: Any) -> None:
    """weight_ih, weight_hh and, where named, bias_ih, bias_hh; a projection weight_hr makes states sizes[1] long."""
    inputs, hidden, rows = sizes[0], sizes[1], gates * sizes[2]
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, hidden), "bias_ih": (rows,),
                                          "bias_hh": (rows,), "weight_hr": (sizes[1], sizes[2])}
    for name in names:
        setattr(module, name, empty_parameter(shapes[name.partition("_l")[0]], device, dtype))


def _reset(module: Module, hidden_size: int) -> None:
    bound = 1 / math.sqrt(hidden_size)
    for p in module.parameters():
        init.uniform_(p, -bound, bound)


class RNNBase(Module):
    """What RNN, LSTM and GRU share. Layer k's parameters are weight_ih_l{k} (gates * hidden_size, its input's size),
    weight_hh_l{k}, bias_ih_l{k} and bias_hh_l{k}, with the suffix _reverse for the second direction; all start uniform
    in +-1/sqrt(hidden_size).
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        owner = type(self).__name__
        self.mode = check_choice(owner, "mode", mode, tuple(_GATES))
        self.input_size = check_size(owner, "input_size", input_size)
        self.hidden_size = check_size(owner, "hidden_size", hidden_size, 1)
        self.num_layers = check_size(owner, "num_layers", num_layers, 1)
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        self.dropout = float(check_number(owner, "dropout", dropout, 0, 1))
        self.proj_size = check_size(owner, "proj_size", proj_size)
        if proj_size and mode != "LSTM":
            raise ValueError(f"{owner}: proj_size is for LSTMs only, got {proj_size}")
        if proj_size >= hidden_size:
            raise ValueError(f"{owner}: proj_size must be below hidden_size {hidden_size}, got {proj_size}")
        self._state_size = proj_size or hidden_size
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"{owner}: dropout acts between layers, so {dropout} does nothing with num_layers=1",
                          stacklevel=3)
        self._all_weights = []
        for layer in range(num_layers):
            for suffix in ("", "_reverse")[:2 if bidirectional else 1]:
                kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[:4 if bias else 2]
                names = [f"{kind}_l{layer}{suffix}" for kind in (*kinds, *(("weight_hr",) if proj_size else ()))]
                inputs = self._state_size * (2 if bidirectional else 1) if layer else input_size
                _make_parameters(self, names, (inputs, self._state_size, hidden_size), _GATES[mode], device, dtype)
                self._all_weights.append(names)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        _reset(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """Does nothing: the kernels read each parameter where it lies. For scripts that call it for cuDNN."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction, in lists."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Parameter]:
        return [getattr(self, name) for name in self._flat_weights_names]

    def _run(self, input: Tensor | PackedSequence, states: tuple[Tensor, ...] | None) -> tuple:
        """Output, h_n and, for the LSTM, c_n, of any of the three forms of input."""
        owner = type(self).__name__
        packed = input if isinstance(input, PackedSequence) else None
        x: Any = packed.data if packed else input
        if not isinstance(x, Tensor):
            raise TypeError(f"{owner}: input must be a Tensor or a PackedSequence, got {type(x).__name__}")
        if packed is None and x.dim() not in (2, 3):
            raise ValueError(f"{owner}: input must have 2 dimensions, or 3 with a batch, got {tuple(x.shape)}")
        if x.shape[-1] != self.input_size:
            raise ValueError(f"{owner}: input's last size must be input_size {self.input_size}, got {tuple(x.shape)}")
        alone = packed is None and x.dim() == 2
        swap = self.batch_first and packed is None and not alone
        if alone:
            x = x.unsqueeze(1)
        elif swap:
            x = x.transpose(0, 1)
        batch = int(packed.batch_sizes[0]) if packed else x.shape[1]
        for name, state, size in zip(("h_0", "c_0"), states or (), (self._state_size, self.hidden_size), strict=False):
            shape = (self.num_layers * (2 if self.bidirectional else 1), batch, size)
            expected = shape[::2] if alone else shape
            if tuple(state.shape) != expected:
                raise ValueError(f"{owner}: {name} must have shape {expected}, got {tuple(state.shape)}")
        given = list(states or ())
        if alone:
            given = [s.unsqueeze(1) for s in given]
        elif packed and packed.sorted_indices is not None:
            given = [s.index_select(1, packed.sorted_indices) for s in given]
        y, *last = _ops.net(self.mode.lower(), x, packed.batch_sizes if packed else None, given, self._flat_weights,
                            self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        if packed:
            if packed.unsorted_indices is not None:
                last = [s.index_select(1, packed.unsorted_indices) for s in last]
            return packed._replace(data=y), *last
        if alone:
            return y.squeeze(1), *(s.squeeze(1) for s in last)
        return y.transpose(0, 1) if swap else y, *last

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple:
        return self._run(input, None if hx is None else (hx,))

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
                              ("dropout", 0.0), ("bidirectional", False)):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)

    def _label(self) -> str:
        return f"{type(self).__name__} {self.input_size} -> {self.hidden_size}"


class RNN(RNNBase):
    """Elman's net: h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu in tanh's place.

    Takes x (T, B, input_size), or (B, T, input_size) with batch_first, or (T, input_size), or a PackedSequence; and
    h_0 (num_layers * directions, B, hidden_size), zeros by default. Gives output (T, B, directions * hidden_size), the
    last layer's states, and h_n, every layer's last state.

    Raises:
        ValueError: sizes that do not fit; nonlinearity neither "tanh" nor "relu".

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> output, h_n = nn.RNN(10, 20, num_layers=2)(tw.zeros(5, 3, 10))
    >>> tuple(output.shape), tuple(h_n.shape)
    ((5, 3, 20), (2, 3, 20))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Any = None, dtype: Any = None) -> None:
        check_choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first,
                         dropout, bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), gates in the order i, f, g, o.

    Input and output as for `RNN`; the states are pairs (h_0, c_0) and (h_n, c_n). With proj_size > 0 (Sak et al., 2014,
    arXiv:1402.1128) h is W_hr h, of that many values, in each step; this runs step by step, in recorded ops.

    Raises:
        ValueError: sizes that do not fit, proj_size not below hidden_size.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> output, (h_n, c_n) = nn.LSTM(10, 20, bidirectional=True)(tw.zeros(5, 3, 10))
    >>> tuple(output.shape), tuple(c_n.shape)
    ((5, 3, 40), (2, 3, 20))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size, device, dtype)

    def forward(self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None) -> tuple:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise ValueError(f"LSTM: hx must be a pair (h_0, c_0), got {type(hx).__name__}")
        y, h, c = self._run(input, None if hx is None else tuple(hx))
        return y, (h, c)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al., 2014), gates in the order r, z, n; the reset gate acts on W_hn h + b_hn.

    Input, states and output as for `RNN`.

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> output, h_n = nn.GRU(10, 20, batch_first=True)(tw.zeros(3, 5, 10))
    >>> tuple(output.shape), tuple(h_n.shape)
    ((3, 5, 20), (1, 3, 20))
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
                         device, dtype)


class RNNCellBase(Module):
    """What the cells share: weight_ih, weight_hh, bias_ih and bias_hh, uniform in +-1/sqrt(hidden_size)."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        owner = type(self).__name__
        self.input_size = check_size(owner, "input_size", input_size)
        self.hidden_size = check_size(owner, "hidden_size", hidden_size, 1)
        self.bias = bias
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"][:4 if bias else 2]
        _make_parameters(self, names, (input_size, hidden_size, hidden_size), num_chunks, device, dtype)
        if not bias:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the parameters anew, as when the layer was made."""
        _reset(self, self.hidden_size)

    def _step(self, function: Any, input: Tensor, states: tuple[Tensor, ...] | None, count: int = 1) -> Any:
        owner = type(self).__name__
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise ValueError(f"{owner}: input must be (batch, {self.input_size}) or ({self.input_size},), got "
                             f"{tuple(input.shape)}")
        shape = (*input.shape[:-1], self.hidden_size)
        if states is None:
            states = (input.new_zeros(shape),) * count
        for state in states:
            if tuple(state.shape) != shape:
                raise ValueError(f"{owner}: hx must have shape {shape}, got {tuple(state.shape)}")
        return function(input, states if count == 2 else states[0], self.weight_ih, self.weight_hh, self.bias_ih,
                        self.bias_hh)

    def extra_repr(self) -> str:
        kind = getattr(self, "nonlinearity", "tanh")
        return (f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")
                + ("" if kind == "tanh" else f", nonlinearity={kind}"))

    def _label(self) -> str:
        return f"{type(self).__name__} {self.input_size} -> {self.hidden_size}"


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu, for x (B, input_size) and h (B, hidden_size), or without B."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = check_choice("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        function = _ops.rnn_tanh_cell if self.nonlinearity == "tanh" else _ops.rnn_relu_cell
        return self._step(function, input, None if hx is None else (hx,))


class LSTMCell(RNNCellBase):
    """One LSTM step: x (B, input_size) and a pair (h, c) of (B, hidden_size) give the pair (h', c').

    >>> import tilewright as tw
    >>> from tilewright import nn
    >>> h, c = nn.LSTMCell(10, 20)(tw.zeros(3, 10))
    >>> tuple(h.shape)
    (3, 20)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise ValueError(f"LSTMCell: hx must be a pair (h, c), got {type(hx).__name__}")
        return self._step(_ops.lstm_cell, input, None if hx is None else tuple(hx), 2)


class GRUCell(RNNCellBase):
    """One GRU step: x (B, input_size) and h (B, hidden_size), or both without B, give h'."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(_ops.gru_cell, input, None if hx is None else (hx,))
