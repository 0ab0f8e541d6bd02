"""Writes the pictures and the figures of docs/performance.md from the runner's JSON.

    python -m benchmarks.report benchmarks/results/NAME.json [MORE.json ...]

Only what stands between the page's two `figures` marks is replaced; its text is written by hand. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import KERNEL, LIBRARIES, OURS, PEERS, save_results, show, show_machine

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures: written by benchmarks.report -->", "<!-- end of figures -->"
COLOURS = {"torch": "#d1495b", "numpy": "#3d5a80", "jax": "#8d6a9f"}


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Several runs on one machine as one: the newest rows of each family, the best limits."""
    results = runs[0]
    for run in runs[1:]:
        names = {row["family"] for row in run["rows"]}
        results["rows"] = [row for row in results["rows"] if row["family"] not in names] + run["rows"]
        for key, rate in run["limits"]["fma_peak"].items():
            results["limits"]["fma_peak"][key] = max(rate, results["limits"]["fma_peak"].get(key, 0))
        for size, rates in run["limits"]["stream"].items():
            old = results["limits"]["stream"].setdefault(size, rates)
            results["limits"]["stream"][size] = {kind: max(rates[kind], old[kind]) for kind in rates}
        results["settings"]["took_seconds"] += run["settings"]["took_seconds"]
        results["settings"]["families"] = list(dict.fromkeys(row["family"] for row in results["rows"]))
        results["machine"]["versions"] |= run["machine"]["versions"]
    return results


def by_family(rows: list[dict]) -> dict[str, list[dict]]:
    families: dict[str, list[dict]] = {}
    for row in rows:
        if "seconds" in row:
            families.setdefault(row["family"], []).append(row)
    return families


def kernel_seconds(row: dict) -> float:
    return row["seconds"].get(KERNEL, row["seconds"][OURS])["median"]


# --- pictures ---------------------------------------------------------------------------------------------------------
def draw_roofline(results: dict[str, Any], path: Path) -> None:
    """Two panels: kernels with arithmetic under FMA peak and memory bandwidth; streaming kernels under the streams."""
    import matplotlib.pyplot as plt

    families = by_family(results["rows"])
    streams, peak = results["limits"]["stream"], results["limits"]["fma_peak"].get("float32", np.inf)
    figure, (roof, stream) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colours = dict(zip(families, plt.get_cmap("tab20")(np.linspace(0, 1, len(families))), strict=True))
    memory = max(streams[max(streams, key=int)].values())
    x = np.logspace(-1, 4, 200)
    roof.plot(x, np.minimum(x * memory, peak) / 1e9, color="black", linewidth=1)
    if np.isfinite(peak):  # no problem of the run needed it
        roof.annotate(f"FMA peak {peak / 1e9:.0f} GFLOP/s", (x[-1], peak / 1e9), ha="right", va="bottom")
    roof.annotate(f"memory {memory / 1e9:.0f} GB/s", (0.2, 0.26 * memory / 1e9), rotation=38)
    sizes = sorted(streams, key=int)
    for kind, style in (("read", "--"), ("write", "-")):
        stream.plot([int(s) for s in sizes], [streams[s][kind] / 1e9 for s in sizes], style, color="black", linewidth=1,
                    label={"read": "read", "write": "copy or triad"}[kind])
    for name, rows in families.items():
        moved = np.array([row["read"] + row["written"] for row in rows], float)
        seconds = np.array([kernel_seconds(row) for row in rows])
        flops = np.array([row["flops"] for row in rows], float)
        some = (flops > 0) & (np.array([row["dtype"] for row in rows]) == "float32")
        if some.any():
            roof.scatter(flops[some] / moved[some], flops[some] / seconds[some] / 1e9, s=14, label=name,
                         color=colours[name])
        streaming = (flops == 0) & (moved >= 16384) & (name != "model")
        if streaming.any():
            stream.scatter(moved[streaming], moved[streaming] / seconds[streaming] / 1e9, s=14, label=name,
                           color=colours[name])
    roof.set(xscale="log", yscale="log", xlabel="operations per byte that must move", ylabel="GFLOP/s (float32)",
             title="Kernels with arithmetic", ylim=(1, None))
    stream.set(xscale="log", yscale="log", xlabel="bytes read and written", ylabel="GB/s",
               title="Kernels that stream")
    for axes in (roof, stream):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=7, ncols=2)
    save(figure, path)


def draw_bars(results: dict[str, Any], path: Path) -> None:
    """A family a group, a peer a bar: the geometric mean of peer's time over our call's, the worst problem as a dot."""
    import matplotlib.pyplot as plt

    families = by_family(results["rows"])
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(families) + 1.2), layout="constrained")
    for i, rows in enumerate(families.values()):
        peers = [p for p in PEERS if any(p in row["ratio"] for row in rows)]
        for j, p in enumerate(peers):
            ratios = [row["ratio"][p]["median"] for row in rows if p in row["ratio"]]
            at = i + 0.8 * (j + 0.5) / len(peers) - 0.4
            axes.barh(at, geometric_mean(ratios) - 1, 0.8 / len(peers), left=1, color=COLOURS[p],
                      label=None if p in axes.get_legend_handles_labels()[1] else p)
            axes.plot(min(ratios), at, "o", color="black", markersize=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", yticks=range(len(families)), yticklabels=families,
             xlabel="peer's time / ours (whole calls): bars are geometric means, dots the worst problem")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


