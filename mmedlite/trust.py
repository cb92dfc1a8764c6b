"""Is the trust decision calibrated? Probability of following the panel's majority against how often the majority is right.

Counted from ``figures/data/trust.parquet`` (``figures.trust`` writes it): a row a panel and test case, a column a policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmedlite.evidence import DATA

GROUPS = 10  # of equal size, from the least to the most probable
POLICIES = ("untrained", "trained")


def calibration(probability: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Calibration of probabilities of a yes/no outcome.

    Args:
        probability: (n,) float. right: (n,) bool.

    Returns:
        n, probability and right (means), brier (mean squared error), error (expected calibration error: mean over ``GROUPS`` of the
        distance of mean probability and share), groups (probability, right and n: a list each).
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, GROUPS) if len(part)]
    means, shares = ([float(column[p].mean()) for p in parts] for column in (probability, right))
    sizes = [len(p) for p in parts]
    return {
        "n": len(probability), "probability": float(probability.mean()), "right": float(right.mean()),
        "brier": float(((probability - right) ** 2).mean()),
        "error": float(np.average(np.abs(np.subtract(means, shares)), weights=sizes)),
        "groups": {"probability": means, "right": shares, "n": sizes},
    }  # fmt: skip


def count(data: Path = DATA) -> dict[str, Any]:
    """{panel: {policy: ``calibration``}} over the cases whose panel has a majority; {} where there is no table."""
    file = data / "trust.parquet"
    frame = pd.read_parquet(file) if file.exists() else pd.DataFrame({"panel": [], "panel_vote": []})
    voted = frame[frame["panel_vote"] >= 0]
    return {
        str(panel): {p: calibration(part[f"p_{p}"].to_numpy(float), (part["panel_vote"] == part["answer"]).to_numpy()) for p in POLICIES}
        for panel, part in voted.groupby("panel")
    }  # fmt: skip
