"""Steps side by side: in order, each in a process of one thread, its progress named, its errors told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from mmedlite import side_by_side as module
from mmedlite.cases import SPLITS
from mmedlite.profiles import ROOT, InputError
from mmedlite.side_by_side import side_by_side

PANELS = {"a": ("0", "1", "2"), "b": ("0", "0", "0")}
WORLD = {"panels": PANELS, "specialists": ROOT / "artifacts" / "specialists", "endpoint": None, "simulated": None}


class Stub:
    """What a step may ask of a run."""

    def __init__(self) -> None:
        self.profile, self.settled = SimpleNamespace(**WORLD), []
        self.specialists = SimpleNamespace(_model=lambda: None)  # loaded: cannot be sent to another process

    def cases(self, split: str) -> list[str]:
        return [] if split == "shifted" else ["case"]

    def panel(self, split: str, name: str) -> None:
        self.settled.append((split, name))


def sleeps(run: Any, name: str) -> None:
    """A step that says which process it is and never ends."""
    Path(name).write_text(str(os.getpid()))
    time.sleep(600)


def told(run: Any, name: str) -> tuple[str, int, int, int]:
    """A step that says who it is."""
    print(f"\r{name * 3}: 10%", end="", file=sys.stderr)
    print("  sampled", file=sys.stderr)
    return name, os.getpid(), torch.get_num_threads(), len(run.settled)


def fails(run: Any, name: str) -> None:
    """A step that fails for one name."""
    if name == "b":
        raise InputError("no cases", "clinic", "draw some")


def test_processes_of_one_thread_in_order(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a process would take otherwise
    names, pids, threads, settled = zip(*side_by_side(Stub(), [(told, "a"), (told, "1")]), strict=True)  # type: ignore[arg-type]
    assert names == ("a", "1") and threads == (1, 1) and os.getpid() not in pids
    assert settled == (2 * (len(SPLITS) - 1),) * 2  # before the processes start, so that no two ask for one opinion
    err = capfd.readouterr().err
    assert "\ra aaa: 10%" in err and "\r1 111: 10%" in err and "a   sampled" in err


def test_the_error_of_a_step_is_raised_as_it_was() -> None:
    with pytest.raises(InputError, match=r"no cases \(clinic\). Fix: draw some") as caught:
        side_by_side(Stub(), [(fails, "a"), (fails, "b")])  # type: ignore[arg-type]
    assert caught.value.fix == "draw some"


def is_killed(run: Any, name: str) -> None:
    """A step that the system ends, as for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told_in_words() -> None:
    with pytest.raises(InputError, match=r"a process was killed .*\(a, b\).*run the same command or cell again"):
        side_by_side(Stub(), [(is_killed, "a"), (told, "b")])  # type: ignore[arg-type]


def test_one_after_the_other_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    assert [pid for _, pid, _, _ in side_by_side(Stub(), [(told, "a"), (told, "b")])] == [os.getpid()] * 2  # type: ignore[arg-type]


def test_cores_without_affinity_as_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert module.cores() == 3
    monkeypatch.delattr(module.os, "sched_getaffinity")
    monkeypatch.setattr(module.os, "cpu_count", lambda: 7)
    assert module.cores() == 7


def leaves_a_mark(run: Any, name: str) -> None:
    """A step that takes a while and leaves a file."""
    time.sleep(0.5)
    Path(name).touch()


def test_what_waits_does_not_begin_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0})
    marks = [str(tmp_path / str(i)) for i in range(5)]
    with pytest.raises(InputError):
        side_by_side(Stub(), [(fails, "b"), *((leaves_a_mark, mark) for mark in marks)])  # type: ignore[arg-type]
    assert not Path(marks[-1]).exists()


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_trains_on_when_the_first_process_ends(tmp_path: Path, root: Path, kind: signal.Signals) -> None:
    marks = [tmp_path / "a", tmp_path / "b"]
    code = f"""
import sys
if __name__ == "__main__":
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_side_by_side import Stub, side_by_side, sleeps
    side_by_side(Stub(), [(sleeps, name) for name in {[str(m) for m in marks]!r}])
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    first = subprocess.Popen([sys.executable, str(script)], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not all(m.exists() and m.read_text() for m in marks):
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.2)
    first.send_signal(kind)  # to this process alone, as a job manager does
    first.wait(30)
    time.sleep(3)
    assert not any(psutil.pid_exists(int(m.read_text())) for m in marks)


def test_an_endpoint_keeps_what_its_budget_has_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one would begin at nothing: the limit holds for a process."""
    stub = Stub()
    stub.profile.endpoint, before = object(), stub.specialists
    monkeypatch.setattr(module, "several", lambda: True)  # no process is started
    side_by_side(stub, [])
    assert stub.specialists is before
    monkeypatch.setattr(module, "several", lambda: False)
    with pytest.raises(ValueError):  # no step: the pool has nothing to do
        side_by_side(stub, [])
    assert stub.specialists is before
