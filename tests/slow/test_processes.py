"""Two processes of one launch (gloo, on the CPU) do what one process does, and a fault among them is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from mmedlite.cases import read_table
from mmedlite.profiles import DEPARTMENTS
from mmedlite.verify import verify
from tests import small

TOLERANCE = 1e-5


def launch(processes: int) -> list[str]:
    """The words before ``-m MODULE``. On a CPU accelerate starts several processes only if told that they are for GPUs."""
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), "--main_process_port", "0"]


def run(root: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    few = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(command, cwd=root, env=few, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What tests/given.py leaves behind: of one process, of two."""
    folder = tmp_path_factory.mktemp("given")
    policy = str(small.checkpoint(folder / "policy"))
    for name, start in {"one": [sys.executable], "two": launch(2)}.items():
        (folder / name).mkdir()
        done = run(root, [*start, "-m", "tests.given", str(folder / name), policy])
        assert done.returncode == 0, done.stderr[-4000:]
    return folder / "one", folder / "two"


def differences(one: Path, two: Path) -> dict[str, float]:
    """The largest difference of each kind of number, by step: "0/loss", "0/gradient", "0/adapter", ..., "end/adapter"."""
    a, b = load_file(one / "seen.safetensors"), load_file(two / "seen.safetensors")
    assert a.keys() == b.keys() and len({k.split("/")[0] for k in a}) == 4  # three steps and the end
    found: dict[str, float] = {}
    for name in a:
        kind = "/".join(name.split("/")[:2])
        found[kind] = max(found.get(kind, 0.0), float((a[name] - b[name]).abs().max()))
    return found


def log(folder: Path) -> Any:
    return json.loads((folder / "log.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["cut", "parts"])
def test_two_processes_update_as_one(trained: tuple[Path, Path], name: str) -> None:
    """Loss, gradient and weights of each step; "cut": a group lies in both processes, "parts": with gradient accumulation."""
    found = differences(trained[0] / name, trained[1] / name)
    print(f"{name}: largest difference {max(found.values()):.1e}")
    assert {kind: value for kind, value in found.items() if value > TOLERANCE} == {}


@pytest.mark.parametrize("damage", ["not_averaged", "own_groups"])
def test_a_damaged_update_is_seen(trained: tuple[Path, Path], damage: str) -> None:
    """Gradients that are not averaged over the processes; advantages from the rewards of one process."""
    found = differences(trained[0] / "cut", trained[1] / damage)
    assert found["0/gradient"] > 100 * TOLERANCE and found["0/adapter"] > 100 * TOLERANCE


def test_rollouts_and_log_are_those_of_one_process(trained: tuple[Path, Path]) -> None:
    one, two = (folder / "cut" for folder in trained)
    assert (one / "rollouts.jsonl").read_bytes() == (two / "rollouts.jsonl").read_bytes()
    assert len((one / "rollouts.jsonl").read_text().splitlines()) == 3 * 3 * 2  # steps, prompts, rollouts
    for a, b in zip(log(one), log(two), strict=True):
        assert a == {k: pytest.approx(v, abs=TOLERANCE) if isinstance(v, float) else v for k, v in b.items()}


def test_two_processes_go_on_from_a_checkpoint(trained: tuple[Path, Path]) -> None:
    """Stopped in step 12 of 14, with rollouts of each process's own: weights, log and rollouts as if never stopped, in both processes."""
    whole, stopped = trained[1] / "whole", trained[1] / "stopped"
    assert small.same(load_file(whole / "adapter.safetensors"), load_file(stopped / "adapter.safetensors"))
    assert log(whole) == log(stopped)
    steps, weights = log(whole)
    assert len(steps) == 14 and weights[0] == weights[1]
    assert (whole / "rollouts.jsonl").read_bytes() == (stopped / "rollouts.jsonl").read_bytes()
    left = sorted(path.name for path in stopped.iterdir())
    assert left == ["adapter.safetensors", "log.json", "rollouts.jsonl", "steps.jsonl"]  # no checkpoint


def test_fsdp_updates_as_one_process(root: Path, trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The shipped configuration, two processes, float32 so that the numbers can be compared; torch is made to shard on the CPU."""
    start = [*launch(2), "--config_file", "mmedlite/profiles/fsdp.yaml", "--mixed_precision", "no"]
    start.remove("--multi_gpu")
    done = run(root, [*start, "-m", "tests.given", str(tmp_path), str(trained[0].parent / "policy"), "fsdp"])
    assert done.returncode == 0, done.stderr[-4000:]
    found = differences(trained[0] / "cut", tmp_path / "cut")
    print(f"fsdp: largest difference {max(found.values()):.1e}")
    assert {kind: value for kind, value in found.items() if value > TOLERANCE} == {}
    rows = [json.loads(line) for line in (tmp_path / "early" / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 3 * 3 * 2 and len({row["tokens"] for row in rows}) > 2  # uneven ends, and nobody waited for ever


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clinic, a policy and specialists with random weights, and the profile that names them."""
    folder = tmp_path_factory.mktemp("world")
    adapters = [f"{department}-{i}" for department in DEPARTMENTS for i in range(3)]
    paths = {"policy": small.checkpoint(folder / "policy"), "specialists": small.specialists(folder / "specialists", adapters)}
    small.table(folder / "clinic", train=16)
    small.profile(folder, *((f"{name} = ", f'{name} = "{path.as_posix()}" #') for name, path in paths.items()))
    return folder


def test_the_command_runs_under_accelerate_launch(root: Path, world: Path) -> None:
    """The same command, the same files, one row a rollout in the order of the curriculum."""
    command = ["-m", "mmedlite", "run", "--profile", str(world / "profile.toml"), "--cases", str(world / "clinic")]
    done = run(root, [*launch(2), *command, "--out", str(world / "run")])
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("checks passed") == 1  # by the main process
    assert verify(world / "run", read_table(world / "clinic")) == []
    logs = list((world / "run" / "logs").rglob("*.json"))
    assert len(logs) == len(list((world / "run" / "adapters").rglob("adapter_model.safetensors"))) >= 3
    rows = [json.loads(line) for f in (world / "run" / "rollouts").rglob("rollouts.jsonl") for line in f.read_text().splitlines()]
    assert len(rows) == 4 * sum(len(json.loads(f.read_text())) for f in logs)  # 2 prompts x 2 rollouts a step
    assert [r["sample_index"] for r in rows] == [0, 1] * (len(rows) // 2)
    assert [a["case_id"] for a in rows[::2]] == [b["case_id"] for b in rows[1::2]]


def test_an_update_that_cannot_be_shared_is_told(root: Path, world: Path) -> None:
    """Told once, before any training, and the other processes end with the main one."""
    command = ["-m", "mmedlite", "run", "--profile", str(world / "profile.toml"), "--cases", str(world / "clinic")]
    done = run(root, [*launch(3), *command, "--out", str(world / "none")])
    assert done.returncode == 1 and not (world / "none").exists()
    assert done.stderr.count("error: an update of 2 prompts x 2 generations cannot be shared evenly among 3 processes") == 1
