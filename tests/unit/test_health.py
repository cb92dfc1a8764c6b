"""Verdicts on a training log: each fault has its word, a normal log has none."""

from __future__ import annotations

from typing import Any

import pytest

from mmedlite.health import verdicts


def log(steps: int = 10, **last: float) -> list[dict[str, Any]]:
    """A normal log; ``last`` replaces the figures of every step but the first."""
    first = {"accuracy": 0.5, "kl": 0.0, "equal_groups": 0.3, "truncated": 0.0, "entropy": 0.4}
    after = first | {"accuracy": 0.8, "kl": 0.02} | last
    return [first, *(dict(after) for _ in range(steps - 1))]


def states(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {v.signal: v.state for v in verdicts(rows)}


def test_a_normal_log() -> None:
    assert set(states(log()).values()) == {"normal"}


@pytest.mark.parametrize(
    ("change", "signal", "state"),
    [
        ({"accuracy": 0.505}, "accuracy", "watch"),
        ({"equal_groups": 0.9}, "equal groups", "watch"),
        ({"truncated": 0.2}, "truncation", "broken"),
    ],
)
def test_each_fault_is_named(change: dict[str, float], signal: str, state: str) -> None:
    found = states(log(**change))
    assert found.pop(signal) == state
    assert set(found.values()) == {"normal"}


@pytest.mark.parametrize("kl", [3.8, -3.8, 2e-4])
def test_wrong_reference(kl: float) -> None:
    rows = log()
    rows[0]["kl"] = kl
    (verdict,) = [v for v in verdicts(rows) if v.signal == "kl at step 1"]
    assert verdict.state == "broken" and "reference" in verdict.reason and verdict.next_step


def test_falling_accuracy_is_a_move_too() -> None:
    (verdict,) = [v for v in verdicts(log(accuracy=0.3)) if v.signal == "accuracy"]
    assert "-0.20" in verdict.reason


def test_no_step() -> None:
    assert [(v.signal, v.state) for v in verdicts([])] == [("steps", "broken")]


def test_every_verdict_that_is_not_normal_says_what_to_do() -> None:
    for rows in (log(accuracy=0.5), log(equal_groups=1.0), log(truncated=1.0), log(steps=1), []):
        assert all(v.next_step for v in verdicts(rows) if v.state != "normal")
