"""Checks and times the problems of benchmarks/problems against the machine's limits and other libraries.

    python -m benchmarks.run softmax --dtype float32 --json out.json
    python -m benchmarks.run all --save
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tilewright as tw
from benchmarks import machine, timing
from benchmarks.families import FAMILIES
from benchmarks.families.common import EPS, KERNEL, OURS, Case, Setup
from benchmarks.memory import peak_of_fresh_process
from tilewright import _engine
from tilewright.kernels import Plan

HERE = Path(__file__).parent
PEERS = ("torch", "numpy", "jax")
LIBRARIES = (OURS, "torch")  # those whose whole models run
SHORTEST = 2e-6  # a limit below this many seconds is less than what a launch costs: no fraction is given


class Refused(Exception):
    """A result that is wrong, and therefore not timed."""


# --- problems ---------------------------------------------------------------------------------------------------------
def parse_problem(text: str, family: Callable, where: str) -> dict[str, Any]:
    """The keyword arguments of one line `key=value key=value`; K, M, G after a number multiply by 1024 and its powers.

    Besides the family's own keys every line may have dtype=..., which then goes before the run's.

    Raises:
        ValueError: a key that the family lacks, a missing one, or a value of the wrong type; names file and line.
    """
    allowed = dict(list(inspect.signature(family).parameters.items())[1:])
    values: dict[str, Any] = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if key == "dtype" and value in EPS and key not in values:
            values[key] = value
            continue
        if not equals or not value or key not in allowed or key in values:
            raise ValueError(f"{where}: must be key=value, each of {', '.join(allowed)} at most once, got '{word}'")
        if allowed[key].annotation == "int":
            number = re.fullmatch(r"(\d+)([KMG]?)", value)
            if not number:
                raise ValueError(f"{where}: {key} must be a number such as 64 or 16K, got '{value}'")
            values[key] = int(number[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[number[2]]
        else:
            values[key] = value
    missing = [k for k, p in allowed.items() if p.default is p.empty and k not in values]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing, got '{text}'")
    return values


def read_problems(path: Path, family: Callable) -> list[tuple[str, dict[str, Any]]]:
    """(line, arguments) of every problem in a file; # begins a comment.

    Raises:
        ValueError: a line that does not fit, or no problem at all.
    """
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = " ".join(line.partition("#")[0].split())
        if text:
            problems.append((text, parse_problem(text, family, f"{path.name}:{number}")))
    if not problems:
        raise ValueError(f"{path.name}: no problem in it")
    return problems


def problem_file(family: str, on_cpu: bool) -> Path:
    """The family's problems; a GPU has its own where the CPU's would not fill it."""
    large = HERE / "problems" / "cuda" / f"{family}.txt"
    return large if not on_cpu and large.exists() else HERE / "problems" / f"{family}.txt"


# --- one problem ------------------------------------------------------------------------------------------------------
def check(name: str, case: Case, dtype: str) -> float:
    """The largest error of a library's result over what is allowed, at most 1.

    Raises:
        Refused: a wrong shape, a NaN, or an error above the allowed one.
    """
    result = case.result(case.calls[name])
    if case.shape is not None and result.shape != case.shape:
        raise Refused(f"{name}: shape {result.shape} where {case.shape} was expected")
    got = case.pick(result).astype(np.float64)
    scale = np.max(np.abs(case.expected), initial=0.0) if case.scale is None else case.scale
    allowed = case.tolerance * EPS[dtype] * scale
    error = np.abs(got - case.expected)
    if not np.all(error <= allowed):  # false for NaN too
        worst = np.unravel_index(np.argmax(np.nan_to_num(error - allowed, nan=np.inf)), error.shape)
        raise Refused(f"{name}: wrong result, {got[worst]:.9g} where {case.expected[worst]:.9g} was expected")
    return float(np.max(error / np.maximum(allowed, 1e-300), initial=0.0))


def run_problem(family: Callable, text: str, arguments: dict[str, Any], dtype: str, device: str, peers: dict[str, Any],
                limits: machine.Limits, seconds: float,
                clock: timing.Clock = timing.host_clock) -> dict[str, Any]:
    """One row of the results: checked, timed, held against the limit and the peers."""
    arguments = dict(arguments)
    dtype = arguments.pop("dtype", dtype)
    with contextlib.ExitStack() as stack:
        if dtype == "tf32":
            for module in (tw, *(m for name, m in peers.items() if name == "torch")):
                stack.enter_context(tf32_products(module))
        return _run_problem(family, text, arguments, dtype, device, peers, limits, seconds, clock)


@contextlib.contextmanager
def tf32_products(module: Any) -> Iterator[None]:
    """Lets a library round float32 products to TF32, while it lasts."""
    switches = module.backends.cuda.matmul, module.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def _run_problem(family: Callable, text: str, arguments: dict[str, Any], dtype: str, device: str, peers: dict[str, Any],
                 limits: machine.Limits, seconds: float, clock: timing.Clock) -> dict[str, Any]:
    row: dict[str, Any] = {"family": family.__name__, "problem": text, "dtype": dtype}
    try:
        case = family(Setup(dtype, device, peers, zlib.crc32(text.encode())), **arguments)
        row["error"] = {name: check(name, case, dtype) for name in (OURS, KERNEL) if name in case.calls}
        for name in [n for n in case.calls if n not in (OURS, KERNEL)]:
            try:
                row["error"][name] = check(name, case, dtype)
            except Refused as e:  # a peer that fails is left out and named; ours is refused
                row.setdefault("peers_left_out", {})[name] = str(e)
                del case.calls[name]
        with Plan() as plan:
            case.calls[OURS]()
    except (Refused, NotImplementedError, ValueError, TypeError, RuntimeError, AttributeError) as e:
        return row | {"refused": f"{type(e).__name__}: {e}"}
    runners = {OURS: timing.calls(case.calls[OURS])}
    if len(plan):  # unless a function of tilewright.kernels is the whole problem: then it stands in case.calls
        runners[KERNEL] = plan.replay
    runners |= {name: timing.calls(call) for name, call in case.calls.items() if name != OURS}
    measured = timing.measure(runners, seconds, timing.REST if device == "cpu" else 0, clock)
    row |= {"flops": case.flops, "read": case.read, "written": case.written, "launches": len(plan),
            "seconds": {name: timing.summary(values) for name, values in measured.items()},
            "ratio": {name: timing.summary(measured[name] / measured[OURS])
                      for name in measured if name not in (OURS, KERNEL)}}
    hold_to_limit(row, limits)
    if case.fresh:
        row["peak_bytes"] = {name: peak_of_fresh_process(name, case.fresh) for name in case.calls if name in LIBRARIES}
    return row


def hold_to_limit(row: dict[str, Any], limits: machine.Limits) -> None:
    """Adds the problem's limit and, where that is long enough to mean anything, the fraction of it reached."""
    shortest, kind = limits.time(row["flops"], row["read"], row["written"], row["dtype"])
    row["limit"] = {"seconds": shortest, "kind": kind}
    if shortest >= SHORTEST:
        row["fraction"] = {name: shortest / s["median"] for name, s in row["seconds"].items()}


