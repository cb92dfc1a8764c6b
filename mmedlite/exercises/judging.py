"""Exercises of notebooks 00, 01 and 03: votes, places on the trust plane, doctors, keys, buckets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mmedlite.baselines import unanimous
from mmedlite.curriculum import BUCKETS, bucket, majority_vote
from mmedlite.evaluation import effective_doctors
from mmedlite.exercises.exercise import Exercise
from mmedlite.widgets import bucket_shares

PANEL = np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [0, 0, 0], [1, 1, 1], [0, 1, 0], [2, 1, 0], [-1, -1, -1], [3, 3, 3], [1, -1, 1]])
TRUTH = np.array([0, 1, 2, 1, 0, 0, 2, 1, 0, 1])
ANSWERS = np.array([0, 1, 0, 1, 2, 1, 2, 1, 3, 0])


def place(
    answers: np.ndarray, truth: np.ndarray, panel: np.ndarray, *, agreed: Callable[[np.ndarray], np.ndarray] = unanimous
) -> tuple[float, float]:  # fmt: skip
    """Place on the trust plane: share right where the panel is unanimous and right, and where it is unanimous and wrong.

    Args:
        answers, truth: (n,) int options. panel: (n, 3) int, -1 for no answer. agreed: which panels count; another idea is a mistake.
    """
    right, held, good = answers == truth, agreed(panel), panel[:, 0] == truth
    return float(right[held & good].mean()), float(right[held & ~good].mean())


def _place_over_all(answers: np.ndarray, truth: np.ndarray, panel: np.ndarray) -> tuple[float, float]:
    right, agreed, good = answers == truth, unanimous(panel), panel[:, 0] == truth
    return float((right & agreed & good).mean()), float((right & agreed & ~good).mean())


def _place_contradicting(answers: np.ndarray, truth: np.ndarray, panel: np.ndarray) -> tuple[float, float]:
    bad = unanimous(panel) & (panel[:, 0] != truth)
    return place(answers, truth, panel)[0], float((answers != panel[:, 0])[bad].mean())


def _vote(tie: Callable[[list[int], int], int], least: int = 0) -> Callable[[list[int]], int]:
    """``majority_vote`` with another rule for ties, over answers of at least ``least``."""

    def wrong(answers: list[int]) -> int:
        given = [o for o in answers if o >= least]
        return max(given, key=lambda o: (given.count(o), tie(given, o)), default=-1)

    return wrong


def _hashed(request: dict[str, Any], *left_out: str, ordered: bool = True) -> str:
    kept = {k: v for k, v in request.items() if k not in left_out}
    return hashlib.sha256(json.dumps(kept, sort_keys=ordered).encode()).hexdigest()


def key(request: dict[str, Any]) -> str:
    """A request for an opinion -> its key in the store: all that decides the answer, without the time of asking."""
    return _hashed(request, "time")


def _pairs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of requests: the same, asked later, its fields in another order; then with one field changed."""
    request = {"model": "reader", "picture": "ab12", "question": "Is there a mass?", "options": ["yes", "no"], "temperature": 1.0,
               "sample_index": 0, "time": 1.5}  # fmt: skip
    changes = ({"model": "reader-2"}, {"picture": "cd34"}, {"question": "Is there a cyst?"}, {"options": ["no", "yes"]},
               {"temperature": 0.7}, {"sample_index": 1}, {"picture": "ab12I", "question": "s there a mass?"})  # fmt: skip
    same = [request, {**request, "time": 9.5}, dict(reversed(request.items()))]
    stored = {"model": "Surgeon-0", "messages": [{"role": "user", "content": "Is there a mass?"}], "sampling": {"seed": 3}, "sample_index": 0,
              "time": 2}  # as the store's own, which have other fields
    others = ({**stored, "time": 3}, {**stored, "sampling": {"seed": 4}}, {**stored, "sample_index": 1})
    return [*((request, other) for other in (*same, *({**request, **change} for change in changes))), *((stored, other) for other in others)]


def _shares(accuracy: float, correlation: float) -> tuple[float, ...]:
    return tuple(bucket_shares(accuracy, correlation)[name] for name in BUCKETS)


def _whole(easy: float, hard: float) -> tuple[float, float, float]:
    return easy, 1 - easy - hard, hard


def _levels(right: np.ndarray, easy: int, hard: int = 0) -> np.ndarray:
    """Buckets where ``easy`` right doctors make a case easy and ``hard`` a hard one; right (n,) int."""
    return np.where(right >= easy, "easy", np.where(right <= hard, "hard", "medium"))


def _right(options: np.ndarray, answers: np.ndarray) -> np.ndarray:
    return (options == answers[:, None]).sum(1)


