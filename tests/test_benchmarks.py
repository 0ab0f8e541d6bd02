"""The benchmark runner's own logic: what it refuses, what it parses, what it writes, and the probes it relies on."""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tilewright import _engine

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import machine, run, timing  # noqa: E402
from benchmarks.families import FAMILIES  # noqa: E402
from benchmarks.families.common import OURS, Case, Setup  # noqa: E402


def small_case(result, **changes):
    x = np.arange(6.0).reshape(2, 3)
    options = {"calls": {OURS: lambda: result}, "expected": x, "flops": 0, "read": 1, "written": 1, "tolerance": 1,
               "shape": (2, 3)}
    return Case(**(options | changes))


class TestCheck:
    def test_right_result_passes_with_its_error(self):
        x = np.arange(6.0).reshape(2, 3)
        assert run.check(OURS, small_case(tw.tensor(x)), "float64") == 0
        off = x.copy()
        off[0, 0] += 2.0**-51  # of the allowed 5 * 2^-52
        assert 0 < run.check(OURS, small_case(tw.tensor(off)), "float64") < 1

    @pytest.mark.parametrize("spoil", [1e-14, np.nan, np.inf])
    def test_wrong_value_is_refused(self, spoil):
        x = np.arange(6.0).reshape(2, 3)
        x[1, 1] += spoil
        with pytest.raises(run.Refused, match=r"tilewright: wrong result, .* where 4 was expected"):
            run.check(OURS, small_case(tw.tensor(x)), "float64")

    def test_wrong_shape_is_refused(self):
        with pytest.raises(run.Refused, match=r"shape \(3, 2\) where \(2, 3\) was expected"):
            run.check(OURS, small_case(tw.zeros(3, 2)), "float64")

    def test_refused_problem_is_not_timed(self, monkeypatch):
        def wrong(setup, size: "int"):
            return small_case(tw.ones(2, 3))

        monkeypatch.setattr(timing, "measure", lambda *a: pytest.fail("a wrong result was timed"))
        row = run.run_problem(wrong, "size=1", {"size": 1}, "float32", "cpu", {}, machine.Limits(), 0.01)
        assert row["refused"].startswith("Refused: tilewright: wrong result") and "seconds" not in row
        assert "refused" in run.show_row(row, [])[1]

    def test_wrong_peer_is_left_out_and_named(self):
        def family(setup):
            x = np.arange(6.0).reshape(2, 3)
            y = tw.tensor(x)
            return small_case(None, calls={OURS: lambda: y + 0.0, "numpy": lambda: x + 1, "torch": lambda: x})

        row = run.run_problem(family, "", {}, "float64", "cpu", {}, machine.Limits(0.002), 0.01)
        assert set(row["ratio"]) == {"torch"} and "wrong result" in row["peers_left_out"]["numpy"]
        assert run.show_row(row, ["torch", "numpy"])[-1] == "wrong"


class TestProblems:
    @staticmethod
    def family(setup, m: "int", n: "int" = 2, layout: "str" = "NN"):
        """Stands for a family function."""

    def read(self, tmp_path, text):
        path = tmp_path / "p.txt"
        path.write_text(text)
        return run.read_problems(path, self.family)

    def test_lines_comments_and_suffixes(self, tmp_path):
        assert self.read(tmp_path, "# why\n\nm=2K  layout=NT # note\nm=3 n=1M\n") == [
            ("m=2K layout=NT", {"m": 2048, "layout": "NT"}), ("m=3 n=1M", {"m": 3, "n": 1 << 20})]

    @pytest.mark.parametrize(("line", "words"), [
        ("m", "must be key=value"), ("m=1 q=2", "got 'q=2'"), ("m=1 m=2", "at most once"), ("m=x", "must be a number"),
        ("m=-1", "must be a number"), ("m=1.5", "must be a number"), ("n=1", "m missing"), ("m=", "must be key=value")])
    def test_error_names_file_and_line(self, tmp_path, line, words):
        with pytest.raises(ValueError, match=r"p\.txt:3: ") as error:
            self.read(tmp_path, f"# header\nm=1\n{line}\n")
        assert words in str(error.value)

    def test_a_line_may_name_its_dtype(self, tmp_path):
        assert self.read(tmp_path, "m=1 dtype=bfloat16\n") == [("m=1 dtype=bfloat16", {"m": 1, "dtype": "bfloat16"})]
        with pytest.raises(ValueError, match="got 'dtype=int8'"):
            self.read(tmp_path, "m=1 dtype=int8\n")

    def test_empty_file(self, tmp_path):
        with pytest.raises(ValueError, match="no problem in it"):
            self.read(tmp_path, "# nothing\n")

    def test_every_family_has_problems(self):
        assert {path.stem for path in (run.HERE / "problems").glob("*.txt")} == set(FAMILIES)

    @pytest.mark.parametrize("path", sorted((run.HERE / "problems").rglob("*.txt")),
                             ids=lambda p: f"{p.parent.name}/{p.stem}")
    def test_shipped_problems_parse_and_say_why(self, path):
        assert path.read_text().startswith("# ")
        problems = run.read_problems(path, FAMILIES[path.stem])
        assert len({text for text, _ in problems}) == len(problems)


