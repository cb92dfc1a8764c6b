"""The cost table: each moment of a step belongs to one phase, and every phase of the kit's trainer is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from figures import grpo_cost
from figures.grpo_cost import PHASES, Setting, Stopwatch, line, measure
from mmedlite import grpo
from mmedlite.models import ImageProcessorOnly


def test_each_moment_belongs_to_the_innermost_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(grpo_cost, "now", lambda: clock[0])

    def after(seconds: float) -> None:
        clock[0] += seconds

    def loss() -> None:
        after(2.0)
        watch.around("encode", after)(5.0)
        after(4.0)

    watch = Stopwatch()
    after(1.0)
    watch.around("loss", loss)()
    after(10.0)
    watch.step(7)
    after(3.0)
    watch.step(9)
    first, second = ({k: v for k, v in s.items() if k != "processor"} for s in watch.steps)
    assert first == {"rest": 11.0, "loss": 6.0, "encode": 5.0, "tokens": 7} and second == {"rest": 3.0, "tokens": 9}


def test_a_phase_ends_when_it_fails() -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError):
        watch.around("loss", lambda: 1 / 0)()
    assert watch.open == ["rest"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """A small step of the shipped policy, every completion of its full length."""
    return measure(Setting(generations=2, side=96, tokens=5, full=True, prompts=3), 2)


def test_every_phase_of_a_step_is_found(found: dict[str, Any]) -> None:
    assert min(found["shares"][p] for p in PHASES) > 0 and sum(found["shares"].values()) == pytest.approx(1)
    assert found["n"] == 2 and found["seconds"] > 0 and found["cpu_seconds"] > 0


def test_what_stands_beside_the_shares(found: dict[str, Any]) -> None:
    assert found["tokens"] == 2 * 3 * 5 and found["image_tokens"] == 36 and found["tokens_per_second"] > 0
    assert torch.cuda.is_available() or 0.1 < found["peak_gib"] < 64
    assert line("G", found)[:5] == ["G", "2", "36", "5", "3"] and len(line("G", found)) == len(grpo_cost.HEAD)


def test_the_kit_is_left_as_it_was(found: dict[str, Any]) -> None:
    assert not hasattr(ImageProcessorOnly.__call__, "__wrapped__") and "apply_chat_template" not in vars(ImageProcessorOnly)
    assert grpo.CurriculumTrainer is not grpo_cost.Watched
    assert "<|im_end|>" not in grpo.VISION_TOKENS
