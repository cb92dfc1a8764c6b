"""The numbers of results.json from the rows beside them: what the pipeline writes, and what ``verify`` counts again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mmedlite.cases import CaseTable
from mmedlite.evaluation import above_curve_interval, accuracy, align, flip_rate, gap_closed, paired_difference, shares
from mmedlite.run_folder import RunFolder

LIVE = ("trained", "majority_vote", "untrained_panel", "no_panel", "ideal_reader", "best_single")
STORED = ("paper_schedule", "rl_no_panel", "sft")  # replayed from the reference run
# Baselines the trained policy has to beat (the vote, the same policy before training, training without the panel).
RIVALS = ("majority_vote", "untrained_panel", "rl_no_panel")


def difference(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, Any]:
    """Paired difference of two systems on the same cases, clustered by image."""
    left, right = align(a, b)
    return paired_difference(left["correct"], right["correct"], left["image_sha256"])


def gain_by_marker(run: RunFolder, table: CaseTable, panels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Trained minus untrained policy, paired, on pictures with and without the marker: {panel: {"marked" or "clear": difference}}."""
    marked, found = {c.case_id: c.meta["marked"] for c in table.split("test")}, dict[str, dict[str, Any]]()
    for panel in panels:
        pair = [run.rows(f"{panel}/test/{system}") for system in ("trained", "untrained_panel")]
        found[panel] = {k: difference(*(r[r["case_id"].map(marked) == (k == "marked")] for r in pair)) for k in ("marked", "clear")}
    return found


def triage_numbers(run: RunFolder) -> dict[str, Any]:
    """Share of the test cases sent to the right department: untrained, trained, colour histogram, and the stored random-reward control."""
    rows = run.rows("triage")
    found = dict(iter(rows.groupby("system")))
    if run.has_rows("triage_random_reward"):
        found["random_reward"] = run.rows("triage_random_reward")
    return {**shares(found), "n": int(rows["case_id"].nunique())}


def attending_numbers(run: RunFolder, panel: str) -> dict[str, Any]:
    """Greedy accuracy of every system on the test cases, by difficulty and on unanimous panels; gains over the rivals; the gap closed.

    "sampled" holds the accuracy at T = 1 (one sample a case) of the systems that write texts.
    """
    rows = {name: run.rows(f"{panel}/test/{name}") for name in (*LIVE, *STORED) if run.has_rows(f"{panel}/test/{name}")}
    numbers: dict[str, Any] = {"n": len(rows["trained"]), **shares(rows)}
    levels = {level: {n: f[f["difficulty"] == level] for n, f in rows.items()} for level in ("easy", "medium", "hard")}
    numbers["by_difficulty"] = {level: shares(frames) for level, frames in levels.items()}
    numbers["unanimous"] = shares({n: f[f["unanimous"]] for n, f in rows.items()})
    rivals = [r for r in RIVALS if r in rows]
    sampled = {n: f"{panel}/test_sampled/{n}" for n in rows}
    numbers["sampled"] = shares({n: run.rows(place) for n, place in sampled.items() if run.has_rows(place)})
    numbers["gains"] = {name: difference(rows["trained"], rows[name]) for name in rivals}
    numbers["unanimous_gain"] = difference(*(rows[n][rows[n]["unanimous"]] for n in ("trained", "majority_vote")))
    best = max(rivals, key=lambda r: numbers[r])
    numbers["gain"] = {"over": best, **{k: numbers["gains"][best][k] for k in ("mean", "low", "high")}}
    numbers["gap_closed"] = gap_closed(numbers["trained"], numbers[best], numbers["ideal_reader"])
    return numbers


def flip_numbers(run: RunFolder, panel: str) -> dict[str, Any]:
    """How often the trained policy contradicts a unanimous panel that is right, and one that is wrong."""
    return flip_rate(run.rows(f"{panel}/test/trained"))


def trust_numbers(run: RunFolder, panel: str) -> dict[str, Any]:
    """Place of the trained policy on the trust plane, and its height above the untrained bias curve with a paired interval."""
    swept, trained = run.rows(f"{panel}/test/bias_sweep"), run.rows(f"{panel}/test/trained")
    untrained = {float(b): part["correct"].to_numpy() for b, part in swept.groupby("bias")}
    first = swept[swept["bias"] == min(untrained, default=0.0)]
    united = trained[trained["unanimous"]]
    right, outcomes = united["panel_vote"] == united["answer"], united["correct"].to_numpy()
    found = above_curve_interval(outcomes, untrained, first["panel_right"].to_numpy(), first["image_sha256"].to_numpy())
    place = shares({"x": united[right], "y": united[~right]})
    return {**place, "above_curve": found["mean"], "low": found["low"], "high": found["high"], "n": found["n"]}


def shifted_numbers(run: RunFolder, panel: str) -> dict[str, Any]:
    """The trained policy on the shifted cases beside the better of the vote and the untrained policy: first of ``panel``, and under
    its own name the same of every other panel whose shifted cases this run answered."""
    answered = (run.folder / "results").glob("*/shifted/trained.parquet")
    others = sorted({file.parent.parent.name for file in answered} - {panel})
    return _shifted(run, panel) | {other: _shifted(run, other) for other in others}


def _shifted(run: RunFolder, panel: str) -> dict[str, Any]:
    rows = {n: run.rows(f"{panel}/shifted/{n}") for n in ("trained", "majority_vote", "untrained_panel")}
    trained = rows.pop("trained")
    best = max(rows, key=lambda n: accuracy(rows[n])["mean"])
    gain = difference(trained, rows[best])
    numbers = shares({"trained": trained, "best_baseline": rows[best]})
    return numbers | {"gain": {"over": best, **{k: gain[k] for k in ("mean", "low", "high")}}, "n": len(trained)}
