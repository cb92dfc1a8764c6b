"""Odd input to a training: the right update all the same, against the plain reference of tests/watch.py, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmedlite import grpo, prompt_once
from mmedlite.models import new_adapter
from mmedlite.profiles import InputError
from tests import watch
from tests.small import LORA, SETTINGS, base, chance, policy, processor, rows


def test_a_tower_in_training(tmp_path: Path) -> None:
    """The reference, an adapter on the same tower, would move with it."""
    model = policy()
    model.get_base_model().model.visual.requires_grad_(True)
    with pytest.raises(InputError, match=r"weights outside the adapter are trainable, the first .*visual.*Fix: freeze them"):
        grpo.train(model, processor(), rows(4), SETTINGS, tmp_path, {"stage": "s"}, 0, [chance])
    assert not list(tmp_path.iterdir())


def test_features_of_another_tower_are_not_taken_up(tmp_path: Path) -> None:
    """The tower changes between two stages, as when another checkpoint is loaded into the model."""
    model, start = policy(), watch.train(policy(), tmp_path / "one", rows(4))
    with torch.no_grad():
        for p in model.get_base_model().model.visual.parameters():
            p *= 1.1
    moved = grpo.train(model, processor(), rows(4), SETTINGS, tmp_path / "two", {"stage": "s"}, 0, [chance])
    assert moved[0]["entropy"] != start.log[0]["entropy"]


def test_pictures_of_unlike_size(tmp_path: Path) -> None:
    batch = rows(4)
    for row, size in zip(batch, [(64, 64), (96, 48), (40, 90), (64, 64)], strict=True):
        row["image"] = row["image"].resize(size)
    grids = {tuple(processor().image_processor(images=[r["image"]], return_tensors="pt")["image_grid_thw"][0].tolist()) for r in batch}
    assert len(grids) > 1, "the pictures come to one size: nothing is tested"
    assert watch.faults(watch.train(policy(), tmp_path / "one", batch)) == []


def test_prompts_of_very_unlike_length(tmp_path: Path) -> None:
    batch = rows(4)
    batch[0]["prompt"], batch[3]["prompt"] = "Is it?", batch[3]["prompt"] * 6
    training = watch.train(policy(), tmp_path / "one", batch)
    lengths = {len(ids) for seen in training.seen for ids in seen.prompt_ids}
    assert watch.faults(training) == [] and max(lengths) > 8 * min(lengths)


def test_two_prompts_alike_but_for_the_picture(tmp_path: Path) -> None:
    batch = rows(4)
    for row in batch:
        row["prompt"] = batch[0]["prompt"]
    assert watch.faults(watch.train(policy(), tmp_path / "one", batch)) == []


def test_an_empty_completion(tmp_path: Path) -> None:
    """The end comes first in nearly every rollout."""
    torch.manual_seed(0)
    model = new_adapter(base(strength=40.0), LORA)
    batch = rows(4)
    log = grpo.train(model, processor(), batch, SETTINGS, tmp_path, {"stage": "s"}, 0, [chance])
    written = [line for line in (tmp_path / "rollouts.jsonl").read_text().splitlines() if '"tokens": 1,' in line and '"text": ""' in line]
    assert len(written) > 4, "no completion is empty: nothing is tested"
    assert all(torch.tensor([row["loss"], row["entropy"], row["kl"]]).isfinite().all() for row in log)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_reward_that_is_no_number(tmp_path: Path, bad: float | None) -> None:
    def broken(completions: Sequence[Any], trainer_state: Any, **_: Any) -> list[float | None]:
        given: list[float | None] = [*chance(completions)]
        return [bad, *given[1:]] if trainer_state.global_step == 11 else given

    with pytest.raises(InputError, match=r"reward 'broken' is not a number for 1 rollouts of step 12.*Fix: mend the reward function"):
        grpo.train(policy(), processor(), rows(28), SETTINGS, tmp_path, {"stage": "s"}, 0, [broken])  # type: ignore[list-item]
    assert list(tmp_path.glob("checkpoints-*/checkpoint-10/steps.json")), "the work done was lost"


def test_several_pictures_in_a_row_are_left_to_the_plain_pass() -> None:
    model, ids = base(), torch.ones(2, 8, dtype=torch.long)
    assert prompt_once.can_share(model, ids, torch.tensor([[1, 8, 8]] * 2))
    assert not prompt_once.can_share(model, ids, torch.tensor([[1, 8, 8]] * 3)) and not prompt_once.can_share(model, ids, None)


def test_a_row_of_several_pictures_is_refused(tmp_path: Path) -> None:
    batch = [{**{k: v for k, v in row.items() if k != "image"}, "images": [row["image"]] * 2} for row in rows(4)]
    with pytest.raises(InputError, match=r"no picture, or several.*Fix: show the policy one"):
        grpo.train(policy(), processor(), batch, SETTINGS, tmp_path, {"stage": "s"}, 0, [chance])
