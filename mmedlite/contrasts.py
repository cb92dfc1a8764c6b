"""One-factor changes of a training recipe at equal steps: order, hard cases, entropy term, KL (``figures/analysis_plan.md``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmedlite.curriculum import BUCKETS, Visits, visits
from mmedlite.profiles import InputError, Stage

CHANGES = {
    "as_is": "the recipe as it is",
    "shuffled": "the same visits in random order",
    "reversed": "the same visits, the last stage's first",
    "hard_out": "the last stage visits easy and medium cases only",
    "hard_rehearsed": "the last stage visits all buckets",
    "entropy_off": "entropy coefficient 0 throughout",
    "kl_off": "KL weight 0 throughout",
}


def schedule(change: str, stages: Sequence[Stage], buckets: np.ndarray, prompts_per_step: int, seed: int) -> list[Visits]:
    """What each stage visits when one thing of a recipe is changed; every stage keeps its number of updates.

    A case keeps the coefficients of its bucket wherever it is visited. Stages keep their lengths when the order changes, so that the
    learning rate falls and the reference policy is renewed at the same steps.

    Args:
        change: one of ``CHANGES``. buckets: (n,) of the training cases, as from ``curriculum.bucket``.

    Raises:
        InputError: no such change; it would train the recipe as it is.
    """
    if change not in CHANGES:
        raise InputError(f"no change '{change}' of a recipe", "contrasts", f"use one of: {', '.join(CHANGES)}")
    if change == "entropy_off":
        stages = [replace(s, gamma=(0.0,) * len(s.buckets)) for s in stages]
    if change == "kl_off":
        stages = [replace(s, beta=(0.0,) * len(s.buckets)) for s in stages]
    made = [visits(stage, buckets, prompts_per_step, seed) for stage in stages]
    if change in ("hard_out", "hard_rehearsed"):
        kinds = BUCKETS[:2] if change == "hard_out" else BUCKETS
        gamma = {b: value for s in stages for b, value in zip(s.buckets, s.gamma, strict=True)}
        beta = {b: value for s in stages for b, value in zip(s.buckets, s.beta, strict=True)}
        steps = len(made[-1].cases) // prompts_per_step
        last = Stage(stages[-1].name, kinds, steps, tuple(gamma[b] for b in kinds), tuple(beta[b] for b in kinds))
        made[-1] = visits(last, buckets, prompts_per_step, seed)
    if change in ("shuffled", "reversed"):
        lengths = [len(v.cases) for v in made]
        whole = Visits(*(np.concatenate(columns) for columns in zip(*(made if change == "shuffled" else made[::-1]), strict=True)))
        order = np.random.default_rng([seed, 5]).permutation(sum(lengths)) if change == "shuffled" else np.arange(sum(lengths))
        parts = np.split(order, np.cumsum(lengths)[:-1])
        made = [Visits(*(column[part] for column in whole)) for part in parts]
    return made
