"""Specialists: who answers what, opinions asked once, replay, and panels with a stand-in for the models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedlite.cases import Case, CaseTable
from mmedlite.profiles import DEPARTMENTS
from mmedlite.specialists import PANELS, Ask, LocalSpecialists, _request, fetch, panel_options
from mmedlite.store import COLUMNS, MissingOpinion, OpinionStore, request_key
from tests.small import specialists, table

OPTIONS = ("nodule", "mass", "cyst", "normal")
CASES = [
    Case(f"c-{i}", "toy", "train", tuple(f"{i}{v}" for v in range(4)), tuple(f"{i}{v}" for v in range(4)), "Which?", OPTIONS, i % 4,
         "PET", "Oncologist", "choice", "CC0")
    for i in range(5)
]  # fmt: skip
TABLE = CaseTable(Path("cases.parquet"), CASES)


class Fake:
    """Stands in for :class:`LocalSpecialists`: answers by adapter and sample, and notes what it was asked."""

    revision = "r1"

    def __init__(self) -> None:
        self.batches: list[list[Ask]] = []

    def answer(self, table: CaseTable, asks: Sequence[Ask]) -> list[str]:
        assert len({a.adapter for a in asks}) == 1
        self.batches.append(list(asks))
        return ["I cannot say." if a.case.case_id == "c-4" else f"<answer>{OPTIONS[(a.sample_index + a.doctor) % 4]}</answer>" for a in asks]


STAND_IN: Any = Fake()


def options(fake: Any, store: OpinionStore, panel: str = "diverse", **more: Any) -> tuple[np.ndarray, int]:
    return panel_options(CASES, ["Oncologist"] * 4 + ["Surgeon"], panel, TABLE, store, fake, **more)


@pytest.mark.parametrize(
    ("panel", "index", "doctor", "view"),
    [("diverse", i, i % 3, 1 + i % 3) for i in range(6)] + [("paper_like", i, 0, 1) for i in range(6)],
)
def test_who_answers_and_what_he_sees(panel: str, index: int, doctor: int, view: int) -> None:
    ask = Ask(CASES[0], "Surgeon", panel, index)
    assert (ask.doctor, ask.view, ask.adapter) == (doctor, view, f"Surgeon-{doctor}")
    single = replace(CASES[0], images=("0",), image_sha256s=("0",))
    assert Ask(single, "Surgeon", panel, index).view == 0


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
    assert request_key(_request(*other)) != request_key(_request(ASK, "r1"))


def test_what_does_not_decide_an_answer_is_not_in_the_key() -> None:
    """Neither the right answer nor the name of the case, nor the attending's own picture."""
    same = replace(CASES[0], case_id="other", answer=3, image_sha256s=("x", *CASES[0].image_sha256s[1:]))
    assert request_key(_request(replace(ASK, case=same), "r1")) == request_key(_request(ASK, "r1"))


def test_panel_is_asked_once(tmp_path: Path) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    first, asked = options(fake, store)
    assert first.shape == (5, 3) and asked == 15 == len(store)
    assert first.tolist() == [[0, 2, 0]] * 4 + [[-1] * 3]  # sample + doctor, modulo 4; no answer is -1
    again, asked = options(fake, OpinionStore(tmp_path))
    assert asked == 0 and np.array_equal(first, again)
    assert {a.adapter for batch in fake.batches for a in batch} == {f"{d}-{i}" for d in ("Oncologist", "Surgeon") for i in range(3)}


def test_paper_like_panel_asks_one_doctor_three_times(tmp_path: Path) -> None:
    fake = Fake()
    found, asked = options(fake, OpinionStore(tmp_path), "paper_like")
    assert asked == 15 and found[0].tolist() == [0, 1, 2]
    assert {a.adapter for batch in fake.batches for a in batch} == {"Oncologist-0", "Surgeon-0"}


def test_redraw_takes_three_other_samples(tmp_path: Path) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    options(fake, store)
    found, asked = options(fake, store, redraw=True)
    assert asked == 15 and len(store) == 30 and found[0].tolist() == [3, 1, 3]
    assert {a.sample_index for a in fake.batches[-1]} <= {3, 4, 5}


