"""Bundle: one tar with all that a room without network needs: the kit, its drawn clinic, wheels for this system, and a hash of each file.

In the room: ``tar xf workshop.tar && cd mmedlite && make demo``. The Makefile checks the hashes and installs from ``wheels/`` alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from mmedlite import __version__
from mmedlite.profiles import ROOT, InputError

FOLDER = "mmedlite"  # what the tar unpacks to
FACTS, SUMS = "BUNDLE.json", "SHA256SUMS"
MTIME = 946_684_800  # of every file, 2000-01-01 in Unix seconds: the same tree and wheels give the same bytes
GB = 1e9
NO_CLONE = "work in a clone, pass on the tar that this was unpacked from, or `git init && git add . && git commit -m kit` here"


class Summed:
    """A file that is hashed as it is read, so that the sum is of the bytes that were packed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes of the file."""
        data = self.file.read(size)
        self.sha256.update(data)
        return data


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"git cannot be started ({error.strerror})", fix="install git: it names the kit's files") from error
    if done.returncode:
        raise InputError(f"git does not know the kit's files: {done.stderr.strip()}", str(ROOT), NO_CLONE)
    return done.stdout


def tracked() -> list[str]:
    """Names of the kit's files, relative to its root: those that git tracks, as they lie on the disk."""
    names = [name for name in _git("ls-files", "-z").split("\0") if name]
    if "requirements.lock" not in names:
        raise InputError("git tracks no requirements.lock here", str(ROOT), NO_CLONE)
    return [name for name in names if name not in (FACTS, SUMS)]  # of an earlier bundle


def clinic() -> list[str]:
    """Names of the drawn clinic's files, drawn first where they are absent or old; InputError too where the shipped models are not whole."""
    from mmedlite.run import Run

    with tempfile.TemporaryDirectory() as folder:
        table = Run(folder).table
    names = {"card.json", table.path.name, *(name for case in table for name in case.images)}
    return [(table.path.parent / name).relative_to(ROOT).as_posix() for name in names]


def facts() -> dict[str, Any]:
    """What the tar was made of and for: versions, the commit, what differs from it, Python and system of the wheels."""
    return {
        "mmedlite": __version__,
        "commit": _git("rev-parse", "HEAD").strip(),
        "changed": _git("status", "--porcelain").splitlines(),
        "python": sysconfig.get_python_version(),
        "system": sysconfig.get_platform(),
    }


def fetch_wheels(folder: Path) -> None:
    """Put the wheels of requirements.lock for this Python and system into a folder, by pip and from where pip is told to look.

    Raises:
        InputError: pip did not get all of them; its own words name what it lacks.
    """
    words = ["-m", "pip", "wheel", "--wheel-dir", str(folder), "--requirement", str(ROOT / "requirements.lock")]
    env = os.environ | {"SOURCE_DATE_EPOCH": str(MTIME)}  # should one have to be built
    done = subprocess.run([sys.executable, *words], env=env, stderr=subprocess.PIPE, text=True)  # its progress is seen
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        fix = "look at the network and at `pip config list`; the same command again takes from pip's cache what has arrived"
        raise InputError(f"pip could not get every wheel: {' '.join(said)}", "requirements.lock", fix)


def check_names(files: Mapping[str, Path]) -> None:
    """InputError for what could not be unpacked safely on another machine: links, absolute and climbing paths, line breaks, absent files."""
    for name, file in files.items():
        if not file.is_file() or file.is_symlink():
            raise InputError("not a plain file", name, f"`git checkout -- {name}`, or `git rm` it: links and modules are not packed")
        if name.startswith("/") or ".." in name.split("/") or any(c in name for c in "\\\r\n"):
            raise InputError("not a name that unpacks safely", repr(name), "rename it")


def write_tar(out: Path, files: Mapping[str, Path], about: Mapping[str, Any]) -> None:
    """Write the tar in one step: the facts, the files in the order of their names, and last SHA256SUMS, as ``sha256sum -c`` reads it.

    Args:
        out: the tar. files: by name in the tar. about: what BUNDLE.json says.

    Raises:
        InputError: a name that could not be unpacked safely, or no room on the disk; no part of a tar is left.
    """
    check_names(files)
    text, sums = (json.dumps(about, indent=1) + "\n").encode(), dict[str, str]()
    total = sum(file.stat().st_size for file in files.values())
    wanted, free = total + 1536 * len(files), shutil.disk_usage(out.parent).free  # a header and a block to fill up; a line of sums
    if free < wanted:
        raise InputError(f"the tar takes {wanted / GB:.1f} GB, {free / GB:.1f} GB are free", str(out.parent), "make room, or name another disk")
    part = out.with_name(out.name + ".part")
    try:
        with tarfile.open(part, "w") as tar, tqdm(total=total, desc="packing", unit="B", unit_scale=True, mininterval=2) as bar:

            def add(name: str, size: int, file: BinaryIO, runs: bool = False) -> None:
                info = tarfile.TarInfo(f"{FOLDER}/{name}")
                info.size, info.mtime, info.mode = size, MTIME, 0o755 if runs else 0o644
                tar.addfile(info, summed := Summed(file))
                sums[name] = summed.sha256.hexdigest()

            add(FACTS, len(text), io.BytesIO(text))
            for name, path in sorted(files.items()):
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    add(name, size, file, os.access(path, os.X_OK))
                bar.update(size)
            lines = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
            add(SUMS, len(lines), io.BytesIO(lines))
        part.replace(out)
    except OSError as error:
        raise InputError(f"cannot write the tar ({error})", str(out), "make room, or name another disk") from error
    finally:
        part.unlink(missing_ok=True)


def bundle(out: Path) -> str:
    """Pack the kit, the clinic and the wheels into one tar; returns what to say of it.

    Raises:
        InputError: no git, no network, no room, a damaged kit, or a place where nothing can be written.
    """
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError("no tar can be written here", str(out), "name a file in a folder that is there")
    files, about = {name: ROOT / name for name in [*tracked(), *clinic()]}, facts()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".wheels-") as folder:
        fetch_wheels(Path(folder))
        files |= {f"wheels/{file.name}": file for file in Path(folder).iterdir()}
        write_tar(out, files, about)
    with out.open("rb") as tar:
        digest = hashlib.file_digest(tar, "sha256").hexdigest()
    told = f"{out}: {len(files):,} files, {out.stat().st_size / GB:.2f} GB, for Python {about['python']} on {about['system']}\n"
    if about["changed"]:
        told += f"Not as committed: {len(about['changed'])} files, listed in {FACTS}; those that git does not track are not packed\n"
    return f"{told}sha256 {digest}\nIn the room: tar xf {out.name} && cd {FOLDER} && make demo"
