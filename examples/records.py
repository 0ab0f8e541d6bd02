"""Health records over time: who will fall ill, from the codes of the visits so far, with laboratory values to help.

    python examples/records.py

The codes of a visit are embedded and summed, the visits run through a GRU, and the last state gives the risk (Choi et
al., Doctor AI, arXiv:1511.05942). Where patients are few, the outcome alone teaches little: one bit a patient. An
auxiliary task, here the laboratory values of the next visit, teaches the same state at each visit what the patient is
like (Caruana 1997), and is not asked for when the risk is: the values are targets only, never inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, bar, batches, plt, save_picture
from generated import records
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tilewright as tw
from tilewright.models import RecordsNet
from tilewright.nn import functional as F

CODES = 60
TEST = 2000


def next_labs(said: tw.Tensor, labs: tw.Tensor, visits: tw.Tensor) -> tw.Tensor:
    """Mean squared error of what was said at each visit of the labs at the next, where there is one."""
    there = tw.arange(1, labs.shape[1], device=labs.device) < visits.unsqueeze(1)
    return F.mse_loss(said[:, :-1][there], labs[:, 1:][there])


def learn(n: int, weight: float, seed: int, epochs: int = 30, device: str = "cpu") -> dict[str, Any]:
    """AUC on new patients after each epoch of learning from n, the labs' loss counted `weight` times, and the risks."""
    names = "codes", "visits", "labs", "outcome"
    learned, new = records(n, codes=CODES, seed=seed + 1), records(TEST, codes=CODES, seed=1000)
    data, test = ([tw.tensor(r[k]).to(device) for k in names] for r in (learned, new))
    tw.manual_seed(seed)
    model = RecordsNet(CODES + 1, 16, 32, labs=3).to(device)
    optimizer, curve, risk = tw.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1), [], None
    for _ in range(epochs):
        for codes, visits, labs, outcome in batches(*data, size=32):
            said = model(codes, visits)
            loss = F.binary_cross_entropy_with_logits(said.risk, outcome.to(said.risk.dtype))
            loss = loss + weight * next_labs(said.labs, labs, visits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with tw.no_grad():
            risk = model(*test[:2]).risk.cpu()
        curve.append(float(roc_auc_score(new["outcome"], risk.numpy())))
    return {"auc": curve, "risk": risk}


def count_codes(r: dict[str, np.ndarray], last: bool = False) -> np.ndarray:
    """How often each code occurs in a patient's record (n, CODES); with last, beside that in the last visit."""
    def table(codes: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(c.ravel(), minlength=CODES + 1)[1:] for c in codes])

    return np.c_[table(r["codes"]), table(r["codes"][np.arange(len(r["visits"])), r["visits"] - 1])] if last else \
        table(r["codes"])


def regression(n: int, seed: int, last: bool = False) -> float:
    """The baseline's AUC: logistic regression on counts, its penalty chosen by cross-validation."""
    learned, new = records(n, codes=CODES, seed=seed + 1), records(TEST, codes=CODES, seed=1000)
    line = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-4, 1, 6), cv=5, scoring="roc_auc",
                                                                max_iter=500))
    line.fit(count_codes(learned, last), learned["outcome"])
    return float(roc_auc_score(new["outcome"], line.predict_proba(count_codes(new, last))[:, 1]))