def test_panels_do_not_share_what_they_should_not(tmp_path: Path) -> None:
    """Sample 0 of both panels is the same doctor with the same request: asked once. All others differ."""
    store = OpinionStore(tmp_path)
    options(Fake(), store, "diverse")
    assert options(Fake(), store, "paper_like")[1] == 10


def test_two_cases_that_ask_the_same_share_an_opinion(tmp_path: Path) -> None:
    twice = [CASES[0], replace(CASES[0], case_id="twin")]
    found, asked = panel_options(twice, ["Surgeon"] * 2, "diverse", TABLE, OpinionStore(tmp_path), STAND_IN)
    assert asked == 3 and found[0].tolist() == found[1].tolist()


def test_replay_raises_on_a_miss_and_asks_nobody(tmp_path: Path) -> None:
    fake, store = Fake(), OpinionStore(tmp_path)
    with pytest.raises(MissingOpinion, match="15 opinions are not stored, the first for c-0"):
        options(fake, store, replay=True)
    assert not fake.batches and len(store) == 0
    options(fake, store)
    found, asked = options(Fake(), store, replay=True)
    assert asked == 0 and found.shape == (5, 3)


def test_a_stored_opinion_says_how_it_came_about(tmp_path: Path) -> None:
    asks = [Ask(CASES[0], "Surgeon", "diverse", 4), Ask(CASES[4], "Surgeon", "diverse", 1)]
    (good, silent), _ = fetch(asks, TABLE, OpinionStore(tmp_path), STAND_IN)
    assert set(good) == set(COLUMNS)
    assert (good["case_id"], good["department"], good["panel"], good["model"]) == ("c-0", "Surgeon", "diverse", "Surgeon-1")
    assert good["response"] == "<answer>mass</answer>" and good["option"] == 1 and good["reason"] is None
    assert silent["option"] is None and silent["reason"]
    assert request_key(json.loads(good["request"])) == good["key"]
    assert json.loads((tmp_path / "asked.jsonl").read_text().splitlines()[0])["revision"] == "r1"


def test_order_of_opinions_is_the_order_asked(tmp_path: Path) -> None:
    asks = [Ask(c, d, "diverse", i) for i in (2, 0, 1) for c in reversed(CASES) for d in ("Surgeon", "Oncologist")]
    opinions, _ = fetch(asks, TABLE, OpinionStore(tmp_path), STAND_IN)
    assert [(o["case_id"], o["department"], o["sample_index"]) for o in opinions] == [
        (a.case.case_id, a.department, a.sample_index) for a in asks
    ]


def test_local_specialists_answer_alike_each_time(tmp_path: Path) -> None:
    """Random weights: two loads of the same folder give the same texts to the same batch, another doctor gives others."""
    clinic = table(tmp_path / "clinic")
    folder = specialists(tmp_path / "specialists", ["Surgeon-0", "Surgeon-1"])
    asks = [Ask(c, "Surgeon", "diverse", 0) for c in clinic.cases[:4]]
    first, again = LocalSpecialists(folder), LocalSpecialists(folder)
    texts = first.answer(clinic, asks)
    assert len(texts) == 4 and texts == again.answer(clinic, asks)
    other = first.answer(clinic, [replace(a, sample_index=1) for a in asks])
    assert other != texts and first.answer(clinic, asks) == texts
    assert len(first.revision) == 64


def test_panels_are_named_as_everywhere() -> None:
    assert PANELS == ("diverse", "paper_like")


# ---- the shipped specialists


def test_shipped_specialists(root: Path) -> None:
    """Three adapters a department, small ones, and weights that are those of the revision."""
    shipped = LocalSpecialists(root / "artifacts" / "specialists")
    assert {p.name for p in (shipped.folder / "adapters").iterdir()} == {f"{d}-{i}" for d in DEPARTMENTS for i in range(3)}
    assert all(f.stat().st_size <= 200_000 for f in shipped.folder.glob("adapters/*/*.safetensors"))
