"""The setup cell of docs/where_to_run.md, run as it stands there: in an empty folder, by a fresh interpreter, twice."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import time
import venv
from pathlib import Path

import pytest

from tests.offline.no_network import HERE

ROOT = Path(__file__).resolve().parents[2]
(CELL,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "where_to_run.md").read_text(encoding="utf-8"), re.S)
OUTER = Path(str(importlib.metadata.distribution("torch").locate_file("")))
LOOK = """
from mmedlite.profiles import ROOT
print(Path.cwd() == ROOT / "notebooks", importlib.metadata.version("torch"))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the repository that are installed, and the folder of notebooks."""
    copy = tmp_path_factory.mktemp("source") / "kit"
    for name in ("mmedlite", "data_prep", "figures"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "drawn", "data"))
    (copy / "notebooks").mkdir()
    (copy / "notebooks" / "00_start_here.ipynb").touch()
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


class Place:
    """An empty folder with a Python that has all packages but the kit, and no network."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "env", with_pip=False)
        self.python, self.work = folder / "env" / "bin" / "python", folder / "work"
        (site,) = (folder / "env" / "lib").glob("python*/site-packages")
        (site / "outer.pth").write_text(f"{OUTER}\n", encoding="utf-8")
        self.work.mkdir()
        keep = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        # no build isolation: it would download setuptools; pip reads 0 as "without"
        self.env = {**keep, "HOME": str(folder), "PYTHONPATH": HERE, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}

    def run(self, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The code in a new interpreter."""
        return subprocess.run([self.python, "-c", code], cwd=self.work, env=self.env | env, capture_output=True, text=True)


def packed(copy: Path, folder: Path, kind: str) -> str:
    """The address of the kit: a git repository, or a zip with everything in one folder."""
    if kind == "zip":
        return shutil.make_archive(str(folder / "kit"), "zip", copy.parent, "kit")
    made = shutil.copytree(copy, folder / "source")
    git = ["git", "-C", str(made), "-c", "user.name=kit", "-c", "user.email=kit@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "kit"]):
        subprocess.run([*git, *words], check=True)
    return str(made)


@pytest.mark.parametrize("kind", ["git", "zip"])
def test_the_cell_installs_once_and_then_does_nothing(copy: Path, tmp_path: Path, kind: str) -> None:
    place = Place(tmp_path)
    first = place.run(CELL + CELL + LOOK, MMEDLITE_KIT=packed(copy, tmp_path, kind))  # twice in one kernel
    assert first.returncode == 0, first.stderr
    version, kit = importlib.metadata.version("torch"), place.work / "mmedlite-kit"
    assert first.stdout.splitlines() == [
        f"Installed in {kit}, with torch=={version} as it was", f"Nothing to do: the kit is in {kit}", f"True {version}",
    ]  # fmt: skip
    assert [path.name.partition("-")[0] for path in (tmp_path / "env" / "lib").rglob("*.dist-info")] == ["mmedlite"]  # no other torch
    began = time.monotonic()
    again = place.run(CELL, PATH="")  # a restarted kernel, without the address and without git
    assert (again.stdout, again.stderr) == (f"Nothing to do: the kit is in {kit}\n", "")
    assert time.monotonic() - began < 2


def test_the_cell_goes_on_where_it_was_cut_short(copy: Path, tmp_path: Path) -> None:
    """A clone is begun anew; what was fetched whole is not fetched again."""
    place = Place(tmp_path)
    (place.work / "mmedlite-kit.part" / "half").mkdir(parents=True)
    (tmp_path / "fake" / "pip").mkdir(parents=True)
    (tmp_path / "fake" / "pip" / "__init__.py").touch()
    (tmp_path / "fake" / "pip" / "__main__.py").write_text("import sys\nraise SystemExit(f'pip was called: {sys.argv[-3:]}')", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "fake"), HERE])
    stopped = place.run(CELL, MMEDLITE_KIT=packed(copy, tmp_path, "git"), PYTHONPATH=path)
    assert stopped.returncode and "pip was called" in stopped.stderr and not stopped.stdout
    assert not (place.work / "mmedlite-kit.part").exists() and (place.work / "mmedlite-kit" / "notebooks").is_dir()
    asked = ["--editable", str(place.work / "mmedlite-kit"), f"torch=={importlib.metadata.version('torch')}"]  # the torch found stays
    assert str(asked) in stopped.stderr
    again = place.run(CELL, PYTHONPATH=path)
    assert "pip was called" in again.stderr and "ADDRESS" not in again.stderr.splitlines()[-1]


def test_the_cell_says_what_is_missing(tmp_path: Path) -> None:
    done = Place(tmp_path).run(CELL)
    assert done.returncode and "ADDRESS is empty" in done.stderr


def test_sources_compile_on_python_3_12(tmp_path: Path) -> None:
    python = shutil.which("python3.12") or "python3.12"
    try:
        subprocess.run([python, "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no Python 3.12 here, which Colab has")
    words = ["-W", "error", "-m", "compileall", "-q", "mmedlite", "data_prep", "figures"]
    done = subprocess.run([python, *words], cwd=ROOT, env=os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
