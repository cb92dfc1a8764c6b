"""The yardstick of the fill: its pieces at toy size, and what each would say of a store or a client that does wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from figures import store_fill
from figures.store_fill import TARGET, faults, kills, speed, told
from mmedlite.budget import Budget
from mmedlite.cases import CaseTable
from mmedlite.store import OpinionStore
from tests.small import table


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    return table(tmp_path_factory.mktemp("clinic"))


def few_kills(clinic: CaseTable, folder: Path) -> dict[str, Any]:
    return kills(clinic, folder, times=4, n=45, concurrency=4)


def few_faults(clinic: CaseTable, folder: Path) -> dict[str, Any]:
    return faults(clinic, folder, 60, stall=1.0, timeout_s=0.3, concurrency=8)


def test_all_of_it(clinic: CaseTable, tmp_path: Path) -> None:
    found = {"fill": speed(clinic, tmp_path, 1, 60, 8, 0.05), "kills": few_kills(clinic, tmp_path), "faults": few_faults(clinic, tmp_path)}
    fill, killed, faulty = found["fill"], found["kills"], found["faults"]
    assert fill["at_once"] == 8 and 0.05 < fill["share"] == fill["ideal_s"] / fill["s"] < 1 and fill["ideal_s"] == pytest.approx(0.375)
    assert killed["acknowledged"] > 0 and killed["n"] == 4
    assert [killed[k] for k in ("lost", "asked_twice", "stored_twice", "torn_taken")] == [0] * 4
    assert faulty["arrived"] == 60 < faulty["requests"] == 60 + sum(faulty["faults"].values())
    assert [faulty[k] for k in ("faulty_stored", "failures_stored", "paid_twice", "uncounted", "exceeded")] == [0] * 5
    assert all(b["answers"] == b["answered_in_full"] < 60 for b in faulty["budgets"])
    assert f"(target {TARGET:.0%}: " in told(found)[0] and "0 lost" in told(found)[1] and "60 of 60" in told(found)[2]


def test_a_store_that_forgets_shows(clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it has stored what it keeps in memory."""
    monkeypatch.setattr("mmedlite.store.append", lambda file, data: (len(data), 1))
    assert few_kills(clinic, tmp_path)["lost"] > 0


def test_a_store_that_takes_torn_answers_shows(clinic: CaseTable, tmp_path: Path) -> None:
    with store_fill.serving() as log:
        store = OpinionStore(tmp_path)
        store_fill.fetch(store_fill.questions(clinic, 6), clinic, store, store_fill.specialists(4))
        sent = {a["id"]: a for a in log()["asked"]}
    assert store_fill.faults_in(store, sent) == 0
    first = next(iter(sent.values()))
    for change in ({"full": False}, {"text": "other"}):
        assert store_fill.faults_in(store, sent | {first["id"]: first | change}) == 1


def test_a_budget_that_does_not_stop_shows(clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "_beyond", lambda self, cost: None)
    with pytest.raises(RuntimeError, match="has sufficed"):
        few_faults(clinic, tmp_path)
