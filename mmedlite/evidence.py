"""What the worlds of ``figures/analysis_plan.md`` say: the primary contrasts with their tests, and what is exploratory.

A world is one file, ``figures/data/worlds/<seed>.parquet`` (``figures.worlds`` writes it): a row a panel and test case, with the case's facts
and, a column a system, what was answered. Everything here is counted from these texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mmedlite.answers import parse_strict
from mmedlite.curriculum import BUCKETS
from mmedlite.evaluation import accuracy, paired_difference, wilson
from mmedlite.inference import holm, over_worlds, sign_flip, smallest_detectable
from mmedlite.profiles import ROOT, load_profile

PLAN, DATA = ROOT / "figures" / "analysis_plan.md", ROOT / "figures" / "data"
WORLDS, EXPLORED, REDRAWN = 10, 3, 3
WORLD_TESTED = 1600  # test cases of a world
ARMS = [*(("printed", c) for c in ("as_is", "shuffled", "hard_out", "hard_rehearsed", "entropy_off", "kl_off")), ("recommended", "as_is")]
EXPLORATORY = [("printed", "reversed"), *(("recommended", c) for c in ("shuffled", "hard_out", "entropy_off", "kl_off"))]
UNTRAINED = ("majority_vote", "untrained_panel", "no_panel", "three_weights")
# contrast: (arm, the arm it is compared with, sign of the paper's direction)
PRIMARY = {
    "order at equal data": ("printed_as_is", "printed_shuffled", 1), "hard cases in": ("printed_as_is", "printed_hard_out", 1),
    "hard cases rehearsed": ("printed_hard_rehearsed", "printed_as_is", 0), "entropy term": ("printed_as_is", "printed_entropy_off", 1),
    "KL term": ("printed_as_is", "printed_kl_off", 1),
}  # fmt: skip
RECOMMENDED = "recommended_as_is"
SUBSETS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "yes/no questions": lambda f: f["question_type"] == "yes_no", "four options": lambda f: f["question_type"] == "choice",
    "unanimous panels": lambda f: f["unanimous"], "unanimous and wrong": lambda f: f["unanimous"] & (f["panel_vote"] != f["answer"]),
    "easy": lambda f: f["difficulty"] == "easy", "medium": lambda f: f["difficulty"] == "medium", "hard": lambda f: f["difficulty"] == "hard",
}  # fmt: skip


def systems_of(frame: pd.DataFrame) -> list[str]:
    """The columns of a wide table that hold answers: those behind ``options``."""
    return list(frame.columns[frame.columns.get_loc("options") + 1 :])


def read_options(file: Path) -> pd.DataFrame:
    """The rows of a wide table with, a column a system, the option it chose (-1: none): texts are parsed again, strictly."""
    frame = pd.read_parquet(file)
    options, read = [tuple(json.loads(o)) for o in frame["options"]], cache(parse_strict)  # most answers are the same few
    for name in systems_of(frame):
        said = frame[name].tolist()
        picks = all(s.removeprefix("-").isdigit() for s in said)  # a system that writes no text
        chosen = [int(s) if picks else read(s, o).option for s, o in zip(said, options, strict=True)]
        frame[name] = np.array([-1 if c is None else c for c in chosen])
    return frame


def read_wide(file: Path) -> pd.DataFrame:
    """The rows of a wide table with, a column a system, whether it was right."""
    frame = read_options(file)
    right = frame.assign(**{name: frame[name] == frame["answer"] for name in systems_of(frame)})
    right.attrs = frame.attrs
    return right


def compare(worlds: Mapping[int, pd.DataFrame], arm: str, rival: str) -> dict[str, Any]:
    """Difference of two systems over the worlds that have both."""
    both = {seed: f for seed, f in worlds.items() if arm in f and rival in f}
    found = over_worlds([f[arm].to_numpy(float) - f[rival].to_numpy(float) for f in both.values()])
    return {**found, "accuracy": float(np.mean([f[arm].mean() for f in both.values()])),
            "rival": float(np.mean([f[rival].mean() for f in both.values()])), "seeds": list(both)}  # fmt: skip


def primary(worlds: Mapping[int, pd.DataFrame], panels: list[str]) -> dict[str, dict[str, Any]]:
    """Every primary contrast on every panel, with the exact p, Holm's over all of them, and the verdict of the plan."""
    found = {}
    for panel in panels:
        of_panel = {seed: f[f["panel"] == panel] for seed, f in worlds.items()}
        for name, (arm, rival, _) in PRIMARY.items():
            found[f"{name}, {panel}"] = compare(of_panel, arm, rival)
    for row in found.values():
        row["p"] = sign_flip(row["worlds"])
    for (name, row), p in zip(found.items(), holm([row["p"] for row in found.values()]), strict=True):
        sign = PRIMARY[name.rsplit(", ", 1)[0]][2]
        detectable = smallest_detectable(row["sd"], len(row["worlds"]), 0.05 / len(found))  # at Holm's first step
        row |= {"p_holm": float(p), "detectable": detectable, "verdict": "not seen"}
        if p < 0.05:
            row["verdict"] = "seen" if sign == 0 or sign * row["mean"] > 0 else "opposite seen"
    return found