# --- the table --------------------------------------------------------------------------------------------------------
def show_time(s: dict[str, float]) -> str:
    """12.3 us ±4%: median, and the interquartile range as a part of it."""
    unit, size = next((u, f) for u, f in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
                      if s["median"] >= f or u == "ns")
    return f"{s['median'] / size:.3g} {unit} ±{100 * (s['q3'] - s['q1']) / max(s['median'], 1e-12):.0f}%"


def show_row(row: dict[str, Any], peers: list[str]) -> list[str]:
    """One line of the table."""
    if "refused" in row:
        return [row["problem"], f"refused: {row['refused']}", *[""] * (4 + len(peers))]
    main = KERNEL if KERNEL in row["seconds"] else OURS
    median = row["seconds"][main]["median"]
    rate = f"{row['flops'] / median / 1e9:.1f} GFLOP/s" if row["limit"]["kind"] == "flops" else \
        f"{(row['read'] + row['written']) / median / 1e9:.3g} GB/s"
    fraction = f"{row['fraction'][main]:.2f} {row['limit']['kind']}" if "fraction" in row else "-"
    call_fraction = f"{row['fraction'][OURS]:.2f}" if "fraction" in row else "-"
    ratios = [f"{row['ratio'][p]['median']:.2f}" if p in row["ratio"] else
              "wrong" if p in row.get("peers_left_out", {}) else "" for p in peers]
    kernel = show_time(row["seconds"][KERNEL]) if KERNEL in row["seconds"] else "-"
    return [row["problem"], kernel, rate, fraction, show_time(row["seconds"][OURS]), call_fraction, *ratios]