@pytest.mark.parametrize(("name", "line"), [(n, line) for n, f in FAMILIES.items() for line in f.small])
def test_family_checks_right_and_counts_bytes(name, line):
    """Every contender of every family agrees with the reference, and a changed reference is noticed."""
    family = FAMILIES[name]
    peers, _ = run.load_peers(None, tw.get_num_threads())
    arguments = run.parse_problem(line, family, "here")
    case = family(Setup("float32", "cpu", peers, 0), **arguments)
    for contender in case.calls:
        assert run.check(contender, case, "float32") <= 1
    assert case.written > 0 and (case.read > 0 or name == "random")
    again = family(Setup("float32", "cpu", {}, 0), **arguments)
    again.expected = again.expected + 1.0
    with pytest.raises(run.Refused):
        run.check(OURS, again, "float32")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes_check_right(dtype):
    for name, line in [("matmul", "m=5 n=7 k=9"), ("softmax", "rows=5 cols=9"), ("elementwise", "op=exp size=1K")]:
        family = FAMILIES[name]
        case = family(Setup(dtype, "cpu", {}, 0), **run.parse_problem(line, family, "here"))
        assert run.check(OURS, case, dtype) <= 1


def test_run_and_json_round_trip(tmp_path, capsys):
    problems = tmp_path / "softmax.txt"
    problems.write_text("rows=64 cols=10\nrows=2K cols=64\n")
    target = tmp_path / "out.json"
    before = tw.get_num_threads()
    try:
        status = run.main(["softmax", "--problems", str(problems), "--json", str(target), "--seconds", "0.02",
                           "--peers", "numpy", "--threads", "1"])
    finally:
        tw.set_num_threads(before)
    assert status == 0
    results = json.loads(target.read_text())
    assert run.show(results) + "\n" == capsys.readouterr().out
    assert [row["problem"] for row in results["rows"]] == ["rows=64 cols=10", "rows=2K cols=64"]
    row = results["rows"][1]
    assert row["read"] == row["written"] == 2048 * 64 * 4 and row["launches"] == 1
    assert set(row["seconds"]) == {OURS, run.KERNEL, "numpy"} and row["seconds"][run.KERNEL]["rounds"] >= 5
    assert row["ratio"]["numpy"]["q1"] <= row["ratio"]["numpy"]["median"] <= row["ratio"]["numpy"]["q3"]
    assert row["fraction"][OURS] == row["limit"]["seconds"] / row["seconds"][OURS]["median"]
    about = results["machine"]
    assert about["level"] == tw.cpu_capability() and about["threads"] == 1 and "numpy" in about["versions"]
    text = target.read_text()
    assert str(ROOT) not in text and str(Path.home()) not in text


def test_bad_arguments_end_with_a_message(capsys):
    assert run.main(["softmax", "--peers", "nonesuch"]) == 2
    assert "peers: must be of torch, numpy, jax or none, got 'nonesuch'" in capsys.readouterr().err
    if not hasattr(tw, "cuda"):
        assert run.main(["softmax", "--device", "cuda"]) == 2
        assert "cuda" in capsys.readouterr().err


def test_measure_gives_every_contender_the_same_rounds():
    order = []
    runners = {name: (lambda times, name=name: order.append(name)) for name in "ab"}
    measured = timing.measure(runners, 1e-5, rest=0)
    assert len(measured["a"]) == len(measured["b"]) >= timing.ROUNDS_LEAST
    assert {"a", "b"} == set(order)


def test_limit_is_the_larger_of_both():
    limits = machine.Limits(0.001)
    limits.peaks = {"float32": 100.0, "float64": 50.0}
    limits.streams = {str(limits.memory_set): {"read": 20.0, "write": 10.0}, "65536": {"read": 40.0, "write": 20.0}}
    big = limits.memory_set
    assert limits.time(1e12, big, big, "float32") == (1e10, "flops")
    assert limits.time(1e12, 1, 65536, "float64") == (2e10, "flops")
    assert limits.time(0, big // 2, big // 2, "float32") == (big / 10.0, "memory")
    assert limits.time(0, big, 8, "float32") == ((big + 8) / 20.0, "memory")
    assert limits.time(0, 40000, 40000, "float32") == (80000 / 20.0, "cache")


class TestProbes:
    def test_fma_peak_is_plausible(self):
        """Above what any CPU does in scalar code that waits for memory, below a thousand operations a cycle."""
        rate = {t: _engine.fma_peak(getattr(_engine, t), 0.02) for t in ("float32", "float64")}
        assert 1e9 < rate["float64"] < rate["float32"] * 1.2 and rate["float32"] < 1e13 * tw.get_num_threads()

    def test_streams_check_their_own_result(self):
        """The probe itself raises when what it wrote is wrong; in cache no stream is slower than a GB/s."""
        for kind in ("read", "copy", "triad"):
            for bytes in (4096, 100_000, 65 << 20):
                assert 1e9 < _engine.stream(kind, bytes, bytes > 1 << 20, 0.004) < 1e14

    def test_bad_arguments(self):
        with pytest.raises(TypeError, match="fma_peak: must be float32 or float64, got int32"):
            _engine.fma_peak(_engine.int32)
        with pytest.raises(ValueError, match="stream: kind must be 'read', 'copy' or 'triad', got 'write'"):
            _engine.stream("write", 4096)
        with pytest.raises(ValueError, match="stream: bytes must be in"):
            _engine.stream("read", 100)


def test_every_family_documents_itself():
    for name in FAMILIES:
        family = FAMILIES[name]
        assert inspect.getdoc(family), name


def test_report_replaces_only_what_is_between_its_marks(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from benchmarks import report

    problems = tmp_path / "softmax.txt"
    problems.write_text("rows=64 cols=100\n")
    target = tmp_path / "out.json"
    run.main(["softmax", "--problems", str(problems), "--json", str(target), "--seconds", "0.02", "--peers", "numpy"])
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nwhat was here\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "DOCS", tmp_path)
    for _ in range(2):  # twice is as once
        assert report.main([str(target)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n- CPU: ") and text.endswith(f"{report.END}\nafter\n")
    assert "| softmax | 1 | " in text and "what was here" not in text
    for picture in ("roofline", "peers"):
        assert "</svg>" in (tmp_path / "images" / f"{picture}.svg").read_text()
