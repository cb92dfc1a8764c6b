"""The experiment is the one that was planned, and its verdicts follow the plan."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmedlite import evidence


def table(title: str) -> list[list[str]]:
    """The cells of the first table under a heading of the plan."""
    text = evidence.PLAN.read_text(encoding="utf-8").split(f"## {title}")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_arms_are_those_of_the_plan() -> None:
    assert [(recipe, change.strip("`")) for recipe, change, _ in table("Arms")] == evidence.ARMS
    plan = " ".join(evidence.PLAN.read_text(encoding="utf-8").split())
    listed = re.search(r"Exploratory, in the first three worlds: (.*?)\. Beside", plan)
    assert listed and list(re.findall(r"`(\w+)`", listed[1])) == [change for _, change in evidence.EXPLORATORY]


def test_the_contrasts_are_those_of_the_plan() -> None:
    planned = {}
    for name, difference, direction in table("Primary contrasts"):
        arm, rival = re.findall(r"`(\w+)`", difference)
        planned[name] = (f"printed_{arm}", f"printed_{rival}", 1 if direction == "above 0" else 0)
    assert planned == evidence.PRIMARY


def test_worlds_come_from_the_plan_and_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evidence.world_seeds()
    more = evidence.world_seeds(evidence.WORLDS, evidence.REDRAWN)
    assert len({*first, *more}) == evidence.WORLDS + evidence.REDRAWN and 0 not in first and first == evidence.world_seeds()
    (other := tmp_path / "plan.md").write_text(evidence.PLAN.read_text(encoding="utf-8") + " ", encoding="utf-8")
    monkeypatch.setattr(evidence, "PLAN", other)
    assert not set(first) & set(evidence.world_seeds())


def made(shift: dict[str, float], seeds: int = 10, n: int = 800) -> dict[int, pd.DataFrame]:
    """Invented worlds in which each arm is right at .7 and its shift, on one panel."""
    found = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        arms = {arm for pair in evidence.PRIMARY.values() for arm in pair[:2]}
        found[seed] = pd.DataFrame({"panel": "diverse", **{arm: rng.random(n) < 0.7 + shift.get(arm, 0.0) for arm in sorted(arms)}})
    return found


def test_verdicts_follow_the_plan() -> None:
    shift = {"printed_shuffled": -0.15, "printed_hard_out": 0.15, "printed_hard_rehearsed": 0.15}
    found = evidence.primary(made(shift), ["diverse"])
    verdicts = {name.split(",")[0]: row["verdict"] for name, row in found.items()}
    assert verdicts == {"order at equal data": "seen", "hard cases in": "opposite seen", "hard cases rehearsed": "seen",
                        "entropy term": "not seen", "KL term": "not seen"}  # fmt: skip
    order = found["order at equal data, diverse"]
    assert order["p"] == 2 / 1024 and order["p_holm"] == pytest.approx(5 * 2 / 1024) and order["mean"] == pytest.approx(0.15, abs=0.03)
    assert order["accuracy"] - order["rival"] == pytest.approx(order["mean"]) and order["low"] < order["mean"] < order["high"]


def test_few_worlds_cannot_show_anything() -> None:
    """With four worlds the smallest p is 1/8: no difference is called seen, however large."""
    assert {row["verdict"] for row in evidence.primary(made({"printed_as_is": 0.3}, seeds=4), ["diverse"]).values()} == {"not seen"}


def test_texts_are_parsed_again(tmp_path: Path) -> None:
    texts = ["<think>a</think><answer>no</answer>", "no", "<think>a</think><answer>yes</answer>"]
    rows = {"answer": [1, 1, 1], "options": [json.dumps(["yes", "no"])] * 3, "majority_vote": ["1", "-1", "0"], "printed_as_is": texts}
    pd.DataFrame(rows).to_parquet(tmp_path / "5.parquet")
    frame = evidence.read_wide(tmp_path / "5.parquet")
    assert frame["majority_vote"].tolist() == [True, False, False] and frame["printed_as_is"].tolist() == [True, False, False]


def test_controls_stand_beside_their_own_recipe(tmp_path: Path) -> None:
    """A reward that knows no label and one that does, in an invented table: rises over the untrained, falls against the recipe."""
    n = 200
    said = {"untrained_panel": 0.5, "trained": 0.9, "paper_schedule": 0.7, "reward_random": 0.5, "hard_redrawn": 0.8}
    columns = {name: np.where(np.arange(n) < n * share, "1", "0") for name, share in said.items()}
    facts = {"panel": "diverse", "case_id": [f"c{i}" for i in range(n)], "answer": 1, "unanimous": True, "panel_vote": np.arange(n) % 2}
    frame = pd.DataFrame({**facts, "options": json.dumps(["yes", "no"]), **columns})
    frame.attrs = {"wrong_labels": {"diverse": {}}}
    frame.to_parquet(tmp_path / "controls.parquet")
    found = evidence.controls(tmp_path)["diverse"]
    assert found["reward_random"]["rises"]["mean"] == 0 and found["reward_random"]["against"]["mean"] == pytest.approx(-0.4)
    assert found["hard_redrawn"]["against"]["mean"] == pytest.approx(0.1) and found["trained"]["against"]["mean"] == 0
    assert found["hard_redrawn"]["rises"]["mean"] == pytest.approx(0.3) and found["trained"]["x"] == pytest.approx(0.9)
    assert evidence.controls(tmp_path / "none") == {}