def show_machine(results: dict[str, Any]) -> list[str]:
    """The machine and its limits, as lines of Markdown."""
    about, limits = results["machine"], results["limits"]
    caches = ", ".join(f"{level} {size >> 10} KiB" for level, size in about["cache_bytes"].items())
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    peaks = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in sorted(limits["fma_peak"].items()))
    streams = "; ".join(
        f"{int(size) >> 10} KiB {rates['read'] / 1e9:.0f} / {rates['write'] / 1e9:.0f}"
        for size, rates in sorted(limits["stream"].items(), key=lambda item: int(item[0])))
    lines = [
        f"- CPU: {about['cpu']}, level {about['level']}, {about['threads']} of {about['cores_available']} cores used"
        f", {caches}, {about['memory_gib']} GiB memory",
        f"- {about['os']}, Python {about['python']}, built with {about['compiler'] or 'a compiler it does not name'}; "
        f"tilewright {about['tilewright']}, {versions}",
        f"- FMA peak: {peaks}" if peaks else "- FMA peak: not needed here",
        f"- streams, read / copy or triad, GB/s by working set: {streams}",
        f"- {len(results['rows'])} problems in {results['settings']['took_seconds']:.0f} s",
    ]
    if "gpu" in about:
        gpu = about["gpu"]
        lines.insert(0, f"- GPU: {gpu['name']}, compute capability {gpu['major']}.{gpu['minor']}, "
                        f"{gpu['multi_processor_count']} multiprocessors, {gpu['total_memory'] / 2**30:.0f} GiB; "
                        f"driver {gpu['driver']}, {gpu['date']}, commit {gpu['commit']}")
    if results["settings"]["load_before"] > 0.5 and "gpu" not in about:
        lines.append(f"- **The machine was busy**: load average {results['settings']['load_before']} before the run; "
                     "times are too long and libraries that spin suffer most")
    return lines


