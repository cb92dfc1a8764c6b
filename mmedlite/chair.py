"""The attending's chair: what a policy says of one picture while its finding fades and three doctors say yes, no or nothing.

``probabilities`` asks a policy at every setting; ``page`` puts the answers of several policies into one HTML page that needs neither kernel
nor network. Between the settings that were asked nothing is guessed: a slider moves from one to the next.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from data_prep.drawing import LOOKS, draw
from data_prep.phantoms import DIALS, sample
from mmedlite import plots
from mmedlite.attending import answer, option_scores
from mmedlite.cases import Case
from mmedlite.evaluation import bias_curve, trust_plane
from mmedlite.evidence import DATA
from mmedlite.models import merged
from mmedlite.pipeline import swept_places
from mmedlite.run import Run

STORED = DATA / "chair.json"
SAYS = ("yes", "no", "silent")  # what a doctor can say
PANELS = tuple(product(range(len(SAYS)), repeat=3))  # 27 of them; the first doctor's answer changes slowest
CONTRASTS = tuple(range(0, 81, 5))  # of 256; cases of the clinic have 2 to 60
ASKED = (0, 5, 10, 15, 20, 40, 60)  # those at which a notebook asks the policies of its run: close where they turn, some ten seconds
TEMPLATE = Path(__file__).with_name("chair.html")
NO = (1, 1, 1)  # three doctors who deny the finding: in the clinic mostly on marked pictures
STRIP = {"three say no, marked": (NO, 1), "three say no, no marker": (NO, 0)}  # panel, marked
LEGEND = {"ideal": "ideal reader"}
LEARNER = "learner.json"  # of a run: the learner's place on the trust plane, from the twenty cases of notebook 00
UNTRAINED = "untrained_panel"  # name of the untrained policy's rows; those of the others are named as their adapters


def two_a_look(cases: Sequence[Case]) -> list[Case]:
    """The first unmarked case of each look that asks for the finding which its picture shows, each followed by itself with the marker."""
    asked = [c for c in cases if c.meta["kind"] == "present" and c.answer_text == "yes" and not c.meta["marked"]]
    clear = [next(c for c in asked if c.modality == look) for look in LOOKS]
    return [twin for c in clear for twin in (c, replace(c, case_id=f"{c.case_id}-marked", meta={**c.meta, "marked": True}))]


def paint(case: Case, contrast: int) -> Image.Image:
    """The attending's picture of a case, marked or not, with its finding at another contrast; all else, the grain too, stays."""
    return draw(replace(sample(case.meta["seed"], DIALS)["phantoms"][0], contrast=contrast, marked=case.meta["marked"]))


def panel_options(case: Case) -> np.ndarray:
    """The 27 panels as options of a yes/no case: (27, 3) int, -1 where a doctor is silent."""
    index = [case.options.index(word) if word != "silent" else -1 for word in SAYS]
    return np.array([[index[say] for say in panel] for panel in PANELS])


def probabilities(run: Run, model: Any, cases: Sequence[Case], label: str, contrasts: Sequence[int] = CONTRASTS) -> np.ndarray:
    """Probability of "yes" under a policy, (cases, contrasts, 27) float: after its greedy reasoning, against "no" alone.

    Args:
        cases: yes/no cases of the clinic, asked as their department's. label: for the progress bar.
    """
    settings = [(case, contrast) for case in cases for contrast in contrasts]
    pictures = {f"{case.case_id} {contrast}": paint(case, contrast) for case, contrast in settings}
    moved = [replace(case, case_id=f"{case.case_id} {contrast}") for case, contrast in settings for _ in PANELS]
    panels = np.concatenate([panel_options(case) for case, _ in settings])  # (n, 3)
    table: Any = SimpleNamespace(open_image=lambda case: pictures[case.case_id])
    asked = (model, run.processor, table, moved, [str(c.specialty) for c in moved], panels)
    texts = answer(*asked, run.profile, label)
    scores = option_scores(*asked, texts, run.profile)
    yes = [row[c.options.index("yes")] - np.logaddexp.reduce(row) for c, row in zip(moved, scores, strict=True)]
    return np.exp(yes).reshape(len(cases), len(contrasts), len(PANELS))


def of_policies(run: Run, panel: str, names: Mapping[str, str], cases: Sequence[Case], contrasts: Sequence[int] = CONTRASTS) -> dict[str, Any]:
    """What the page shows of the policies of one panel: {"yes", "places", "curve", "counted"}.

    Args:
        names: title of each policy -> name of its validation rows (``UNTRAINED``, or that of its adapter).
    """
    models = {title: run.policy() if name == UNTRAINED else merged(run.policy(f"{panel}/{name}")) for title, name in names.items()}
    places = {title: trust_plane(run.rows(f"{panel}/validation/{name}")) for title, name in names.items()}
    right, wrong = next(iter(places.values()))[2:]
    return {
        "yes": {title: packed(probabilities(run, model, cases, f"{panel}, {title}", contrasts)) for title, model in models.items()},
        "places": {title: [round(float(v), 4) for v in place[:2]] for title, place in places.items()},
        "curve": bias_curve(swept_places(run, panel, "validation").values()).round(4).tolist(), "counted": f"{right} and {wrong}",
    }  # fmt: skip


