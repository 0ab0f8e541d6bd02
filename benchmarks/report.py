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

from benchmarks.run import KERNEL, OURS, PEERS, show_machine

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures: written by benchmarks.report -->", "<!-- end of figures -->"
COLOURS = {"torch": "#d1495b", "numpy": "#3d5a80", "jax": "#8d6a9f"}


def geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


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
def summary(rows: list[dict]) -> list[str]:
    """A line a family: fraction of the limit (median, least), then each peer's geometric mean and worst."""
    lines = ["| family | problems | of limit, median (least) | x torch, mean (worst) | x numpy | x jax |",
             "|---|---|---|---|---|---|"]
    for name, group in by_family(rows).items():
        fractions = [row["fraction"].get(KERNEL, row["fraction"][OURS]) for row in group if "fraction" in row]
        cells = [f"{np.median(fractions):.2f} ({min(fractions):.2f})" if fractions and name != "model" else "-"]
        for p in PEERS:
            ratios = [row["ratio"][p]["median"] for row in group if p in row["ratio"]]
            cells.append(f"{geometric_mean(ratios):.2f} ({min(ratios):.2f})" if ratios else "")
        lines.append(f"| {name} | {len(group)} | " + " | ".join(
            cells[i] for i in (0, 1 + PEERS.index("torch"), 1 + PEERS.index("numpy"), 1 + PEERS.index("jax"))) + " |")
    return lines


def missed(rows: list[dict]) -> list[str]:
    """Every problem on which PyTorch is faster, the worst first."""
    behind = sorted((row["ratio"]["torch"]["median"], row["family"], row["problem"]) for row in rows
                    if "seconds" in row and "torch" in row["ratio"] and row["ratio"]["torch"]["median"] < 1)
    return ["| x torch | family | problem |", "|---|---|---|",
            *(f"| {ratio:.2f} | {family} | `{problem}` |" for ratio, family, problem in behind)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.partition("\n")[0])
    parser.add_argument("json", nargs="+", type=Path, help="results of benchmarks.run; later ones replace families")
    options = parser.parse_args(arguments)
    results = json.loads(options.json[0].read_text())
    for path in options.json[1:]:
        more = json.loads(path.read_text())
        names = {row["family"] for row in more["rows"]}
        results["rows"] = [row for row in results["rows"] if row["family"] not in names] + more["rows"]
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
               "", *summary(results["rows"]), "", "Problems on which PyTorch is faster:", "", *missed(results["rows"]),
               END]
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + "\n".join(figures) + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
