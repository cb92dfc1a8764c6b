"""Splits by picture: no picture lies in two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

TEST, VALIDATION = 0.25, 0.15  # shares of the pictures of each modality; the rest is for training


def split_pictures(modality_of: Mapping[str, str], seed: int) -> dict[str, str]:
    """Split of each picture (sha256 -> modality in, sha256 -> split out): seeded, in equal shares for each modality."""
    split: dict[str, str] = {}
    for modality in sorted(set(modality_of.values())):
        mine = [sha for sha, name in modality_of.items() if name == modality]
        mine.sort(key=lambda sha: hashlib.sha256(f"{seed}:{sha}".encode()).digest())
        for place, sha in enumerate(mine):
            share = (place + 0.5) / len(mine)
            split[sha] = "test" if share < TEST else "validation" if share < TEST + VALIDATION else "train"
    return split
