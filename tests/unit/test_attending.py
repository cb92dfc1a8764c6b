"""The attending: prompts with and without the panel, stages, answers, option scores, the bias sweep, SFT and features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmedlite import attending
from mmedlite.cases import CaseTable
from mmedlite.curriculum import bucket, stage_order
from mmedlite.models import Answer, completion_log_probs
from mmedlite.profiles import InputError, Profile, Stage, load_profile
from mmedlite.prompts import ALONE_ROLE, PANEL_ROLE, attending_prompt
from tests.small import adapter, base, policy, processor, profile, same, table

N = 12


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    return table(tmp_path_factory.mktemp("clinic") / "table", train=N)


@pytest.fixture
def small(tmp_path: Path) -> Profile:
    return load_profile(profile(tmp_path))


def panel_of(clinic: CaseTable) -> np.ndarray:
    """Four easy, four medium, four hard cases."""
    answers = np.array([c.answer for c in clinic.split("train")])
    wrong = 1 - np.minimum(answers, 1)
    right = np.repeat([3, 2, 0], 4)
    return np.stack([np.where(i < right, answers, wrong) for i in range(3)], axis=1)


def test_prompt_with_and_without_a_panel(clinic: CaseTable) -> None:
    case = clinic.split("train")[0]
    assert attending.prompt_of(case, "Surgeon", np.array([1, -1, 0])) == attending_prompt(case, "Surgeon", [1, None, 0])
    assert attending.prompt_of(case, "Surgeon", None) == attending_prompt(case)


STAGE = Stage("mix", ("easy", "hard"), 5, (1e-4, 3e-2), (1e-3, 1e-2))


def planned(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile, **more: Any) -> tuple[list[dict[str, Any]], Path]:
    """The rows and the folder that training would get."""
    got: list[Any] = []
    monkeypatch.setattr(attending, "train", lambda model, tools, rows, settings, out, *_: got.extend([rows, out]) or [])
    cases = clinic.split("train")
    attending.train_stage(None, processor(), clinic, cases, ["Surgeon"] * N, panel_of(clinic), STAGE, small, Path("out"), 0, **more)
    return got[0], got[1]


def test_rows_of_a_stage(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile) -> None:
    cases, panel = clinic.split("train"), panel_of(clinic)
    levels = bucket(panel, np.array([c.answer for c in cases]))
    rows, out = planned(monkeypatch, clinic, small)
    order = stage_order(STAGE, levels, 2, 0)
    assert [r["case_id"] for r in rows] == [cases[i].case_id for i in order] and len(rows) == 10
    assert out == Path("out")
    for row, i in zip(rows, order, strict=True):
        expected = {"easy": (1e-4, 1e-3), "hard": (3e-2, 1e-2)}[levels[i]]
        assert (row["gamma"], row["kl_weight"]) == expected
        assert row["prompt"] == attending.prompt_of(cases[i], "Surgeon", panel[i]) and PANEL_ROLE in row["prompt"]
        assert row["answer"] == cases[i].answer and row["options"] == list(cases[i].options)
        assert row["image"]().tobytes() == clinic.open_image(cases[i], 0).tobytes()


def test_without_panel_the_same_cases_are_seen(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile) -> None:
    shown, _ = planned(monkeypatch, clinic, small)
    hidden, _ = planned(monkeypatch, clinic, small, with_panel=False)
    assert [r["case_id"] for r in shown] == [r["case_id"] for r in hidden]
    assert [r["gamma"] for r in shown] == [r["gamma"] for r in hidden]
    assert all(ALONE_ROLE in r["prompt"] and "Answer from" not in r["prompt"] for r in hidden)


def test_a_stage_that_is_too_small(clinic: CaseTable, small: Profile, tmp_path: Path) -> None:
    cases = clinic.split("train")
    all_right = np.array([[c.answer] * 3 for c in cases])
    hard = replace(STAGE, buckets=("hard",), gamma=(0.0,), beta=(0.0,))
    with pytest.raises(InputError, match="stage 'mix' has 0 cases"):
        attending.train_stage(policy(), processor(), clinic, cases, ["Surgeon"] * N, all_right, hard, small, tmp_path, 0)
    assert not list(tmp_path.glob("mix"))


def test_answers_come_in_batches_and_in_order(monkeypatch: pytest.MonkeyPatch, clinic: CaseTable, small: Profile) -> None:
    cases, calls = clinic.split("train"), []

    def generate(model: Any, tools: Any, pictures: Any, prompts: list[str], *how: Any) -> list[Answer]:
        _, temperature, seed = how
        calls.append((len(pictures), temperature, seed))
        return [Answer(p, True) for p in prompts]

    monkeypatch.setattr(attending, "generate", generate)
    profile = replace(small, eval_batch=5)
    texts = attending.answer(None, processor(), clinic, cases, ["Surgeon"] * N, panel_of(clinic), profile, temperature=1.0, seed=7)
    assert texts == [attending.prompt_of(c, "Surgeon", p) for c, p in zip(cases, panel_of(clinic), strict=True)]
    assert calls == [(5, 1.0, 7), (5, 1.0, 12), (2, 1.0, 17)]  # each batch its own draws
    alone = attending.answer(None, processor(), clinic, cases, ["Surgeon"] * N, None, small)
    assert alone == [attending_prompt(c) for c in cases] and calls[-1] == (N, 0.0, 0)


def test_option_scores(clinic: CaseTable, small: Profile) -> None:
    """Each option after the policy's own reasoning, one score an option, whatever the batch."""
    model, cases, panel = base(), clinic.split("train")[:4], panel_of(clinic)[:4]
    texts = ["<think>mass, upper left</think><answer>yes</answer>", "no form at all", "<think>clear</think><answer>", ""]
    profile = replace(small, eval_batch=5)
    scores = attending.option_scores(model, processor(), clinic, cases, ["Surgeon"] * 4, panel, texts, profile)
    assert [len(s) for s in scores] == [len(c.options) for c in cases]
    reasoning = ["<think>mass, upper left</think>", "<think></think>", "<think>clear</think>", "<think></think>"]
    with torch.no_grad():
        for i, case in enumerate(cases):
            for k, option in enumerate(case.options):
                prompt = attending.prompt_of(case, "Surgeon", panel[i])
                picture = clinic.open_image(case)
                logps, _ = completion_log_probs(model, processor(), [picture], [prompt], [f"{reasoning[i]}<answer>"], [f"{option}</answer>"])
                assert scores[i][k] == pytest.approx(float(logps.sum()), abs=1e-3)


