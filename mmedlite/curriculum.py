"""Difficulty buckets and stages (paper section 3.3): s = share of the three specialists that are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmedlite.profiles import InputError, Stage

BUCKETS = ("easy", "medium", "hard")


def bucket(options: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Bucket of each case: easy s = 1, medium 0 < s < 1, hard s = 0.

    Args:
        options: (n, e) int, the specialists' options, -1 for none. answers: (n,) int, the right options.

    Returns:
        (n,) array of "easy", "medium" or "hard".
    """
    right = (np.asarray(options) == np.asarray(answers)[:, None]).sum(1)  # (n,)
    return np.where(right == options.shape[1], "easy", np.where(right == 0, "hard", "medium"))


def stage_order(stage: Stage, buckets: np.ndarray, prompts_per_step: int, seed: int) -> np.ndarray:
    """Indices of the training cases of a stage, in the order they are visited: (steps * prompts_per_step,).

    The stage's cases are shuffled once and repeated as whole epochs until ``stage.steps`` updates are filled; 0 steps means one
    epoch, its last partial update left out.

    Raises:
        InputError: fewer cases than one update needs; the trainer would train zero steps and say nothing.
    """
    rng = np.random.default_rng([seed, *stage.name.encode()])
    members = np.flatnonzero(np.isin(buckets, stage.buckets))
    if len(members) < prompts_per_step:
        raise InputError(
            f"stage '{stage.name}' has {len(members)} cases, fewer than one update of {prompts_per_step} prompts",
            f"the profile's stage '{stage.name}', field buckets",
            "lower grpo.prompts_per_step, merge stages in the profile, or bring more cases",
        )
    wanted = (stage.steps or len(members) // prompts_per_step) * prompts_per_step
    epochs = [rng.permutation(members) for _ in range(-(-wanted // len(members)))]
    return np.concatenate(epochs)[:wanted]


def coefficients(stage: Stage, buckets: Sequence[str] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entropy coefficient and KL weight of each case, by its bucket: two (n,) float arrays (paper App. F.2)."""
    gamma, beta = dict(zip(stage.buckets, stage.gamma, strict=True)), dict(zip(stage.buckets, stage.beta, strict=True))
    return np.array([gamma[b] for b in buckets]), np.array([beta[b] for b in buckets])


class Visits(NamedTuple):
    """The cases that training visits, in order."""

    cases: np.ndarray  # (m,) int, indices of training cases
    gamma: np.ndarray  # (m,) float, entropy coefficient of each visit
    beta: np.ndarray  # (m,) float, KL weight of each visit


def visits(stage: Stage, buckets: np.ndarray, prompts_per_step: int, seed: int) -> Visits:
    """What a stage visits: its order, and the coefficients of each case."""
    order = stage_order(stage, buckets, prompts_per_step, seed)
    return Visits(order, *coefficients(stage, buckets[order]))


def majority_vote(options: Sequence[int | None]) -> int:
    """Most frequent answer; ties go to the lowest sample index. [2, 0, 0] -> 0, [2, 0, 1] -> 2, [] -> -1."""
    given = [int(o) for o in options if o is not None and o >= 0]
    return max(given, key=lambda o: (given.count(o), -given.index(o)), default=-1)