def show_table(rows: list[dict[str, Any]], peers: list[str]) -> list[str]:
    """Lines of a Markdown table, padded so that it reads in a terminal too."""
    table = [["problem", "kernel", "rate", "of limit", "call", "of limit", *(f"x {p}" for p in peers)],
             *(show_row(row, peers) for row in rows)]
    widths = [max(len(line[i]) for line in table if len(line) > 1 and not (line[1].startswith("refused") and i == 1))
              for i in range(len(table[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in table]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def show(results: dict[str, Any]) -> str:
    """The whole report: machine, then one table a family, then the geometric means against the peers."""
    lines = ["# Benchmark results", "", *show_machine(results), "",
             "`kernel` replays the launches alone, `call` is the whole Python call; `x torch` is torch's time over our",
             "call's, above 1 when we are faster. How it is timed: `benchmarks/PROTOCOL.md`.", ""]
    names = list(dict.fromkeys(row["family"] for row in results["rows"]))
    for name in names:
        rows = [row for row in results["rows"] if row["family"] == name]
        peers = [p for p in PEERS if any(p in row.get("ratio", {}) for row in rows)]
        lines += [f"## {name}, {results['settings']['dtype']}", "", *show_table(rows, peers), ""]
        for row in rows:
            if all(row.get("peak_bytes", {}).get(name) for name in LIBRARIES):
                ours, torch = (row["peak_bytes"][name] for name in LIBRARIES)
                lines += [f"- {row['problem']}: peak memory {ours / 1e6:.1f} MB, torch {torch / 1e6:.1f} MB, ratio "
                          f"{ours / torch:.2f}"]
        lines += [""] * any("peak_bytes" in row for row in rows)
        for p in peers:
            ratios = [row["ratio"][p]["median"] for row in rows if p in row.get("ratio", {})]
            lines += [f"Against {p}: geometric mean {np.exp(np.mean(np.log(ratios))):.2f}, "
                      f"worst {min(ratios):.2f}, of {len(ratios)}.", ""]
    return "\n".join(lines)


# --- the run ----------------------------------------------------------------------------------------------------------
def load_peers(names: str | None, threads: int, on_cpu: bool = True) -> tuple[dict[str, Any], dict[str, str]]:
    """Modules and versions of the named peers, or of all that are installed. PyTorch gets as many threads as we have,
    and is the one peer on a GPU that it can use.

    Raises:
        ValueError: a name that is not a peer. ImportError: a named one is not installed.
    """
    wanted = PEERS if names is None else tuple(n for n in names.split(",") if n and n != "none")
    modules, versions = {}, {}
    for name in wanted:
        if name not in PEERS:
            raise ValueError(f"peers: must be of {', '.join(PEERS)} or none, got '{name}'")
        try:
            module = importlib.import_module(name)
        except ImportError:
            if names is not None:
                raise
            continue
        versions[name] = module.__version__
        modules[name] = importlib.import_module("jax.numpy") if name == "jax" else module
        if name == "torch":
            module.set_num_threads(threads)
        if not on_cpu and not (name == "torch" and module.cuda.is_available()):
            del modules[name], versions[name]
    return modules, versions


def run_families(names: list[str], options: argparse.Namespace, report: Callable[[str], None]) -> dict[str, Any]:
    """All problems of the families, with the machine and its limits."""
    if options.threads is not None:
        tw.set_num_threads(options.threads)
    threads = tw.get_num_threads()
    _engine.which("add", _engine.device(options.device))  # an unavailable device raises here, before any work
    on_cpu = options.device == "cpu"
    peers, versions = load_peers(options.peers, threads, on_cpu)
    clock = timing.host_clock if on_cpu else timing.device_clock()
    problems = {name: read_problems(options.problems or problem_file(name, on_cpu), FAMILIES[name]) for name in names}
    limits = machine.Limits() if on_cpu else machine.DeviceLimits(options.device, clock, peers)
    rows: list[dict[str, Any]] = []
    start, load = time.monotonic(), os.getloadavg()[0]
    for name in names:
        limits.refresh()
        for text, arguments in problems[name]:
            rows.append(run_problem(FAMILIES[name], text, arguments, options.dtype, options.device, peers,
                                    limits, options.seconds, clock))
            shown = show_row(rows[-1], list(rows[-1].get("ratio", {})))
            report(f"{name}  " + "  ".join(cell for cell in shown if cell))
            tw.empty_cache() if on_cpu else tw.cuda.empty_cache()
    limits.refresh()
    for row in rows:  # once more, to the limits as they stand after the whole run
        if "seconds" in row:
            hold_to_limit(row, limits)
    about = machine.describe(threads, versions) | ({} if on_cpu else machine.describe_device(options.device))
    return {"machine": about, "limits": limits.as_dict(), "rows": rows,
            "settings": {"families": names, "device": options.device, "dtype": options.dtype, "threads": threads,
                         "seconds_a_problem": options.seconds, "load_before": round(load, 2),
                         "took_seconds": round(time.monotonic() - start, 1)}}


def result_name(about: dict[str, Any], dtype: str) -> str:
    """A file name that names CPU or GPU: amd-epyc-family-25-model-17-avx512-2-threads."""
    where = about["gpu"]["name"] if "gpu" in about else f"{about['cpu']} {about['level']} {about['threads']} threads"
    words = where + (f" {dtype}" if dtype != "float32" else "")
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((R|TM)\)", "", words, flags=re.IGNORECASE).lower()).strip("-")


def save_results(results: dict[str, Any]) -> None:
    """benchmarks/results/<this CPU>.md and .json."""
    target = HERE / "results" / result_name(results["machine"], results["settings"]["dtype"])
    target.parent.mkdir(exist_ok=True)
    target.with_name(target.name + ".md").write_text(show(results))
    rows = [rounded(row) for row in results["rows"]]
    head = json.dumps({key: value for key, value in results.items() if key != "rows"}, indent=1)
    target.with_name(target.name + ".json").write_text(
        head.removesuffix("\n}") + ',\n "rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n")


def rounded(value: Any) -> Any:
    """Floats of a row to five digits: more were not measured."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.partition("\n")[0])
    parser.add_argument("family", choices=[*FAMILIES, "all"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=list(EPS))
    parser.add_argument("--threads", type=int, help="of ours and of PyTorch (default: the cores available)")
    parser.add_argument("--problems", type=Path, help="another problem file, for one family")
    parser.add_argument("--peers", help="comma-separated, of torch,numpy,jax, or none (default: all installed)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of timing for each problem (default 0.5)")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/<this CPU>.md and .json")
    options = parser.parse_args(arguments)
    if options.problems and options.family == "all":
        parser.error("--problems goes with one family")
    if options.seconds <= 0:
        parser.error(f"--seconds must be positive, got {options.seconds}")
    try:
        results = run_families(list(FAMILIES) if options.family == "all" else [options.family], options,
                               lambda line: print(line, file=sys.stderr, flush=True))
    except (ValueError, RuntimeError, ImportError, OSError) as e:
        print(f"benchmarks: {e}", file=sys.stderr)
        return 2
    print(show(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.save:
        save_results(results)
    return 1 if any("refused" in row for row in results["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
