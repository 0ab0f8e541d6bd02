"""Which network for the breast cancer data? Five-fold cross-validation, stratified, inside scikit-learn's grid search.

    python examples/search.py

The folds score each choice on data that it did not see, and stratified ones all have the share of classes of the whole
(Kohavi 1995). The best score of many is too good, for it was chosen: a quarter that the search never saw says how good
the choice is. The network stands in scikit-learn's search by `tilewright.sklearn.NetClassifier`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import Study, arguments, plt, save_picture
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tilewright.models import MLP
from tilewright.sklearn import NetClassifier


def network(inputs: int, outputs: int, hidden: int = 16, layers: int = 1, dropout: float = 0.0) -> MLP:
    return MLP([inputs, *[hidden] * layers, outputs], dropout=dropout)


def main() -> None:
    options = arguments(__doc__)
    study = Study(options, "search")
    data = load_breast_cancer()
    x, x_test, y, y_test = train_test_split(data.data, data.target, test_size=0.25, stratify=data.target,
                                            random_state=options.seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=options.seed)
    shapes = [{"hidden": h, "layers": n, "dropout": d} for h, n in ((8, 1), (32, 1), (32, 2)) for d in (0.0, 0.3)]
    rates = [1e-3, 1e-2] if not options.full else [3e-4, 1e-3, 3e-3, 1e-2]

    def search() -> dict[str, Any]:
        grid = GridSearchCV(NetClassifier(network, epochs=20, weight_decay=1e-2, seed=options.seed),
                            {"module_options": shapes, "lr": rates}, cv=folds, verbose=1)
        grid.fit(x, y)
        return {"mean": grid.cv_results_["mean_test_score"].tolist(),
                "deviation": grid.cv_results_["std_test_score"].tolist(), "best": grid.best_index_,
                "tried": [f"{p['lr']:g}  {p['module_options']['layers']} x {p['module_options']['hidden']}, dropout "
                          f"{p['module_options']['dropout']:g}" for p in grid.cv_results_["params"]],
                "held out": float(grid.score(x_test, y_test))}

    found = study.run("grid", search)
    line = make_pipeline(StandardScaler(), LogisticRegression())
    base = cross_val_score(line, x, y, cv=folds)
    held = line.fit(x, y).score(x_test, y_test)

    figure, axis = plt.subplots(figsize=(8, 4.5))
    order = np.argsort(found["mean"])
    mean, deviation = (np.array(found[k])[order] for k in ("mean", "deviation"))
    axis.barh(range(len(order)), mean, xerr=deviation, color="#7799cc")
    axis.axvline(base.mean(), color="k", ls="--", label=f"logistic regression {base.mean():.3f}")
    axis.set_yticks(range(len(order)), [found["tried"][i] for i in order], fontsize=7)
    axis.set(xlim=(0.94, 1), xlabel="accuracy of five folds, mean and deviation", title="rate, layers and dropout")
    axis.legend(loc="upper left")
    save_picture(figure, options, "search")
    best = found["best"]
    for name, split in (("stratified", folds), ("plain", KFold(5, shuffle=True, random_state=options.seed))):
        shares = [1 - y[rows].mean() for _, rows in split.split(x, y)]
        print(f"malignant in {name} folds: {', '.join(f'{share:.1%}' for share in shares)}")
    print(f"best of {len(order)}: rate {found['tried'][best]}: {found['mean'][best]:.4f} +- "
          f"{found['deviation'][best]:.4f} over folds, {found['held out']:.4f} on the quarter held out")
    print(f"logistic regression: {base.mean():.4f} +- {base.std():.4f} over folds, {held:.4f} on the quarter held out")


if __name__ == "__main__":
    main()
