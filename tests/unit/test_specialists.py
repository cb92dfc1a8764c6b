"""Specialists: who answers what, opinions asked once, replay, and panels with a stand-in for the models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmedlite.asks import Ask, Form, Reply
from mmedlite.cases import Case, CaseTable
from mmedlite.curriculum import BUCKETS
from mmedlite.evaluation import bucket_report
from mmedlite.local_specialists import LocalSpecialists
from mmedlite.models import Answer
from mmedlite.opinions import COLUMNS, MissingOpinion, request_key
from mmedlite.profiles import DEPARTMENTS, InputError
from mmedlite.simulated import SimulatedSpecialists
from mmedlite.specialists import Unanswered, fetch, panel_asks, panel_options
from mmedlite.store import OpinionStore
from mmedlite.store_tools import export, take_in
from mmedlite.widgets import bucket_shares
from tests.small import PANELS, specialists, table
from tests.stored import full_disk

OPTIONS = ("nodule", "mass", "cyst", "normal")
CASES = [
    Case(f"c-{i}", "toy", "train", tuple(f"{i}{v}" for v in range(4)), tuple(f"{i}{v}" for v in range(4)), "Which?", OPTIONS, i % 4,
         "PET", "Oncologist", "choice", "CC0")
    for i in range(5)
]  # fmt: skip
TABLE = CaseTable(Path("cases.parquet"), CASES)




def form(revision: str = "r1") -> Form:
    return Form("local", PANELS, {"*": {"revision": revision, "sampling": {"temperature": 1.0, "max_tokens": 20}}})


class Fake:
    """Stands in for the local specialists: answers by doctor and sample, and notes what it was asked."""

    def __init__(self) -> None:
        self.form, self.asked = form(), list[Ask]()

    def estimate(self, asks: Sequence[Ask]) -> None:
        return None

    def answers(self, table: CaseTable, asks: Sequence[Ask]) -> Iterator[list[tuple[Ask, Reply]]]:
        self.asked += asks
        yield [(a, self.reply(a)) for a in asks]

    def reply(self, ask: Ask) -> Reply:
        doctor = int(self.form.doctor(ask))
        return Reply("I cannot say." if ask.case.case_id == "c-4" else f"<answer>{OPTIONS[(ask.sample_index + doctor) % 4]}</answer>")


def options(fake: Any, store: OpinionStore, panel: str = "diverse", **more: Any) -> tuple[np.ndarray, int]:
    return panel_options(CASES, ["Oncologist"] * 4 + ["Surgeon"], panel, TABLE, store, fake, **more)


def models(fake: Fake) -> set[str]:
    return {fake.form.model(a) for a in fake.asked}


@pytest.mark.parametrize(
    ("panel", "index", "doctor", "view"),
    [("diverse", i, i % 3, 1 + i % 3) for i in range(6)] + [("paper_like", i, 0, 1) for i in range(6)],
)
def test_who_answers_and_what_he_sees(panel: str, index: int, doctor: int, view: int) -> None:
    ask = Ask(CASES[0], "Surgeon", panel, index)
    assert (form().doctor(ask), form().view(ask), form().model(ask)) == (str(doctor), view, f"Surgeon-{doctor}")
    single = replace(CASES[0], images=("0",), image_sha256s=("0",))
    assert form().view(replace(ask, case=single)) == 0


def test_a_mixed_panel_is_one_line(tmp_path: Path) -> None:
    """Two answers of A and one of B, of models behind an endpoint; each is asked with its own sampling and the case's own picture."""
    both = {"a": {"revision": None, "sampling": {"max_tokens": 9}}, "b": {"revision": "7", "sampling": {"max_tokens": 5, "top_p": 0.9}}}
    mixed = Form("endpoint", {"mixed": ("a", "a", "b")}, both, longest_side=512)
    requests = [mixed.request(a) for a in panel_asks(CASES[:1], ["Surgeon"], "mixed")]
    assert [r["model"] for r in requests] == ["a", "a", "b"] and [r["revision"] for r in requests] == [None, None, "7"]
    assert [r["sampling"] for r in requests] == [{"max_tokens": 9, "seed": 0}, {"max_tokens": 9, "seed": 1},
                                                 {"max_tokens": 5, "top_p": 0.9, "seed": 2}]  # fmt: skip
    assert {r["messages"][0]["content"][0]["sha256"] for r in requests} == {"00"}
    assert "512" in requests[0]["image_rule"]
    assert request_key(requests[0]) != request_key(replace(mixed, longest_side=256).request(panel_asks(CASES[:1], ["Surgeon"], "mixed")[0]))


