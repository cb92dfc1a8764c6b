"""Each change of a recipe changes one thing, and no number of updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmedlite.contrasts import CHANGES, schedule
from mmedlite.curriculum import Visits, visits
from mmedlite.profiles import InputError, Stage, load_profile

RNG = np.random.default_rng(0)
LABELS = RNG.choice(["easy", "medium", "hard"], 400, p=[0.5, 0.3, 0.2])
PRINTED = load_profile("tiny").attending.paper_schedule
RECOMMENDED = tuple(replace(s, steps=n) for s, n in zip(load_profile("tiny").attending.recipe, (2, 3, 20), strict=True))


def made(change: str, stages: tuple[Stage, ...] = PRINTED) -> list[Visits]:
    return schedule(change, stages, LABELS, 12, 7)


def seen(parts: list[Visits]) -> list[tuple[int, float, float]]:
    return [(int(c), float(g), float(b)) for part in parts for c, g, b in zip(*part, strict=True)]


@pytest.mark.parametrize("stages", [PRINTED, RECOMMENDED])
@pytest.mark.parametrize("change", CHANGES)
def test_updates_a_stage_are_equal(change: str, stages: tuple[Stage, ...]) -> None:
    assert [len(v.cases) for v in made(change, stages)] == [len(v.cases) for v in made("as_is", stages)]
    assert all(len(part) == len(v.cases) for v in made(change, stages) for part in v)


def test_as_is_is_what_training_visits() -> None:
    for stage, part in zip(PRINTED, made("as_is"), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(part, visits(stage, LABELS, 12, 7), strict=True))


@pytest.mark.parametrize("change", ["shuffled", "reversed"])
def test_order_changes_only_the_order(change: str) -> None:
    assert sorted(seen(made(change))) == sorted(seen(made("as_is"))) and seen(made(change)) != seen(made("as_is"))


def test_shuffled_mixes_the_buckets_and_reversed_begins_hard() -> None:
    shares = [np.mean(LABELS[v.cases] == "hard") for v in made("shuffled")]
    assert all(0.05 < share < 0.45 for share in shares)
    assert (LABELS[made("reversed")[0].cases][:12] == "hard").all() and (LABELS[made("reversed")[-1].cases][-12:] == "easy").all()


@pytest.mark.parametrize(("change", "kinds"), [("hard_out", {"easy", "medium"}), ("hard_rehearsed", {"easy", "medium", "hard"})])
def test_only_the_last_stage_changes(change: str, kinds: set[str]) -> None:
    parts, was = made(change), made("as_is")
    assert seen(parts[:-1]) == seen(was[:-1])
    assert set(LABELS[parts[-1].cases]) == kinds
    own = {b: (s.gamma[0], s.beta[0]) for s in PRINTED for b in s.buckets}
    assert all((g, b) == own[LABELS[c]] for c, g, b in seen(parts))  # a case keeps the coefficients of its bucket


@pytest.mark.parametrize(("change", "column"), [("entropy_off", "gamma"), ("kl_off", "beta")])
def test_one_coefficient_is_off(change: str, column: str) -> None:
    for part, was in zip(made(change), made("as_is"), strict=True):
        assert not getattr(part, column).any() and getattr(was, column).all()
        assert all(np.array_equal(getattr(part, n), getattr(was, n)) for n in ("cases", "gamma", "beta") if n != column)


def test_a_change_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="no change 'shufled' of a recipe"):
        made("shufled")
