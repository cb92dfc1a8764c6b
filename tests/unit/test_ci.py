"""The CI script and the Makefile, with a make or a Python that only says what it was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKE = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
echo "=========== 3 passed in 0.1s ==========="
[ "$1" != "$BROKEN" ] || exit 5
"""


def run_ci(root: Path, folder: Path, broken: str) -> tuple[int, str, list[list[str]]]:
    """(exit status, output, calls of make) of the script in a bare tree; make fails with 5 at target `broken`."""
    (folder / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", folder / ".ci" / "run")
    (folder / "bin").mkdir()
    (folder / "bin" / "make").write_text(MAKE)
    (folder / "bin" / "make").chmod(0o755)
    (folder / "bin" / "chromium").write_text("")  # there: nothing is to be installed
    (folder / "bin" / "chromium").chmod(0o755)
    env = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}", "CALLS": f"{folder}/calls", "BROKEN": broken}
    done = subprocess.run([folder / ".ci" / "run"], env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, [line.split() for line in (folder / "calls").read_text().splitlines()]


def test_ci_runs_all_in_a_fresh_environment(root: Path, tmp_path: Path) -> None:
    status, out, calls = run_ci(root, tmp_path, broken="")
    assert status == 0
    assert [call[0] for call in calls] == ["install", "test", "verify", "slow"]
    (venv,) = {call[1] for call in calls}
    assert venv.startswith("VENV=/") and not venv.startswith(f"VENV={tmp_path}")
    assert not Path(venv.removeprefix("VENV=")).parent.exists(), "the environment is left behind"
    closing = out.partition("--- closing lines")[2]
    assert closing.count("3 passed") == 4


@pytest.mark.parametrize("broken", ["install", "test", "verify", "slow"])
def test_ci_fails_where_pytest_ran_nothing(root: Path, tmp_path: Path, broken: str) -> None:
    status, out, calls = run_ci(root, tmp_path, broken)
    assert status == 5
    assert calls[-1][0] == broken
    assert f"make {broken} failed with status 5" in out


PYTHON = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
[[ -z "$BROKEN" || "$*" != *"$BROKEN"* ]] || exit 5
"""


def clean() -> dict[str, str]:
    """The environment without what an outer make (`make test VENV=...`) hands down."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}


def run_make(root: Path, folder: Path, target: str, broken: str = "") -> tuple[int, list[str]]:
    """(exit status, calls of Python) of one call of make in a bare tree."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        if not (folder / name).exists():
            shutil.copy(root / name, folder / name)
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    (folder / "notebooks").mkdir(exist_ok=True)
    (folder / "notebooks" / "00_start_here.ipynb").touch()
    (folder / "calls").write_text("")
    env = clean() | {"CALLS": f"{folder}/calls", "BROKEN": broken}
    command = ["make", target, f"PYTHON={folder}/python", "VENV=.venv", "PROFILE=tiny"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, (folder / "calls").read_text().splitlines()


def test_install_puts_torch_first_and_the_second_call_installs_nothing(root: Path, tmp_path: Path) -> None:
    status, calls = run_make(root, tmp_path, "demo")
    assert status == 0
    assert calls[0] == "-m venv .venv"
    assert calls[1].startswith("-m pip install") and calls[1].endswith("torch==2.13.0")
    assert calls[2:] == [
        "-m pip install --requirement requirements.lock",
        "-m pip install --no-deps --no-build-isolation --editable .",
        "-m mmedlite.demo --profile tiny",
    ]
    assert run_make(root, tmp_path, "demo") == (0, ["-m mmedlite.demo --profile tiny"])


def test_an_install_cut_short_is_taken_up_again(root: Path, tmp_path: Path) -> None:
    assert run_make(root, tmp_path, "demo", broken="--requirement")[0] != 0
    assert "-m pip install --requirement requirements.lock" in run_make(root, tmp_path, "demo")[1]


STEPS = [
    "ruff check",
    "-m mypy",
    "pytest tests --ignore=tests/slow --ignore=tests/timed --ignore=tests/browser",
    "pytest -p tests.nbval_plugin --nbval",
    "check_suites",
]


def test_make_test_runs_every_step(root: Path, tmp_path: Path) -> None:
    run_make(root, tmp_path, "install")
    status, calls = run_make(root, tmp_path, "test")
    assert status == 0
    assert len(calls) == len(STEPS)
    assert all(step in call for step, call in zip(STEPS, calls, strict=True))
    assert calls[-1] == "tests/check_suites.py reports test"


@pytest.mark.parametrize("broken", STEPS)
def test_make_test_stops_at_any_failing_step(root: Path, tmp_path: Path, broken: str) -> None:
    run_make(root, tmp_path, "install")
    status, calls = run_make(root, tmp_path, "test", broken)
    assert status != 0
    assert broken in calls[-1]


@pytest.mark.parametrize("broken", ["verify artifacts", "verify figures/data", "tests/tamper.py"])
def test_make_verify_stops_at_any_problem(root: Path, tmp_path: Path, broken: str) -> None:
    run_make(root, tmp_path, "install")
    assert run_make(root, tmp_path, "verify")[0] == 0
    assert run_make(root, tmp_path, "verify", broken)[0] != 0


def test_make_test_all_adds_the_slow_suites(root: Path, tmp_path: Path) -> None:
    run_make(root, tmp_path, "install")
    status, calls = run_make(root, tmp_path, "test-all")
    assert status == 0
    assert calls[-3].startswith("-m pytest tests/timed --junitxml"), "what is timed has the machine to itself"
    assert calls[-2].startswith("-m pytest tests/slow tests/browser -n 2")
    assert calls[-1] == "tests/check_suites.py reports all"
    for folder in ("slow", "timed"):
        assert run_make(root, tmp_path, "test-all", broken=f"pytest tests/{folder}")[0] != 0


def test_missing_python_is_explained(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "pyproject.toml").touch()
    done = subprocess.run(["make", "demo", "PYTHON=python3.99"], cwd=tmp_path, env=clean(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "python3.99 not found. Install Python 3.11" in done.stdout
