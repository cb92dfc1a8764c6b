"""Buckets, the order of a stage, coefficients and the vote: truth tables."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest

from mmedlite.curriculum import BUCKETS, bucket, coefficients, majority_vote, stage_order
from mmedlite.profiles import InputError, Stage


@pytest.mark.parametrize("panel", product((-1, 0, 1, 2), repeat=3))
def test_bucket_truth_table(panel: tuple[int, ...]) -> None:
    right = panel.count(1)  # the answer is option 1; no answer (-1) is not right
    expected = {0: "hard", 3: "easy"}.get(right, "medium")
    assert bucket(np.array([panel]), np.array([1])).tolist() == [expected]


def test_bucket_of_many_and_of_larger_panels() -> None:
    options = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [1, 2, -1, 1]])
    assert bucket(options, np.array([0, 0, 0])).tolist() == ["easy", "medium", "hard"]


def stage(*buckets: str, steps: int = 0, name: str = "s") -> Stage:
    return Stage(name, buckets, steps, tuple(0.1 * (i + 1) for i in range(len(buckets))), tuple(range(len(buckets))))


LABELS = np.array(["easy", "medium", "hard", "easy", "easy", "medium", "easy"])  # easy: 0 3 4 6, medium: 1 5, hard: 2


def test_zero_steps_is_one_epoch_of_whole_updates() -> None:
    order = stage_order(stage("easy"), LABELS, 3, seed=0)
    assert len(order) == 3 and len(set(order.tolist())) == 3 and set(order.tolist()) <= {0, 3, 4, 6}
    assert sorted(stage_order(stage("easy"), LABELS, 2, seed=0)) == [0, 3, 4, 6]


def test_steps_repeat_whole_epochs() -> None:
    order = stage_order(stage("easy", "medium", steps=5), LABELS, 3, seed=1)  # 15 visits of 6 cases
    assert len(order) == 15
    assert set(order[:6]) == set(order[6:12]) == {0, 1, 3, 4, 5, 6}
    assert set(Counter(order.tolist()).values()) == {2, 3}


def test_order_depends_on_seed_and_stage_alone() -> None:
    many = np.array(["easy"] * 200)
    first = stage_order(stage("easy", name="a"), many, 10, 0)
    assert np.array_equal(first, stage_order(stage("easy", name="a"), many, 10, 0))
    assert not np.array_equal(first, stage_order(stage("easy", name="b"), many, 10, 0))
    assert not np.array_equal(first, stage_order(stage("easy", name="a"), many, 10, 1))
    assert not np.array_equal(first, np.sort(first))


def test_a_stage_smaller_than_one_update() -> None:
    with pytest.raises(InputError, match="stage 's' has 1 cases, fewer than one update of 2 prompts.*Fix: lower grpo"):
        stage_order(stage("hard", steps=9), LABELS, 2, 0)
    with pytest.raises(InputError, match="has 0 cases"):
        stage_order(stage("hard"), LABELS[:2], 1, 0)
    assert len(stage_order(stage("hard"), LABELS, 1, 0)) == 1


def test_coefficients_follow_the_bucket_of_each_case() -> None:
    mixed = Stage("mix", ("hard", "easy"), 0, (3e-2, 1e-4), (1e-2, 1e-3))
    gamma, beta = coefficients(mixed, np.array(["easy", "hard", "hard"]))
    assert gamma.tolist() == [1e-4, 3e-2, 3e-2] and beta.tolist() == [1e-3, 1e-2, 1e-2]
    with pytest.raises(KeyError):
        coefficients(mixed, ["medium"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([2, 0, 0], 0),
        ([0, 0, 2], 0),
        ([1, 1, 1], 1),
        ([2, 0, 1], 2),  # a tie goes to the lowest sample index
        ([0, 2], 0),
        ([1, 0, 0, 1], 1),
        ([-1, 1, -1], 1),
        ([None, 2, 1], 2),
        ([-1, -1, 0], 0),  # silence is no vote
        ([-1, None, -1], -1),
        ([], -1),
    ],
)
def test_majority_vote(options: list[int | None], expected: int) -> None:
    assert majority_vote(options) == expected


def test_buckets_are_the_papers() -> None:
    assert BUCKETS == ("easy", "medium", "hard")
