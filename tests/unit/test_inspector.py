"""The inspector shows what is stored of an answer, and why it was read so; the kill demo keeps what it has told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmedlite import inspector, store_demo
from mmedlite.answers import Parsed
from mmedlite.asks import Ask, Form, Reply
from mmedlite.cases import Case
from mmedlite.opinions import request_key
from mmedlite.specialists import FINAL, fetch
from mmedlite.store import OpinionStore
from tests.small import PANELS, table

CASE = Case("c-1", "toy", "test", ("0",), ("0",), "Which?", ("nodule", "mass"), 1, "PET", "Oncologist", "choice", "CC0")
FORM = Form("local", PANELS, {"*": {"revision": "r", "sampling": {}}})


def opinion(**changes: Any) -> dict[str, Any]:
    request = FORM.request(Ask(CASE, "Oncologist", "diverse", 2))
    reply = Reply("<answer>mass</answer>")
    return {
        "key": request_key(request), "case_id": "c-1", "department": "Oncologist", "panel": "diverse", "request": request,
        "response": reply.text, "option": 1, "reason": None, "finish_reason": "stop", "time": 0, **changes,
    }  # fmt: skip


def test_table_of_an_answer() -> None:
    found = inspector.opinion_table(opinion(), CASE)["value"]
    assert found["raw text"] == "<answer>mass</answer>" and found["parsed option"] == "1: mass" and found["right"] == "yes"
    assert found["panel"] == "diverse, Oncologist, sample 2" and found["model"] == "Oncologist-2"
    assert found["asked at"] == "1970-01-01 00:00 UTC" and found["key"] == opinion()["key"]
    silent = inspector.opinion_table(opinion(option=None, reason="no_mark", response="I see."), CASE)["value"]
    assert silent["parsed option"] == "none" and silent["right"] == "no" and silent["why"] == "no option is marked as the answer"


def test_every_reason_is_put_in_words() -> None:
    assert {*FINAL, Parsed(None, "no_mark").reason} <= set(inspector.WHY)
    assert inspector.opinion_table(opinion(option=None, reason="refused"), CASE)["value"]["why"] == "refused"


def test_choosing_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    shown, caught = list[str](), list[tuple[Any, dict[str, Any]]]()
    monkeypatch.setattr(inspector, "show_table", lambda frame, caption: shown.append(frame["value"]["raw text"]))
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **dials: caught.append((callback, dials)))
    inspector.inspect_opinions([opinion(), opinion(response="other")], {"c-1": CASE})
    [(callback, dials)] = caught
    assert shown == ["<answer>mass</answer>"]  # stands there without a kernel
    for _, index in dials["opinion"].options:
        callback(opinion=index)
    assert shown[1:] == ["<answer>mass</answer>", "other"]


def test_kill_and_resume(tmp_path: Path) -> None:
    clinic = table(tmp_path / "clinic")
    asks = store_demo.questions(clinic.path.parent, 4)
    told = store_demo.killed(clinic.path.parent, tmp_path / "store", asks, after=5)
    store = OpinionStore(tmp_path / "store")
    assert len(told) == 5 and told <= set(store.places)
    before = len(store)
    _, asked = fetch(asks, clinic, store, store_demo.SIMULATED)
    assert asked == len(asks) - before and len(store) == len(asks) == 12


def test_a_small_table_makes_questions_enough(tmp_path: Path) -> None:
    clinic = table(tmp_path / "clinic")  # of four validation cases
    asks = store_demo.questions(clinic.path.parent, 10)
    assert len(asks) == 30 and {a.department for a in asks[:12]} == {"Surgeon"} and len({a.department for a in asks}) == 3
    assert len({request_key(store_demo.SIMULATED.form.request(a)) for a in asks}) == 30
    assert len(store_demo.questions(clinic.path.parent, 1000)) == 3 * 4 * 7  # each case by every department
