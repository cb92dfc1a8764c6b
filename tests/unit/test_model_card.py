"""The card of a trained policy, and the sweep that chooses a learning rate: filled from what was run, test cases left alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from figures import rate_sweep
from mmedlite.checkpoints import public_name
from mmedlite.model_card import model_card, write_card
from mmedlite.profiles import load_profile


@pytest.fixture
def run(tmp_path: Path) -> Any:
    cases = [SimpleNamespace(source=s, licence="CC0") for s in ("slake", "slake", "vqa_rad")]
    return SimpleNamespace(
        profile=load_profile("gpu-3b"), seed=3, folder=tmp_path, facts={"cases_sha256": "ab" * 32, "code": "cd" * 32},
        cases=lambda split: cases, specialists=SimpleNamespace(form=SimpleNamespace(source="endpoint")),
        stages_that_fit=lambda panel, stages: list(stages),
    )  # fmt: skip


NUMBERS = {"trained": 0.7, "trained_ci": [0.6, 0.8], "majority_vote": 0.65, "majority_vote_ci": [0.5, 0.7]}


def test_a_card_tells_data_stages_numbers_and_limits(run: Any) -> None:
    card = model_card(run, "paper_like", NUMBERS)
    _, head, body = card.split("---", 2)
    assert yaml.safe_load(head) == {"base_model": "Qwen/Qwen2.5-VL-3B-Instruct", "library_name": "peft",
                                    "tags": ["lora", "grpo", "medical-vqa", "research-only"]}  # fmt: skip
    for word in ("2 cases of slake (CC0)", "1 cases of vqa_rad", "endpoint, o3-2025-04-16, o3-2025-04-16", "seed 3",
                 "easy: easy cases, 12 updates",
                 "KL weights [0.001, 0.004, 0.01]", "this policy: 0.700 [0.600, 0.800]", "majority vote of the panel: 0.650", "n = 3",
                 "**Not for clinical use.**", "Qwen2.5-VL-3B-Instruct@66285546d2b821cf421d4f5eb2576359d3770cd3"):  # fmt: skip
        assert word in body, word
    assert "before training" not in body  # a system that was not run has no line


def test_it_lies_beside_the_adapter_that_was_trained(run: Any) -> None:
    write_card(run, "diverse", NUMBERS)
    assert not list(run.folder.rglob("README.md"))
    (folder := run.folder / "adapters" / "diverse" / "hard").mkdir(parents=True)
    write_card(run, "diverse", NUMBERS)
    assert (folder / "README.md").read_text() == model_card(run, "diverse", NUMBERS)


def test_the_sweep_looks_at_validation_cases_alone(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    stored: dict[str, Any] = {}
    run.train_triage = lambda: asked.append(("triage", 0, 0.0))
    run.train_attending = lambda panel, stages, name, learning_rate: SimpleNamespace(
        dtype=torch.float32, merge_and_unload=lambda: asked.append((stages[0].name, stages[0].steps, learning_rate))
    )
    run.answer = lambda model, system, split, panel: pd.DataFrame({"correct": [True, split == "validation", asked[-1][2] < 2e-5]})
    run.save_json = lambda name, content: stored.update({name: content})
    found = rate_sweep.sweep(run, "diverse", 7)
    assert asked.pop(0)[0] == "triage"
    assert [a[2] for a in asked] == pytest.approx([5e-6, 1e-5, 2e-5]) and {a[:2] for a in asked} == {("hard", 7)}
    assert list(found.values()) == pytest.approx([1.0, 1.0, 2 / 3]) and stored["rate_sweep.json"]["steps"] == 7
    assert "learning rate 5e-06: 1.000 of 3 validation cases right" in capsys.readouterr().out


@pytest.mark.parametrize(("policy", "told"), [("/models/qwen", "qwen"), ("artifacts/policy", "artifacts/policy"), ("a/b@c", "a/b@c")])
def test_no_path_of_a_machine_names_a_policy(policy: str, told: str) -> None:
    assert public_name(policy) == told
