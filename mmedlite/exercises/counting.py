"""Exercises of notebooks 05 and 06: accuracy, paired difference, height above the curve, changed files, many comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmedlite.evaluation import above_curve
from mmedlite.exercises.exercise import Exercise
from mmedlite.inference import holm

Z = 1.96  # two-sided 95 %


def accuracy(options: np.ndarray, answers: np.ndarray) -> float:
    """Share of right options; -1, no answer, is wrong. (n,) int each."""
    return float((options == answers).mean())


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean of a - b over the same cases, (n,) 0 or 1 each, and the half-width of its 95 % interval: 1.96 sd (n - 1) over root n."""
    d = a - b
    return float(d.mean()), float(Z * d.std(ddof=1) / np.sqrt(len(d)))


def _paired(half: Any) -> Any:
    return lambda a, b: (float((a - b).mean()), float(half(a, b)))


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names of the files that are new, gone, or of another hash, sorted; name -> hash each."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


def _holm(p: Sequence[float]) -> np.ndarray:
    return np.asarray(holm(list(p)))


def _stepwise(p: Sequence[float], running: bool, capped: bool) -> np.ndarray:
    """Holm's products in the order given, with or without the running maximum and the cap at 1."""
    order, found = np.argsort(p, kind="stable"), np.empty(len(p))
    found[order] = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    if running:
        found[order] = np.maximum.accumulate(found[order])
    return np.minimum(found, 1) if capped else found


def _benjamini(p: Sequence[float]) -> np.ndarray:
    order, found, n = np.argsort(p, kind="stable"), np.empty(len(p)), len(p)
    found[order] = np.minimum.accumulate((np.asarray(p)[order] * n / np.arange(1, n + 1))[::-1])[::-1]
    return np.minimum(found, 1)


OPTIONS, TRUTH = np.array([0, 1, -1, 2, 0, -1, 1, 3]), np.array([0, 1, 2, 2, 1, 0, 1, 3])
A, B = np.array([1, 1, 1, 0, 1, 1, 0, 1, 1, 1.0]), np.array([1, 0, 1, 0, 1, 0, 1, 1, 0, 1.0])
CURVE = np.array([[0.2, 0.9], [0.6, 0.5], [0.8, 0.4], [1.0, 0.0]])
BEFORE = {"run.json": "a1", "rows.parquet": "b2", "adapter.safetensors": "c3"}
HEIGHTS = [((x, y), CURVE) for x, y in ((0.4, 0.8), (0.9, 0.1), (0.6, 0.5), (0.95, 0.6))]


def _nearest(point: Sequence[float], curve: np.ndarray) -> float:
    return float(point[1] - curve[np.abs(curve[:, 0] - point[0]).argmin(), 1])


EXERCISES = {
    "accuracy": Exercise(
        "start", 4, accuracy, [(OPTIONS, TRUTH), (TRUTH, TRUTH), (np.array([-1, 0]), np.array([0, 0]))],
        {
            "cases without an answer were left out; they are wrong": lambda o, a: float((o == a)[o >= 0].mean()),
            "cases without an answer were counted as right": lambda o, a: float(((o == a) | (o < 0)).mean()),
            "this is per cent; give a share": lambda o, a: 100 * accuracy(o, a),
            "this is a count; divide by the number of cases": lambda o, a: int((o == a).sum()),
        },
        [lambda o, a: 1 - accuracy(o, a), lambda o, a: float((o >= 0).mean()), lambda o, a: 1.0],
    ),
    "paired": Exercise(
        "core", 7, paired, [(A, B), (B, A), (A, A)],
        {
            "this is the interval of two unrelated groups; take the differences case by case":
                _paired(lambda a, b: Z * np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))),
            "the spread of single cases is not that of their mean: divide by the root of n": _paired(lambda a, b: Z * (a - b).std(ddof=1)),
            "you divided by n; divide by its root": _paired(lambda a, b: Z * (a - b).std(ddof=1) / len(a)),
            "this is one standard error; 95 % need 1.96 of them": _paired(lambda a, b: (a - b).std(ddof=1) / np.sqrt(len(a))),
            "the sd is over n; take n - 1 (ddof=1)": _paired(lambda a, b: Z * (a - b).std() / np.sqrt(len(a))),
            "the sign is turned: a minus b": lambda a, b: paired(b, a),
        },
        [lambda a, b: (float(a.mean()), paired(a, b)[1]), lambda a, b: (paired(a, b)[0], 2 * paired(a, b)[1]), _paired(lambda a, b: 0.0)],
    ),
    "height": Exercise(
        "stretch", 8, above_curve, HEIGHTS,
        {
            "you took the curve's nearest point; it is straight between its points (np.interp)": _nearest,
            "the sign is turned: above the curve is positive": lambda p, c: -above_curve(p, c),
            "this is the distance to a point of the curve; take the height at the same x":
                lambda p, c: float(np.hypot(*(c - np.asarray(p)).T).min()),
            "x and y are swapped": lambda p, c: float(p[0] - np.interp(p[1], c[::-1, 1], c[::-1, 0])),
        },
        [lambda p, c: float(p[1]), lambda p, c: float(p[1] - c[:, 1].mean()), lambda p, c: max(0.0, above_curve(p, c))],
    ),
    "changed": Exercise(
        "start", 5, changed,
        [(BEFORE, BEFORE), (BEFORE, {**BEFORE, "run.json": "a9"}), (BEFORE, {**BEFORE, "new.json": "d4"}), ({}, BEFORE), (BEFORE, {})],
        {
            "new files are not found: look at the names of both": lambda b, a: sorted(n for n in b if b[n] != a.get(n)),
            "files that are gone are not found: look at the names of both": lambda b, a: sorted(n for n in a if b.get(n) != a[n]),
            "only files that both hold are compared": lambda b, a: sorted(n for n in b.keys() & a.keys() if b[n] != a[n]),
            "only names are compared; a changed hash is a changed file": lambda b, a: sorted(b.keys() ^ a.keys()),
        },
        [lambda b, a: [], lambda b, a: sorted({*b, *a}), lambda b, a: [n for n in {**a, **b} if b.get(n) == a.get(n)]],
    ),
    "holm": Exercise(
        "stretch", 10, _holm, [([0.01, 0.04, 0.03, 0.5],), ([0.02, 0.02, 0.02],), ([0.9, 0.001, 0.6],), ([0.049],)],
        {
            "this is Bonferroni: only the smallest p is multiplied by the number of all": lambda p: np.minimum(np.asarray(p) * len(p), 1),
            "a larger p must not become the smaller one: take the running maximum": lambda p: _stepwise(p, False, True),
            "a p above 1 is none: cap it": lambda p: _stepwise(p, True, False),
            "this is Benjamini and Hochberg, which holds down the share of false finds, not the chance of one": _benjamini,
            "give them back in the order in which they came": lambda p: np.sort(_holm(p)),
        },
        [lambda p: np.asarray(p), lambda p: np.minimum(np.asarray(p) * 2, 1), lambda p: 1 - _holm(p)],
    ),
}  # fmt: skip