ASK = Ask(CASES[0], "Surgeon", "diverse", 0)


@pytest.mark.parametrize(
    "other",
    [
        (replace(ASK, sample_index=1), "r1"), (replace(ASK, sample_index=3), "r1"), (replace(ASK, department="Oncologist"), "r1"),
        (replace(ASK, case=replace(CASES[0], question="Where?")), "r1"),
        (replace(ASK, case=replace(CASES[0], options=OPTIONS[::-1])), "r1"),
        (replace(ASK, case=replace(CASES[0], image_sha256s=("00", "x", "02", "03"))), "r1"), (ASK, "r2"),
    ],
)  # fmt: skip
def test_every_part_of_a_question_changes_the_key(other: tuple[Ask, str]) -> None:
    assert request_key(form(other[1]).request(other[0])) != request_key(form().request(ASK))


def test_what_does_not_decide_an_answer_is_not_in_the_key() -> None:
    """Neither the right answer nor the name of the case, nor the attending's own picture, nor the panel's name."""
    same = replace(CASES[0], case_id="other", answer=3, image_sha256s=("x", *CASES[0].image_sha256s[1:]))
    for ask in (replace(ASK, case=same), replace(ASK, panel="paper_like")):
        assert request_key(form().request(ask)) == request_key(form().request(ASK))


def test_panel_is_asked_once(tmp_path: Path) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    first, asked = options(fake, store)
    assert first.shape == (5, 3) and asked == 15 == len(store)
    assert first.tolist() == [[0, 2, 0]] * 4 + [[-1] * 3]  # sample + doctor, modulo 4; no answer is -1
    again, asked = options(fake, OpinionStore(tmp_path))
    assert asked == 0 and np.array_equal(first, again)
    assert models(fake) == {f"{d}-{i}" for d in ("Oncologist", "Surgeon") for i in range(3)}


def test_paper_like_panel_asks_one_doctor_three_times(tmp_path: Path) -> None:
    fake = Fake()
    found, asked = options(fake, OpinionStore(tmp_path), "paper_like")
    assert asked == 15 and found[0].tolist() == [0, 1, 2]
    assert models(fake) == {"Oncologist-0", "Surgeon-0"}


def test_redraw_takes_three_other_samples(tmp_path: Path) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    options(fake, store)
    found, asked = options(fake, store, redraw=True)
    assert asked == 15 and len(store) == 30 and found[0].tolist() == [3, 1, 3]
    assert {a.sample_index for a in fake.asked[15:]} == {3, 4, 5}


def test_panels_do_not_share_what_they_should_not(tmp_path: Path) -> None:
    """Sample 0 of both panels is the same doctor with the same request: asked once. All others differ."""
    store = OpinionStore(tmp_path)
    options(Fake(), store, "diverse")
    assert options(Fake(), store, "paper_like")[1] == 10


def test_two_cases_that_ask_the_same_share_an_opinion(tmp_path: Path) -> None:
    twice = [CASES[0], replace(CASES[0], case_id="twin")]
    found, asked = panel_options(twice, ["Surgeon"] * 2, "diverse", TABLE, OpinionStore(tmp_path), Fake())
    assert asked == 3 and found[0].tolist() == found[1].tolist()


def test_replay_raises_on_a_miss_and_asks_nobody(tmp_path: Path) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    with pytest.raises(MissingOpinion, match="15 opinions are not stored, the first for c-0"):
        options(fake, store, replay=True)
    assert not fake.asked and len(store) == 0
    options(fake, store)
    found, asked = options(Fake(), store, replay=True)
    assert asked == 0 and found.shape == (5, 3)


def test_a_stored_opinion_says_how_it_came_about(tmp_path: Path) -> None:
    asks = [Ask(CASES[0], "Surgeon", "diverse", 4), Ask(CASES[4], "Surgeon", "diverse", 1)]
    (good, silent), _ = fetch(asks, TABLE, OpinionStore(tmp_path), Fake())
    assert set(good) == set(COLUMNS)
    assert (good["case_id"], good["department"], good["panel"], good["request"]["model"]) == ("c-0", "Surgeon", "diverse", "Surgeon-1")
    assert good["response"] == "<answer>mass</answer>" and good["option"] == 1 and good["reason"] is None
    assert silent["option"] is None and silent["reason"]
    assert request_key(good["request"]) == good["key"]
    assert json.loads((tmp_path / "answers-000.jsonl").read_text().splitlines()[0])["request"]["revision"] == "r1"


