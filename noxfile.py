"""The project's habits as sessions: nox -s dev | lint | tests | bench | sanitize | gallery."""

import pathlib

import nox

nox.options.sessions = ["lint", "tests"]
SOURCES = ("csrc/**/*.h", "csrc/**/*.cpp", "csrc/**/*.cu", "csrc/**/*.cuh", "tests/simt/*.cu")


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """An editable install that rebuilds on import, into the active environment."""
    session.run("pip", "install", "scikit-build-core", "pybind11", "nanobind", "ninja", "cmake")
    session.run("pip", "install", "--no-build-isolation", "-Ceditable.rebuild=true", "-Cbuild-dir=build/editable",
                "-e", ".[dev]")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, clang-format and the type checker."""
    session.install("ruff==0.17.5", "clang-format==18.1.8", "mypy==2.4.1", "numpy", "safetensors")
    session.run("ruff", "check", ".")
    files = session.run("git", "ls-files", *SOURCES, external=True, silent=True).split()
    session.run("clang-format", "--dry-run", "--Werror", *files)
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """The suite, with warnings of the compiler and of Python as errors."""
    session.install(".[test]", env={"TILEWRIGHT_WERROR": "ON", "TILEWRIGHT_SIMT": "ON"})
    session.run("pytest", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmark runner; arguments go to it: nox -s bench -- softmax."""
    session.install(".", "torch")
    session.run("python", "-m", "benchmarks.run", *(session.posargs or ["all"]))


@nox.session
def sanitize(session: nox.Session) -> None:
    """The op table under AddressSanitizer and UBSan: the CPU's plainest level, then CUDA kernels on the emulator."""
    session.install(".[test]", env={"TILEWRIGHT_SANITIZE": "ON", "TILEWRIGHT_SIMT": "ON", "TILEWRIGHT_LEVELS": "scalar",
                                    "TILEWRIGHT_CUDA_BUILD": "OFF"})
    runtime = session.run("g++", "-print-file-name=libasan.so", external=True, silent=True).strip()
    found = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1"}
    session.run("pytest", "tests/test_op_table.py", *session.posargs, env=found)
    emulated = {**found, "TILEWRIGHT_CUDA": "simt", "TILEWRIGHT_TEST_DEVICE": "cuda"}
    session.run("pytest", "tests/test_op_table.py", "tests/test_simt.py", *session.posargs, env=emulated)


@nox.session
def gallery(session: nox.Session) -> None:
    """Every example, for the pictures of examples/output; arguments go to each: nox -s gallery -- --seed 1."""
    session.install(".[examples]")
    for path in sorted(pathlib.Path("examples").glob("*.py")):
        if "def main" in path.read_text():
            session.run("python", str(path), *session.posargs)
