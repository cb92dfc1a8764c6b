"""The numbers of the attending's chair: every policy of the recipe, and the ideal reader, on a phantom a look with and without its marker.

``python -m figures.chair`` asks the policies of the reference run and writes ``figures/data/chair.json``, of which
``figures.draw_chair`` makes the page.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from data_prep.drawing import draw
from data_prep.phantoms import DIALS, sample
from figures.looks import Changed
from mmedlite.baselines import unanimous
from mmedlite.cases import Case, CaseTable
from mmedlite.chair import CONTRASTS, PANELS, SAYS, STORED, UNTRAINED, of_policies, packed, paint, panel_options, two_a_look
from mmedlite.curriculum import BUCKETS, bucket, majority_vote
from mmedlite.pipeline import fit_ideal, read_alone
from mmedlite.profiles import Stage
from mmedlite.run import Run
from mmedlite.widgets import picture_url

SHEET = {"easy": 7, "split": 7, "wrong": 6}  # unanimous and right, not unanimous, unanimous and wrong: as in notebook 00


def layers(case: Case) -> list[Image.Image]:
    """Picture without finding, with the whole finding, both without grain; and the grain about 128, in grey, which a pair shares."""
    phantom = replace(sample(case.meta["seed"], DIALS)["phantoms"][0], marked=case.meta["marked"])
    empty, full = (draw(replace(phantom, noise=0, contrast=c)) for c in (0, 256))
    byte = np.random.Generator(np.random.PCG64([phantom.seed, 3])).integers(0, 256, (4, 64, 64), dtype=np.uint8)  # as in drawing.draw
    grain = (byte.sum(0, dtype=np.int32) - 510) * phantom.noise // 148
    return [empty, full, Image.fromarray((128 + grain).astype(np.uint8))]


def ideal(run: Run, panel: str, cases: Sequence[Case]) -> np.ndarray:
    """Probability of "yes" of the ideal reader at the settings of ``chair.probabilities``: (cases, contrasts, 27) float."""
    predict, found = fit_ideal(run, panel, read_alone(run, "train")), []
    for contrast in CONTRASTS:
        other, moved = copy(run), {c.case_id: paint(c, contrast) for c in cases}
        other.table = Changed(CaseTable(run.table.path, [*(c for c in run.table if c.split != "test"), *cases]), moved)
        seen = read_alone(other, "test")
        for i, case in enumerate(cases):
            features, counts, options = (np.repeat(part[i : i + 1], len(PANELS), 0) for part in (seen.features, seen.counts, seen.options))
            found.append(predict(features, panel_options(case), counts, options)[:, case.options.index("yes")])
    return np.stack(found).reshape(len(CONTRASTS), len(cases), len(PANELS)).swapaxes(0, 1)


def sheet(run: Run) -> tuple[list[dict[str, Any]], int]:
    """Twenty validation cases of four options as notebook 00 draws them; and how many of the split ones the vote gets right."""
    cases = run.cases("validation")
    said = run.panel_for(cases, [str(c.specialty) for c in cases], "diverse")
    levels, agreed = bucket(said, np.array([c.answer for c in cases])), unanimous(said)
    kinds = {"easy": agreed & (levels == "easy"), "split": levels == "medium", "wrong": agreed & (levels == "hard")}
    four = np.array([len(c.options) == 4 for c in cases])
    chosen = sorted((int(i), kind) for kind, n in SHEET.items() for i in np.flatnonzero(kinds[kind] & four)[:n])
    items = [
        {"kind": kind, "look": cases[i].modality, "question": cases[i].question, "options": list(cases[i].options), "answer": cases[i].answer,
         "panel": [cases[i].options[o] if o >= 0 else "no answer" for o in said[i]], "picture": picture_url(run.table.open_image(cases[i]))}
        for i, kind in chosen
    ]  # fmt: skip
    return items, sum(kind == "split" and majority_vote(said[i].tolist()) == cases[i].answer for i, kind in chosen)


def titled(stage: Stage) -> str:
    """A stage's name, and whether it visits all buckets, as notebook 04 says it."""
    return f"{stage.name} (all buckets)" if len(stage.buckets) == len(BUCKETS) else stage.name


def measure(run: Run) -> dict[str, Any]:
    """Everything that the page shows."""
    cases, names = two_a_look(run.cases("test")), {"untrained": UNTRAINED, **{titled(s): s.name for s in run.profile.attending.recipe}}
    panels = {panel: of_policies(run, panel, names, cases) for panel in run.profile.panels}
    for panel, part in panels.items():
        part["yes"]["ideal"] = packed(ideal(run, panel, cases))
    items, vote = sheet(run)
    phantoms = [
        {"look": c.modality, "question": c.question, "finding": c.meta["finding"], "place": c.meta["place"], "marked": c.meta["marked"],
         "layers": [picture_url(layer, lossless=True) for layer in layers(c)[: 2 if c.meta["marked"] else 3]]} for c in cases
    ]  # fmt: skip
    return {"says": SAYS, "contrasts": CONTRASTS, "stages": [*names], "phantoms": phantoms, "panels": panels, "sheet": items, "vote": vote,
            **run.facts}  # fmt: skip


def main() -> None:
    """Ask and store."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Run(folder))
    STORED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{STORED.name}: {STORED.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
