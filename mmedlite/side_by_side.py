"""Panels and splits side by side: on a CPU one process each, since a small model leaves most of a second thread idle."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TextIO

import torch

from mmedlite.cases import SPLITS
from mmedlite.run import Run


class _Named(io.TextIOBase):
    """Puts a name before each line written to ``stream``: the processes share one screen line for their progress."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name, self.stream = name, stream

    def write(self, text: str) -> int:
        return self.stream.write(re.sub(r"^(\r?)( *\S)", rf"\1{self.name} \2", text))

    def flush(self) -> None:
        self.stream.flush()


Step = Callable[[Run, str], Any]  # of a run and the name of a panel or split


def _named(step: Step, run: Run, name: str) -> Any:
    warnings.simplefilter("ignore")  # each process would repeat what the libraries warn of
    with contextlib.redirect_stderr(_Named(name, sys.stderr)):
        return step(run, name)


def side_by_side(run: Run, steps: Sequence[tuple[Step, str]]) -> list[Any]:
    """What ``step(run, name)`` gives for each pair of step and name, in order; one after the other where there is a GPU.

    Each process runs one thread, so that its numbers do not depend on how many cores there are.

    Raises:
        Exception: what the first step to fail raised; those that have begun are waited for.
    """
    for panel in run.profile.panels:  # routes and opinions are settled before, by one process
        for split in (s for s in SPLITS if run.cases(s)):
            run.panel(split, panel)
    if torch.cuda.is_available():
        return [step(run, name) for step, name in steps]
    at_once, spawn = min(len(steps), os.cpu_count() or 1), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(_named, step, run, name) for step, name in steps]
        try:
            return [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # those that wait for a process need not begin
            raise
