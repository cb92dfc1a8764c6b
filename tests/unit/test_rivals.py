"""SFT for as long as the recipe trains: how many updates that is, and that a stored table is only added to."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from figures import rivals
from mmedlite.evidence import DATA
from mmedlite.profiles import load_profile


@pytest.fixture
def run(tmp_path: Path) -> Any:
    profile = load_profile("tiny")
    made = SimpleNamespace(profile=profile, folder=tmp_path, processor=None, table=None, seed=0, fresh=object, kept=[])
    made.cases, made.routes, made.panel = list, list, lambda split, name: []
    made.save_json = lambda name, content: (tmp_path / name).write_text(json.dumps(content))
    made.answer = lambda model, system, split, panel: system
    made.keep = lambda rows, name: made.kept.append(name)
    return made


def test_as_many_updates_as_cost_the_same(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    costs = iter([{"grpo": 0.9, "sft": 0.3}])
    monkeypatch.setattr(rivals, "update_cost", lambda run, panel: next(costs))  # measured once
    monkeypatch.setattr(rivals.attending, "train_sft", lambda *given: asked.append(given[7]))
    monkeypatch.setattr(rivals, "merged", lambda model: model)
    for panel in ("diverse", "paper_like"):
        rivals.sft_compute(run, panel)
    assert asked == [3 * rivals.updates(run)] * 2 and run.kept == ["diverse/test/sft_compute", "paper_like/test/sft_compute"]


def test_the_cost_is_the_median_of_trainings_by_turns(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], list[str]()

    def spend(name: str, seconds: float) -> None:
        order.append(name)
        clock[0] += seconds

    takes = iter([8.0, 40.0, 10.0])
    monkeypatch.setattr(rivals.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(rivals.attending, "train_stage", lambda *given: spend("grpo", next(takes)))
    monkeypatch.setattr(rivals.attending, "train_sft", lambda *given: spend("sft", 2.0))
    assert rivals.update_cost(run, "diverse", steps=20) == {"grpo": 0.5, "sft": 0.1} and order == ["grpo", "sft"] * 3


def test_the_stored_table_says_what_the_updates_cost() -> None:
    cost = pd.read_parquet(DATA / "rivals.parquet", columns=[]).attrs["added"]["sft_compute"]["compute"]
    updates = sum(s.steps for s in load_profile("tiny").attending.recipe)
    assert cost["updates"] == round(updates * cost["grpo"] / cost["sft"]) > updates
