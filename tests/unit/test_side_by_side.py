"""Steps side by side: in order, each in a process of one thread, its progress named, its errors told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmedlite import side_by_side as module
from mmedlite.cases import SPLITS
from mmedlite.profiles import InputError
from mmedlite.side_by_side import side_by_side


class Stub:
    """What a step may ask of a run."""

    def __init__(self) -> None:
        self.profile, self.settled = SimpleNamespace(panels=("a", "b")), []

    def cases(self, split: str) -> list[str]:
        return [] if split == "shifted" else ["case"]

    def panel(self, split: str, name: str) -> None:
        self.settled.append((split, name))


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
    names, pids, threads, settled = zip(*side_by_side(Stub(), [(told, "a"), (told, "b")]), strict=True)  # type: ignore[arg-type]
    assert names == ("a", "b") and threads == (1, 1) and os.getpid() not in pids
    assert settled == (2 * (len(SPLITS) - 1),) * 2  # before the processes start, so that no two ask for one opinion
    err = capfd.readouterr().err
    assert "\ra aaa: 10%" in err and "\rb bbb: 10%" in err and "a   sampled" in err


def test_the_error_of_a_step_is_raised_as_it_was() -> None:
    with pytest.raises(InputError, match=r"no cases \(clinic\). Fix: draw some") as caught:
        side_by_side(Stub(), [(fails, "a"), (fails, "b")])  # type: ignore[arg-type]
    assert caught.value.fix == "draw some"


def test_one_after_the_other_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    assert [pid for _, pid, _, _ in side_by_side(Stub(), [(told, "a"), (told, "b")])] == [os.getpid()] * 2  # type: ignore[arg-type]


def leaves_a_mark(run: Any, name: str) -> None:
    """A step that takes a while and leaves a file."""
    time.sleep(0.5)
    Path(name).touch()


def test_what_waits_does_not_begin_after_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    marks = [str(tmp_path / str(i)) for i in range(5)]
    with pytest.raises(InputError):
        side_by_side(Stub(), [(fails, "b"), *((leaves_a_mark, mark) for mark in marks)])  # type: ignore[arg-type]
    assert not Path(marks[-1]).exists()
