"""SIGKILL at any moment, start again: the finished run has the weights, the logs and the rollouts of one that was never stopped."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmedlite.profiles import DEPARTMENTS
from tests.small import checkpoint, profile, specialists, table

ALL = '["easy", "medium", "hard"]'
FIRST = 'buckets = ["medium"]\nsteps = 1\ngamma = [5e-3]\nbeta = [4e-3]'
SHARED = f"buckets = {ALL}\nsteps = 12\ngamma = [1e-4, 5e-3, 3e-2]\nbeta = [1e-3, 4e-3, 1e-2]"


def command(folder: Path, out: Path) -> list[str]:
    """The run of a small profile of two attending stages on a small clinic."""
    if not (folder / "profile.toml").exists():
        table(folder / "clinic")
        changes = [("policy = ", f'policy = "{checkpoint(folder / "policy")}"\n#'),
                   ("specialists = ", f'specialists = "{specialists(folder / "specialists", DOCTORS)}"\n#'),
                   (FIRST, SHARED), ("steps = 2\ngamma = [", "steps = 14\ngamma = [")]  # fmt: skip
        profile(folder, *changes)
    given = ["--profile", str(folder / "profile.toml"), "--cases", str(folder / "clinic"), "--out", str(out)]
    return [sys.executable, "-m", "mmedlite", "run", *given]


DOCTORS = [f"{department}-{i}" for department in DEPARTMENTS for i in range(3)]


def made(out: Path) -> dict[str, str]:
    """Hash of every adapter, log, list of rollouts and table of answers (steps.jsonl, for who watches, bears the time of each step)."""
    kinds = ("adapters/**/*.safetensors", "logs/**/*.json", "rollouts/**/rollouts.jsonl", "results/**/*.parquet")
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for kind in kinds for f in sorted(out.glob(kind))}


def kill_when(begin: list[str], reached: Callable[[], bool], root: Path) -> None:
    """Start the run, and kill it and all its processes as soon as it has got somewhere."""
    process = subprocess.Popen(begin, cwd=root, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not reached():
        assert process.poll() is None, process.stderr and process.stderr.read().decode()[-2000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lines(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.exists() else 0


@pytest.mark.timeout(900)
def test_killed_again_and_again(tmp_path: Path, root: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    done = subprocess.run(command(tmp_path, whole), cwd=root, capture_output=True, text=True)
    assert "checks passed" in done.stdout, done.stderr[-2000:]
    begin, rollouts = command(tmp_path, out), out / "rollouts"
    kill_when(begin, lambda: lines(rollouts / "triage" / "rollouts.jsonl") > 0, root)  # before any checkpoint
    kill_when(begin, lambda: lines(rollouts / "diverse" / "rollouts.jsonl") > 11 * 4, root)  # behind a checkpoint
    kill_when(begin, lambda: lines(rollouts / "paper_like" / "rollouts.jsonl") > (12 + 3) * 4, root)  # in the second stage
    kill_when(begin, lambda: (out / "results" / "diverse" / "validation" / "last.parquet").exists(), root)  # between two steps
    done = subprocess.run(begin, cwd=root, capture_output=True, text=True)
    assert "checks passed" in done.stdout, done.stderr[-2000:]
    assert made(out) == made(whole) and len(made(out)) > 20
    assert not list(out.rglob("checkpoint*")) and not list(out.rglob("*.part"))
