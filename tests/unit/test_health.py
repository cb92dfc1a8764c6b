"""Verdicts on training: each fault has its word in a broken log, and a healthy one has none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmedlite.health import Verdict, panel_verdicts, routing_verdict, verdicts


def log(steps: int = 30, **last: float) -> list[dict[str, Any]]:
    """A healthy log; ``last`` replaces the figures of every step but those of the first fifth."""
    first = {
        "loss": 0.001, "accuracy": 0.5, "format": 0.4, "kl": 0.0, "equal_groups": 0.3, "truncated": 0.0, "entropy": 0.4,
        "policy_gradient": 1.0, "entropy_gradient": 0.1,
    }  # fmt: skip
    after = first | {"accuracy": 0.8, "format": 0.5, "kl": 0.02, "entropy": 0.3} | last
    return [dict(first if i < max(1, steps // 5) else after) for i in range(steps)]


def states(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {v.signal: v.state for v in verdicts(rows)}


def test_a_healthy_log() -> None:
    assert set(states(log()).values()) == {"normal"} and len(states(log())) == 8


@pytest.mark.parametrize(
    ("change", "signal", "state", "word"),
    [
        ({"loss": math.nan}, "loss", "broken", "not a number"),
        ({"loss": -3.0}, "loss", "watch", "as large as 3"),
        ({"kl": 0.4}, "kl", "watch", "runs away"),
        ({"kl": 1.0}, "kl", "broken", "runs away"),
        ({"kl": 1e-7}, "kl", "broken", "do not move"),
        ({"accuracy": 0.505, "format": 0.4}, "accuracy", "watch", "flat"),
        ({"accuracy": 0.45, "format": 0.4}, "accuracy", "watch", "falls"),
        ({"accuracy": 0.3, "format": 0.4}, "accuracy", "broken", "falls"),
        ({"accuracy": 0.505, "format": 0.52}, "accuracy", "watch", "only the form"),
        ({"equal_groups": 0.9}, "equal groups", "watch", "90%"),
        ({"equal_groups": 1.0}, "equal groups", "broken", "no group"),
        ({"entropy": 0.13}, "entropy", "watch", "falling"),
        ({"entropy": 0.03}, "entropy", "broken", "collapsed"),
        ({"entropy": 2.0}, "entropy", "broken", "exploded"),
        ({"truncated": 0.05}, "truncation", "watch", "cut off"),
        ({"truncated": 0.2}, "truncation", "broken", "cut off"),
    ],
)
def test_each_fault_is_named(change: dict[str, float], signal: str, state: str, word: str) -> None:
    found = {v.signal: v for v in verdicts(log(**change))}
    verdict = found.pop(signal)
    assert verdict.state == state and word in verdict.reason
    assert {v.state for v in found.values()} == {"normal"}


@pytest.mark.parametrize(("share", "word"), [(0.005, "did nothing: its gradient is 0.50%"), (1.5, "outweighs"), (0.02, None)])
def test_the_dose_of_the_entropy_term(share: float, word: str | None) -> None:
    """From the steps that measured it alone."""
    rows = log()
    for i, row in enumerate(rows):
        row["policy_gradient"], row["entropy_gradient"] = 2.0, 2.0 * share
        if i % 10:
            del row["policy_gradient"], row["entropy_gradient"]
    (verdict,) = [v for v in verdicts(rows) if v.signal == "entropy term"]
    assert verdict.state == ("watch" if word else "normal") and (word or "2.0%") in verdict.reason


def test_an_entropy_term_without_any_policy_gradient_outweighs_it() -> None:
    (row,) = log(steps=1)
    (verdict,) = [v for v in verdicts([row | {"policy_gradient": 0.0}]) if v.signal == "entropy term"]
    assert verdict.state == "watch" and "no policy gradient" in verdict.reason


@pytest.mark.parametrize("kl", [3.8, -3.8, 2e-4])
def test_wrong_reference(kl: float) -> None:
    rows = log()
    rows[0]["kl"] = kl
    (verdict,) = [v for v in verdicts(rows) if v.signal == "kl at step 1"]
    assert verdict.state == "broken" and "reference" in verdict.reason and verdict.next_step


def test_a_short_stage_need_not_have_moved() -> None:
    assert states(log(steps=5, kl=1e-7))["kl"] == "normal"


def test_nothing_is_said_of_an_entropy_term_that_was_not_measured() -> None:
    rows = [{k: v for k, v in row.items() if not k.endswith("_gradient")} for row in log()]
    (verdict,) = [v for v in verdicts(rows) if v.signal == "entropy term"]
    assert verdict.state == "normal" and "not measured" in verdict.reason


def test_the_stored_runs(root: Path) -> None:
    """No stage of the recipe or of the printed schedule is called broken; training on a coin is."""
    logs = root / "artifacts" / "reference" / "logs"
    sick = {p: {v.signal for v in verdicts(json.loads((logs / p).read_text(encoding="utf-8"))) if v.state == "broken"}
            for p in (str(f.relative_to(logs)) for f in logs.rglob("*.json")) if "sft" not in p}  # fmt: skip
    assert {p for p, signals in sick.items() if signals} == {"random_reward/hard.json"} and len(sick) > 10


def test_stage_too_small() -> None:
    assert [(v.signal, v.state) for v in verdicts([])] == [("steps", "broken")]


@pytest.mark.parametrize(("right", "state"), [(150, "broken"), (200, "watch"), (583, "normal")])
def test_routing(right: int, state: str) -> None:
    """Of 1,000 cases a toss among seven sends 143 to their department, and seldom more than 176."""
    assert routing_verdict([i < right for i in range(1000)], 7).state == state


def answered(easy: float, medium: float, hard: float) -> pd.DataFrame:
    """Result rows of 100 cases a bucket with these shares right."""
    parts = [("easy", easy), ("medium", medium), ("hard", hard)]
    return pd.DataFrame([{"difficulty": b, "correct": i < 100 * share} for b, share in parts for i in range(100)])


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ((0.98, 0.8, 0.1), (0.97, 0.85, 0.5), ["normal", "normal"]),
        ((0.98, 0.8, 0.1), (1.0, 0.8, 0.02), ["broken", "normal"]),  # copies the panel
        ((0.98, 0.8, 0.1), (0.90, 0.8, 0.7), ["normal", "watch"]),  # contradicts three who are right
        ((0.98, 0.8, 0.1), (0.55, 0.6, 0.8), ["normal", "broken"]),
    ],
)
def test_what_the_policy_makes_of_its_panel(first: Any, last: Any, expected: list[str]) -> None:
    found = panel_verdicts([answered(*first), answered(*last)])
    assert [v.signal for v in found] == ["reliance", "flips on easy cases"]
    assert [v.state for v in found] == expected and all(v.next_step for v in found if v.state != "normal")


def test_every_verdict_that_is_not_normal_says_what_to_do() -> None:
    faults = {"accuracy": 0.5, "equal_groups": 1.0, "truncated": 1.0, "kl": 9.0, "entropy": 0.0, "loss": 9.0}
    changes = [{name: value} for name, value in faults.items()]
    found: list[Verdict] = [v for rows in ([], log(steps=1), *(log(**c) for c in changes)) for v in verdicts(rows)]
    assert all(v.next_step for v in found if v.state != "normal") and {v.state for v in found} == {"normal", "watch", "broken"}
