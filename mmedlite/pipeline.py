"""The pipeline step by step, as the notebooks tell it: triage, panels, attending, evaluation; each step writes its numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mmedlite import triage
from mmedlite.attending import answer, image_features, lean, option_scores
from mmedlite.cases import Case
from mmedlite.curriculum import bucket, majority_vote
from mmedlite.evaluation import bucket_report, fit_colour_histogram
from mmedlite.ideal_reader import fit_ideal_reader
from mmedlite.model_card import write_card
from mmedlite.models import merged
from mmedlite.run import Run
from mmedlite.side_by_side import ask_panels, side_by_side
from mmedlite.summary import attending_numbers, flip_numbers, shifted_numbers, triage_numbers, trust_numbers

# Nats towards the panel, for the untrained bias curve: fine where it bends, or its chords would lie far below it.
BIASES = (-8.0, -4.0, *(i / 10 for i in range(-30, 11)), 2.0, 4.0, 8.0)


def triage_step(run: Run) -> dict[str, Any]:
    """Train the triage doctor; accuracy on test beside the untrained policy and a colour-histogram classifier."""
    cases = run.cases("test")
    untrained = triage.route(run.policy(), run.processor, run.table, cases, run.profile)
    run.train_triage()
    train = [c for c in run.cases("train") if c.specialty]
    predict = fit_colour_histogram((run.table.open_image(c) for c in train), [c.specialty for c in train])
    routes: dict[str, Sequence[str | None]] = {
        "base": untrained, "trained": run.routes("test")[: len(cases)], "histogram": predict(run.table.open_image(c) for c in cases)
    }  # fmt: skip
    run.keep(pd.concat([routed(name, cases, sent) for name, sent in routes.items()], ignore_index=True), "triage")
    numbers = triage_numbers(run)
    run.update_results(triage=numbers)
    return {name: numbers[name] for name in routes}


def routed(system: str, cases: Sequence[Case], departments: Sequence[str | None]) -> pd.DataFrame:
    """One row a case with a known department: system, case_id, department (where it was sent), correct."""
    return pd.DataFrame([
        {"system": system, "case_id": c.case_id, "department": d or "", "correct": d == c.specialty}
        for c, d in zip(cases, departments, strict=True) if c.specialty
    ])  # fmt: skip


def panel_step(run: Run) -> dict[str, Any]:
    """Ask the specialists about every split; bucket shares, error correlation and effective doctors of each panel."""
    ask_panels(run)
    reports = {name: panel_report(run, "train", name) for name in run.profile.panels}
    run.update_results(panel=reports, opinions_asked=run.asked)
    return reports


def panel_report(run: Run, split: str, panel: str, redraw: bool = False) -> dict[str, Any]:
    """Bucket shares, error correlation and effective doctors of one panel on one split."""
    cases, options = run.cases(split), run.panel(split, panel, redraw)
    rows = [{"case_id": c.case_id, "sample_index": i, "option": o} for c, v in zip(cases, options, strict=True) for i, o in enumerate(v)]
    return bucket_report(pd.DataFrame(rows), {c.case_id: c.answer for c in cases})


def attending_step(run: Run) -> None:
    """Train the recommended recipe on every panel, and note the policy's place on the trust plane after each stage."""
    recipe = run.profile.attending.recipe
    fit = {panel: [s.name for s in run.stages_that_fit(panel, recipe)] for panel in run.profile.panels}
    run.update_results(stages=fit)
    for panel, names in fit.items():
        if left_out := [s.name for s in recipe if s.name not in names]:
            print(f"{panel} panel: too few training cases for one update, left out: {', '.join(left_out)}", file=sys.stderr)
    side_by_side(run, [(train_recipe, panel) for panel in run.profile.panels])


def train_recipe(run: Run, panel: str) -> None:
    """Train the recommended recipe on one panel; validation answers before and after each stage."""
    stages = run.stages_that_fit(panel, run.profile.attending.recipe)
    run.train_attending(panel, stages, panel)
    run.keep(run.answer(run.policy(), "untrained_panel", "validation", panel), f"{panel}/validation/untrained_panel")
    for stage in stages:
        rows = run.answer(merged(run.policy(f"{panel}/{stage.name}")), stage.name, "validation", panel)
        run.keep(rows, f"{panel}/validation/{stage.name}")
    bias_sweep(run, panel, "validation")


