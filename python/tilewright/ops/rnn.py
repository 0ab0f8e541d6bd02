"""Recurrent nets: whole sequences through tanh, relu, LSTM and GRU cells, one launch a layer.

A layer's state after step t, with w_ih x + b_ih and w_hh h + b_hh in G blocks of hidden_size rows each:

    rnn   h' = act(w_ih x + b_ih + w_hh h + b_hh)
    lstm  i, f, g, o: c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c')
    gru   r, z, n: h' = (1 - z) n + z h, with n = tanh(w_in x + b_in + r (w_hn h + b_hn)) and r, z sigmoids

Sources: Hochreiter and Schmidhuber, Long Short-Term Memory (1997); Cho et al. (2014), arXiv:1406.1078; the reset gate
acts on the product, as in cuDNN and PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright import _engine, autograd
from tilewright.autograd import record_many, wrap
from tilewright.grad_mode import mode
from tilewright.ops.activation import relu, sigmoid, tanh
from tilewright.ops.elementwise import NUMBER
from tilewright.ops.matmul import linear
from tilewright.ops.random import dropout as _dropout
from tilewright.ops.shape import cat, stack

if TYPE_CHECKING:
    from tilewright.tensor import Tensor

_TANH, _RELU, _LSTM, _GRU = range(4)


def _array(t):
    return None if t is None else t.array


def _layer(rule, cell: int, x, batch_sizes, states, weights, projections=None):
    """One layer in len(weights) / 4 directions: (y, h_n) or, for the LSTM, (y, h_n, c_n).

    With `projections`, one matrix a direction, states are multiplied by them in each step, in recorded ops.

    x (T, B, I), or (rows, I) with the int64 `batch_sizes` of its steps; states h_0 (and c_0), each (D, B, H) or None.
    """
    h0, c0 = (*states, None, None)[:2]
    if projections:
        sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
        return _composite(cell, x, h0, c0, weights, sizes, projections)
    inputs = (x, h0, c0, *weights)
    keep = mode.grad and any(t is not None and t.requires_grad for t in inputs)
    *arrays, gates, cells = _engine.rnn(cell, x.array, _array(batch_sizes), _array(h0), _array(c0),
                                        [_array(w) for w in weights], keep)
    if arrays[2] is None:
        arrays.pop()
    return record_many(rule, arrays, tuple(NUMBER if t is None else t for t in inputs),
                       (*inputs, batch_sizes, arrays[0], gates, cells), (cell,))


def _layer_grad(node, dy, dhn, dcn=None):
    (*inputs, batch_sizes, y, gates, cells), (cell,) = node.saved, node.attrs
    if mode.grad:
        return _composite_grad(cell, inputs, batch_sizes, node.needs, (dy, dhn, dcn))
    arrays = [_array(t) for t in inputs]
    grads = _engine.rnn_backward(cell, arrays[0], _array(batch_sizes), *arrays[1:3], arrays[3:], y.array, _array(gates),
                                 _array(cells), _array(dy), _array(dhn), _array(dcn), node.needs)
    return [None if g is None else wrap(g) for g in grads]


def rnn_tanh_grad(node, *dys):
    return _layer_grad(node, *dys)


def rnn_relu_grad(node, *dys):
    return _layer_grad(node, *dys)


def lstm_grad(node, *dys):
    return _layer_grad(node, *dys)


def gru_grad(node, *dys):
    return _layer_grad(node, *dys)


_MODES = ("rnn_tanh", "rnn_relu", "lstm", "gru")
_RULES = (rnn_tanh_grad, rnn_relu_grad, lstm_grad, gru_grad)


# -- the same in recorded ops, for derivatives of the gradient --------------------------------------------------------


def _step(cell: int, gx, h, c, w_hh, b_hh, w_hr=None):
    if cell < _LSTM:
        return (tanh if cell == _TANH else relu)(gx + linear(h, w_hh, b_hh)), None
    if cell == _LSTM:
        i, f, g, o = (gx + linear(h, w_hh, b_hh)).chunk(4, -1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return h if w_hr is None else linear(h, w_hr), c
    xr, xz, xn = gx.chunk(3, -1)
    hr, hz, hn = linear(h, w_hh, b_hh).chunk(3, -1)
    z = sigmoid(xz + hz)
    n = tanh(xn + sigmoid(xr + hr) * hn)
    return (1 - z) * n + z * h, None


def _direction(cell: int, x, sizes, h0, c0, weights, reverse: bool, w_hr=None):
    """x (rows, I) and sizes[t] rows a step, falling with t: y (rows, H) and the last states."""
    w_ih, w_hh, b_ih, b_hh = weights
    gx = linear(x, w_ih, b_ih).split(sizes)
    start = sizes[-1] if reverse else sizes[0]
    h, c = h0[:start], None if c0 is None else c0[:start]
    ended, ys = [], []
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        n, had = sizes[t], h.shape[0]
        if n > had:  # in reverse, sequences begin
            h, c = cat([h, h0[had:n]]), None if c is None else cat([c, c0[had:n]])
        elif n < had:  # forward, sequences have ended
            ended.append((h[n:], None if c is None else c[n:]))
            h, c = h[:n], None if c is None else c[:n]
        h, c = _step(cell, gx[t], h, c, w_hh, b_hh, w_hr)
        ys.append(h)
    ended.append((h, c))
    last = [None if s[0] is None else cat(s[::-1]) for s in zip(*ended, strict=True)]
    return cat(ys[::-1] if reverse else ys), *last


def _composite(cell: int, x, h0, c0, weights, sizes, projections=None):
    directions, (rows_hh, hidden) = len(weights) // 4, weights[1].shape
    rows = x.reshape(-1, x.shape[-1])

    def zeros(size):
        return wrap(_engine.full((directions, sizes[0], size), 0, x.dtype, x.device))

    h0 = zeros(hidden) if h0 is None else h0
    c0 = zeros(rows_hh // 4) if c0 is None and cell == _LSTM else c0
    parts = [_direction(cell, rows, sizes, h0[d], None if c0 is None else c0[d], weights[4 * d:4 * d + 4], d == 1,
                        projections[d] if projections else None) for d in range(directions)]
    ys, hs, cs = zip(*parts, strict=True)
    return cat(ys, -1).reshape((*x.shape[:-1], -1)), stack(hs), None if c0 is None else stack(cs)


def _composite_grad(cell: int, inputs, batch_sizes, needs, dys):
    x = inputs[0]
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    # Fresh nodes, so that the gradient of one input does not take in what reaches it through another's history.
    fresh = [t * 1 if need else t for t, need in zip(inputs, needs, strict=True)]
    h0, c0 = fresh[1:3]
    results = _composite(cell, fresh[0], h0, c0, fresh[3:], sizes)
    used = [(r, dy) for r, dy in zip(results, dys, strict=True) if dy is not None]
    wanted = [k for k, need in enumerate(needs) if need]
    grads = autograd.grad([r for r, _ in used], [fresh[k] for k in wanted], [dy for _, dy in used], create_graph=True,
                          allow_unused=True)
    by_input = dict(zip(wanted, grads, strict=True))
    return [by_input.get(k) for k in range(len(inputs))]


# -- whole nets -------------------------------------------------------------------------------------------------------


def net(mode: str, x: Tensor, batch_sizes: Any, states: Any, params: Any, has_biases: Any, num_layers: Any,
        dropout: Any, train: Any, bidirectional: Any) -> Any:
    """All layers of a net over x (T, B, I) or packed rows; states and results are (layers * directions, B, H)."""
    directions, per, cell = 2 if bidirectional else 1, 4 if has_biases else 2, _MODES.index(mode)
    projected = cell == _LSTM and len(params) == num_layers * directions * (per + 1)
    per += projected
    if len(params) != num_layers * directions * per:
        raise ValueError(f"{mode}: must have {num_layers * directions * per} parameters for {num_layers} layers and "
                         f"{directions} directions, got {len(params)}")
    sizes = (num_layers * directions, *((x.shape[1],) if batch_sizes is None else ()))
    for s in states:
        if s.ndim != 3 or s.shape[:len(sizes)] != sizes:
            raise ValueError(f"{mode}: a state must be (layers * directions, batch, hidden_size), which begins with "
                             f"{sizes}, got {tuple(s.shape)}")
    finals = []
    for layer in range(num_layers):
        first = layer * directions
        weights: list = []
        for d in range(first, first + directions):
            weights += params[per * d:per * (d + 1) - projected]
            if not has_biases:
                weights += (None, None)
        projections = [params[per * (d + 1) - 1] for d in range(first, first + directions)] if projected else None
        own = [s if num_layers == 1 else s[first:first + directions] for s in states]
        x, *last = _layer(_RULES[cell], cell, x, batch_sizes, own, weights, projections)
        finals.append(last)
        if dropout and train and layer < num_layers - 1:
            x = _dropout(x, dropout, True)
    return (x, *finals[0]) if num_layers == 1 else (x, *(cat(s) for s in zip(*finals, strict=True)))


def _call(mode: str, input, arguments):
    """The two forms that PyTorch's functions have: of a padded batch, and of packed rows with their batch sizes."""
    if len(arguments) != 8:
        raise TypeError(f"{mode}: must have 9 arguments, got {1 + len(arguments)}")
    if isinstance(arguments[2], (list, tuple)):
        batch_sizes, hx, *rest = arguments
        batch_first, x = False, input
    else:
        hx, *rest, batch_first = arguments
        batch_sizes, x = None, input.transpose(0, 1) if batch_first else input
    y, *last = net(mode, x, batch_sizes, hx if mode == "lstm" else (hx,), *rest)
    return (y.transpose(0, 1) if batch_first else y, *last)


