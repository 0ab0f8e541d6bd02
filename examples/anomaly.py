"""Anomalies by reconstruction error: an autoencoder that saw only normal cases cannot give back the others.

    python examples/anomaly.py

What the lectures say: train on normal cases alone, since faults are rare and each is another; the narrow code holds
only what normal cases have in common (Sakurada and Yairi 2014). Each feature's error is measured in deviations of that
error on normal cases held back, so that the largest says which feature is wrong; their mean square is the case's score,
and what exceeds the mean of normal scores by three deviations is reported. Beside it scikit-learn's isolation forest
(Liu et al. 2008) and one-class support vectors (Schoelkopf et al. 2001), and PCA in the net's place. Benign tumours are
normal and malignant ones not; or sound treatment plans, and plans of which only the relations are wrong (generated).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from autoencoders import PCA, train
from common import Study, arguments, bar, plt, save_picture
from generated import plans
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.svm import OneClassSVM

import tilewright as tw
from tilewright import nn
from tilewright.models import Autoencoder


class Detector:
    """Any model that gives back its input, and what its errors are on normal cases held back (n, features)."""

    def __init__(self, model: Any, held: tw.Tensor):
        self.model = model
        self.mean, self.deviation = tw.zeros_like(held[0]), tw.ones_like(held[0])
        errors = self.deviations(held)
        self.mean, self.deviation = errors.mean(0), errors.std(0)
        scores = self.score(held)
        self.threshold = (scores.mean() + 3 * scores.std()).item()

    @tw.no_grad()
    def deviations(self, x: tw.Tensor) -> tw.Tensor:
        """(n, features): how far each feature lies from what the model expects, in deviations of normal cases."""
        return (self.model(x) - x - self.mean) / self.deviation

    def score(self, x: tw.Tensor) -> tw.Tensor:
        return self.deviations(x).square().mean(1)


def autoencoder(x: tw.Tensor, epochs: int) -> Autoencoder:
    """Bounded units: a net of ReLUs goes on linearly and so gives back large, malignant, values too well."""
    return train(Autoencoder([x.shape[1], 64, 32, 4], nn.Tanh).to(x.device), x, epochs)


def compare(x: np.ndarray, wrong: np.ndarray, epochs: int, seed: int, device: str,
            others: bool = True) -> dict[str, Any]:
    """Half of the normal cases to learn from, an eighth for the threshold; the rest and all wrong ones are judged."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(~wrong))
    learn, hold, rest = np.split(normal, [len(normal) // 2, 5 * len(normal) // 8])
    test = np.concatenate([rest, np.flatnonzero(wrong)])
    scaled = ((x - x[learn].mean(0)) / x[learn].std(0)).astype(np.float32)
    known, held, judged = (tw.tensor(scaled[rows]).to(device) for rows in (learn, hold, test))
    net = Detector(autoencoder(known, epochs), held)
    scores = {"autoencoder": net.score(judged).cpu().numpy()}
    if others:
        both = scaled[np.concatenate([learn, hold])]  # they need no cases held back
        scores |= {"PCA of 4": Detector(PCA(known, 4), held).score(judged).cpu().numpy(),
                   "isolation forest": -IsolationForest(random_state=seed).fit(both).score_samples(scaled[test]),
                   "one-class SVM": -OneClassSVM(nu=0.05).fit(both).decision_function(scaled[test])}
    found = scores["autoencoder"] > net.threshold
    return {"auc": {k: float(roc_auc_score(wrong[test], v)) for k, v in scores.items()},
            "curves": {k: [c.tolist() for c in roc_curve(wrong[test], v)[:2]] for k, v in scores.items()},
            "found": float(found[wrong[test]].mean()), "alarms": float(found[~wrong[test]].mean()),
            "scores": tw.tensor(scores["autoencoder"]), "threshold": net.threshold, "test": test.tolist(),
            "wrong": wrong[test].tolist(), "deviations": net.deviations(judged).cpu()}


def circular(x: np.ndarray) -> np.ndarray:
    """Plans (n, 30) with each angle as its sine and cosine (n, 40): 359 and 1 degrees are neighbours."""
    distance, angle, meterset = x.reshape(len(x), 10, 3).transpose(2, 0, 1)
    t = np.radians(angle)
    return np.stack([distance, np.sin(t), np.cos(t), meterset], 2).reshape(len(x), 40)


def cancer(epochs: int, seed: int, device: str) -> dict[str, Any]:
    data = load_breast_cancer()
    return compare(data.data, data.target == 0, epochs, seed, device)


def planned(n: int, epochs: int, seed: int, device: str, others: bool = True) -> dict[str, Any]:
    """Plans, an eighth as many faulty ones; and how often the three features that deviate most hold a wrong one.

    `degrees` is the net's AUC with angles as they are.
    """
    x, mask, _ = plans(n, n // 8, seed=seed)
    wrong = mask.any(1)
    result = compare(circular(x), wrong, epochs, seed, device, others)
    if others:
        result["degrees"] = compare(x, wrong, epochs, seed, device, False)["auc"]["autoencoder"]
    parts = result["deviations"].reshape(-1, 10, 4).square().numpy()  # an angle deviates by sine or cosine
    parts = np.stack([parts[..., 0], parts[..., 1:3].max(2), parts[..., 3]], 2)
    result["deviations"] = tw.tensor(parts.reshape(-1, 30)).sqrt()
    mask = mask[result.pop("test")]
    first = np.take_along_axis(mask, result["deviations"].numpy().argsort(1)[:, -3:], 1)[mask.any(1)]
    return result | {"mask": tw.tensor(mask), "chance": float(mask[mask.any(1)].mean()),
                     "blamed": float(first[:, -1].mean()), "in three": float(first.any(1).mean())}


def main() -> None:
    options = arguments(__doc__)
    study, repeats, device = Study(options, "anomaly"), 20 if options.full else 5, options.device
    seeds = range(options.seed, options.seed + repeats)
    tumours = [study.run(f"tumours {s}", lambda s=s: cancer(150, s, device)) for s in bar(seeds, "tumours")]
    faults = [study.run(f"plans {s}", lambda s=s: planned(4000, 80, s, device)) for s in bar(seeds, "plans")]

    figure, axes = plt.subplots(2, 3, figsize=(11.7, 7))
    names = list(load_breast_cancer().feature_names), plans(1, 1)[2]
    for row, runs, what in zip(axes, (tumours, faults), ("malignant tumours", "faulty plans"), strict=True):
        print(f"{what}: AUC, mean and deviation of {repeats} splits")
        first, wrong = runs[0], np.array(runs[0]["wrong"])
        for name, curve in first["curves"].items():
            auc = [r["auc"][name] for r in runs]
            behind = sum(r["auc"]["autoencoder"] > r["auc"][name] for r in runs)
            print(f"    {name:18} {np.mean(auc):.4f} +- {np.std(auc):.4f}" +
                  f"   the autoencoder is better in {behind}" * (name != "autoencoder"))
            row[0].plot(*curve, label=f"{name} {np.mean(auc):.3f}")
        print(f"    above mean + 3 deviations of normal scores: {np.mean([r['found'] for r in runs]):.3f} of {what}, "
              f"{np.mean([r['alarms'] for r in runs]):.3f} of normal ones")
        row[0].legend(title="AUC", fontsize=8)
        row[0].set(xlabel="false alarms", ylabel="found", title=what)
        scores, bins = first["scores"].numpy(), np.geomspace(0.1, 100, 40)
        for these, colour in ((~wrong, "#7799cc"), (wrong, "#cc7777")):
            row[1].hist(scores[these].clip(0.1, 100), bins, alpha=0.7, color=colour, weights=np.full(these.sum(), 100 /
                        these.sum()), label=what if colour == "#cc7777" else "normal")
        row[1].axvline(first["threshold"], color="k", ls="--", label="threshold")
        row[1].set(xscale="log", xlabel="mean square of deviations", ylabel="% of cases")
        row[1].legend(fontsize=8)
    every = np.abs(tumours[0]["deviations"].numpy())[np.array(tumours[0]["wrong"])].mean(0)
    order = every.argsort()[-10:]
    axes[0, 2].barh([names[0][i] for i in order], every[order], color="#cc7777")
    axes[0, 2].set(title="what deviates in malignant ones", xlabel="mean absolute deviation")
    axes[0, 2].tick_params(axis="y", labelsize=7)
    plain = int(faults[0]["scores"].numpy()[wrong].argsort()[wrong.sum() // 2])  # a faulty plan of median score
    axes[1, 2].barh(names[1], faults[0]["deviations"].numpy()[wrong][plain],
                    color=["#cc7777" if m else "#7799cc" for m in faults[0]["mask"].numpy()[wrong][plain]])
    axes[1, 2].set(title="a faulty plan; red: truly wrong", xlabel="deviations")
    axes[1, 2].tick_params(axis="y", labelsize=5)
    degrees, most, three, chance = (np.mean([r[k] for r in faults])
                                    for k in ("degrees", "blamed", "in three", "chance"))
    print(f"    angles in degrees instead of sine and cosine: autoencoder {degrees:.4f}")
    print(f"    the feature that deviates most is a wrong one in {most:.3f} of faulty plans (by chance {chance:.3f}), "
          f"one of the first three in {three:.3f}")
    save_picture(figure, options, "anomaly")


if __name__ == "__main__":
    main()