# --- tables -----------------------------------------------------------------------------------------------------------
# What each family's problems are to reach: the fraction of the limit (of those that move 1 MB or compute), and the
# ratio to PyTorch.
ASKED: dict[str, tuple[float | None, float]] = {
    "matmul": (0.75, 1), "linear": (None, 1.5), "conv2d": (None, 1), "conv1d": (None, 1), "conv3d": (None, 1),
    "conv_transpose": (None, 1), "pool": (0.8, 3), "interpolate": (0.8, 3), "pad": (0.8, 3), "elementwise": (0.85, 3),
    "reductions": (0.85, 1), "cumsum": (None, 1), "sort": (None, 1), "topk": (None, 1), "softmax": (0.8, 2),
    "cross_entropy": (0.8, 2), "layer_norm": (0.8, 2), "rms_norm": (0.8, 2), "batch_norm": (0.8, 2),
    "group_norm": (0.8, 2), "attention": (None, 1.5), "lstm": (None, 1), "gru": (None, 1.5), "rnn": (None, 1.5),
    "embedding": (None, 1.5), "gather": (None, 1.5), "scatter": (None, 1.5), "index": (None, 1.5),
    "optimizers": (0.9, 2), "random": (None, 4), "overhead": (None, 1), "model": (None, 1.5)}
BIG = 1 << 20  # bytes moved


def fraction_of(row: dict) -> float | None:
    """The fraction of the limit reached, for problems whose family is asked for one and that are big enough."""
    big = row["flops"] > 0 or row["read"] + row["written"] >= BIG
    if ASKED[row["family"]][0] is None or "fraction" not in row or not big:
        return None
    return row["fraction"].get(KERNEL, row["fraction"][OURS])


def ratio_of(row: dict) -> float | None:
    return row["ratio"]["torch"]["median"] if "torch" in row["ratio"] else None


def summary(rows: list[dict]) -> list[str]:
    """A line a family: what was asked, the fraction of the limit (median, least), each peer's mean and worst ratio."""
    lines = ["| family | problems | of limit: asked | median (least) | reach it | x torch: asked | mean (worst) "
             "| reach it | x numpy | x jax |", "|---" * 10 + "|"]
    for name, group in by_family(rows).items():
        limit, ratio = ASKED[name]
        fractions = [f for row in group if (f := fraction_of(row)) is not None]
        cells = [f"{limit}", f"{np.median(fractions):.2f} ({min(fractions):.2f})",
                 f"{sum(f >= limit for f in fractions)} of {len(fractions)}"] if limit and fractions else [""] * 3
        for p in ("torch", "numpy", "jax"):
            ratios = [row["ratio"][p]["median"] for row in group if p in row["ratio"]]
            shown = f"{geometric_mean(ratios):.2f} ({min(ratios):.2f})" if ratios else ""
            cells += [f"{ratio:g}", shown, f"{sum(r >= ratio for r in ratios)} of {len(ratios)}"] if p == "torch" \
                else [shown]
        lines.append(f"| {name} | {len(group)} | " + " | ".join(cells) + " |")
    return lines


def peak_memory(rows: list[dict]) -> list[str]:
    """Peak memory of whole training steps, each measured in fresh processes past their imports."""
    lines = ["| whole step | peak memory, MB | PyTorch's | ratio |", "|---|---|---|---|"]
    for row in rows:
        if all(row.get("peak_bytes", {}).get(name) for name in LIBRARIES):
            ours, torch = (row["peak_bytes"][name] for name in LIBRARIES)
            lines.append(f"| `{row['problem']}` | {ours / 1e6:.1f} | {torch / 1e6:.1f} | {ours / torch:.2f} |")
    return lines


def missed(rows: list[dict]) -> list[str]:
    """Every problem that misses its ratio or its fraction, by family."""
    lines = ["| family | problem | of limit | x torch |", "|---|---|---|---|"]
    for name, group in by_family(rows).items():
        limit, ratio = ASKED[name]
        for row in group:
            fraction, r = fraction_of(row), ratio_of(row)
            short, slow = fraction is not None and limit and fraction < limit, r is not None and r < ratio
            if short or slow:
                dtype = "" if row["dtype"] == "float32" or "dtype=" in row["problem"] else f" {row['dtype']}"
                cells = [f"**{v:.2f}**" if bad else "" if v is None else f"{v:.2f}"
                         for v, bad in ((fraction, short), (r, slow))]
                lines.append(f"| {name} | `{row['problem']}`{dtype} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.partition("\n")[0])
    parser.add_argument("json", nargs="+", type=Path, help="results of benchmarks.run; later ones replace families")
    parser.add_argument("--table", action="store_true", help="only print the runner's tables of all the results")
    parser.add_argument("--save", action="store_true", help="also keep them as one in benchmarks/results")
    options = parser.parse_args(arguments)
    results = merged([json.loads(path.read_text()) for path in options.json])
    if options.save:
        save_results(results)
    if options.table:
        print(show(results))
        return 0
    try:
        import matplotlib
    except ImportError:
        print("benchmarks: the pictures need matplotlib (pip install matplotlib)", file=sys.stderr)
        return 2
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tilewright"
    draw_roofline(results, DOCS / "images" / "roofline.svg")
    draw_bars(results, DOCS / "images" / "peers.svg")
    figures = [BEGIN, *show_machine(results), "", "![roofline](images/roofline.svg)", "", "![peers](images/peers.svg)",
               "", *summary(results["rows"]), "", *peak_memory(results["rows"]), "",
               "Problems that miss what was asked (bold); the notes below say why:", "", *missed(results["rows"]), END]
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + "\n".join(figures) + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