def lstm(input: Tensor, *arguments: Any) -> Any:
    """A whole LSTM net: lstm(input, (h_0, c_0), params, has_biases, num_layers, dropout, train, bidirectional,
    batch_first), or lstm(rows, batch_sizes, (h_0, c_0), params, has_biases, num_layers, dropout, train, bidirectional)
    for packed sequences. Gives output, h_n, c_n; `nn.LSTM` says what they are.

    Raises:
        ValueError: shapes that do not fit together.
        TypeError: integers, or a state or weight of another dtype than the input.
    """
    return _call("lstm", input, arguments)


def gru(input: Tensor, *arguments: Any) -> Any:
    """A whole GRU net; arguments as for `lstm`, with h_0 alone for the states. Gives output, h_n."""
    return _call("gru", input, arguments)


def rnn_tanh(input: Tensor, *arguments: Any) -> Any:
    """A whole net of tanh cells; arguments as for `lstm`, with h_0 alone for the states. Gives output, h_n."""
    return _call("rnn_tanh", input, arguments)


def rnn_relu(input: Tensor, *arguments: Any) -> Any:
    """A whole net of relu cells; arguments as for `lstm`, with h_0 alone for the states. Gives output, h_n."""
    return _call("rnn_relu", input, arguments)


def _cell(cell: int, input, states, weights):
    """One step of (B, I) or (I,)."""
    lift = input.ndim == 1
    if input.ndim not in (1, 2):
        raise ValueError(f"{_MODES[cell]}_cell: input must be (batch, input_size) or (input_size,), got "
                         f"{tuple(input.shape)}")
    x = input.reshape((1, 1 if lift else input.shape[0], input.shape[-1]))
    states = [s.reshape((1, 1, -1)) if lift else s.unsqueeze(0) for s in states]
    _, *last = _layer(_RULES[cell], cell, x, None, states, list(weights))
    last = [s.reshape((-1,)) if lift else s.squeeze(0) for s in last]
    return tuple(last) if cell == _LSTM else last[0]


def lstm_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
              b_hh: Tensor | None = None) -> Any:
    """One LSTM step of (B, I), or (I,), from hx = (h, c): (h', c')."""
    return _cell(_LSTM, input, hx, (w_ih, w_hh, b_ih, b_hh))


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """One GRU step of (B, I), or (I,), from the state hx."""
    return _cell(_GRU, input, (hx,), (w_ih, w_hh, b_ih, b_hh))


def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                  b_hh: Tensor | None = None) -> Tensor:
    """One step of a tanh cell of (B, I), or (I,), from the state hx."""
    return _cell(_TANH, input, (hx,), (w_ih, w_hh, b_ih, b_hh))


def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
                  b_hh: Tensor | None = None) -> Tensor:
    """One step of a relu cell of (B, I), or (I,), from the state hx."""
    return _cell(_RELU, input, (hx,), (w_ih, w_hh, b_ih, b_hh))
