"""How sure are we over worlds? Exact test, Holm's correction, bootstrap over worlds and images, smallest detectable difference.

One world is one repeat of the whole experiment; a difference has one value a world. Intervals are 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from mmedlite.profiles import InputError


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p that the mean difference is 0: the share of all 2^n sign patterns whose mean is at least as far from it.

    With ten worlds the smallest p is 2 / 1024. sign_flip([1, 2, 3]) -> 0.25.

    Raises:
        InputError: no difference, one that is nan, or more than 20 (their patterns would not be counted one by one).
    """
    values = np.asarray(differences, float)
    if not 1 <= len(values) <= 20 or np.isnan(values).any():
        raise InputError(f"{len(values)} differences, {int(np.isnan(values).sum())} of them nan", "sign_flip", "give 1 to 20 numbers")
    means = np.abs(_signs(len(values)) @ values)
    return float((means >= abs(values.sum()) - 1e-12 * np.abs(values).sum()).mean())


def _signs(n: int) -> np.ndarray:
    """All patterns of n signs, the first without a minus: (2^n, n) int."""
    return np.asarray(1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1))


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down p-values (1979) of a family of tests, in the order given: (n,) float."""
    values = np.asarray(p, float)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(np.minimum(1, values[order] * np.arange(len(values), 0, -1)))
    return stepped[np.argsort(order)]


def over_worlds(differences: Sequence[np.ndarray], n_boot: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Mean difference over worlds, with a percentile interval from a bootstrap that draws worlds and then images within each.

    Args:
        differences: one (n,) float array a world, the difference of two systems on each image (one case an image).

    Returns:
        mean (worlds count alike), low, high, sd (between worlds), worlds (one mean each), n (images in all).
    """
    if not differences or any(len(d) == 0 for d in differences):
        raise InputError("no world, or one without a case", "over_worlds", "give one array of differences a world")
    rng, parts, w = np.random.default_rng(seed), [np.asarray(d, float) for d in differences], len(differences)
    redrawn = []  # means of each world's images drawn anew: (worlds, n_boot, w); a world drawn twice in one draw brings two of them
    for part in parts:
        values, counts = np.unique(part, return_counts=True)
        redrawn.append(rng.multinomial(len(part), counts / len(part), (n_boot, w)) @ values / len(part))
    chosen = rng.integers(0, w, (n_boot, w))
    draws = np.take_along_axis(np.stack(redrawn), chosen[None], 0)[0].mean(1)  # (n_boot,)
    low, high = np.quantile(draws, [0.025, 0.975])
    means = np.array([d.mean() for d in parts])
    return {
        "mean": float(means.mean()), "low": float(low), "high": float(high), "sd": float(means.std(ddof=1)) if len(means) > 1 else float("nan"),
        "worlds": means.tolist(), "n": sum(map(len, parts)),
    }  # fmt: skip


def smallest_detectable(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Mean difference of n worlds with this standard deviation that ``sign_flip`` finds at ``alpha`` with that power; nan for too few worlds.

    Simulated, for up to a dozen worlds: 4,000 sets of n normal differences, seed 0. smallest_detectable(0.02, 10) -> 0.020.
    """
    return _in_deviations(n, alpha, power) * sd


@cache
def _in_deviations(n: int, alpha: float, power: float) -> float:
    """The smallest detectable difference in standard deviations, to a thousandth."""
    signs = _signs(n)
    noise = np.random.default_rng(0).standard_normal((4000, n)) @ signs.T  # (4000, 2^n) sums under each pattern, the first of them unflipped
    low, high = 0.0, 20.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        sums = np.abs(noise + middle * signs.sum(1))
        found = ((sums >= sums[:, :1] - 1e-9).mean(1) <= alpha).mean()
        low, high = (low, middle) if found >= power else (middle, high)
    return high if high < 19 else float("nan")


def told_difference(difference: float | None) -> str:
    """A smallest detectable difference of two shares as text: of few worlds it may be larger than any difference can be."""
    return f"{difference:.3f}" if difference is not None and difference < 1 else "above 1"  # nan, and null in JSON: of too few worlds


def told_p(p: float) -> str:
    """A p-value as text: told_p(0.0004) -> "< .001"."""
    return f"{p:.3f}" if p >= 0.001 else "< .001"