def packed(probabilities: np.ndarray) -> str:
    """Probabilities in steps of 1/255, as base64."""
    return base64.b64encode(np.round(255 * probabilities).astype(np.uint8).tobytes()).decode()


def unpacked(text: str, found: Mapping[str, Any]) -> np.ndarray:
    """The probabilities of ``packed``, (cases, contrasts, 27) float; ``found`` as ``figures.chair`` stores it."""
    values = np.frombuffer(base64.b64decode(text), np.uint8) / 255
    return values.reshape(len(found["phantoms"]), len(found["contrasts"]), -1)


def page(found: Mapping[str, Any]) -> str:
    """The page: ``found`` as ``figures.chair`` stores it. One file, no link to elsewhere."""
    return TEMPLATE.read_text(encoding="utf-8").replace("/*FOUND*/", json.dumps(found, separators=(",", ":")).replace("</", "<\\/"))


def _course(name: str, y: np.ndarray) -> str:
    """A line of the strip in words: where it begins and ends, and its top where that lies above both."""
    top = f" by way of {y.max():.2f}" if y.max() > max(y[0], y[-1]) + 0.02 else ""
    return f"{name} {y[0]:.2f}{top} to {y[-1]:.2f}"


def strip(found: Mapping[str, Any], panel: str, phantom: int = 0) -> tuple[plots.Drawing, str]:
    """Probability of yes against the contrast of a finding that is there; an axis for marked and unmarked, a line a policy.

    Args:
        phantom: the unmarked one of a pair.
    """
    yes = {LEGEND.get(name, name): unpacked(text, found) for name, text in found["panels"][panel]["yes"].items()}  # (cases, contrasts, 27) each
    lines = {title: {name: y[phantom + marked, :, PANELS.index(says)] for name, y in yes.items()} for title, (says, marked) in STRIP.items()}
    table = pd.concat([pd.DataFrame(part, index=found["contrasts"]).assign(panel=title) for title, part in lines.items()])

    def draw_lines(fig: plots.Drawing) -> None:
        for axes, (title, part) in zip(fig.subplots(1, len(lines), sharey=True), lines.items(), strict=True):
            for i, (name, y) in enumerate(part.items()):
                how = {"linestyle": plots.LINES[i % len(plots.LINES)], "marker": plots.MARKERS[i], "color": f"C{i}"}
                axes.plot(found["contrasts"], y, label=name, markevery=max(1, len(y) // 4), **how)
            axes.set(title=title, xlabel="contrast of the finding", ylim=(-0.03, 1.03))
        fig.axes[0].set(ylabel="probability of yes")
        fig.legend(*fig.axes[0].get_legend_handles_labels(), ncols=3, loc="outside upper center")

    told = "; ".join(f"{title}: " + ", ".join(map(_course, part, part.values())) for title, part in lines.items())
    shown, last = found["phantoms"][phantom], found["contrasts"][-1]
    alt = f"{shown['look']}, {shown['question']} The {shown['finding']} is there. Probability of yes from contrast 0 to {last} of 256. {told}."
    return plots.draw(draw_lines, table, (5.8, 3.0)), alt


def keep_place(run: Run, place: tuple[float, float]) -> None:
    """Keep the learner's place on the trust plane (x, y) in the run, for the chair."""
    run.save_json(LEARNER, dict(zip("xy", map(float, place), strict=True)))


def sit(run: Run, panel: str, names: Mapping[str, str], phantom: int = 0) -> None:
    """Show the chair with this run's own policies on one pair of phantoms, as a strip and as the page; the ideal reader is the stored run's.

    The learner is a dot too where ``keep_place`` kept a place. Where the cases are not the clinic's, a line says so.

    Args:
        names: as ``of_policies`` takes them. phantom: the unmarked one of a stored pair.
    """
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    if run.table.sha256 != stored["cases_sha256"]:
        print("The chair fades the findings of the phantom clinic; these are other cases.")
        return
    chosen = slice(phantom, phantom + 2)
    part = of_policies(run, panel, names, two_a_look(run.cases("test"))[chosen], ASKED)
    part["yes"]["ideal"] = packed(unpacked(stored["panels"][panel]["yes"]["ideal"], stored)[chosen, [CONTRASTS.index(c) for c in ASKED]])
    you = json.loads(file.read_text(encoding="utf-8")) if (file := run.folder / LEARNER).is_file() else None
    shown = {"phantoms": stored["phantoms"][chosen], "panels": {panel: part}, "sheet": [], "you": you}
    found = {"seed": run.seed, "says": SAYS, "contrasts": ASKED, "stages": [*names], **shown}
    plots.show(*strip(found, panel))
    inside = page(found).replace("&", "&amp;").replace("'", "&#39;")
    frame = f"<iframe title=\"The attending's chair\" width=\"100%\" height=\"1100\" srcdoc='{inside}'></iframe>"
    plots.show(frame, "The attending's chair: the numbers of the strip above, to be moved by hand.")