def test_order_of_opinions_is_the_order_asked(tmp_path: Path) -> None:
    asks = [Ask(c, d, "diverse", i) for i in (2, 0, 1) for c in reversed(CASES) for d in ("Surgeon", "Oncologist")]
    opinions, _ = fetch(asks, TABLE, OpinionStore(tmp_path), Fake())
    found = [(o["case_id"], o["department"], o["request"]["sample_index"]) for o in opinions]
    assert found == [(a.case.case_id, a.department, a.sample_index) for a in asks]


class Faulty(Fake):
    """Case c-1 is cut short, c-2 is withheld, c-3 says nothing, and c-0 does not get through."""

    def reply(self, ask: Ask) -> Reply:
        said = {"c-0": Reply("", None, "timeout", "no answer in 3 s"), "c-1": Reply("<answer>mass</answer> and", "length"),
                "c-2": Reply("<answer>mass</answer>", "content_filter"), "c-3": Reply(" ")}  # fmt: skip
        return said.get(ask.case.case_id) or super().reply(ask)


def test_failures_are_no_answers(tmp_path: Path) -> None:
    """What the model answered so is kept and counts as no option; what did not get through is asked again."""
    fake, store = Faulty(), OpinionStore(tmp_path)
    with pytest.raises(Unanswered, match=r"3 of 15 questions got no answer \(3 x timeout\); the rest is stored .*Fix: run the same command"):
        options(fake, store)
    assert len(store) == 3 and all(row["case_id"] == "c-4" for row in store.values())
    assert "timeout" not in (tmp_path / "answers-000.jsonl").read_text()
    found, asked = options(Fake(), OpinionStore(tmp_path))
    assert asked == 3 and found.tolist() == [[0, 2, 0], *[[-1] * 3] * 4]
    reasons = {fetch([Ask(CASES[i], "Oncologist", "diverse", 0)], TABLE, store, fake)[0][0]["reason"] for i in (1, 2, 3)}
    assert reasons == {"truncated", "content_filter", "empty"}


def test_what_will_not_be_answered_travels_with_the_answers(tmp_path: Path) -> None:
    """A class that takes an export in asks none of it again, and replay does not miss it."""
    store = OpinionStore(tmp_path / "mine")
    with pytest.raises(Unanswered):
        options(Faulty(), store)
    export(store, tmp_path / "shared")
    theirs = OpinionStore(tmp_path / "theirs")
    assert take_in(theirs, tmp_path / "shared") == 3 and len(theirs.failures) == 9  # the three that did not get through stay behind
    found, asked = options(Fake(), OpinionStore(tmp_path / "theirs"))
    assert asked == 3 and found.tolist() == [[0, 2, 0], *[[-1] * 3] * 4]
    options(Fake(), OpinionStore(tmp_path / "theirs"), replay=True)


@pytest.mark.parametrize(
    ("reason", "unfit"),
    [(None, None), ("stop", None), ("end_turn", None), ("length", "truncated"), ("MAX_TOKENS", "truncated"), ("SAFETY", "content_filter"),
     ("error", "unfinished"), ("tool_calls", "unfinished")],
)  # fmt: skip
def test_only_a_finished_text_is_an_answer(reason: str | None, unfit: str | None) -> None:
    assert Reply("<answer>mass</answer>", reason).unfit() == unfit and Reply(" ", reason).unfit() == (unfit or "empty")


def test_answers_that_a_full_disk_refused_are_written_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    with monkeypatch.context() as full:
        full_disk(full, 500)
        with pytest.raises(InputError, match="No space left on device"):
            options(fake, store)
    assert len(OpinionStore(tmp_path)) == 0
    found, asked = options(fake, store)
    assert asked == 0 and len(fake.asked) == 15 == len(OpinionStore(tmp_path)) and found[0].tolist() == [0, 2, 0]


def test_local_specialists_answer_alike_each_time(tmp_path: Path) -> None:
    """Random weights: two loads of the same folder give the same texts to the same batch, another doctor gives others."""
    clinic = table(tmp_path / "clinic")
    folder = specialists(tmp_path / "specialists", ["Surgeon-0", "Surgeon-1"])
    asks = [Ask(c, "Surgeon", "diverse", 0) for c in clinic.cases[:4]]
    first, again = LocalSpecialists(folder, PANELS), LocalSpecialists(folder, PANELS)

    def texts(source: LocalSpecialists, asks: Sequence[Ask]) -> list[str]:
        return [r.text for part in source.answers(clinic, asks) for _, r in part]

    said = texts(first, asks)
    assert len(said) == 4 and said == texts(again, asks)
    other = texts(first, [replace(a, sample_index=1) for a in asks])
    assert other != said and texts(first, asks) == said
    assert len(first.form.models["*"]["revision"]) == 64