EXERCISES = {
    "vote": Exercise(
        "start", 4, majority_vote,
        [(answers,) for answers in ([2, 0, 0], [2, 0, 1], [0, 2, 1], [1, 1, 1], [-1, -1, 0], [-1, 2, 0], [0, 1, 1], [-1, -1, -1])],
        {
            "a tie went to the lowest option; it goes to the doctor who spoke first": _vote(lambda given, o: -o),
            "a tie went to the doctor who spoke last; it goes to the one who spoke first": _vote(lambda given, o: given.index(o)),
            "-1 is no answer, and you counted it as a vote": _vote(lambda given, o: -given.index(o), least=-1),
            "you followed the first doctor who spoke; count the answers": lambda a: next((o for o in a if o >= 0), -1),
        },
        [lambda a: a[0], lambda a: sorted(a)[1], lambda a: max(a), lambda a: max(majority_vote(a), 0)],
    ),
    "place": Exercise(
        "core", 8, place, [(ANSWERS, TRUTH, PANEL), (PANEL[:, 0], TRUTH, PANEL), (TRUTH, TRUTH, PANEL)],
        {
            "x and y are swapped: x belongs to the panels that are right": lambda *given: place(*given)[::-1],
            "you divided by all cases; each share is over the panels of its own kind": _place_over_all,
            "you also counted panels that are not unanimous": partial(place, agreed=lambda panel: np.full(len(panel), True)),
            "y counts panels that were contradicted; the answer must also be right": _place_contradicting,
            "three doctors who say nothing (-1) are not unanimous": partial(place, agreed=lambda panel: (panel == panel[:, :1]).all(1)),
        },
        [
            lambda a, t, p: (float((a == t).mean()), float((a == t).mean())),
            lambda a, t, p: (place(a, t, p)[0], 1 - place(a, t, p)[1]),
            partial(place, agreed=lambda panel: ~unanimous(panel)),
        ],
    ),
    "effective_doctors": Exercise(
        "start", 5, effective_doctors, [(0.0, 3), (1.0, 3), (0.5, 3), (0.25, 5), (0.8, 1)],
        {
            "with correlation 1 they are one doctor: multiply the correlation by e - 1, not by e": lambda rho, e: e / (1 + e * rho),
            "the number does not fall in a straight line: e (1 - rho) gives no doctor at all for rho = 1": lambda rho, e: e * (1 - rho),
            "the number does not fall in a straight line from e to 1": lambda rho, e: e - (e - 1) * rho,
        },
        [lambda rho, e: e / (1 + rho), lambda rho, e: e, lambda rho, e: 1 + (e - 1) * rho],
    ),
    "key": Exercise(
        "core", 8, key, _pairs(),
        {
            "the key leaves out sample_index: three samples of one specialist would be one answer":
                lambda r: _hashed(r, "time", "sample_index"),
            "the key leaves out the picture: one answer would be given to every picture": lambda r: _hashed(r, "time", "picture"),
            "the time is in the key: nothing stored would ever be found again": lambda r: _hashed(r),
            "the key depends on the order of the fields: sort them": lambda r: _hashed(r, "time", ordered=False),
            "fields run into one another (ab + c is a + bc): put something between them":
                lambda r: "".join(str(r[k]) for k in sorted(r) if k != "time"),
        },
        [
            lambda r: "one key", lambda r: _hashed(r, "time", "temperature"), lambda r: _hashed(r, "time", "model"),
            lambda r: _hashed({**r, "options": sorted(r["options"])}, "time"),
        ],
        ask=lambda learned, one, other: "the same key" if len({learned(one), learned(other)}) == 1 else "two keys",
    ),
    "bucket": Exercise(
        "core", 6, bucket, [(PANEL, TRUTH), (PANEL[:3], TRUTH[:3]), (PANEL[3:5], TRUTH[3:5])],
        {
            "easy and hard are swapped: easy is where all three are right": lambda o, a: _levels(3 - _right(o, a), 3),
            "two right doctors make no easy case: easy needs all three": lambda o, a: _levels(_right(o, a), 2),
            "one right doctor makes no hard case: hard is where none is right": lambda o, a: _levels(_right(o, a), 3, 1),
            "you asked whether they agree; a unanimous panel may be wrong": lambda o, a: np.where(unanimous(o), "easy", bucket(o, a)),
        },
        [
            lambda o, a: np.full(len(a), "medium"), lambda o, a: _levels(_right(o, a) + (o < 0).sum(1), 3),
            lambda o, a: np.where(o[:, 0] == a, "easy", "hard"),
        ],
    ),
    "shares": Exercise(
        "stretch", 8, _shares, [(0.75, 0.0), (0.75, 0.5), (0.75, 1.0), (0.5, 0.2), (0.9, 0.8)],
        {
            "this is three independent doctors: use the correlation": lambda p, c: _whole(p**3, (1 - p) ** 3),
            "the shared draw is right with probability p, once: do not cube it": lambda p, c: (p**3, 1 - p**3 - (1 - p) ** 3, (1 - p) ** 3)
                if c < 1 else (p**3, 0.0, (1 - p) ** 3),
            "the two kinds of draw are swapped: with probability `correlation` all share one": lambda p, c: _shares(p, 1 - c),
        },
        [lambda p, c: _whole(p, 1 - p), lambda p, c: _shares(p, c)[::-1], lambda p, c: _whole(p**2, (1 - p) ** 2)],
    ),
}  # fmt: skip
