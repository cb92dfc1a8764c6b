"""The advantage of a group: by hand, as TRL computes it, and for any number of groups at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmedlite.advantages import advantages


def test_by_hand() -> None:
    assert advantages([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert advantages([1, 0, 0, 0], scale=False) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    for same in ([0.5] * 8, [1.5] * 8, [0.1] * 8):
        assert np.allclose(advantages(same), 0)


def test_as_the_trainer_divides() -> None:
    """By the sd over n - 1 with 1e-4 added; a sd over n is the mutant."""
    rewards = torch.tensor([1.5, 0.5, 0.0, 1.0, 1.5, 0.0, 0.5, 0.5], dtype=torch.float64)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert advantages(rewards.numpy()) == pytest.approx(expected.numpy())
    assert advantages(rewards.numpy()) != pytest.approx(((rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-4)).numpy())


def test_groups_do_not_mix() -> None:
    rewards = np.random.default_rng(0).integers(0, 2, (3, 4, 8)).astype(float)  # (seeds, groups, G)
    rewards[0, 0] = 1
    one_by_one = np.array([[advantages(group) for group in seed] for seed in rewards])
    assert np.allclose(advantages(rewards), one_by_one, atol=1e-12) and not advantages(rewards)[0, 0].any()
