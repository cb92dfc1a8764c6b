"""The oldest and the newest trl, transformers, peft, accelerate and datasets that pyproject.toml allows, downloaded and read, not run."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.drift import LIBRARIES, ROOT, drift
from tests.shelf import Shelf

NEEDS = [Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]]
RANGES = {need.name: need.specifier for need in NEEDS if need.name in LIBRARIES}
OLDEST = {name: next(part.version for part in within if part.operator == ">=") for name, within in RANGES.items()}


def download(folder: Path, wanted: list[str]) -> str:
    """Put wheels into a folder, built by others and run by nobody; what went wrong ("": nothing)."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:", "--retries=1"]
    env = os.environ | {"PYTHONPATH": ""}  # without the block on the network that tests have
    done = subprocess.run([*command, "--target", str(folder), *wanted], env=env, capture_output=True, text=True)
    return done.stderr.strip() or "pip failed" if done.returncode else ""


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the newest versions; this is also how we know that there is an index to ask."""
    folder = tmp_path_factory.mktemp("newest")
    if wrong := download(folder, [f"{name}{within}" for name, within in RANGES.items()]):
        pytest.skip(f"no index of packages is reachable: {wrong.splitlines()[-1]}")
    return folder


def test_newest_allowed(newest: Path) -> None:
    shelf = Shelf(newest, Path(str(distribution("torch").locate_file(""))))
    assert all(RANGES[name].contains(shelf.version(name)) for name in LIBRARIES)
    assert drift(shelf)[0] == []


def test_oldest_allowed(newest: Path, tmp_path: Path) -> None:
    assert download(tmp_path, [f"{name}=={version}" for name, version in OLDEST.items()]) == ""
    shelf = Shelf(tmp_path, Path(str(distribution("torch").locate_file(""))))
    assert all(Requirement(f"x=={OLDEST[name]}").specifier.contains(shelf.version(name)) for name in LIBRARIES)
    assert drift(shelf)[0] == []