def test_lean_towards_and_away_from_the_panel() -> None:
    scores = [np.array([0.0, 1.0, 0.5]), np.array([2.0, 0.0])]
    panel = np.array([[0, 0, 2], [1, 1, 1]])
    assert attending.lean(scores, panel, 0.0).tolist() == [1, 0]
    assert attending.lean(scores, panel, 100.0).tolist() == [0, 1]  # the vote
    assert attending.lean(scores, panel, -100.0).tolist() == [1, 0]  # anything but the panel
    assert attending.lean(scores, panel, 1.9).tolist() == [0, 0] and attending.lean(scores, panel, 2.1).tolist() == [0, 1]
    silent = np.array([[-1, -1, -1], [-1, 1, -1]])
    assert attending.lean(scores, silent, 100.0).tolist() == [1, 1]


def gold(model: Any, clinic: CaseTable) -> float:
    """Mean log-probability of the right options under the prompts with a panel."""
    cases, panel = clinic.split("train"), panel_of(clinic)
    prompts = [attending.prompt_of(c, "Surgeon", p) for c, p in zip(cases, panel, strict=True)]
    texts = [f"<think></think><answer>{c.answer_text}</answer><|im_end|>" for c in cases]
    with torch.no_grad():
        logps, mask = completion_log_probs(model, processor(), [clinic.open_image(c) for c in cases], prompts, [""] * N, texts)
    return float((logps * mask).sum() / mask.sum())


def test_sft_raises_the_right_answers(clinic: CaseTable, small: Profile) -> None:
    models = [policy(), policy()]
    before = gold(models[0], clinic)
    for model in models:
        attending.train_sft(
            model, processor(), clinic, clinic.split("train"), ["Surgeon"] * N, panel_of(clinic), small, 8, 0, learning_rate=1e-2
        )
    assert gold(models[0], clinic) > before + 0.3
    assert same(adapter(models[0]), adapter(models[1]))
    tower = models[0].base_model.model.model.visual
    assert all(torch.equal(a, b) for a, b in zip(tower.parameters(), base().model.visual.parameters(), strict=True))


def test_image_features(clinic: CaseTable, small: Profile) -> None:
    """The mean of the sixteen tokens of each attending's picture; whatever the batch."""
    model, cases = base(), clinic.split("train")[:5]
    found = attending.image_features(model, processor(), clinic, cases, replace(small, eval_batch=2))
    batch = processor().image_processor(images=[clinic.open_image(c) for c in cases], return_tensors="pt")
    with torch.no_grad():
        tokens = model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"], return_dict=True).pooler_output
    assert found.shape == (5, 96) and np.allclose(found, torch.stack(list(tokens)).mean(1), atol=1e-5)
    assert len(np.unique(found.round(6), axis=0)) == 5
