"""The experiment of ``analysis_plan.md``: arms that differ in one thing, in worlds that nobody has seen.

``python -m figures.worlds`` runs what is missing, two worlds at a time; stopped in any way, it goes on where it was. A finished world is one
file, ``figures/data/worlds/<seed>.parquet``: a row a panel and test case, with the case's facts and, an arm a column, what was answered.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_prep import phantoms
from figures._wide import add_columns, write_wide
from figures.rivals import answers_of, read_options
from mmedlite.attending import visited_rows
from mmedlite.baselines import fit_three_weights, three_weights
from mmedlite.contrasts import schedule
from mmedlite.curriculum import bucket, majority_vote
from mmedlite.evidence import ARMS, DATA, EXPLORATORY, EXPLORED, UNTRAINED, WORLDS, recipe_sha256, world_seeds
from mmedlite.grpo import train
from mmedlite.models import load_adapter, load_policy, merged
from mmedlite.pipeline import answer_alone
from mmedlite.profiles import ROOT
from mmedlite.rewards import accuracy_reward, format_reward
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side

OUT, WORK = DATA / "worlds", ROOT / "runs" / "worlds"
SIZES = {"train": 3600, "validation": 1000, "test": 1600}


def script_sha256() -> str:
    """Hash of what decides an arm beside the code that every run is stamped with."""
    files = (Path(__file__), *(ROOT / "mmedlite" / name for name in ("baselines.py", "contrasts.py")))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


SCRIPT = script_sha256()  # of the code that this process runs, whatever is written meanwhile


def open_world(seed: int) -> Run:
    """The run of a world; its clinic is drawn if it is not there."""
    table = WORK / f"{seed}-cases"
    if not (table / "card.json").exists():
        phantoms.build(table, seed, SIZES)
    return Run(WORK / str(seed), "tiny", table, seed)


def train_arm(run: Run, panel: str, recipe: str, change: str) -> None:
    """Train one arm on one panel and keep its answers to the test cases, greedy."""
    profile, cases, options = run.profile, run.cases("train"), run.panel("train", panel)
    stages = profile.attending.paper_schedule if recipe == "printed" else profile.attending.recipe
    planned = schedule(change, stages, bucket(options, answers_of(run, "train")), profile.grpo.prompts_per_step, run.seed)
    model, out, visited_so_far = run.fresh(), run.folder / "rollouts" / f"{panel}-{recipe}-{change}", hashlib.sha256(panel.encode())
    for stage, visited in zip(stages, planned, strict=True):
        visited_so_far.update(b"".join(column.tobytes() for column in visited))
        done = run.folder / "adapters" / visited_so_far.hexdigest()[:16]  # arms that begin alike share their first stages
        if done.exists():
            model = load_adapter(load_policy(profile.policy, profile.dtype), done, trainable=True)
            continue
        rows = visited_rows(run.table, cases, run.routes("train"), options, visited)
        train(model, run.processor, rows, profile.grpo, out, {"stage": stage.name}, run.seed, (format_reward, accuracy_reward))
        model.save_pretrained(part := done.with_suffix(".part"), selected_adapters=["default"])
        part.rename(done)
    name = f"{recipe}_{change}"
    run.keep(run.answer(merged(model), name, "test", panel), f"{panel}/test/{name}")
    shutil.rmtree(out, ignore_errors=True)


def untrained(run: Run, panel: str) -> None:
    """Keep what the vote, the untrained policy and the three-weight reader say of the test cases."""
    alone = {split: answer_alone(run, split) for split in ("validation", "test")}
    own = {split: read_options(run, split, None, texts) for split, texts in alone.items()}
    weights = fit_three_weights(own["validation"], run.panel("validation", panel), answers_of(run, "validation"))
    votes = run.panel("test", panel)
    run.keep(run.choices("majority_vote", "test", panel, [majority_vote(v) for v in votes.tolist()]), f"{panel}/test/majority_vote")
    run.keep(run.answer(run.policy(), "untrained_panel", "test", panel), f"{panel}/test/untrained_panel")
    run.keep(run.score("no_panel", "test", panel, alone["test"]), f"{panel}/test/no_panel")
    chosen = three_weights(weights, own["test"], votes).tolist()
    run.keep(run.choices("three_weights", "test", panel, chosen), f"{panel}/test/three_weights")


def answer_missing(run: Run, arms: Sequence[tuple[str, str]]) -> None:
    """The untrained systems and the arms (recipe, change) whose answers are not there, on every panel of the run."""
    for panel in run.profile.panels:
        if not run.has_own_rows(f"{panel}/test/three_weights"):
            untrained(run, panel)
        for recipe, change in arms:
            if not run.has_own_rows(f"{panel}/test/{recipe}_{change}"):
                train_arm(run, panel, recipe, change)


def add_arms(run: Run, arms: Sequence[tuple[str, str]], file: Path) -> None:
    """Add columns to a world's file; those that it has are neither trained again nor changed."""
    for panel in run.profile.panels:
        for recipe, change in arms:
            if not run.has_own_rows(f"{panel}/test/{recipe}_{change}"):
                train_arm(run, panel, recipe, change)
    add_columns(run, ["_".join(arm) for arm in arms], file, SCRIPT)


def world(_: Run, name: str) -> None:
    """Every missing arm of one world, into its file; name: "<seed>", or "<seed> more" with the exploratory arms."""
    seed, *more = name.split()
    arms, file = [*ARMS, *(EXPLORATORY if more else [])], OUT / f"{seed}.parquet"
    if not file.exists():
        run = open_world(int(seed))
        answer_missing(run, arms)
        write_wide(run, [*UNTRAINED, *("_".join(arm) for arm in arms)], file, SCRIPT, plan=recipe_sha256())
    elif missing := [arm for arm in arms if "_".join(arm) not in pd.read_parquet(file)]:
        add_arms(open_world(int(seed)), missing, file)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=WORLDS, help="only so many of them")
    seeds = world_seeds()[: parser.parse_args().worlds]
    print(f"worlds {', '.join(map(str, seeds))}; the plan's hash {recipe_sha256()[:12]}")
    wanted = [*(str(seed) for seed in seeds), *(f"{seed} more" for seed in seeds[:EXPLORED])]
    side_by_side(Run(WORK / "clinic-0"), [(world, name) for name in wanted])


if __name__ == "__main__":
    main()
