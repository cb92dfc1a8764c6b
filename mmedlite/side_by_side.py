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


def _named(step: Callable[[Run, str], Any], run: Run, name: str) -> Any:
    warnings.simplefilter("ignore")  # each process would repeat what the libraries warn of
    with contextlib.redirect_stderr(_Named(name, sys.stderr)):
        return step(run, name)


def side_by_side(run: Run, step: Callable[[Run, str], Any], names: Sequence[str]) -> list[Any]:
    """``step(run, name)`` for each name (a panel, a split), in their order; one after the other where there is a GPU.

    Each process runs one thread, so that its numbers do not depend on how many cores there are.

    Raises:
        Exception: what the first step to fail raised; the others are waited for.
    """
    for panel in run.profile.panels:  # routes and opinions are settled before, by one process
        for split in (s for s in SPLITS if run.cases(s)):
            run.panel(split, panel)
    if torch.cuda.is_available():
        return [step(run, name) for name in names]
    at_once, spawn = min(len(names), os.cpu_count() or 1), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return [job.result() for job in [pool.submit(_named, step, run, name) for name in names]]
