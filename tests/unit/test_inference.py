"""Statistics over worlds against scipy, scikit-learn and statsmodels, to 1e-12 where they compute the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test
from sklearn.metrics import accuracy_score, recall_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from mmedlite import evaluation, inference
from mmedlite.profiles import InputError

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("n", [2, 5, 10])
def test_sign_flip_is_the_exact_permutation_test(n: int) -> None:
    for shift in (0.0, 0.5, 2.0):
        values = RNG.normal(shift, 1, n)
        theirs = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided").pvalue
        assert inference.sign_flip(values) == pytest.approx(min(1, theirs), abs=1e-12)


def test_sign_flip_at_its_ends() -> None:
    assert inference.sign_flip([0.1] * 10) == 2 / 1024 and inference.sign_flip([0.0] * 4) == 1
    for bad in ([], [float("nan")], [1.0] * 21):
        with pytest.raises(InputError):
            inference.sign_flip(bad)


def test_holm_agrees_with_statsmodels() -> None:
    for n in (1, 2, 10, 40):
        p = RNG.random(n) ** 3
        assert inference.holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert inference.holm([0.01, 0.01, 0.5]).tolist() == [0.03, 0.03, 0.5]


def test_wilson_and_accuracies_agree_with_the_libraries() -> None:
    for k, n in ((0, 7), (7, 7), (8, 10), (180, 251), (3120, 3200)):
        theirs = proportion_confint(k, n, alpha=2 * 0.024997895148220435, method="wilson")  # z = 1.96 to the last digit
        assert evaluation.wilson(k, n) == pytest.approx(theirs, abs=1e-12)
    true, said = RNG.integers(0, 4, 500), RNG.integers(0, 4, 500)
    assert evaluation.accuracy(pd.DataFrame({"correct": true == said}))["mean"] == pytest.approx(accuracy_score(true, said), abs=1e-12)
    assert evaluation.macro_recall(true, said) == pytest.approx(recall_score(true, said, average="macro"), abs=1e-12)


@pytest.mark.parametrize(("n", "alpha"), [(8, 0.05), (10, 0.05), (10, 0.005)])
def test_detectable_difference_has_that_power(n: int, alpha: float) -> None:
    """In other draws, by the test itself one set at a time; the t test's own number lies below it."""
    found = inference.smallest_detectable(0.02, n, alpha)
    sets = np.random.default_rng(1).normal(found, 0.02, (2000, n))
    assert np.mean([inference.sign_flip(differences) <= alpha for differences in sets]) == pytest.approx(0.8, abs=0.03)
    by_t = TTestPower().solve_power(nobs=n, alpha=alpha, power=0.8) * 0.02
    assert by_t < found < 1.25 * by_t


def test_too_few_worlds_detect_nothing() -> None:
    """Of four worlds the smallest p is 1/8."""
    assert np.isnan(inference.smallest_detectable(0.02, 4))
    assert [inference.told_difference(d) for d in (float("nan"), None, 0.02)] == ["above 1", "above 1", "0.020"]


def test_over_worlds_covers_both_kinds_of_chance() -> None:
    """Worlds that differ widen the interval beyond that of the images; equal worlds leave the images' alone."""
    same = [RNG.choice([-1, 0, 1], 4000, p=[0.1, 0.7, 0.2]).astype(float) for _ in range(10)]
    apart = [d + shift for d, shift in zip(same, np.linspace(-0.2, 0.2, 10), strict=True)]
    narrow, wide = inference.over_worlds(same, 400), inference.over_worlds(apart, 400)
    assert narrow["mean"] == pytest.approx(np.mean([d.mean() for d in same])) == pytest.approx(wide["mean"])
    assert wide["high"] - wide["low"] > 3 * (narrow["high"] - narrow["low"])
    assert narrow["low"] < narrow["mean"] < narrow["high"] and narrow["n"] == 40_000 and len(narrow["worlds"]) == 10
    assert inference.over_worlds(same, 50) == inference.over_worlds(same, 50)


def test_over_worlds_is_the_plain_bootstrap() -> None:
    """Against worlds, then images within each, drawn one by one."""
    parts = [RNG.normal(m, 1, 60) for m in (0.0, 0.2, 0.5)]
    rng = np.random.default_rng(0)
    plain = [np.mean([rng.choice(parts[i], 60).mean() for i in rng.integers(0, 3, 3)]) for _ in range(4000)]
    found = inference.over_worlds(parts, 4000)
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.02)


def test_interval_over_worlds_covers_the_truth() -> None:
    """In 19 of 20 experiments, within what 120 of them can tell; ten worlds make a percentile bootstrap somewhat too narrow."""
    hit = 0
    for turn in range(120):
        rng = np.random.default_rng(turn)
        shifts = 0.015 + rng.normal(0, 0.01, 10)  # of each world; half its mean difference
        worlds = [(rng.random(200) < 0.2 + s).astype(float) - (rng.random(200) < 0.2 - s) for s in shifts]
        found = inference.over_worlds(worlds, 300, turn)
        hit += found["low"] <= 0.03 <= found["high"]
    assert 0.85 <= hit / 120 <= 1


def test_no_world_is_told() -> None:
    for bad in ([], [np.ones(3), np.ones(0)]):
        with pytest.raises(InputError):
            inference.over_worlds(bad)


def test_a_difference_that_cannot_be_is_told_so() -> None:
    assert [inference.told_difference(d) for d in (0.0204, 0.9999, 6.8)] == ["0.020", "1.000", "above 1"]
