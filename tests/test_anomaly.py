"""Anomaly detection: the op and the line that first made a NaN or Inf; hooks on tensors, modules and nodes."""

import traceback
import warnings

import pytest

import tilewright as tw
from tilewright import nn
from tilewright.autograd import detect_anomaly, set_detect_anomaly


def line_of(words):
    """The number of the line of this file that holds `words` and no other mark."""
    with open(__file__, encoding="utf-8") as source:
        (number,) = [i for i, line in enumerate(source, 1) if words in line and "line_of" not in line]
    return f'line {number}, in'


def root(x):
    return x.sqrt()  # the root


def test_names_the_op_and_the_line():
    x = tw.tensor([4.0, 0.0], requires_grad=True)
    with detect_anomaly():
        loss = (root(x) * tw.tensor([1.0, 0.0])).sum()
        with pytest.raises(RuntimeError, match=r"a NaN is in the gradient of input 0.*by 'sqrt'") as info:
            loss.backward()
    assert line_of("# the root") in str(info.value) and "test_anomaly.py" in str(info.value)
    assert "tilewright/tensor.py" not in str(info.value)  # the user's lines only
    (root(x) * tw.tensor([1.0, 0.0])).sum().backward()  # switched off: nothing is said
    assert x.grad[1].isnan().item() and not tw.autograd.is_anomaly_enabled()


def test_in_a_network():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            h = self.fc(x).relu()
            return (h * 0).log() * 0  # the slip

    net = Net()
    with set_detect_anomaly(True):
        with pytest.warns(RuntimeWarning, match="forward: a NaN is in the result of 'mul'"):
            y = net(tw.ones(4, 3)).sum()
        with pytest.raises(RuntimeError, match="by 'log'") as info:
            tw.autograd.grad(y, list(net.parameters()))
    assert "The first NaN among the results was made by 'mul'" in str(info.value)
    assert "The first Inf among the results was made by 'log'" in str(info.value)
    assert line_of("# the slip") in str(info.value)


def test_an_inf_is_a_warning_and_is_named_later():
    x = tw.tensor([0.0], requires_grad=True)
    with detect_anomaly():
        with pytest.warns(RuntimeWarning, match="backward: an Inf is in the gradient of input 0.*'sqrt'"):
            x.sqrt().sum().backward()
        assert x.grad.tolist() == [float("inf")]
        z = (x * 0.0).sqrt()
        with pytest.warns(RuntimeWarning, match="an Inf"), pytest.raises(RuntimeError) as info:
            z.sum().backward()
    assert "by 'mul'" in str(info.value) and "An Inf came before it, in the gradient of input 0" in str(info.value)


def test_a_nan_on_the_way_forward_is_told_once():
    x, y = tw.zeros(2, requires_grad=True), tw.ones(2, requires_grad=True)
    with detect_anomaly(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        z = x / (y - 1)  # nought by nought
        (z * 2 + y).exp()
    assert len(caught) == 1 and "forward: a NaN is in the result of 'div'" in str(caught[0].message)
    assert line_of("# nought by nought") in str(caught[0].message)


def test_errors_of_rules_gain_the_lines_and_values_may_go_unlooked_at():
    class Bad(tw.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, dy):
            raise KeyError("lost")

    x = tw.zeros(1, requires_grad=True)
    with detect_anomaly(check_nan=False):
        assert not tw.autograd.is_anomaly_check_nan_enabled()
        y = Bad.apply(x)  # the user's op
        with pytest.raises(KeyError) as info:
            y.sum().backward()
        (x / x).sum().backward()
    shown = "".join(traceback.format_exception(info.value))
    assert "in the gradient of 'Bad', recorded at" in shown and line_of("# the user's op") in shown
    assert tw.autograd.is_anomaly_check_nan_enabled() and not tw.autograd.is_anomaly_enabled()


def test_second_order_names_both_ops():
    x = tw.tensor([0.0], requires_grad=True)
    with detect_anomaly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = x.abs() ** 1.5  # a power
        (g,) = tw.autograd.grad(y.sum(), x, create_graph=True)
        with pytest.raises(RuntimeError) as info:
            g.sum().backward()
    assert "by the gradient of 'pow', recorded at" in str(info.value) and line_of("# a power") in str(info.value)


def test_switch_function_and_decorator():
    set_detect_anomaly(True)
    assert tw.autograd.is_anomaly_enabled()
    with set_detect_anomaly(False):
        assert not tw.autograd.is_anomaly_enabled()
    assert tw.autograd.is_anomaly_enabled()
    set_detect_anomaly(False)

    @detect_anomaly()
    def inside():
        return tw.autograd.is_anomaly_enabled()

    assert inside() and not tw.autograd.is_anomaly_enabled()


def test_a_clean_run_is_as_without():
    x = tw.rand(3, 4, requires_grad=True)
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh())
    net(x).sum().backward()
    plain, x.grad = x.grad, None
    with detect_anomaly():
        net(x).sum().backward()
    assert x.grad.tolist() == plain.tolist()


# --- hooks on tensors -------------------------------------------------------------------------------------------------
def test_hooks_after_accumulation():
    w, seen = tw.ones(2, requires_grad=True), []

    def step(leaf):
        seen.append(leaf.grad.tolist())
        with tw.no_grad():
            leaf -= 0.1 * leaf.grad
        leaf.grad = None

    handle = w.register_post_accumulate_grad_hook(step)
    w.register_hook(lambda g: g * 2)  # runs before, on the gradient
    ((w * 3).sum() + w.sum()).backward()
    assert seen == [[8.0, 8.0]] and w.grad is None and w.tolist() == pytest.approx([0.2, 0.2])
    w.sum().backward(inputs=[w])
    assert seen[1:] == [[2.0, 2.0]]
    tw.autograd.grad(w.sum(), w)  # accumulates nothing
    handle.remove()
    w.sum().backward()
    assert len(seen) == 2 and w.grad.tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="must be a leaf that requires grad"):
        (w * 2).register_post_accumulate_grad_hook(step)
