"""Controls of the training on clinic 0, at equal updates: rewards that know no label, and why the hard stage does what it does.

``python -m figures.controls`` trains what is missing on both panels and writes ``figures/data/controls.parquet``, a column an arm:

- recommended recipe, other reward: a coin, the form alone, a fixed random label a case, the panel's majority (stages and
  coefficients still follow the buckets, which are made from right labels);
- printed recipe, hard stage on the same cases: with opinions from the second draw, or with the panels of other hard cases;
- printed recipe, a share of the training labels wrong (and the buckets made from them);
- printed recipe, every KL weight times a factor (paper Fig. 6).
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from figures._wide import write_wide
from figures.artifacts import SEEDS, open_seed
from figures.rivals import answers_of
from mmedlite.attending import visited_rows
from mmedlite.curriculum import BUCKETS, bucket, majority_vote, visits
from mmedlite.evidence import DATA
from mmedlite.grpo import Reward, train
from mmedlite.models import merged
from mmedlite.rewards import accuracy_reward, format_reward, random_reward
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side
from mmedlite.verify import sha256

OUT = DATA / "controls.parquet"
BASES = ("untrained_panel", "trained", "paper_schedule")  # what the arms are compared with
Labels = Callable[[Run, str], np.ndarray]


def right_labels(run: Run, panel: str) -> np.ndarray:
    """The right options of the training cases: (n,) int."""
    return answers_of(run, "train")


def random_labels(run: Run, panel: str) -> np.ndarray:
    """For each case one option drawn once, whatever is right."""
    return np.array([zlib.crc32(c.case_id.encode()) % len(c.options) for c in run.cases("train")])


def majority_labels(run: Run, panel: str) -> np.ndarray:
    """The vote of the panel; the first option where nobody answered."""
    return np.array([max(majority_vote(v), 0) for v in run.panel("train", panel).tolist()])


def wrong_labels(share: float) -> Labels:
    """The right options but for that share of the cases, which get another one; a larger share keeps the smaller one's."""

    def labels(run: Run, panel: str) -> np.ndarray:
        rng, right = np.random.default_rng(11), right_labels(run, panel)
        counts = np.array([len(c.options) for c in run.cases("train")])
        hit, step = rng.random(len(right)), rng.random(len(right))
        return np.where(hit < share, (right + 1 + (step * (counts - 1)).astype(int)) % counts, right)

    return labels


class Arm(NamedTuple):
    """What is changed; all else is as in the recipe."""

    recipe: str = "recommended"
    rewards: Sequence[Reward] = (format_reward, accuracy_reward)
    labels: Labels = right_labels  # what the reward takes for right
    relabel: bool = False  # the buckets are made from those labels too
    hard_panel: str = "own"  # what the last stage shows: "own", "redraw" or "swapped"
    kl: float = 1.0  # factor on every KL weight


NOISE = (2, 5, 10)  # per cent of wrong training labels
ARMS = {
    "reward_random": Arm(rewards=(format_reward, random_reward)), "reward_format": Arm(rewards=(format_reward,)),
    "reward_random_label": Arm(labels=random_labels), "reward_majority": Arm(labels=majority_labels),
    "hard_redrawn": Arm("printed", hard_panel="redraw"), "hard_swapped": Arm("printed", hard_panel="swapped"),
    "kl_tenth": Arm("printed", kl=0.1), "kl_10": Arm("printed", kl=10.0), "kl_100": Arm("printed", kl=100.0),
    **{f"labels_wrong_{share}": Arm("printed", labels=wrong_labels(share / 100), relabel=True) for share in NOISE},
}  # fmt: skip


def panels_of_others(said: np.ndarray, cases: Sequence[Any], members: np.ndarray) -> np.ndarray:
    """The panels with those of ``members`` dealt anew among members with as many options."""
    dealt, rng = said.copy(), np.random.default_rng(12)
    for count in {len(c.options) for c in cases}:
        group = np.array([i for i in members if len(cases[i].options) == count], int)
        dealt[group] = said[rng.permutation(group)]
    return dealt


def train_arm(run: Run, name: str) -> None:
    """Train one arm ("panel/arm") and keep its test answers, unless they are there."""
    panel, kind = name.split("/")
    if run.has_own_rows(f"{panel}/test/{kind}"):
        return
    arm, profile, said = ARMS[kind], run.profile, run.panel("train", panel)
    labels, sent = arm.labels(run, panel), run.routes("train")
    cases = [replace(c, answer=int(label)) for c, label in zip(run.cases("train"), labels, strict=True)]
    buckets = bucket(said, labels if arm.relabel else right_labels(run, panel))
    hard = np.flatnonzero(buckets == "hard")
    last = {"own": said, "redraw": run.panel("train", panel, redraw=True), "swapped": panels_of_others(said, cases, hard)}[arm.hard_panel]
    stages = profile.attending.recipe if arm.recipe == "recommended" else profile.attending.paper_schedule
    model, out = run.fresh(), run.folder / "rollouts" / name.replace("/", "-")
    for stage in (replace(s, beta=tuple(arm.kl * b for b in s.beta)) for s in stages):
        visited = visits(stage, buckets, profile.grpo.prompts_per_step, run.seed)
        rows = visited_rows(run.table, cases, sent, last if stage.name == stages[-1].name else said, visited)
        train(model, run.processor, rows, profile.grpo, out, {"stage": stage.name}, run.seed, arm.rewards)
    run.keep(run.answer(merged(model), kind, "test", panel), f"{panel}/test/{kind}")
    shutil.rmtree(out)


def wrong_by_bucket(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    """Share of wrong labels in each bucket made from them: {panel: {arm: {bucket: share}}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for panel in run.profile.panels:
        said, right = run.panel("train", panel), right_labels(run, panel)
        found[panel] = {}
        for share in NOISE:
            labels = wrong_labels(share / 100)(run, panel)
            buckets = bucket(said, labels)
            found[panel][f"labels_wrong_{share}"] = {b: float((labels != right)[buckets == b].mean()) for b in BUCKETS}
    return found


def main() -> None:
    """Train what is missing, then write the table."""
    run = open_seed(SEEDS[0])
    side_by_side(run, [(train_arm, f"{panel}/{kind}") for kind in ARMS for panel in run.profile.panels])
    write_wide(run, (*BASES, *ARMS), OUT, sha256(Path(__file__)), wrong_labels=wrong_by_bucket(run))


if __name__ == "__main__":
    main()
