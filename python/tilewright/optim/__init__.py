"""Optimizers and learning-rate schedules under PyTorch's names."""

from tilewright.optim import lr_scheduler, swa_utils
from tilewright.optim.adam import Adam, AdamW
from tilewright.optim.lbfgs import LBFGS
from tilewright.optim.optimizer import Optimizer
from tilewright.optim.rules import ASGD, Adadelta, Adagrad, Adamax, NAdam, RAdam, RMSprop, Rprop, SparseAdam
from tilewright.optim.sgd import SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]
