"""GRPO's advantage: how much better an answer earned than the others to the same prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def advantages(rewards: Sequence[float] | np.ndarray, scale: bool = True) -> np.ndarray:
    """Rewards of groups (..., G) -> GRPO advantages (..., G): minus the group's mean, over its sd (n - 1) + 1e-4 as TRL does.

    advantages([1, 0, 0, 0]) -> [1.5, -0.5, -0.5, -0.5]; all equal -> all 0, the group teaches nothing.
    """
    reward = np.asarray(rewards, float)
    centred = reward - reward.mean(-1, keepdims=True)
    return centred / (reward.std(-1, ddof=1, keepdims=True) + 1e-4) if scale else centred
