"""Triage on real pictures: the tiny policy learns to name the modality, five folds by picture; numbers only are stored.

``python -m figures.real_triage --cases TABLE`` (a table of ``data_prep image_folder``). In each fold the policy is warmed up on the
training pictures (supervised, classes drawn evenly), then trained with GRPO on the same pictures; the held-out fold is answered
greedily. Without ``--cases`` there is nothing to do: the pictures are not part of the kit.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.image_folder import MODALITY_QUESTION
from mmedlite import attending, grpo, sft
from mmedlite.answers import parse_strict
from mmedlite.cases import Case
from mmedlite.evaluation import fit_colour_histogram, macro_recall
from mmedlite.models import new_adapter
from mmedlite.profiles import ROOT
from mmedlite.prompts import attending_prompt
from mmedlite.run import Run

OUT = ROOT / "figures" / "data" / "real_triage.json"
FOLDS, MIN_COUNT = 5, 20
WARM_STEPS, WARM_BATCH, WARM_RATE = 200, 32, 1e-3
GRPO_STEPS, GRPO_RATE = 20, 3e-4
GAMMA, BETA = 1e-4, 1e-3  # the paper's for the easy stage


def one_question(cases: Sequence[Case]) -> list[Case]:
    """One case a distinct picture, of the modalities with at least ``MIN_COUNT`` pictures: which modality is it?"""
    labels: dict[str, set[str]] = {}
    for case in cases:
        labels.setdefault(case.image_sha256s[0], set()).add(case.modality)
    pictures = {sha: c for c in cases if c.modality and len(labels[sha := c.image_sha256s[0]]) == 1}  # of two labels, neither
    names, counts = np.unique([c.modality for c in pictures.values()], return_counts=True)
    kept = tuple(names[counts >= MIN_COUNT].tolist())
    chosen = [c for c in pictures.values() if c.modality in kept]
    return [replace(c, question=MODALITY_QUESTION, options=kept, answer=kept.index(c.modality)) for c in chosen]


def folds_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each picture, 0 to ``FOLDS`` - 1, each modality spread evenly: (n,) int."""
    rng, fold = np.random.default_rng([seed, 7]), np.zeros(len(labels), int)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        fold[members] = (np.arange(len(members)) + rng.integers(FOLDS)) % FOLDS
    return fold


def read(run: Run, model: Any, cases: Sequence[Case]) -> np.ndarray:
    """Greedy answer of the policy to each case, -1 for none: (n,) int."""
    texts = attending.answer(model, run.processor, run.table, cases, ["" for _ in cases], None, run.profile, "naming modalities")
    found = [parse_strict(t, c.options).option for t, c in zip(texts, cases, strict=True)]
    return np.array([-1 if o is None else o for o in found])


def learn(run: Run, cases: Sequence[Case], out: Path) -> Any:
    """The policy after warm start and GRPO on ``cases``; classes are drawn evenly in both.

    The warm start trains the whole language model: most names of modalities have tokens that the tiny policy has never used.
    """
    model, labels = run.policy(), np.array([c.answer for c in cases])
    rng = np.random.default_rng([run.seed, 8])
    most = np.bincount(labels).max()
    even = np.concatenate([rng.choice(np.flatnonzero(labels == k), most) for k in np.unique(labels)])
    chosen = [cases[int(i)] for i in rng.permutation(even)]
    gold = [f"<think></think><answer>{c.answer_text}</answer>" for c in chosen]
    prompts = [attending_prompt(c) for c in chosen]
    sft.train(model, run.processor, lambda i: run.table.open_image(chosen[i]), prompts, gold, WARM_STEPS, WARM_BATCH, run.seed, WARM_RATE)
    model = new_adapter(model, run.profile.lora)
    n = GRPO_STEPS * run.profile.grpo.prompts_per_step
    part = [chosen[int(i)] for i in rng.permutation(len(chosen))[:n]]
    rows = grpo.picture_rows(
        [run.table.open_image(c) for c in part], [attending_prompt(c) for c in part], [c.options for c in part],
        [c.answer for c in part], [c.case_id for c in part], [GAMMA] * len(part), [BETA] * len(part),
    )  # fmt: skip
    grpo.train(model, run.processor, rows, run.profile.grpo, out, {"stage": "modality"}, run.seed, learning_rate=GRPO_RATE)
    return model


def recall_interval(labels: np.ndarray, said: np.ndarray, seed: int) -> list[float]:
    """95 % bootstrap interval of the macro recall; pictures are drawn within their modality."""
    rng = np.random.default_rng([seed, 9])
    hits = [said[labels == k] == k for k in np.unique(labels)]
    drawn = [np.mean([rng.choice(h, len(h)).mean() for h in hits]) for _ in range(2000)]
    return [float(q) for q in np.quantile(drawn, (0.025, 0.975))]


def measure(run: Run, folds: int = FOLDS) -> dict[str, Any]:
    """Macro recall over the held-out pictures of the first ``folds`` folds, trained beside untrained, histogram and largest class."""
    cases = one_question(list(run.table))
    labels = np.array([c.answer for c in cases])
    fold = folds_of(labels, run.seed)
    held = np.flatnonzero(fold < folds)
    said = {name: np.full(len(cases), -1) for name in ("base", "trained", "histogram", "majority")}
    said["base"] = read(run, run.policy(), cases)
    for k in range(folds):
        train, test = [cases[i] for i in np.flatnonzero(fold != k)], [cases[i] for i in np.flatnonzero(fold == k)]
        said["trained"][fold == k] = read(run, learn(run, train, run.folder / f"fold-{k}"), test)
        predict = fit_colour_histogram((run.table.open_image(c) for c in train), [c.answer for c in train])
        said["histogram"][fold == k] = predict(run.table.open_image(c) for c in test)
        said["majority"][fold == k] = np.bincount([c.answer for c in train]).argmax()
        right = np.mean(said["trained"][fold == k] == labels[fold == k])
        print(f"fold {k + 1} of {folds}: {right:.3f} of {len(test)} held-out pictures right", flush=True)
    names = cases[0].options
    recall = {name: macro_recall(labels[held].tolist(), answers[held].tolist(), min_count=1) for name, answers in said.items()}
    by_class = {names[k]: float(np.mean(said["trained"][held][labels[held] == k] == k)) for k in np.unique(labels[held])}
    return {
        **recall, "trained_ci": recall_interval(labels[held], said["trained"][held], run.seed),
        "majority_rate": float(np.bincount(labels).max() / len(labels)), "n": len(held), "folds": folds,
        "pictures": {names[k]: int((labels == k).sum()) for k in range(len(names))}, "recall": by_class,
        "warm_start": {"steps": WARM_STEPS, "batch": WARM_BATCH, "learning_rate": WARM_RATE},
        "grpo": {"steps": GRPO_STEPS, "learning_rate": GRPO_RATE}, **run.facts,
    }  # fmt: skip


def main() -> None:
    """Measure and store; nothing is stored without a table of real pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help="case table of real pictures, from `python -m data_prep image_folder`")
    args = parser.parse_args()
    if not args.cases:
        print("real_triage: no --cases TABLE given, the stored numbers are left as they are")
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Run(folder, cases=args.cases))
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
