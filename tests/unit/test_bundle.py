"""The bundle: what is in the tar, that its sums find a changed byte, that it is the same each time, and what is refused; tiny wheels."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from mmedlite import bundle, cli
from mmedlite.profiles import InputError

DATA = ("data/phantoms/card.json", "data/phantoms/images/a.png")
KIT = (".ci/run", "Makefile", "notebooks/00_start_here.ipynb", "pyproject.toml", "requirements.lock")
WHEELS = ("wheels/alpha-1.0-py3-none-any.whl", "wheels/torch-2.13.0-py3-none-any.whl")


def git(*words: str, cwd: Path) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words], cwd=cwd, check=True, capture_output=True)


def wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"VERSION = '{version}'\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.fixture
def kit(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small kit under git, a drawn clinic of one picture, and an index of two wheels in place of the network."""
    (kit := tmp_path / "kit").mkdir()
    (index := tmp_path / "index").mkdir()
    for name in (*KIT, *DATA):
        (kit / name).parent.mkdir(parents=True, exist_ok=True)
        (kit / name).write_text(f"{name}\n")
    shutil.copy(root / "Makefile", kit)
    (kit / ".ci/run").chmod(0o755)
    (kit / "requirements.lock").write_text("alpha==1.0\ntorch==2.13.0\n")
    (kit / ".gitignore").write_text("/data/\n")
    for words in (["init"], ["add", "."], ["commit", "-m", "kit"]):
        git(*words, cwd=kit)
    wheel(index, "alpha", "1.0")
    wheel(index, "torch", "2.13.0")
    own = re.findall(r"^(\w+) \?=", (kit / "Makefile").read_text(encoding="utf-8"), re.M)  # the make that runs the tests passes its own on
    for name in [name for name in os.environ if name.startswith(("PIP_", "MAKE", "MFLAGS")) or name in own]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bundle, "ROOT", kit)
    monkeypatch.setattr(bundle, "clinic", lambda: list(DATA))
    return kit


def unpacked(tar: Path, folder: Path) -> Path:
    with tarfile.open(tar) as file:
        file.extractall(folder, filter="data")
    return folder / bundle.FOLDER


