"""A kill, live: another process fills a store, is killed in the midst of it, and what it had told must be there (notebook 01)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmedlite.asks import Ask
from mmedlite.cases import read_table
from mmedlite.profiles import DEPARTMENTS
from mmedlite.simulated import SimulatedSpecialists
from mmedlite.specialists import fetch, panel_asks
from mmedlite.store import OpinionStore

SIMULATED = SimulatedSpecialists(["dialled"], accuracy=0.72, correlation=0.5)


def questions(cases: Path | str, n: int) -> list[Ask]:
    """Three questions on each of the first n validation cases; of a smaller table, further departments are asked too."""
    table = read_table(cases, check_images=False).split("validation")
    pairs = [(case, d) for d in ("Surgeon", *(d for d in DEPARTMENTS if d != "Surgeon")) for case in table][:n]
    return panel_asks([case for case, _ in pairs], [d for _, d in pairs], "dialled")


def fill(cases: str, folder: str, n: str) -> None:
    """Ask one question after the other; tell the key of each answer once it is stored."""
    table, store = read_table(cases, check_images=False), OpinionStore(folder)
    for ask in questions(cases, int(n)):
        print(fetch([ask], table, store, SIMULATED)[0][0]["key"], flush=True)


def killed(cases: Path | str, folder: Path | str, asks: Sequence[Ask], after: int) -> set[str]:
    """Fill the store in another process and kill it (SIGKILL) once ``after`` answers were told; the keys of these."""
    words = [sys.executable, "-m", "mmedlite.store_demo", str(cases), str(folder), str(len(asks) // 3)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        told = {(process.stdout.readline() if process.stdout else "").strip() for _ in range(after)}
        process.kill()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError("the other process had ended before it was killed")
    return told


if __name__ == "__main__":
    fill(*sys.argv[1:])
