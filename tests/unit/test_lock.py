"""One set of pins: requirements.lock, environment.yml and pyproject.toml say the same, and it is what runs here."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name


def read_lock(root: Path) -> dict[str, str]:
    lines = (root / "requirements.lock").read_text(encoding="utf-8").split()
    return dict(line.split("==") for line in lines)


def test_lock_holds_exact_public_pins_only(root: Path) -> None:
    for line in (root / "requirements.lock").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), f"not an exact, public pin: {line!r}"
    names = [canonicalize_name(name) for name in read_lock(root)]
    assert len(names) == len(set(names))


def test_environment_yml_equals_lock(root: Path) -> None:
    lines = (root / "environment.yml").read_text(encoding="utf-8").splitlines()
    pins = [line.strip("- ") for line in lines if line.startswith("      - ") and "==" in line]
    assert pins == (root / "requirements.lock").read_text(encoding="utf-8").split()
    assert "  - python=3.11" in lines


def test_direct_dependencies_are_locked_within_their_ranges(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = {canonicalize_name(name): version for name, version in read_lock(root).items()}
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["dev"], "setuptools>=77"]:
        need = Requirement(line)
        assert canonicalize_name(need.name) in lock, f"{need.name} is not in requirements.lock"
        assert need.specifier.contains(lock[canonicalize_name(need.name)]), f"{need} against {lock[need.name]}"


def test_lock_is_complete_and_holds_nothing_else(root: Path) -> None:
    """Every requirement of a locked package is locked; every locked package is wanted by one."""
    lock = {canonicalize_name(name) for name in read_lock(root)}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    todo = [Requirement(line) for line in [*project["dependencies"], *extras["dev"], "setuptools"]]
    seen: set[tuple[str, str]] = set()
    while todo:
        need = todo.pop()
        for extra in ["", *need.extras]:
            name = canonicalize_name(need.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in importlib.metadata.requires(name) or []:
                inner = Requirement(line)
                if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                    todo.append(inner)
    wanted = {name for name, _ in seen}
    given = {name for name in wanted - lock if name.startswith(("nvidia-", "cuda-", "triton"))}  # come with a GPU torch
    assert wanted - lock - given == set(), "needed, but not locked"
    assert lock - wanted == set(), "locked, but needed by nothing"


@pytest.mark.parametrize("package", ["torch", "transformers", "trl", "peft", "numpy", "pillow", "nbval"])
def test_installed_equals_lock(root: Path, package: str) -> None:
    # without the local part: "2.13.0+cpu" and "2.13.0" are one release
    assert importlib.metadata.version(package).partition("+")[0] == read_lock(root)[package]


def fits_first_release(requires: str | None) -> bool:
    """Does a package's Requires-Python admit 3.11.0, the oldest Python that the README's "Python 3.11" may mean?"""
    return SpecifierSet(requires or "").contains("3.11.0")


def test_lock_installs_on_every_python_3_11(root: Path) -> None:
    asked = {name: importlib.metadata.metadata(name).get("Requires-Python") for name in read_lock(root)}
    assert {name: wanted for name, wanted in asked.items() if not fits_first_release(wanted)} == {}
    assert not fits_first_release(">=3.11.5")  # of soupsieve 4.1.1, which broke `make demo` on Python 3.11.2


def test_issue_ranges(root: Path) -> None:
    """Torch 2.11 to 2.13, transformers 5.17 to 5.23, trl 1.16, Python 3.11 and 3.12."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ranges = {Requirement(line).name: Requirement(line).specifier for line in project["dependencies"]}
    inside = {"torch": ["2.11.0", "2.13.1"], "transformers": ["5.17.0", "5.23.4"], "trl": ["1.16.0"]}
    outside = {"torch": ["2.10.9", "2.14.0"], "transformers": ["5.16.9", "5.24.0"], "trl": ["1.15.9", "1.17.0"]}
    for name in inside:
        assert all(version in ranges[name] for version in inside[name])
        assert not any(version in ranges[name] for version in outside[name])
    assert project["requires-python"] == ">=3.11,<3.13"
