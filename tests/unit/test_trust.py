"""Calibration of the trust decision against scikit-learn, on invented policies that know what they do or do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from figures import draw_trust
from mmedlite import trust

RNG = np.random.default_rng(6)


def test_groups_and_brier_score_agree_with_scikit_learn() -> None:
    p = RNG.random(5000)
    right = RNG.random(5000) < p**2
    found = trust.calibration(p, right)
    shares, means = calibration_curve(right, p, n_bins=trust.GROUPS, strategy="quantile")
    assert found["groups"]["right"] == pytest.approx(shares, abs=1e-12)
    assert found["groups"]["probability"] == pytest.approx(means, abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(right, p), abs=1e-12)
    assert found["error"] == pytest.approx(np.abs(shares - means).mean(), abs=1e-12)


def test_who_knows_has_no_error_and_who_boasts_has_it() -> None:
    right = RNG.random(4000) < 0.6
    assert trust.calibration(right.astype(float), right)["error"] == 0
    assert trust.calibration(np.ones(4000), right)["error"] == pytest.approx(1 - right.mean())
    few = trust.calibration(np.array([0.2, 0.9, 0.9]), np.array([False, True, True]))
    assert few["n"] == 3 and sum(few["groups"]["n"]) == 3


@pytest.fixture
def found(tmp_path: Path) -> dict:  # type: ignore[type-arg]
    vote, n = np.where(np.arange(200) < 20, -1, np.arange(200) % 2), 200
    frame = pd.DataFrame({"panel": "diverse", "answer": np.zeros(n, int), "panel_vote": vote, "p_untrained": np.full(n, 0.9),
                          "p_trained": np.where(vote == 0, 0.8, 0.3)})  # fmt: skip
    frame.to_parquet(tmp_path / "trust.parquet")
    return trust.count(tmp_path)


def test_cases_without_a_majority_are_left_out(found: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    assert found["diverse"]["trained"]["n"] == 180 and found["diverse"]["untrained"]["right"] == 0.5
    assert found["diverse"]["untrained"]["error"] == pytest.approx(0.4) and found["diverse"]["trained"]["error"] == pytest.approx(0.25)
    assert trust.count(tmp_path / "none") == {}


def test_the_figure_draws_what_was_counted(found: dict) -> None:  # type: ignore[type-arg]
    fig, alt = draw_trust.trust(found)
    diagonal, *drawn = fig.axes[0].get_lines()
    for line, policy in zip(drawn, trust.POLICIES, strict=True):
        groups = found["diverse"][policy]["groups"]
        assert np.allclose(line.get_xydata(), np.transpose([groups["probability"], groups["right"]])) and line.get_label() == policy
    assert len({(line.get_marker(), line.get_linestyle()) for line in drawn}) == 2 and list(diagonal.get_xdata()) == [0, 1]
    assert "diverse, untrained: 0.90 and" in alt and len(fig.numbers) == 2 * trust.GROUPS
