"""The bundle of this kit, packed with a package index, then unpacked, installed and used in a network namespace without network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CONNECT = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"  # an address of nobody (RFC 5737)
NOTEBOOK = """
from mmedlite.demo import execute
from pathlib import Path
(run := Path("runs/bundle")).joinpath("notebooks").mkdir(parents=True)
print("went wrong:", repr(execute("00_start_here", run, "00")))
"""


def outside(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command that may reach a package index: the only one of all tests."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True)


def without_network(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """One command where only this machine itself can be reached, and where pip has no settings and no cache."""
    own = ("PIP_", "MAKE", "MFLAGS", "VENV", "PYTHON", "VIRTUAL_ENV", "MMEDLITE_")  # of the make that runs the tests, too
    env = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    shell = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    return subprocess.run([*shell, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.timeout(1200)
def test_a_room_without_network(tmp_path: Path, root: Path) -> None:
    try:
        namespace = without_network("true", cwd=tmp_path).returncode == 0
    except OSError:
        namespace = False
    if not namespace:
        pytest.skip("no network namespace can be made here (unshare -rn, ip link)")
    lock = next(line for line in (root / "requirements.lock").read_text(encoding="utf-8").split() if line.startswith("six=="))
    probe = ["-m", "pip", "download", "--no-cache-dir", "--no-deps", "--retries", "0", "--dest", tmp_path / "probe", lock]
    if outside(sys.executable, *probe, cwd=tmp_path).returncode:
        pytest.skip("no package index is within reach")

    print(succeeded(outside(sys.executable, "-m", "mmedlite", "bundle", tmp_path / "workshop.tar", cwd=root)))
    assert os.listdir(tmp_path / "probe") and {path.name for path in tmp_path.iterdir()} == {"probe", "workshop.tar"}, "something was left"
    with tarfile.open(tmp_path / "workshop.tar") as tar:
        tar.extractall(tmp_path / "room", filter="data")  # refuses links and names that climb
    (tmp_path / "workshop.tar").unlink()
    kit = tmp_path / "room" / "mmedlite"
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"

    assert "Network is unreachable" in without_network(python, "-c", CONNECT, cwd=kit).stderr
    succeeded(without_network("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=kit))
    succeeded(without_network("make", "install", f"PYTHON={python}", cwd=kit))
    here = kit / ".venv" / "bin" / "python"
    told = succeeded(without_network(here, "-c", "import mmedlite, torch; print(mmedlite.__file__, torch.__file__)", cwd=tmp_path))
    assert all(Path(file).is_relative_to(kit) for file in told.split()), told
    assert "[FAIL]" not in succeeded(without_network(here, "-m", "mmedlite", "doctor", cwd=kit))
    dry = without_network(here, "-m", "mmedlite", "run", "--profile", "tiny", "--dry-run", cwd=kit)
    assert " 0 not answered yet" in succeeded(dry) and "drawing" not in dry.stderr, dry.stderr[-2000:]
    assert "went wrong: ''" in succeeded(without_network(here, "-c", NOTEBOOK, cwd=kit))
    shutil.rmtree(tmp_path / "room")  # gigabytes, which pytest would keep for three runs
