"""A whole run at the shape of Qwen2.5-VL-3B or 7B with random weights on one GPU: seconds an update and peak memory of each stage.

``python -m figures.gpu_stages --shape 3b --cases TABLE`` takes the profile of that size with a few updates a stage, simulated specialists in
place of hosted ones, and a table of real pictures (``data_prep``). Random weights learn nothing, and their completions have full length:
time and memory are what is measured. ``--shape tiny`` goes the same way with the shipped policy, on any machine, and stores nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from figures._clock import made_from, now
from figures._shapes import SHAPES, random_policy, random_processor
from mmedlite import attending, triage
from mmedlite.cases import CaseTable, TableWriter, read_table
from mmedlite.demo import GIB
from mmedlite.evidence import DATA
from mmedlite.pipeline import evaluation_step, panel_step, train_recipe, triage_step
from mmedlite.profiles import ROOT
from mmedlite.run import Run

FEW = {"train": 256, "validation": 64, "test": 32}  # cases that are taken of the table
SIMULATED = "[simulated]\naccuracy = 0.7\ncorrelation = 0.4\ncorrupted = 0.0\n\n"


def profile_text(shape: str, policy: Path, steps: int) -> str:
    """The profile of that size (``tiny``: the shipped one) with so many updates a stage and a simulated panel."""
    text = (ROOT / "mmedlite" / "profiles" / f"{'tiny' if shape == 'tiny' else f'gpu-{shape}'}.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^\[endpoint\].*?(?=^\[lora\])", "", text)
    text = re.sub(r"(?ms)^\[panels\].*?(?=^\[)", f'[panels]\ndiverse = ["simulated", "simulated", "simulated"]\n\n{SIMULATED}', text)
    text = re.sub(r"(?m)^policy = .*", f'policy = "{policy.as_posix()}"', text)
    return re.sub(r"(?m)^steps = [1-9]\d*", f"steps = {steps}", text)


def few(table: CaseTable, out: Path) -> None:
    """Write ``FEW`` cases of each split, evenly spread, as a table of their own, with the attending's picture alone."""
    with TableWriter(out) as writer:
        for split, count in FEW.items():
            cases = table.split(split)
            for case in cases[:: max(1, len(cases) // count)][:count]:  # from all of its sources
                path, sha = writer.add_image(table.open_image(case))
                writer.add(replace(case, images=(path,), image_sha256s=(sha,)))


@contextmanager
def measured(into: list[dict[str, Any]]) -> Iterator[None]:
    """Note what each training takes: stage, updates, seconds an update with its generation, peak memory in GiB."""

    def clocked(train: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            began = start()
            log = train(*args)
            into.append({"stage": args[5]["stage"], "n": len(log), "seconds": (now() - began) / len(log), "peak_gib": peak()})
            return log

        return run

    with patch.object(triage, "train", clocked(triage.train)), patch.object(attending, "train", clocked(attending.train)):
        yield


def start() -> float:
    """The clock, with the peak of memory set to nothing."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return now()


def peak() -> float | None:
    """The largest allocation on the GPU since ``start``, GiB."""
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None


def main() -> None:
    """Measure, store with provenance, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("tiny", *SHAPES), required=True)
    parser.add_argument("--cases", required=True, help="a case table of real pictures")
    parser.add_argument("--steps", type=int, default=3, help="updates a stage (default 3)")
    args = parser.parse_args()
    if args.shape != "tiny" and not torch.cuda.is_available():
        parser.error("this shape needs a GPU: run it on a machine with one, or take tiny")
    stages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        policy = ROOT / "artifacts" / "policy"
        if args.shape != "tiny":
            processor, policy = random_processor(), Path(place) / "policy"
            random_policy(args.shape, processor).save_pretrained(policy)
            processor.save_pretrained(policy)
        (file := Path(place) / "profile.toml").write_text(profile_text(args.shape, policy, args.steps), encoding="utf-8")
        few(read_table(args.cases, check_images=False), Path(place) / "cases")
        run = Run(Path(place) / "run", str(file), Path(place) / "cases")
        with measured(stages):
            triage_step(run)
            panel_step(run)
            train_recipe(run, "diverse")  # in this process, whose clock and memory are read
        began = start()
        evaluation_step(run)
        stages.append({"stage": "evaluation", "n": 1, "seconds": now() - began, "peak_gib": peak()})
        grpo = run.profile.grpo
    found = {"cases": {split: len(run.cases(split)) for split in FEW}, "prompts": grpo.prompts_per_step, "rollouts": grpo.generations,
             "tokens": grpo.max_new_tokens, "stages": stages}  # fmt: skip
    for row in stages:
        memory = f", {row['peak_gib']:.1f} GiB" if row["peak_gib"] else ""
        print(f"{row['stage']}: {row['seconds']:.2f} s{memory} (n {row['n']})")
    if args.shape != "tiny":
        (DATA / f"gpu_stages_{args.shape}.json").write_text(json.dumps({**found, "made_from": made_from()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