def recipe_sha256() -> str:
    """Hash of the plan and of what it calls the printed and the recommended recipe, with the settings of their updates."""
    profile = load_profile("tiny")
    recipes = {name: asdict(part) for name, part in (("attending", profile.attending), ("grpo", profile.grpo), ("lora", profile.lora))}
    return hashlib.sha256(PLAN.read_bytes() + json.dumps(recipes, sort_keys=True).encode()).hexdigest()


def world_seeds(first: int = 0, count: int = WORLDS) -> list[int]:
    """The seeds of the worlds, from the committed plan and recipes; clinic 0 is none of them. After the ten come those with other models."""
    named = [f"{recipe_sha256()} world {i}" for i in range(first, first + count)]
    return [1 + int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 1_000_000 for name in named]


def read_worlds(folder: Path, seeds: list[int]) -> dict[int, pd.DataFrame]:
    """The worlds that are there, by seed."""
    files = {seed: folder / f"{seed}.parquet" for seed in seeds}
    return {seed: read_wide(file) for seed, file in files.items() if file.exists()}


def count(data: Path = DATA) -> dict[str, Any]:
    """Everything that is told of the worlds, from their files; {} where there is none yet."""
    worlds = read_worlds(data / "worlds", world_seeds())
    redrawn = read_worlds(data / "redrawn", world_seeds(WORLDS, REDRAWN))
    if not worlds:
        return {}
    seeds = list(worlds)
    panels = sorted(worlds[seeds[0]]["panel"].unique())
    trained = sorted({c for f in worlds.values() for c in f.columns if c.startswith(("printed_", "recommended_"))})
    split = {f"{name}, {panel}": {seed: f[(f["panel"] == panel) & keep(f)] for seed, f in worlds.items()}
             for panel in panels for name, keep in {"all": lambda f: f["answer"] >= 0, **SUBSETS}.items()}  # fmt: skip
    contrasts = primary(worlds, panels)
    if len(worlds) < WORLDS:  # the plan looks once, at all of them
        contrasts = {name: {**row, "verdict": "open"} for name, row in contrasts.items()}
    return {
        "worlds": seeds, "planned": WORLDS, "plan": recipe_sha256(), "primary": contrasts,
        "accuracy": {name: {a: float(np.mean([f[a].mean() for f in parts.values() if a in f])) for a in (*UNTRAINED, *trained)}
                     for name, parts in split.items()},
        "by kind": {f"{contrast}, {name}": compare(parts, arm, rival)
                    for name, parts in split.items() if not name.startswith("all") for contrast, (arm, rival, _) in PRIMARY.items()},
        "recommended": {f"against {rival}, {panel}": compare(split[f"all, {panel}"], RECOMMENDED, rival)
                        for panel in panels for rival in (*UNTRAINED, "printed_as_is")},
        "redrawn": {f"{contrast}, {panel}": compare({seed: f[f["panel"] == panel] for seed, f in redrawn.items()}, arm, rival)
                    for panel in panels for contrast, (arm, rival, _) in PRIMARY.items() if redrawn},
        "exploratory": {f"{a} against {a.split('_')[0]}_as_is, {panel}": compare(split[f"all, {panel}"], a, f"{a.split('_')[0]}_as_is")
                        for panel in panels for a in trained if tuple(a.split("_", 1)) not in ARMS},
    }  # fmt: skip


def rivals(data: Path = DATA) -> dict[str, Any]:
    """Every system of ``rivals.parquet`` (of ``figures.rivals``) on the test cases of clinic 0, and the trained policy against it.

    {panel: {system: accuracy (mean, ci, n), difference (trained minus it; paired bootstrap over images), p (exact McNemar), p_holm}};
    {} where there is no such file.
    """
    file = data / "rivals.parquet"
    found: dict[str, Any] = {}
    for panel, frame in read_wide(file).groupby("panel") if file.exists() else ():
        trained, rows = frame["trained"].to_numpy(bool), dict[str, Any]()
        for name in systems_of(frame):
            other = frame[name].to_numpy(bool)
            better, worse = int((trained & ~other).sum()), int((~trained & other).sum())
            rows[name] = {
                **accuracy(frame.assign(correct=other)), "difference": paired_difference(trained, other, frame["case_id"]),
                "p": float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
            }  # fmt: skip
        others = [row for name, row in rows.items() if name != "trained"]
        for row, p in zip(others, holm([r["p"] for r in others]), strict=True):
            row["p_holm"] = float(p)
        found[str(panel)] = rows
    return found


