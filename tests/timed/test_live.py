"""What the training view takes of the time of a training of the shipped policy."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython
import IPython.display
import pytest

from mmedlite import grpo, live, prompts
from mmedlite.profiles import DEPARTMENTS
from mmedlite.run import Run

STEPS = 60  # beyond the first drawing


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

    shares = []
    for name in ("first", "second"):
        with live.watch(run, name) as spent:
            began = time.monotonic()
            grpo.train(run.fresh(), run.processor, rows, run.profile.grpo, run.folder / "rollouts" / name, {"stage": name}, 0)
            wall = time.monotonic() - began
        assert spent
        shares.append(sum(spent) / wall)
        print(f"{len(spent)} drawings, {sum(spent):.2f} s of the processor in {wall:.1f} s by the clock: {shares[-1]:.2%}", flush=True)
    assert max(shares) < 0.02
