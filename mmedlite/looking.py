"""Does a policy look? Its answers when the picture changes and the panel is kept, and when the panel changes and the picture is kept.

Everything is counted from ``figures/data/looks.parquet`` (``figures.looks`` writes it), where a column is "<policy>_<change>".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mmedlite.evaluation import paired_difference
from mmedlite.evidence import DATA, read_options, systems_of

PICTURES = ("blank", "shuffled", "swapped", "pair")
PANELS = ("panel_swapped", "panel_removed", "panel_adversarial", "panel_permuted")
NOISE = (20, 40, 60, 80, 100)  # per cent of the panel's answers that are corrupted
CASES = 800  # the first test cases of clinic 0
IDEAL = "ideal"  # the ideal reader, which is no policy


def average(pictures: Sequence[Image.Image]) -> Image.Image:
    """The mean of RGB pictures, each brought to the size of the first: what they have in common, without any one's finding."""
    total = sum(np.asarray(picture.resize(pictures[0].size), float) for picture in pictures)  # one array at a time: real pictures are large
    return Image.fromarray(np.round(total / len(pictures)).astype(np.uint8))


def swapped(groups: Sequence[Any]) -> np.ndarray:
    """For each case the index of the next one of its group: (n,) int."""
    order = pd.Series(range(len(groups))).groupby(list(groups))
    return np.array(order.transform(lambda part: np.roll(part.to_numpy(), -1)))


def policies_of(frame: pd.DataFrame) -> list[str]:
    """The policies of the table, "untrained" first, then the stages in the order of training, the ideal reader last."""
    found = [name.removesuffix("_own") for name in systems_of(frame) if name.endswith("_own")]
    return sorted(found, key=lambda name: ("untrained", "easy", "medium", "hard", IDEAL).index(name))


def changes(frame: pd.DataFrame, policy: str) -> dict[str, dict[str, Any]]:
    """Of each change: accuracy, its difference from the unchanged cases (paired), and the share of answers that changed.

    For changed pictures that share is the image sensitivity, for changed panels the panel reliance. In a minimal pair the right answer
    is another one: ``follows`` is the share of four-option cases that give it, ``stays`` of those that give the old one.
    """
    own, answer = frame[f"{policy}_own"], frame["answer"]
    found = {}
    for change in (*PICTURES, *PANELS):
        part = frame[frame["question_type"] == "choice"] if change == "pair" else frame
        now, right = part[f"{policy}_{change}"], part["pair_answer"] if change == "pair" else part["answer"]
        found[change] = {
            "accuracy": float((now == right).mean()), "n": len(part), "changed": float((now != own[part.index]).mean()),
            "difference": paired_difference(now == right, own[part.index] == answer[part.index], part["case_id"]),
        }  # fmt: skip
        if change == "pair":
            found[change] |= {"follows": found[change]["accuracy"], "stays": float((now == part["answer"]).mean())}
    return found


def noise_outcomes(frame: pd.DataFrame, policy: str) -> np.ndarray:
    """Right or wrong at each share of corrupted answers, 0 first: (n, levels) float."""
    columns = [f"{policy}_own", *(f"{policy}_noise_{share}" for share in NOISE)]
    return np.stack([(frame[c] == frame["answer"]).to_numpy(float) for c in columns], 1)


def slopes(outcomes: np.ndarray) -> np.ndarray:
    """Least-squares slope of each case's outcomes against the share of corrupted answers (0 to 1): (n,) float."""
    x = np.array([0, *NOISE]) / 100
    x = x - x.mean()
    return outcomes @ x / (x @ x)


def count(data: Path = DATA) -> dict[str, Any]:
    """{panel: {"changes": {policy: ...}, "noise": ...}}; {} where there is no table.

    noise: accuracy at each share, slope, and the stated rule: trained minus untrained slope, paired, whose interval must lie above 0.
    """
    file, found = data / "looks.parquet", dict[str, Any]()
    for panel, frame in read_options(file).groupby("panel") if file.exists() else ():
        frame, names = frame.reset_index(drop=True), policies_of(frame)
        outcomes = {name: noise_outcomes(frame, name) for name in names}
        trained = [name for name in names if name != IDEAL][-1]
        flatter = paired_difference(slopes(outcomes[trained]), slopes(outcomes["untrained"]), frame["case_id"])
        found[str(panel)] = {
            "n": len(frame), "changes": {name: changes(frame, name) for name in names},
            "own": {name: float(o[:, 0].mean()) for name, o in outcomes.items()},
            "noise": {"shares": [0, *NOISE], "accuracy": {name: o.mean(0).tolist() for name, o in outcomes.items()},
                      "slope": {name: float(slopes(o).mean()) for name, o in outcomes.items()}, "flatter": flatter},
        }  # fmt: skip
    return found
