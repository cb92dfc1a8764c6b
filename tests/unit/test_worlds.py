"""Arms that are added to a stored world: what is there stays as it is, and other cases are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from figures import _wide, worlds
from mmedlite.profiles import InputError

FACTS = pd.DataFrame({"panel": ["diverse"] * 3, "case_id": ["a", "b", "c"], "answer": [0, 1, 0], "panel_vote": [0, 0, 0]})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    frame = FACTS.assign(printed_as_is=["x", "y", "z"])
    frame.attrs = {"seed": 1, "code": "old", "script": "older"}
    frame.to_parquet(file := tmp_path / "1.parquet", index=False)
    return file


def a_run(monkeypatch: pytest.MonkeyPatch, facts: pd.DataFrame) -> tuple[Any, list[str]]:
    trained: list[str] = []

    def write(run: Any, names: list[str], file: Path, script: str) -> None:
        frame = facts.assign(**{name: [name] * 3 for name in names})
        frame.attrs = {"code": "new", "script": script}
        frame.to_parquet(file, index=False)

    monkeypatch.setattr(_wide, "write_wide", write)
    monkeypatch.setattr(worlds, "train_arm", lambda run, panel, recipe, change: trained.append(f"{panel}/{recipe}_{change}"))
    done = {"diverse/test/recommended_kl_off"}
    return SimpleNamespace(profile=SimpleNamespace(panels={"diverse": ()}), has_own_rows=done.__contains__), trained


ADDED = [("printed", "reversed"), ("recommended", "kl_off")]


def test_stored_arms_are_neither_trained_nor_changed(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, trained = a_run(monkeypatch, FACTS)
    before = pd.read_parquet(stored)
    worlds.add_arms(run, ADDED, stored)
    after = pd.read_parquet(stored)
    assert trained == ["diverse/printed_reversed"]  # the other was answered before a stop
    assert after[before.columns].equals(before) and list(after.columns[-2:]) == ["printed_reversed", "recommended_kl_off"]
    assert {k: after.attrs[k] for k in before.attrs} == before.attrs and after.attrs["added"]["printed_reversed"]["code"] == "new"
    assert [file.name for file in stored.parent.iterdir()] == ["1.parquet"]


def test_other_panels_are_refused(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = a_run(monkeypatch, FACTS.assign(panel_vote=[1, 0, 0]))
    before = stored.read_bytes()
    with pytest.raises(InputError, match="other cases or panels"):
        worlds.add_arms(run, ADDED, stored)
    assert stored.read_bytes() == before
