"""The yardstick of the engine: each side does what its name says, and a wrong engine would show."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch

from figures import grpo_speed
from figures.grpo_speed import agreement, measure, run_side
from mmedlite import prompt_once
from mmedlite.features import MEMORY
from mmedlite.rewards import format_reward
from tests.small import SETTINGS, chance, policy, processor, rows

SIDES = ("stock", "ours", "off", "features", "prompts")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """One round of two timed steps, small policy."""
    return measure(policy, processor(), rows(6, kl_weight=grpo_speed.BETA, gamma=0.0), SETTINGS, 1, SIDES, (chance,))


def test_the_first_step_is_that_of_stock_trl(found: dict[str, Any]) -> None:
    (agree,) = found["agreement"]
    assert agree["same_completions"] and agree["loss_difference"] <= 1e-5
    assert agree["min_cosine"] >= 0.99999 and agree["max_error"] <= 1e-4


def test_every_side_is_timed(found: dict[str, Any]) -> None:
    assert set(found["seconds"]) == set(SIDES) and all(len(v) == found["n"] == 2 and min(v) > 0 for v in found["all_seconds"].values())
    pairs = zip(found["all_seconds"]["stock"], found["all_seconds"]["ours"], strict=True)
    assert found["ratio"]["ours"] == pytest.approx(statistics.median(a / b for a, b in pairs)) and found["ratio"]["stock"] == 1


def one_run(name: str, model: Any) -> dict[str, Any]:
    batch = rows(6, kl_weight=grpo_speed.BETA, gamma=0.0)
    return run_side(name, model, processor(), batch, SETTINGS, 0, (chance, format_reward))


def test_what_each_side_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts run once in "ours" and "prompts", pictures are encoded once in "ours" and "features"."""
    model, scored, encoded = policy(), [0], [0]
    real, tower = prompt_once.score, model.get_base_model().model.visual

    def counted(*args: Any, **kwargs: Any) -> Any:
        scored[0] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(prompt_once, "score", counted)
    tower.register_forward_pre_hook(lambda _, args, kwargs: encoded.__setitem__(0, encoded[0] + 1), with_kwargs=True)
    monkeypatch.setattr("mmedlite.dose.EVERY", 10**9)
    seen = {}
    for name in SIDES:
        MEMORY.kept.clear()
        scored[0] = encoded[0] = 0
        one_run(name, model)
        seen[name] = (scored[0] > 2, encoded[0])
    assert {name for name, (shared, _) in seen.items() if shared} == {"ours", "prompts"}
    assert max(seen["ours"][1], seen["features"][1]) < min(seen["stock"][1], seen["off"][1], seen["prompts"][1])


def test_a_wrong_engine_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = policy()
    stock, real = one_run("stock", model), prompt_once.score

    def wrong(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        logps, entropies = real(*args, **kwargs)
        return logps * 1.001, entropies

    monkeypatch.setattr(prompt_once, "score", wrong)
    assert agreement(one_run("ours", model), stock)["max_error"] > 1e-4