def controls(data: Path = DATA) -> dict[str, Any]:
    """The arms of ``controls.parquet`` (of ``figures.controls``): {panel: {arm: ...}} and "wrong_labels"; {} where there is no such file.

    Of each arm: accuracy (mean, ci, n), "rises" (it minus the untrained policy), "against" its unchanged recipe, both paired, and its
    accuracy where the panel is unanimous and right ("x") and unanimous and wrong ("y").
    """
    file = data / "controls.parquet"
    if not file.exists():
        return {}
    frame = read_wide(file)
    found: dict[str, Any] = {"wrong_labels": frame.attrs["wrong_labels"]}
    for panel, part in frame.groupby("panel"):
        united, right = part["unanimous"], part["panel_vote"] == part["answer"]
        found[str(panel)] = {
            name: {
                **accuracy(part.assign(correct=part[name])),
                "rises": paired_difference(part[name], part["untrained_panel"], part["case_id"]),
                "against": paired_difference(part[name], part[base_of(name)], part["case_id"]),
                "x": float(part[name][united & right].mean()), "y": float(part[name][united & ~right].mean()),
            } for name in systems_of(part)
        }  # fmt: skip
    return found


def base_of(arm: str) -> str:
    """The unchanged recipe of an arm."""
    return "paper_schedule" if arm.startswith(("hard_", "labels_", "paper_", "kl_")) else "trained"


# comparison of the paper's tables: (wide table, system, its rival, cases)
TABLES = {
    "trained routing over zero-shot": ("tables", "trained", "route_zero_shot", "all"),
    "trained routing over random": ("tables", "trained", "route_random", "all"),
    "zero-shot routing over random": ("tables", "route_zero_shot", "route_random", "all"),
    "all wrong, training": ("rivals", "trained", "untrained_panel", "hard"), "all wrong, SFT": ("rivals", "trained", "sft", "hard"),
    "all wrong, experts": ("rivals", "untrained_panel", "no_panel", "hard"), "all wrong, base": ("rivals", "trained", "no_panel", "hard"),
    "updates by turns": ("tables", "simultaneous", "trained", "all"), "test-time scaling": ("tables", "scaled", "trained", "all"),
}  # fmt: skip


def differences(data: Path = DATA) -> dict[str, dict[str, Any]]:
    """The comparisons of ``TABLES`` on the test cases of clinic 0, paired by image: {comparison: {panel: {mean, low, high, n}}}; without
    those whose wide table is not there."""
    read, found = cache(read_wide), dict[str, dict[str, Any]]()
    for name, (table, system, rival, level) in TABLES.items():
        for panel, frame in read(file).groupby("panel") if (file := data / f"{table}.parquet").exists() else ():
            part = frame if level == "all" else frame[frame["difficulty"] == level]
            found.setdefault(name, {})[str(panel)] = paired_difference(part[system], part[rival], part["case_id"])
    return found


def accuracies(data: Path = DATA) -> dict[str, Any]:
    """Accuracy of every system of clinic 0 on all test cases and by difficulty, from the wide tables that are there; other triage doctors.

    {"panels": {panel: {system: {"all", "easy", "medium", "hard": {mean, ci, n}}}}, "triage": {doctor: {mean, ci, n}}, "together": {panel:
    share of cases that the policies trained apart from triage and by turns with it answer alike}}.
    """
    found: dict[str, Any] = {"panels": {}, "triage": {}, "together": {}}
    for name in ("controls", "tables", "rivals"):
        file = data / f"{name}.parquet"
        frame = read_wide(file) if file.exists() else pd.DataFrame({"panel": []})
        if "simultaneous" in frame:
            texts = pd.read_parquet(file, columns=["panel", "trained", "simultaneous"])
            same = (texts["trained"] == texts["simultaneous"]).groupby(texts["panel"]).mean()
            found["together"] = {str(panel): float(share) for panel, share in same.items()}
        for doctor, told in frame.attrs.get("triage", {}).items():
            right, n = told["right"], told["n"]
            found["triage"][doctor] = {"mean": right / n, "ci": list(wilson(right, n)), "n": n}
        for panel, part in frame.groupby("panel"):
            kinds = {"all": part, **{level: part[part["difficulty"] == level] for level in BUCKETS}}
            of_panel = found["panels"].setdefault(str(panel), {})
            of_panel |= {s: {k: accuracy(p.assign(correct=p[s])) for k, p in kinds.items()} for s in systems_of(part)}
    return found
