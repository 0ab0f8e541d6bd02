"""What `test_against_torch.py` leaves out, each with its reason. The list only shrinks: an excluded sample that passes
fails the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

# Ops of another system: complex numbers, sparse and nested tensors, PyTorch's own internals.
FOREIGN = ("_", "ops.", "torch.ops.", "masked.", "sparse.", "fft.", "jiterator", "to_sparse", "chalf", "complex",
           "polar", "view_as_complex", "view_as_real", "stft", "istft", "cfloat", "cdouble")

# Draws, and memory with no values in it: shapes and dtypes are compared, values are not.
RANDOM = frozenset((
    "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal", "uniform", "multinomial", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "nn.functional.dropout", "nn.functional.dropout2d",
    "nn.functional.dropout3d", "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout", "svd_lowrank",
    "pca_lowrank", "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
    "resize_", "resize_as_", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout",
    "RReLU",
))

# Vectors that are determined but for their sign: what the database derives from them is compared.
GAUGE = frozenset(("svd", "linalg.svd", "linalg.eigh"))

# How many times the tolerance, where PyTorch's own series or the problem's condition loses digits.
LOOSER = {"polygamma": 100, "special.polygamma": 100, "linalg.cond": 10, "nn.functional.ctc_loss": 10}

# Which of equal elements comes first is nobody's promise: of integers and bools only the values are compared.
TIES = frozenset(("sort", "argsort", "topk", "kthvalue", "median", "nanmedian", "mode"))


class Excluded(NamedTuple):
    op: str  # the op's name, or name-variant
    reason: str
    when: Callable = lambda sample: True  # which samples
    forms: tuple = ()  # of function, method, inplace, error (train, eval): all when empty
    dtypes: tuple = ()

    def matches(self, form: str, dtype: str, sample) -> bool:
        return ((not self.forms or form in self.forms) and (not self.dtypes or dtype in self.dtypes)
                and bool(self.when(sample)))


def one_number(sample) -> bool:
    return hasattr(sample.input, "shape") != hasattr(sample.args[0], "shape")


NUMBERS = "a Python number is taken in the place of either tensor"
CAST = "the result is cast to the dtype of out="
INTEGERS = "convolutions and averages of integers are refused: convert to float"

EXCLUDED: list[Excluded] = [
    *(Excluded(op, NUMBERS, one_number, ("error",)) for op in (
        "atan2", "eq", "ne", "lt", "le", "gt", "ge", "fmod", "rsub", "maximum", "minimum", "logical_and", "logical_or",
        "logical_xor")),
    *(Excluded(op, NUMBERS, lambda s: isinstance(s.input, int) and one_number(s), ("error",))
      for op in ("max-binary", "min-binary")),
    *(Excluded(op, NUMBERS, lambda s: isinstance(s.input, int) and one_number(s), ("error",))
      for op in ("clamp_max", "clamp_min")),
    Excluded("isclose", NUMBERS, lambda s: not all(hasattr(v, "shape") for v in (s.input, *s.args)), ("error",)),
    *(Excluded(f"nn.functional.{op}{n}d", INTEGERS, dtypes=("int64",))
      for op in ("conv", "conv_transpose", "avg_pool") for n in (1, 2, 3)),
    Excluded("as_strided-partial_views", "the gradient of a window outside its input is refused",
             lambda s: s.kwargs.get("storage_offset", 99) < s.input.storage_offset(),
             ("function", "method"), ("float32", "float64")),
    Excluded("nn.functional.local_response_norm", INTEGERS, lambda s: s.input.numel() > 0, dtypes=("int64",)),
    Excluded("aminmax", CAST, lambda s: s.kwargs.get("out") is not None, ("error",)),
    Excluded("gather", CAST, lambda s: "out" in s.kwargs and s.kwargs["out"].dtype is not s.input.dtype, ("error",)),
    Excluded("cat", "out= may be one of the tensors", lambda s: {"dim", "out"} <= set(s.kwargs), ("error",)),
    Excluded("linalg.eig", "refused: eigenvalues may be complex", forms=("function",)),
    Excluded("lu", "refused: linalg.lu_factor is not offered"),
    Excluded("nn.functional.multi_head_attention_forward", "draws what it drops",
             lambda s: s.args[9] > 0 and s.kwargs.get("training", True), ("function",)),
    Excluded("nn.functional.scaled_dot_product_attention", "draws what it drops",
             lambda s: s.kwargs.get("dropout_p", 0) > 0, ("function",)),
    Excluded("nn.functional.rrelu", "draws its slopes",
             lambda s: s.kwargs.get("training") and (s.input < 0).any(), ("function",)),
    Excluded("nn.functional.hardsigmoid", "PyTorch multiplies by 1/6 rounded to float32 in the gradient",
             lambda s: ((s.input > -3) & (s.input < 3)).any(), ("function",), ("float64",)),
    Excluded("nn.functional.batch_norm", "a 1-d input has no channels", lambda s: s.input.dim() == 1, ("function",)),
]
EXCLUDED_MODULES: list[Excluded] = []