@pytest.mark.parametrize(("accuracy", "rho", "corrupted"), [(0.7, 0.0, 0.0), (0.7, 0.5, 0.0), (0.6, 1.0, 0.0), (0.8, 0.3, 0.5)])
def test_dials_of_the_simulated_panel(tmp_path: Path, accuracy: float, rho: float, corrupted: float) -> None:
    """4,000 cases: accuracy and correlation of errors are those that were set; corruption makes a right answer wrong."""
    many = [replace(CASES[0], case_id=f"case-{i}", answer=i % 4, image_sha256s=(f"{i}",)) for i in range(4000)]
    source, store = SimulatedSpecialists(["dialled"], accuracy, rho, corrupted), OpinionStore(tmp_path)
    found, asked = panel_options(many, ["Surgeon"] * 4000, "dialled", TABLE, store, source)
    right = found == np.arange(4000)[:, None] % 4
    assert asked == 12_000 and right.mean() == pytest.approx(accuracy * (1 - corrupted), abs=0.02)
    rows = [{"case_id": c.case_id, "sample_index": i, "option": o} for c, v in zip(many, found, strict=True) for i, o in enumerate(v)]
    report = bucket_report(pd.DataFrame(rows), {c.case_id: c.answer for c in many})
    if not corrupted:
        assert report["rho"] == pytest.approx(rho, abs=0.04)
        assert {b: report[b] for b in BUCKETS} == pytest.approx(bucket_shares(accuracy, rho), abs=0.02)
    redrawn, _ = panel_options(many[:200], ["Surgeon"] * 200, "dialled", TABLE, store, source, redraw=True)
    assert (redrawn != found[:200]).any() and len(np.unique(found)) == 4


# ---- the shipped specialists


def test_shipped_specialists(root: Path) -> None:
    """Three adapters a department, small ones, and weights that are those of the revision."""
    shipped = LocalSpecialists(root / "artifacts" / "specialists", PANELS)
    assert {p.name for p in (shipped.folder / "adapters").iterdir()} == {f"{d}-{i}" for d in DEPARTMENTS for i in range(3)}
    assert all(f.stat().st_size <= 200_000 for f in shipped.folder.glob("adapters/*/*.safetensors"))


def test_an_answer_cut_at_the_token_limit_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it names an option: a local specialist's text without its end is a failure, kept, and not asked again."""
    source, store = LocalSpecialists(specialists(tmp_path / "s"), PANELS), OpinionStore(tmp_path / "o")
    cut = {"c-0": Answer("<answer>mass</answer> mass mass", False), "c-1": Answer("<answer>mass</answer>", True)}
    monkeypatch.setattr(source, "generate", lambda adapter, table, asks, seed: [cut[a.case.case_id] for a in asks])
    votes, asked = panel_options(CASES[:2], ["Oncologist"] * 2, "paper_like", TABLE, store, source)
    assert votes.tolist() == [[-1] * 3, [1] * 3] and asked == 6
    assert {store.failure(k)["reason"] for k in store.failures} == {"truncated"} and len(store) == 3
    assert {row["finish_reason"] for row in store.values()} == {"stop"}
    again, asked = panel_options(CASES[:2], ["Oncologist"] * 2, "paper_like", TABLE, OpinionStore(tmp_path / "o"), source)
    assert again.tolist() == votes.tolist() and asked == 0


def test_failures_too_are_kept_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A final failure was paid for like an answer: it is written by the next call, and not asked again."""
    source, store = Fake(), OpinionStore(tmp_path)
    monkeypatch.setattr(source, "reply", lambda ask: Reply("<answer>mass</answer>", "length" if ask.sample_index else "stop"))
    with monkeypatch.context() as full:
        full_disk(full, 0)
        with pytest.raises(InputError, match="No space left on device"):
            panel_options(CASES[:1], ["Oncologist"], "diverse", TABLE, store, source)
    votes, asked = panel_options(CASES[:1], ["Oncologist"], "diverse", TABLE, store, source)
    assert votes.tolist() == [[1, -1, -1]] and asked == 0 and len(source.asked) == 3
    assert len(OpinionStore(tmp_path).failures) == 2
