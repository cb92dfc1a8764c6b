"""What the training view costs beside a training on the shipped policy, with and without it in turns."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import IPython
import IPython.display
import pytest

from mmedlite import grpo, live, prompts
from mmedlite.profiles import DEPARTMENTS
from mmedlite.run import Run

PAIRS, STEPS = 5, 30


def test_the_view_takes_less_than_two_hundredths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    drawn: list[Any] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=True))
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: SimpleNamespace(update=drawn.append))
    cases = [c for c in run.cases("train") if c.specialty]
    cases = cases[: STEPS * run.profile.grpo.prompts_per_step]
    n = len(cases)
    answers, names = [DEPARTMENTS.index(c.specialty or "") for c in cases], [c.case_id for c in cases]
    pictures = [run.table.open_image(c) for c in cases]
    rows = grpo.picture_rows(pictures, [prompts.triage_prompt()] * n, [DEPARTMENTS] * n, answers, names, [1e-4] * n, [1e-3] * n)

    def trained(name: str, watched: bool = False) -> tuple[float, float, list[float]]:
        """Seconds by the clock and of the processor, and what each drawing took."""
        with live.watch(run, name) if watched else nullcontext([]) as spent:
            wall, cpu = time.monotonic(), time.process_time()
            grpo.train(run.fresh(), run.processor, rows, run.profile.grpo, run.folder / "rollouts" / name, {"stage": name}, 0)
            return time.monotonic() - wall, time.process_time() - cpu, spent

    trained("first")  # also fills the caches
    found = []
    for i in range(PAIRS):
        without, with_view = trained(f"without-{i}"), trained(f"with-{i}", watched=True)
        assert (spent := with_view[2])
        found.append((without[1], with_view[1], sum(spent) / with_view[0]))
        print(f"CPU without {found[-1][0]:.1f} s, with {found[-1][1]:.1f} s; {len(spent)} drawings, {sum(spent):.2f} s of {with_view[0]:.1f} s "
              f"by the clock: {found[-1][2]:.2%}", flush=True)  # fmt: skip
    print("CPU, medians: without {:.2f} s, with {:.2f} s".format(*(median(f[side] for f in found) for side in (0, 1))))
    assert max(share for *_, share in found) < 0.02
