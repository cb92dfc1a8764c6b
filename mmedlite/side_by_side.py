"""Panels, splits or seeds side by side: on a CPU one process each, since a small model leaves most of a second thread idle."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TextIO

import torch

from mmedlite.cases import SPLITS
from mmedlite.processes import several
from mmedlite.profiles import InputError
from mmedlite.run import Run
from mmedlite.specialists import open_specialists


class _Named(io.TextIOBase):
    """Puts a name before each line written to ``stream``: the processes share one screen line for their progress."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream = name, stream

    def write(self, text: str) -> int:
        return self.stream.write(re.sub(r"^(\r?)( *\S)", rf"\g<1>{self.name} \2", text))

    def flush(self) -> None:
        self.stream.flush()


Step = Callable[[Run, str], Any]  # of a run and the name of a panel, split, seed or control


def _named(step: Step, run: Run, name: str) -> Any:
    warnings.simplefilter("ignore")  # each process would repeat what the libraries warn of
    with contextlib.redirect_stderr(_Named(name, sys.stderr)):
        return step(run, name)


def _begin() -> None:
    """Of each process: one thread; and it ends with the process that started it, however that ends."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)  # else it would train on, beside the run that takes its folder up


def ask_panels(run: Run) -> None:
    """Settle the routes and opinions of every panel and split that has cases; what is not stored is asked now."""
    for panel in run.profile.panels:
        for split in (s for s in SPLITS if run.cases(s)):
            run.panel(split, panel)


def cores() -> int:
    """How many cores this process may use (at least 1); where the system does not say (macOS), all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side(run: Run, steps: Sequence[tuple[Step, str]]) -> list[Any]:
    """What ``step(run, name)`` gives for each pair of step and name, in order; one after the other where there is a GPU, or
    where the processes of a launch train together.

    Each process runs one thread, so that its numbers do not depend on how many cores there are.

    Raises:
        Exception: what the first step to fail raised; those that have begun are waited for.
        InputError: a process was killed from outside.
    """
    ask_panels(run)  # before, by one process: no two ask for the same opinion
    if torch.cuda.is_available() or several():
        return [step(run, name) for step, name in steps]
    if run.profile.endpoint is None:  # a loaded model cannot be sent to a process; an endpoint keeps its budget
        run.specialists = open_specialists(run.profile)
    at_once, spawn = min(len(steps), cores()), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, initializer=_begin) as pool:
        jobs = [pool.submit(_named, step, run, name) for step, name in steps]
        try:
            return [job.result() for job in jobs]
        except BrokenProcessPool as error:
            names = ", ".join(name for _, name in steps)
            fix = "free some memory, then run the same command or cell again: it goes on from the last checkpoint"
            raise InputError(f"a process was killed from outside, often for want of memory ({names})", "", fix) from error
        except BaseException as error:
            for job in jobs:  # those that wait for a process need not begin
                job.cancel()
            if isinstance(error, KeyboardInterrupt):
                time.sleep(2)  # one that heard Ctrl-C itself says what it keeps
                for process in multiprocessing.active_children():
                    process.terminate()
            raise
