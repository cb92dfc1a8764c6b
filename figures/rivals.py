"""The baselines that the paper leaves out, from the same stored answers and the same training cases of clinic 0 (one, SFT with reasoning,
is told the truth about each training picture besides).

Readers that train no policy choose an option from stored answers; trained rivals get the recommended recipe's number of updates, and one
SFT its CPU time.
``python -m figures.rivals`` runs what is missing beside the reference run of ``make artifacts`` and writes every system's answers to the test
cases, a column each, to ``figures/data/rivals.parquet``.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from data_prep.tiny_examples import reading
from figures._wide import add_columns, write_wide
from figures.artifacts import SEEDS, open_seed
from mmedlite import attending, sft
from mmedlite.attending import lean, option_scores, prompt_of
from mmedlite.baselines import any_correct, fit_three_weights, reliability_weights, three_weights, weighted_vote
from mmedlite.curriculum import BUCKETS, majority_vote
from mmedlite.evidence import DATA
from mmedlite.models import merged
from mmedlite.pipeline import BIASES, answer_alone
from mmedlite.profiles import Stage
from mmedlite.rewards import reward_parts
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side
from mmedlite.verify import sha256

OUT = DATA / "rivals.parquet"
CALLS = 5  # of the method itself: triage, three specialists, the attending


def answers_of(run: Run, split: str) -> np.ndarray:
    """The right options of a split: (n,) int."""
    return np.array([c.answer for c in run.cases(split)])


def read_options(run: Run, split: str, panel: np.ndarray | None, texts: Sequence[str]) -> list[np.ndarray]:
    """The untrained policy's log-probability of each option after its own reasoning."""
    return option_scores(run.policy(), run.processor, run.table, run.cases(split), run.routes(split), panel, texts, run.profile)


def readers(run: Run, panel: str) -> None:
    """Votes, single specialists, the oracle, the three-weight reader, and the untrained policy with one bias towards the panel."""
    votes = {split: run.panel(split, panel) for split in ("train", "validation", "test")}
    truth = {split: answers_of(run, split) for split in votes}
    slots = max(len(c.options) for c in run.table)
    alone = {"validation": answer_alone(run, "validation"), "test": run.rows(f"{panel}/test/no_panel")["text"].tolist()}
    own = {s: read_options(run, s, None, texts) for s, texts in alone.items()}
    weights = fit_three_weights(own["validation"], votes["validation"], truth["validation"])
    with_panel = {s: run.rows(f"{panel}/{s}/untrained_panel")["text"].tolist() for s in ("validation", "test")}
    leaning = {s: read_options(run, s, votes[s], texts) for s, texts in with_panel.items()}
    bias = max(BIASES, key=lambda b: (lean(leaning["validation"], votes["validation"], b) == truth["validation"]).mean())
    counts = np.array([len(c.options) for c in run.cases("train")])
    reliable = reliability_weights(votes["train"], truth["train"], counts)
    again = run.panel("test", panel, redraw=True)
    found: dict[str, Sequence[int] | np.ndarray] = {
        **{f"specialist_{i + 1}": votes["test"][:, i] for i in range(votes["test"].shape[1])},
        "reliability_vote": weighted_vote(votes["test"], reliable, slots),
        "any_correct": any_correct(votes["test"], truth["test"]),
        "three_weights": three_weights(weights, own["test"], votes["test"]),
        "untrained_bias": lean(leaning["test"], votes["test"], bias),
        f"vote_of_{CALLS}": [majority_vote(v) for v in np.hstack([votes["test"], again])[:, :CALLS].tolist()],
    }
    for name, options in found.items():
        run.keep(run.choices(name, "test", panel, [int(o) for o in options]), f"{panel}/test/{name}")


def self_consistency(run: Run, panel: str) -> None:
    """Majority of as many sampled answers (T = 1) of the untrained policy, without the panel, as the method has calls."""
    cases, sent = run.cases("test"), run.routes("test")
    draws = []
    for seed in range(CALLS):
        texts = attending.answer(run.policy(), run.processor, run.table, cases, sent, None, run.profile, "sampling", 1.0, 1000 * seed)
        draws.append(run.score("self_consistency", "test", panel, texts)["option"])
    voted = [majority_vote(v) for v in np.stack(draws, 1).tolist()]
    run.keep(run.choices("self_consistency", "test", panel, voted), f"{panel}/test/self_consistency")


def updates(run: Run) -> int:
    """How many the recommended recipe has."""
    return sum(s.steps for s in run.profile.attending.recipe)


def fit(run: Run, panel: str, name: str, index: Sequence[int], texts: Sequence[str]) -> None:
    """SFT of a fresh adapter on texts for training cases (``index``), as many updates as the recipe has; its test answers are kept."""
    cases, sent, said = run.cases("train"), run.routes("train"), run.panel("train", panel)
    prompts, model = [prompt_of(cases[i], sent[i], said[i]) for i in index], run.fresh()
    batch, rate = run.profile.grpo.prompts_per_step * run.profile.grpo.generations // 2, run.profile.grpo.learning_rate
    sft.train(
        model, run.processor, lambda k: run.table.open_image(cases[index[k]]), prompts, texts, updates(run), batch, run.seed, rate
    )  # fmt: skip
    run.keep(run.answer(merged(model), name, "test", panel), f"{panel}/test/{name}")


def sft_reasoning(run: Run, panel: str) -> None:
    """SFT with the reasoning written out, from the clinic's own facts of each picture (an annotator, simulated)."""
    facts = [c.meta for c in run.cases("train")]
    read = [f"{reading(m['finding'], m['place'])}, {'marked' if m['marked'] else 'clear'}" for m in facts]
    texts = [f"<think>{r}</think><answer>{c.answer_text}</answer>" for r, c in zip(read, run.cases("train"), strict=True)]
    fit(run, panel, "sft_reasoning", range(len(texts)), texts)