def evaluation_step(run: Run) -> dict[str, dict[str, Any]]:
    """Answer the test and shifted cases with every live system, then write the summary of each panel."""
    panels, moved = [*run.profile.panels], ["shifted"] if run.cases("shifted") else []
    steps = [*((answer_cases, p) for p in panels), *((read_alone, s) for s in ("train", "test")), *((answer_alone, s) for s in moved)]
    train, test, *elsewhere = side_by_side(run, steps)[len(panels) :]
    alone, texts = {"train": train, "test": test}, {"test": test.texts, **dict(zip(moved, elsewhere, strict=True))}
    for panel in panels:
        for split, said in texts.items():
            run.keep(run.score("no_panel", split, panel, said), f"{panel}/{split}/no_panel")
        run.keep(ideal_reader(run, panel, "test", alone), f"{panel}/test/ideal_reader")
        run.keep(best_single(run, "test", panel), f"{panel}/test/best_single")
    return {panel: summary(run, panel) for panel in panels}


def answer_cases(run: Run, panel: str) -> None:
    """Test and shifted cases by the trained policy, the untrained one and the vote of one panel, and the untrained bias sweep."""
    last = run.stages_that_fit(panel, run.profile.attending.recipe)[-1].name
    trained, untrained = merged(run.policy(f"{panel}/{last}")), run.policy()
    for split in (s for s in ("test", "shifted") if run.cases(s)):
        votes = [majority_vote(v) for v in run.panel(split, panel).tolist()]
        run.keep(run.choices("majority_vote", split, panel, votes), f"{panel}/{split}/majority_vote")
        run.keep(run.answer(trained, "trained", split, panel), f"{panel}/{split}/trained")
        run.keep(run.answer(untrained, "untrained_panel", split, panel), f"{panel}/{split}/untrained_panel")
    run.keep(run.answer(trained, "trained", "test", panel, temperature=1.0), f"{panel}/test_sampled/trained")
    bias_sweep(run, panel, "test")


def bias_sweep(run: Run, panel: str, split: str) -> None:
    """The untrained policy on the unanimous cases of a split, with a bias (nats) towards the panel added to its option scores.

    One row a case and bias: case_id, image_sha256, panel_right, bias, correct. Its points form the bias curve of the trust plane.
    """
    rows = run.rows(f"{panel}/{split}/untrained_panel")
    keep = np.flatnonzero(rows["unanimous"])
    cases, options = run.cases(split), run.panel(split, panel)[keep]
    chosen, part = [cases[i] for i in keep], rows.iloc[keep]
    scores = option_scores(
        run.policy(), run.processor, run.table, chosen, part["department"].tolist(), options, part["text"].tolist(), run.profile
    )
    swept = [
        pd.DataFrame({
            "case_id": part["case_id"], "image_sha256": part["image_sha256"], "panel_right": part["panel_vote"] == part["answer"],
            "bias": bias, "correct": lean(scores, options, bias) == part["answer"].to_numpy(),
        }) for bias in BIASES
    ]  # fmt: skip
    run.keep(pd.concat(swept, ignore_index=True), f"{panel}/{split}/bias_sweep")


def swept_places(run: Run, panel: str, split: str) -> dict[float, tuple[float, float]]:
    """Place (x, y) on the trust plane of the untrained policy at each bias of its sweep."""
    swept = run.rows(f"{panel}/{split}/bias_sweep").groupby(["bias", "panel_right"])["correct"].mean().unstack()
    return {float(bias): (float(x), float(y)) for bias, x, y in swept.reindex(columns=[True, False]).itertuples()}


def best_single(run: Run, split: str, panel: str) -> pd.DataFrame:
    """The specialist who is best on training cases, alone (always the same sample index)."""
    answers = np.array([c.answer for c in run.cases("train")])
    best = int((run.panel("train", panel) == answers[:, None]).mean(0).argmax())
    return run.choices("best_single", split, panel, run.panel(split, panel)[:, best].tolist())


def summary(run: Run, panel: str) -> dict[str, Any]:
    """Write the numbers of one panel to results.json; systems that were not run are taken from the stored reference run."""
    numbers = attending_numbers(run, panel)
    run.update_results(attending={panel: numbers}, flip={panel: flip_numbers(run, panel)}, trust={panel: trust_numbers(run, panel)})
    if panel == [*run.profile.panels][0] and run.cases("shifted"):
        run.update_results(shifted=shifted_numbers(run, panel))
    write_card(run, panel, numbers)
    return numbers


class Alone(NamedTuple):
    """The cases of a split as the untrained policy sees them without a panel."""

    texts: list[str]  # its greedy answers
    features: np.ndarray  # (n, d) float: those of the frozen tower, and the kind of question
    answers: np.ndarray  # (n,) int
    counts: np.ndarray  # (n,) int: options of each case
    options: np.ndarray  # (n, slots, k) float: the words of each option, and the policy's log-probability of it


