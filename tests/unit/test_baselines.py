"""Votes, the oracle and the three-weight reader against truth tables, the plain vote and simulated readers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmedlite import baselines
from mmedlite.curriculum import majority_vote

EVERY = np.array(list(itertools.product((-1, 0, 1, 2), repeat=3)))


def test_equal_weights_are_the_majority_vote() -> None:
    """Every panel of three, ties and missing answers among them."""
    assert baselines.weighted_vote(EVERY, np.ones(3), 3).tolist() == [majority_vote(v) for v in EVERY.tolist()]


@pytest.mark.parametrize(("votes", "weights", "wanted"), [
    ((0, 1, 1), (3.0, 1.0, 1.0), 0), ((0, 1, 1), (2.0, 1.0, 1.0), 0), ((0, 1, 1), (1.9, 1.0, 1.0), 1), ((-1, 2, 1), (9.0, 1.0, 2.0), 1),
    ((0, 1, 2), (-2.0, -1.0, -3.0), 1),
])  # fmt: skip
def test_a_weighted_vote(votes: tuple[int, ...], weights: tuple[float, ...], wanted: int) -> None:
    assert baselines.weighted_vote(np.array([votes]), np.array(weights), 3).tolist() == [wanted]


def test_weights_follow_reliability() -> None:
    """A guesser among k options weighs nothing, one who is worse counts against his answer."""
    answers = np.zeros(1000, int)
    votes = np.stack([np.where(np.arange(1000) % 100 < share, 0, 1) for share in (90, 50, 20)], 1)
    first, second, third = baselines.reliability_weights(votes, answers, np.full(1000, 2))
    assert (first, second, third) == pytest.approx((np.log(9), 0, np.log(1 / 4)))
    assert baselines.reliability_weights(votes, answers, np.full(1000, 4))[0] == pytest.approx(np.log(27))


def test_oracle_and_unanimity() -> None:
    votes = np.array([[0, 0, 0], [1, 0, 1], [-1, -1, -1], [2, 1, 0]])
    assert baselines.any_correct(votes, np.array([1, 0, 0, 2])).tolist() == [0, 0, -1, 2]
    assert baselines.unanimous(votes).tolist() == [True, False, False, False]


def simulated(weights: np.ndarray, n: int, seed: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Cases whose right answer is drawn from a three-weight reader; two and four options mixed."""
    rng = np.random.default_rng(seed)
    counts = rng.choice([2, 4], n)
    log_probs = [rng.normal(0, 2, c) for c in counts]
    agreed = rng.random(n) < 0.6
    votes = np.array([[rng.integers(c)] * 3 if a else rng.integers(0, c, 3) for c, a in zip(counts, agreed, strict=True)])
    answers = []
    for row, said in zip(log_probs, votes, strict=True):
        share, united = (said[:, None] == np.arange(len(row))).mean(0), len(set(said.tolist())) == 1
        score = weights[0] * (row - np.logaddexp.reduce(row)) + share * (weights[1] if united else weights[2])
        answers.append(rng.choice(len(row), p=np.exp(score - np.logaddexp.reduce(score))))
    return log_probs, votes, np.array(answers)


def test_three_weights_are_found_again() -> None:
    true = np.array([0.8, 2.0, 1.0])
    found = baselines.fit_three_weights(*simulated(true, 8000, 0))
    assert found == pytest.approx(true, abs=0.15)


def test_three_weights_are_the_likeliest() -> None:
    """No small step from them makes the answers likelier (but for the penalty)."""
    log_probs, votes, answers = simulated(np.array([1.0, 1.5, 0.5]), 500, 1)
    found = baselines.fit_three_weights(log_probs, votes, answers)

    def loss(w: np.ndarray) -> float:
        x, offered = baselines._three_inputs(log_probs, votes)
        score = np.where(offered, x @ w, -np.inf)
        return float((np.logaddexp.reduce(score, axis=1) - score[np.arange(len(x)), answers]).sum() + 5e-4 * (w @ w))

    assert all(loss(found + step) > loss(found) for step in 0.01 * np.vstack([np.eye(3), -np.eye(3)]))


def test_three_weights_choose_among_the_offered() -> None:
    log_probs, votes = [np.log([0.6, 0.4]), np.log([0.1, 0.2, 0.3, 0.4])], np.array([[1, 1, 1], [0, 1, 0]])
    assert baselines.three_weights(np.array([1.0, 0.0, 0.0]), log_probs, votes).tolist() == [0, 3]
    assert baselines.three_weights(np.array([0.0, 1.0, 1.0]), log_probs, votes).tolist() == [1, 0]
    assert baselines.three_weights(np.array([0.0, 1.0, -1.0]), log_probs, votes).tolist() == [1, 2]  # never a slot that is not offered