def update_cost(run: Run, panel: str, steps: int = 20, rounds: int = 3) -> dict[str, float]:
    """CPU seconds of an update of GRPO (the recipe's last stage) and of SFT (answer only): medians of short trainings by turns."""
    given = (run.processor, run.table, run.cases("train"), run.routes("train"), run.panel("train", panel))
    stage, rate = replace(run.profile.attending.recipe[-1], steps=steps), run.profile.grpo.learning_rate
    took: dict[str, list[float]] = {"grpo": [], "sft": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            model, began = run.fresh(), time.process_time()
            attending.train_stage(model, *given, stage, run.profile, Path(place), run.seed)
            took["grpo"].append((time.process_time() - began) / steps)
        model, began = run.fresh(), time.process_time()
        attending.train_sft(model, *given, run.profile, steps, run.seed, rate)
        took["sft"].append((time.process_time() - began) / steps)
    return {name: round(median(seconds), 4) for name, seconds in took.items()}


def as_much_compute(run: Run) -> dict[str, float]:
    """The cost of both kinds of update, measured once, and how many of SFT cost what the recipe's of GRPO do."""
    if not (file := run.folder / "update_cost.json").exists():
        run.save_json(file.name, update_cost(run, next(iter(run.profile.panels))))
    cost: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return {**cost, "updates": round(updates(run) * cost["grpo"] / cost["sft"])}


def sft_compute(run: Run, panel: str) -> None:
    """SFT on the answer alone for as long as the recipe trains: more updates, since none of them samples."""
    model, steps = run.fresh(), int(as_much_compute(run)["updates"])
    attending.train_sft(model, run.processor, run.table, run.cases("train"), run.routes("train"), run.panel("train", panel), run.profile,
                        steps, run.seed, run.profile.grpo.learning_rate)  # fmt: skip
    run.keep(run.answer(merged(model), "sft_compute", "test", panel), f"{panel}/test/sft_compute")


def rejection(run: Run, panel: str) -> None:
    """Rejection-sampling fine-tuning: as many rollouts of the untrained policy a case as GRPO draws, those with full reward kept."""
    cases, sent, said = run.cases("train"), run.routes("train"), run.panel("train", panel)
    index, kept = list[int](), list[str]()
    for turn in range(run.profile.grpo.generations):
        texts = attending.answer(run.policy(), run.processor, run.table, cases, sent, said, run.profile, "rollouts", 1.0, 10_000 * turn)
        for i, (case, text) in enumerate(zip(cases, texts, strict=True)):
            parts = reward_parts(text, case.options, case.answer)
            if parts["format"] and parts["accuracy"]:
                index.append(i)
                kept.append(text)
    fit(run, panel, "rejection", index, kept)


def arms(run: Run) -> dict[str, Sequence[Stage]]:
    """GRPO with one stage: plain (no entropy term, one KL weight, so that no bucket matters), and each bucket alone with its coefficients."""
    recipe, printed = run.profile.attending.recipe, run.profile.attending.paper_schedule
    middle = printed[1].beta[0]  # the paper's KL weight of the medium stage
    plain = replace(recipe[-1], name="plain", gamma=(0.0,) * len(BUCKETS), beta=(middle,) * len(BUCKETS), steps=updates(run))
    return {"plain_grpo": (plain,), **{f"{s.name}_alone": (replace(s, steps=updates(run)),) for s in printed}}


def grpo_arm(name: str) -> Callable[[Run, str], None]:
    """The step that trains one of ``arms`` on a panel and keeps its test answers."""

    def step(run: Run, panel: str) -> None:
        model = run.train_attending(panel, arms(run)[name], f"{panel}_{name}")
        run.keep(run.answer(merged(model), name, "test", panel), f"{panel}/test/{name}")

    return step


GRPO = ("plain_grpo", "easy_alone", "medium_alone", "hard_alone")
STEPS: dict[str, Callable[[Run, str], None]] = {  # by the last rows that a step keeps
    f"vote_of_{CALLS}": readers, "self_consistency": self_consistency, "sft_reasoning": sft_reasoning, "rejection": rejection,
    "sft_compute": sft_compute,
    **{name: grpo_arm(name) for name in GRPO},
}  # fmt: skip


def missing(run: Run, name: str) -> None:
    """One step of one panel ("panel/step"), unless its rows are there."""
    panel, step = name.split("/")
    if not run.has_own_rows(f"{panel}/test/{step}"):
        STEPS[step](run, panel)


# What ``make artifacts`` has trained, and the readers and policies above.
STORED = ("trained", "untrained_panel", "no_panel", "majority_vote", "best_single", "ideal_reader", "sft", "paper_schedule", "rl_no_panel")
OURS = (
    *("specialist_1", "specialist_2", "specialist_3", "reliability_vote", f"vote_of_{CALLS}", "any_correct", "untrained_bias"),
    *("three_weights", "self_consistency", "sft_reasoning", "rejection", *GRPO),
)


def main() -> None:
    """Run what is missing, and write the table or add columns to it; a system that it has is not run again."""
    run, script = open_seed(SEEDS[0]), sha256(Path(__file__))
    there = set(pd.read_parquet(OUT).columns) if OUT.exists() else set()
    wanted = [name for name in STEPS if name not in there]
    compute = as_much_compute(run) if "sft_compute" in wanted else {}  # before two processes share the machine
    side_by_side(run, [(missing, f"{panel}/{name}") for name in wanted for panel in run.profile.panels])
    if not there:
        write_wide(run, (*STORED, *OURS), OUT, script)
    if compute:
        add_columns(run, ["sft_compute"], OUT, script, compute=compute)


if __name__ == "__main__":
    main()