def test_what_is_in_the_tar(kit: Path, tmp_path: Path) -> None:
    told = bundle.bundle(tmp_path / "w.tar")
    with tarfile.open(tmp_path / "w.tar") as tar:
        members = tar.getmembers()
        about = json.load(tar.extractfile(members[0]))  # type: ignore[arg-type]
    names = [member.name.removeprefix("mmedlite/") for member in members]
    assert names == ["BUNDLE.json", *sorted([".gitignore", *KIT, *DATA, *WHEELS]), "SHA256SUMS"]
    assert all(member.isfile() and (member.mtime, member.uid, member.uname) == (bundle.MTIME, 0, "") for member in members)
    assert {m.name for m in members if m.mode & 0o111} == {"mmedlite/.ci/run"}
    assert about["changed"] == [] and len(about["commit"]) == 40 and about["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert "10 files" in told and "Not as committed" not in told and "tar xf w.tar && cd mmedlite && make demo" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "kit", "w.tar"], "something was left"


def test_what_is_not_committed_is_said(kit: Path, tmp_path: Path) -> None:
    (kit / "pyproject.toml").write_text("changed\n")
    (kit / "new.py").touch()
    assert "Not as committed: 2 files" in bundle.bundle(tmp_path / "w.tar")
    room = unpacked(tmp_path / "w.tar", tmp_path / "room")
    assert json.loads((room / "BUNDLE.json").read_text())["changed"] == [" M pyproject.toml", "?? new.py"]
    assert (room / "pyproject.toml").read_text() == "changed\n" and not (room / "new.py").exists()


def test_the_same_tree_and_wheels_give_the_same_bytes(kit: Path, tmp_path: Path) -> None:
    bundle.bundle(tmp_path / "a.tar")
    for path in [*kit.rglob("*.*"), *(tmp_path / "index").iterdir()]:
        os.utime(path, (1, 1))
    bundle.bundle(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


PYTHON = """#!/usr/bin/env bash
echo "$PIP_NO_INDEX $PIP_FIND_LINKS $@" >> calls
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, list[str]]:
    """(exit status, output, calls of Python) of `make install` on a machine where pip has no settings."""
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    (folder / "calls").write_text("")
    done = subprocess.run(["make", "install", f"PYTHON={folder}/python", *words], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr, (folder / "calls").read_text().splitlines()


def test_make_installs_from_the_wheels_alone(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.bundle(tmp_path / "w.tar")
    status, out, calls = install(unpacked(tmp_path / "w.tar", tmp_path / "room"), monkeypatch)
    assert status == 0, out
    assert len(calls) == 4 and all(call.startswith("1 wheels -m ") for call in calls)
    assert install(kit, monkeypatch)[2][0].startswith("  -m venv"), "a clone has no wheels and asks the network"


def test_pip_installs_what_was_packed(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.bundle(tmp_path / "w.tar")
    room = unpacked(tmp_path / "w.tar", tmp_path / "room")
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    words = ["-m", "pip", "install", "--target", "site", "--requirement", "requirements.lock"]
    subprocess.run([sys.executable, *words], cwd=room, check=True, capture_output=True)
    assert {"alpha.py", "torch.py"} <= {path.name for path in (room / "site").iterdir()}


@pytest.mark.parametrize("name", [WHEELS[1], DATA[1], KIT[2], "BUNDLE.json"])
@pytest.mark.parametrize("absent", [False, True])
def test_a_changed_or_lost_file_stops_the_install(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, absent: bool) -> None:
    bundle.bundle(tmp_path / "w.tar")
    room = unpacked(tmp_path / "w.tar", tmp_path / "room")
    data = bytearray((room / name).read_bytes())
    data[len(data) // 2] ^= 1
    (room / name).write_bytes(data)
    if absent:
        (room / name).unlink()
    status, out, calls = install(room, monkeypatch, ".SHELLFLAGS=-c")  # as make 3.81 of macOS, which knows no other
    assert status != 0 and calls == []
    assert f"{name}: FAILED" in out and "unpack the tar again" in out and ": OK" not in out
    (room / "SHA256SUMS").unlink()  # as the message says to who has changed it
    assert install(room, monkeypatch)[0] == 0


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_bundle_cut_short_leaves_nothing(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException) -> None:
    (out := tmp_path / "w.tar").write_text("the tar of last week")

    def read(self: Any, size: int = -1) -> NoReturn:
        assert out.with_name("w.tar.part").exists()
        raise stop

    monkeypatch.setattr(bundle.Summed, "read", read)
    with pytest.raises(InputError if isinstance(stop, OSError) else KeyboardInterrupt, match="No space|^$"):
        bundle.bundle(out)
    assert out.read_text() == "the tar of last week"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "kit", "w.tar"]


def test_too_small_a_disk_is_told_before_writing(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(bundle.tarfile, "open", None)
    with pytest.raises(InputError, match="are free"):
        bundle.bundle(tmp_path / "w.tar")


def test_the_room_asked_for_is_enough(kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Free(int):
        def __lt__(self, other: int) -> bool:
            asked.append(other)
            return False

    for i in range(30):  # many small files, as the clinic has
        (kit / DATA[1]).with_name(f"{i:064}.png").write_bytes(b"x" * 513)
    names = [f"data/phantoms/images/{path.name}" for path in (kit / DATA[1]).parent.iterdir()]
    monkeypatch.setattr(bundle, "clinic", lambda: names)
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda path: SimpleNamespace(free=Free()))
    bundle.bundle(tmp_path / "w.tar")
    assert (tmp_path / "w.tar").stat().st_size <= asked[0]


def test_a_missing_wheel_is_named(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "index" / "alpha-1.0-py3-none-any.whl").unlink()
    with pytest.raises(InputError, match="alpha==1.0.*Fix: look at the network"):
        bundle.bundle(tmp_path / "w.tar")
    assert not (tmp_path / "w.tar").exists()


@pytest.mark.parametrize("name", ["/etc/a", "../a", "a/../../b", "a\nb", "a\\b"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    (file := tmp_path / "a").touch()
    bundle.check_names({"a": file, "a..b/c": file})
    with pytest.raises(InputError, match="unpacks safely"):
        bundle.write_tar(tmp_path / "w.tar", {name: file}, {})
    assert not (tmp_path / "w.tar").exists()


def test_links_and_lost_files_are_refused(kit: Path, tmp_path: Path) -> None:
    (kit / "link").symlink_to("Makefile")
    git("add", "link", cwd=kit)
    with pytest.raises(InputError, match="not a plain file.*link"):
        bundle.bundle(tmp_path / "w.tar")
    git("rm", "-f", "link", cwd=kit)
    (kit / "pyproject.toml").unlink()
    with pytest.raises(InputError, match="git checkout -- pyproject.toml"):
        bundle.bundle(tmp_path / "w.tar")


def test_without_git_it_says_what_to_do(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle.bundle(tmp_path / "w.tar")
    room = unpacked(tmp_path / "w.tar", tmp_path / "room")
    monkeypatch.setattr(bundle, "ROOT", room)
    assert cli.main(["bundle", str(tmp_path / "again.tar")]) == 1
    assert "pass on the tar" in capsys.readouterr().err
    for words in (["init"], ["add", "."], ["commit", "-m", "kit"]):
        git(*words, cwd=room)
    assert cli.main(["bundle", str(tmp_path / "again.tar")]) == 0
    with tarfile.open(tmp_path / "again.tar") as tar:
        names = tar.getnames()
    assert len(names) == len(set(names))
    assert cli.main(["bundle", str(tmp_path / "no" / "w.tar")]) == 1


def test_the_clinic_is_what_its_table_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Table(list[Any]):
        path = tmp_path / "data" / "phantoms" / "cases.parquet"

    cases = Table([SimpleNamespace(images=("images/a.png", "images/b.png")), SimpleNamespace(images=("images/b.png",))])
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    monkeypatch.setattr("mmedlite.run.Run", lambda folder: SimpleNamespace(table=cases))
    assert sorted(bundle.clinic()) == [f"data/phantoms/{name}" for name in ("card.json", "cases.parquet", "images/a.png", "images/b.png")]