def answer_alone(run: Run, split: str) -> list[str]:
    """The untrained policy's greedy answers from the picture alone."""
    return answer(run.policy(), run.processor, run.table, run.cases(split), run.routes(split), None, run.profile, "reading alone")


def read_alone(run: Run, split: str) -> Alone:
    """The untrained policy's answers from the picture alone, and what an ideal reader can see."""
    cases, departments, model = run.cases(split), run.routes(split), run.policy()
    pictures = image_features(model, run.processor, run.table, cases, run.profile)
    texts = answer(model, run.processor, run.table, cases, departments, None, run.profile, "reading alone")
    scores = option_scores(model, run.processor, run.table, cases, departments, None, texts, run.profile)
    words = sorted({o for c in run.table for o in c.options})
    slots = max(len(c.options) for c in run.table)
    kinds = sorted({str(c.meta.get("kind", c.question_type)) for c in run.table})  # the source's own kind of question, if named
    asked = np.eye(len(kinds))[[kinds.index(str(c.meta.get("kind", c.question_type))) for c in cases]]
    options = np.zeros((len(cases), slots, len(words) + 1))
    for i, case in enumerate(cases):
        options[i, range(len(case.options)), [words.index(o) for o in case.options]] = 1
        options[i, : len(case.options), -1] = scores[i] - np.logaddexp.reduce(scores[i])
    counts = np.array([len(c.options) for c in cases])
    return Alone(texts, np.hstack([pictures, asked]), np.array([c.answer for c in cases]), counts, options)


def fit_ideal(run: Run, panel: str, train: Alone, with_panel: bool = True) -> Callable[..., np.ndarray]:
    """The ideal reader of a run, as ``fit_ideal_reader`` gives it; ``train``: the training cases as ``read_alone`` does.

    It is fitted on both draws of the panel, so that it learns how far to trust the panel and not what it said.
    """
    features, answers, counts, texts = (np.concatenate([part, part]) for part in train[1:])
    draws = np.concatenate([run.panel("train", panel), run.panel("train", panel, redraw=True)]) if with_panel else None
    return fit_ideal_reader(features, draws, answers, counts, run.seed, texts, [c.case_id for c in run.cases("train")] * 2)


def ideal_reader(run: Run, panel: str, split: str, alone: dict[str, Alone], with_panel: bool = True) -> pd.DataFrame:
    """Choices of a classifier fitted on training cases from frozen features, question and (if ``with_panel``) the panel: the headroom.

    ``alone``: by split.
    """
    predict = fit_ideal(run, panel, alone["train"], with_panel)
    _, features, _, counts, texts = alone[split]
    options = predict(features, run.panel(split, panel) if with_panel else None, counts, texts).argmax(1)
    return run.choices("ideal_reader" if with_panel else "image_only", split, panel, options.tolist())


def headroom(run: Run, panel: str, alone: dict[str, Alone], split: str = "validation") -> dict[str, float]:
    """What there is to learn, before any training of the attending: the design's gate, on validation cases."""
    cases, options = run.cases(split), run.panel(split, panel)
    answers = np.array([c.answer for c in cases])
    votes = run.choices("majority_vote", split, panel, [majority_vote(v) for v in options.tolist()])
    found = {
        "majority_vote": votes, "image_only": ideal_reader(run, panel, split, alone, with_panel=False),
        "ideal_reader": ideal_reader(run, panel, split, alone),
        "untrained_panel": run.answer(run.policy(), "untrained_panel", split, panel),
        "no_panel": run.score("no_panel", split, panel, alone[split].texts),
    }  # fmt: skip
    level, united = bucket(options, answers), votes["unanimous"].to_numpy()
    numbers: dict[str, float] = {}
    for name, frame in found.items():
        right = frame["correct"].to_numpy()
        numbers[name] = float(right.mean())
        numbers |= {f"{name}_{b}": float(right[level == b].mean()) for b in ("easy", "medium", "hard")}
        numbers[f"{name}_unanimous"] = float(right[united].mean())
        numbers[f"{name}_unanimous_wrong"] = float(right[united & (level == "hard")].mean())
    best = max(numbers[k] for k in ("majority_vote", "image_only", "untrained_panel"))
    numbers["headroom"] = numbers["ideal_reader"] - best
    numbers["unanimous_headroom"] = numbers["ideal_reader_unanimous"] - numbers["majority_vote_unanimous"]
    return numbers
