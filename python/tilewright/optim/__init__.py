"""Optimizers and learning-rate schedules under PyTorch's names."""

from tilewright.optim import lr_scheduler
from tilewright.optim.adam import Adam, AdamW
from tilewright.optim.optimizer import Optimizer
from tilewright.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
