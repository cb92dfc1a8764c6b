"""Does it look? Pictures changed while the panel is kept, panels changed while the picture is kept, for every policy of the recipe.

``python -m figures.looks`` answers the first test cases of clinic 0 under each change, greedy, and writes ``figures/data/looks.parquet``: a row
a panel and case, a column a policy and change. It also corrupts a share of the panel's answers (``noise``). No policy is trained; the
ideal reader is fitted again, on the training cases as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.drawing import FINDINGS, PLACES, draw
from data_prep.phantoms import DIALS, sample
from figures._wide import write_wide
from figures.artifacts import SEEDS, open_seed
from mmedlite.attending import answer
from mmedlite.cases import Case, CaseTable
from mmedlite.evidence import DATA
from mmedlite.looking import CASES as N
from mmedlite.looking import IDEAL, NOISE, swapped
from mmedlite.models import merged
from mmedlite.pipeline import Alone, fit_ideal, read_alone
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side
from mmedlite.verify import sha256

OUT = DATA / "looks.parquet"


def pair(case: Case) -> tuple[Image.Image, int]:
    """The minimal pair of a four-option case: same picture and noise, another finding or place; and the option that is right now."""
    phantom = sample(case.meta["seed"], DIALS)["phantoms"][0]
    if case.meta["kind"] == "where":
        place = PLACES[(PLACES.index(phantom.place) + 1) % len(PLACES)]
        return draw(replace(phantom, place=place)), case.options.index(place)
    finding = FINDINGS[(FINDINGS.index(phantom.finding) + 1) % len(FINDINGS)]
    return draw(replace(phantom, finding=finding)), case.options.index(finding)


def spoiled(own: Mapping[str, Image.Image], cases: Sequence[Case]) -> dict[str, dict[str, Image.Image]]:
    """Each case's picture blank, with its pixels shuffled, and swapped with another case's of the same look."""
    rng, other = np.random.default_rng(0), swapped([c.modality for c in cases])
    pixels = {name: rng.permutation(np.asarray(p).reshape(-1, 3)).reshape(np.asarray(p).shape) for name, p in own.items()}
    return {
        "blank": {name: Image.new("RGB", p.size) for name, p in own.items()},
        "shuffled": {name: Image.fromarray(p) for name, p in pixels.items()},
        "swapped": {c.case_id: own[cases[other[i]].case_id] for i, c in enumerate(cases)},
    }


def pictures(run: Run, cases: Sequence[Case]) -> dict[str, dict[str, Image.Image]]:
    """The changed pictures by case: those of ``spoiled``, and the minimal pair."""
    own = {c.case_id: run.table.open_image(c) for c in cases}
    pairs = {c.case_id: pair(c)[0] if c.question_type == "choice" else own[c.case_id] for c in cases}
    return {**spoiled(own, cases), "pair": pairs}


def panels(said: np.ndarray, cases: Sequence[Case]) -> dict[str, np.ndarray | None]:
    """The changed panels: swapped with another case of as many options, removed, all three wrong alike, in another order."""
    rng = np.random.default_rng(1)
    wrong = np.array([(c.answer + rng.integers(1, len(c.options))) % len(c.options) for c in cases])
    return {
        "panel_swapped": said[swapped([len(c.options) for c in cases])], "panel_removed": None,
        "panel_adversarial": np.repeat(wrong[:, None], said.shape[1], 1), "panel_permuted": said[:, [2, 0, 1]],
    }  # fmt: skip


def corrupted(said: np.ndarray, cases: Sequence[Case], share: float) -> np.ndarray:
    """The panel with that share of its answers replaced by another option, each by itself; a larger share keeps the smaller one's."""
    rng = np.random.default_rng(2)
    hit, step = rng.random(said.shape), rng.random(said.shape)
    counts = np.array([len(c.options) for c in cases])[:, None]
    other = (said + 1 + (step * (counts - 1)).astype(int)) % counts
    return np.where((hit < share) & (said >= 0), other, said)


class Changed(CaseTable):
    """The clinic with other pictures for some of its cases."""

    def __init__(self, table: CaseTable, pictures: Mapping[str, Image.Image]) -> None:
        super().__init__(table.path, table.cases)
        self.pictures = pictures

    def open_image(self, case: Case, view: int = 0) -> Image.Image:
        """The changed picture."""
        return self.pictures[case.case_id]


def look(run: Run, name: str) -> None:
    """Every change for one policy on one panel: "panel/policy", the policy "untrained" or a stage of the recipe."""
    panel, stage = name.split("/")
    if run.has_own_rows(f"{panel}/look/{stage}_noise_{NOISE[-1]}"):
        return
    cases, sent, said = run.cases("test")[:N], run.routes("test")[:N], run.panel("test", panel)[:N]
    policy = run.policy() if stage == "untrained" else merged(run.policy(f"{panel}/{stage}"))

    def keep(change: str, table: CaseTable, shown: np.ndarray | None) -> None:
        texts = answer(policy, run.processor, table, cases, sent, shown, run.profile, f"{stage} {change}")
        run.keep(run.score(f"{stage}_{change}", "test", panel, texts), f"{panel}/look/{stage}_{change}")

    keep("own", run.table, said)
    for change, changed in pictures(run, cases).items():
        keep(change, Changed(run.table, changed), said)
    for change, shown in panels(said, cases).items():
        keep(change, run.table, shown)
    for share in NOISE:
        keep(f"noise_{share}", run.table, corrupted(said, cases, share / 100))


def look_ideally(run: Run, name: str) -> None:
    """Every change for the ideal reader ("panel/ideal"), fitted as in the pipeline: how far a classifier that was told the
    answers follows picture and panel."""
    panel = name.split("/")[0]
    if run.has_own_rows(f"{panel}/look/{IDEAL}_noise_{NOISE[-1]}"):
        return
    cases, said, predict = run.cases("test")[:N], run.panel("test", panel)[:N], fit_ideal(run, panel, read_alone(run, "train"))

    def keep(change: str, seen: Alone, shown: np.ndarray | None) -> None:
        shown = np.full_like(said, -1) if shown is None else shown
        chosen = predict(seen.features, shown, seen.counts, seen.options).argmax(1).tolist()
        run.keep(run.choices(f"{IDEAL}_{change}", "test", panel, chosen), f"{panel}/look/{IDEAL}_{change}")

    def see(table: CaseTable) -> Alone:
        other = copy(run)
        other.table, other.profile = table, replace(run.profile, eval_cases=N)
        return read_alone(other, "test")

    keep("own", own := see(run.table), said)
    for change, changed in pictures(run, cases).items():
        keep(change, see(Changed(run.table, changed)), said)
    for change, shown in panels(said, cases).items():
        keep(change, own, shown)
    for share in NOISE:
        keep(f"noise_{share}", own, corrupted(said, cases, share / 100))


def main() -> None:
    """Answer what is missing, then write the table."""
    run = open_seed(SEEDS[0])
    stages = ["untrained", *(s.name for s in run.profile.attending.recipe)]
    steps = [(look, f"{panel}/{stage}") for stage in stages for panel in run.profile.panels]
    side_by_side(run, [*steps, *((look_ideally, f"{panel}/{IDEAL}") for panel in run.profile.panels)])
    names = [file.stem for file in sorted((run.folder / "results" / [*run.profile.panels][0] / "look").glob("*.parquet"))]
    pairs = {c.case_id: pair(c)[1] if c.question_type == "choice" else c.answer for c in run.cases("test")[:N]}
    write_wide(run, names, OUT, sha256(Path(__file__)), "look", {"pair_answer": pairs})


if __name__ == "__main__":
    main()
