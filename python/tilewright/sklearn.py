"""Networks as scikit-learn estimators, for its pipelines, cross-validation and `GridSearchCV`. Needs scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as e:
    raise ImportError("tilewright.sklearn: needs scikit-learn 1.6 or later; pip install scikit-learn") from e

import tilewright as tw
from tilewright import nn
from tilewright.nn import functional as F

__all__ = ["NetClassifier", "NetRegressor"]


class _Net(BaseEstimator):
    """What both have: a network made anew by every fit, trained by AdamW on standardized features.

    module(in_features, outputs, **module_options) makes it. The same seed gives the same network.
    """

    def __init__(self, module: Callable[..., nn.Module], module_options: dict[str, Any] | None = None,
                 epochs: int = 50, lr: float = 1e-3, batch_size: int = 32, weight_decay: float = 0.0, seed: int = 0):
        self.module, self.module_options = module, module_options
        self.epochs, self.lr, self.batch_size = epochs, lr, batch_size
        self.weight_decay, self.seed = weight_decay, seed

    def _train(self, x: np.ndarray, target: tw.Tensor, outputs: int, loss: Callable[..., tw.Tensor]) -> None:
        state = tw.get_rng_state()
        try:
            tw.manual_seed(self.seed)
            self.mean_, self.scale_ = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
            rows = self._rows(x)
            self.module_ = self.module(x.shape[1], outputs, **(self.module_options or {}))
            optimizer = tw.optim.AdamW(self.module_.parameters(), lr=self.lr, weight_decay=self.weight_decay)
            self.module_.train()
            for _ in range(self.epochs):
                for some in tw.randperm(len(rows)).split(self.batch_size):
                    value = loss(self.module_(rows[some]), target[some])
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
            self.module_.eval()
        finally:
            tw.set_rng_state(state)

    def _rows(self, x: np.ndarray) -> tw.Tensor:
        return tw.tensor(((x - self.mean_) / self.scale_).astype(np.float32))

    def _outputs(self, x: Any) -> tw.Tensor:
        check_is_fitted(self, "module_")
        with tw.no_grad():
            return self.module_(self._rows(validate_data(self, x, reset=False)))


class NetClassifier(ClassifierMixin, _Net):
    """A classifier: cross-entropy on labels of any kind.

    >>> from tilewright.models import MLP
    >>> x, y = np.array([[0.0], [0.2], [0.8], [1.0]]), ["low", "low", "high", "high"]
    >>> net = NetClassifier(lambda i, o, hidden: MLP([i, hidden, o]), {"hidden": 4}, epochs=100, lr=0.05).fit(x, y)
    >>> net.predict([[0.1], [0.9]]).tolist()
    ['low', 'high']
    """

    def fit(self, X: Any, y: Any) -> NetClassifier:
        """Trains a new network on (N, features) and labels (N,)."""
        X, y = validate_data(self, X, y)
        self.classes_, index = np.unique(y, return_inverse=True)
        self._train(X, tw.tensor(index.astype(np.int64)), len(self.classes_), F.cross_entropy)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, classes), in the order of `classes_`."""
        return F.softmax(self._outputs(X), 1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each row."""
        return self.classes_[self._outputs(X).argmax(1).numpy()]


class NetRegressor(RegressorMixin, _Net):
    """A regressor of one number: mean squared error on standardized targets."""

    def fit(self, X: Any, y: Any) -> NetRegressor:
        """Trains a new network on (N, features) and numbers (N,)."""
        X, y = validate_data(self, X, y, y_numeric=True)
        self.y_mean_, self.y_scale_ = float(np.mean(y)), float(np.std(y)) or 1.0
        target = tw.tensor(((np.asarray(y) - self.y_mean_) / self.y_scale_).astype(np.float32)).unsqueeze(1)
        self._train(X, target, 1, F.mse_loss)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The number of each row."""
        return self._outputs(X).squeeze(1).numpy() * self.y_scale_ + self.y_mean_
