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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import GridSearchCV
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


def learn(n: int, weight: float, seed: int, epochs: int = 40, device: str = "cpu") -> dict[str, Any]:
    """AUC on new patients after each epoch of learning from n, the labs' loss counted `weight` times, and the risks."""
    names = "codes", "visits", "labs", "outcome"
    learned, new = records(n, codes=CODES, seed=seed + 1), records(TEST, codes=CODES, seed=1000)
    data, test = ([tw.tensor(r[k]).to(device) for k in names] for r in (learned, new))
    tw.manual_seed(seed)
    model = RecordsNet(CODES + 1, 16, 32, labs=3, dropout=0.5).to(device)
    optimizer, curve, risk = tw.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1), [], None
    for _ in bar(range(epochs), f"{n} patients"):
        for codes, visits, labs, outcome in batches(*data, size=32):
            said = model(codes, visits)
            loss = F.binary_cross_entropy_with_logits(said.risk, outcome.to(said.risk.dtype))
            loss = loss + weight * next_labs(said.labs, labs, visits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with tw.no_grad():
            risk = model(*test[:2]).risk.cpu()
        model.train()
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
    line = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear")),
                        {"logisticregression__C": np.logspace(-4, 0, 5)}, cv=5, scoring="roc_auc")
    line.fit(count_codes(learned, last), learned["outcome"])
    return float(roc_auc_score(new["outcome"], line.decision_function(count_codes(new, last))))


def main() -> None:
    options = arguments(__doc__)
    study, seeds = Study(options, "records"), range(10 if options.full else 5)
    sizes, weights = (100, 200, 400, 800), {"with the labs": 4.0, "without": 0.0}
    auc: dict[str, list[list[float]]] = {}
    for name, weight in weights.items():
        auc[name] = [[study.run(f"{n} {name} {s}", lambda n=n, w=weight, s=s: learn(
            n, w, 10 * options.seed + s, device=options.device))["auc"][-1] for s in seeds] for n in sizes]
    for name, last in (("logistic regression", False), ("and of the last visit", True)):
        auc[name] = [[study.run(f"{n} {name} {s}", lambda n=n, s=s, last=last: regression(
            n, 10 * options.seed + s, last)) for s in seeds] for n in sizes]

    figure, axes = plt.subplots(1, 3, figsize=(11.8, 4))
    for name, rows in auc.items():
        mean, deviation = np.mean(rows, 1), np.std(rows, 1)
        style = "--" if name not in weights else "-"
        axes[0].errorbar(sizes, mean, deviation, fmt="o" + style, capsize=3, label=name, ms=4)
    axes[0].set(xscale="log", xlabel="patients learned from", title=f"AUC on {TEST} new ones, {len(seeds)} draws")
    axes[0].set_xticks(sizes, [str(n) for n in sizes])
    axes[0].minorticks_off()
    axes[0].legend(fontsize=8)
    truth = records(TEST, codes=CODES, seed=1000)["outcome"]
    for name in weights:
        one = study.done[f"200 {name} 0"]
        axes[1].plot(range(1, len(one["auc"]) + 1), one["auc"], label=name)
        axes[2].plot(*roc_curve(truth, one["risk"].numpy())[:2], label=f"{name}: {one['auc'][-1]:.3f}")
    axes[1].set(title="200 patients, one draw: AUC by epoch", xlabel="epoch")
    axes[2].plot([0, 1], [0, 1], "k:", lw=0.8)
    axes[2].set(title="and its ROC curves", xlabel="healthy ones called ill", ylabel="ill ones found")
    for axis in axes[1:]:
        axis.legend(fontsize=8)
    save_picture(figure, options, "records")
    for i, n in enumerate(sizes):
        better = np.mean(np.array(auc["with the labs"][i]) > np.array(auc["without"][i]))
        print(f"{n} patients: AUC", ", ".join(f"{name} {np.mean(rows[i]):.3f}" for name, rows in auc.items()),
              f"; the labs help in {better:.0%} of draws")


if __name__ == "__main__":
    main()
