"""What the paper's tables need beside the systems that are stored: test-time scaling, routing, panels of other make, triage by SFT.

``python -m figures.tables`` answers the test cases of clinic 0 with the trained policies, greedy but for the samples, and writes
``figures/data/tables.parquet``, a column a system. Trained are triage doctors by SFT and on two labels, and both doctors by turns.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from figures._wide import write_wide
from figures.artifacts import SEEDS, open_seed
from mmedlite import sft
from mmedlite.attending import answer, visited_rows
from mmedlite.curriculum import bucket, majority_vote, visits
from mmedlite.evidence import DATA
from mmedlite.grpo import train
from mmedlite.models import merged
from mmedlite.pipeline import routed
from mmedlite.profiles import DEPARTMENTS
from mmedlite.prompts import triage_prompt
from mmedlite.rewards import accuracy_reward, format_reward
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side
from mmedlite.simulated import SimulatedSpecialists
from mmedlite.specialists import panel_options
from mmedlite.store import OpinionStore
from mmedlite.triage import route, train_triage
from mmedlite.verify import sha256

OUT = DATA / "tables.parquet"
TWO = ("Radiologist", "Pathologist")  # the only labels of the paper's training sets
SAMPLES = 5  # of test-time scaling; the paper does not print its number
STRENGTH = {"strong": 0.9, "medium": 0.72, "weak": 0.55}  # accuracy of a simulated specialist
MIXES = ("strong", "medium", "weak", "strong+strong+weak", "strong+weak+weak")


def read(run: Run, panel: str, name: str, sent: Sequence[str], said: np.ndarray | None, temperature: float = 0.0, seed: int = 0) -> list[str]:
    """The trained policy's answers to the test cases, sent to these departments and shown this panel."""
    policy = merged(run.policy(f"{panel}/{run.profile.attending.recipe[-1].name}"))
    return answer(policy, run.processor, run.table, run.cases("test"), sent, said, run.profile, name, temperature, seed)


def scaled(run: Run, panel: str) -> None:
    """Majority of sampled answers (T = 1) of the trained policy."""
    draws = [read(run, panel, "sampling", run.routes("test"), run.panel("test", panel), 1.0, 1000 * k) for k in range(SAMPLES)]
    options = np.stack([run.score("scaled", "test", panel, texts)["option"] for texts in draws], 1)
    run.keep(run.choices("scaled", "test", panel, [majority_vote(v) for v in options.tolist()]), f"{panel}/test/scaled")


def alone(run: Run, panel: str) -> None:
    """The trained policy without any specialists."""
    run.keep(run.score("alone", "test", panel, read(run, panel, "alone", run.routes("test"), None)), f"{panel}/test/alone")


def elsewhere(name: str, choose: Callable[[Run], list[str]]) -> Callable[[Run, str], None]:
    """The trained policy where the cases are sent by another rule; the specialists there are asked."""

    def step(run: Run, panel: str) -> None:
        sent = choose(run)
        said = run.panel_for(run.cases("test"), sent, panel)
        run.keep(run.score(name, "test", panel, read(run, panel, name, sent, said)), f"{panel}/test/{name}")

    return step


def zero_shot(run: Run) -> list[str]:
    """The untrained triage doctor's departments; Radiologist where it names none, as always."""
    rows = run.rows("triage")
    base = rows[rows["system"] == "base"].set_index("case_id")["department"]
    return [base[c.case_id] or "Radiologist" for c in run.cases("test")]


def at_random(run: Run) -> list[str]:
    """Any department, drawn."""
    return [DEPARTMENTS[i] for i in np.random.default_rng(4).integers(0, len(DEPARTMENTS), len(run.cases("test")))]


def fewer(count: int) -> Callable[[Run, str], None]:
    """The trained policy with that many of the panel's answers; the others are shown as missing."""

    def step(run: Run, panel: str) -> None:
        said = run.panel("test", panel)
        said[:, count:] = -1
        texts = read(run, panel, f"{count} answers", run.routes("test"), said)
        run.keep(run.score(f"answers_{count}", "test", panel, texts), f"{panel}/test/answers_{count}")

    return step


def mixed(mix: str) -> Callable[[Run, str], None]:
    """The trained policy with a simulated panel (dial-a-panel, independent errors) of these strengths."""

    def step(run: Run, panel: str) -> None:
        cases, sent, kinds = run.cases("test"), run.routes("test"), mix.split("+") if "+" in mix else [mix] * 3
        said = np.empty((len(cases), 3), int)
        for kind in set(kinds):
            source = SimulatedSpecialists(["dialled"], accuracy=STRENGTH[kind], correlation=0.0)
            store = OpinionStore(run.folder / "dialled" / f"{panel}-{mix}-{kind}")
            votes, _ = panel_options(cases, sent, "dialled", run.table, store, source)
            columns = [i for i, k in enumerate(kinds) if k == kind]
            said[:, columns] = votes[:, columns]
        run.keep(run.score(f"dial_{mix}", "test", panel, read(run, panel, mix, sent, said)), f"{panel}/test/dial_{mix}")

    return step


def simultaneous(run: Run, panel: str) -> None:
    """Both doctors trained by turns: a share of the triage updates before each stage of the attending, cases sent and specialists asked
    anew after it; as many updates of each as apart (paper Table 14; how its updates are mixed is not printed)."""
    cases, test, stages, out = run.cases("train"), run.cases("test"), run.profile.attending.recipe, run.folder / "rollouts" / f"{panel}-both"
    attending, doctor, right = run.fresh(), run.fresh(), np.array([c.answer for c in cases])
    part = replace(run.profile, triage=replace(run.profile.triage, steps=run.profile.triage.steps // len(stages)))
    for turn, stage in enumerate(stages):
        train_triage(doctor, run.processor, run.table, cases, part, out / f"triage-{turn}", run.seed + turn)
        sent = [name or "Radiologist" for name in route(doctor, run.processor, run.table, cases, part)]
        said = run.panel_for(cases, sent, panel)
        visited = visits(stage, bucket(said, right), part.grpo.prompts_per_step, run.seed)
        rows = visited_rows(run.table, cases, sent, said, visited)
        train(attending, run.processor, rows, part.grpo, out, {"stage": stage.name}, run.seed)
    sent = [name or "Radiologist" for name in route(doctor, run.processor, run.table, test, part)]
    policy, said = merged(attending), run.panel_for(test, sent, panel)
    texts = answer(policy, run.processor, run.table, test, sent, said, part, "simultaneous")
    run.keep(run.score("simultaneous", "test", panel, texts), f"{panel}/test/simultaneous")
    shutil.rmtree(out)


STEPS: dict[str, Callable[[Run, str], None]] = {
    "scaled": scaled, "alone": alone, "route_random": elsewhere("route_random", at_random),
    "route_zero_shot": elsewhere("route_zero_shot", zero_shot),
    "simultaneous": simultaneous, "answers_1": fewer(1), "answers_2": fewer(2), **{f"dial_{mix}": mixed(mix) for mix in MIXES},
}  # fmt: skip


def missing(run: Run, name: str) -> None:
    """One step of one panel ("panel/step"), unless its rows are there."""
    panel, step = name.split("/")
    if not run.has_own_rows(f"{panel}/test/{step}"):
        STEPS[step](run, panel)


def triage_sft(run: Run) -> None:
    """Triage by SFT on the right department, as many updates as GRPO has; its routes of the test cases are kept."""
    if run.has_own_rows("triage_sft"):
        return
    train, test = [c for c in run.cases("train") if c.specialty], run.cases("test")
    gold = [f"<think>{c.modality}</think><answer>{c.specialty}</answer>" for c in train]
    model, settings = run.fresh(), run.profile.triage
    batch = run.profile.grpo.prompts_per_step * run.profile.grpo.generations // 2
    sft.train(model, run.processor, lambda i: run.table.open_image(train[i]), [triage_prompt()] * len(train), gold, settings.steps, batch,
              run.seed, settings.learning_rate)  # fmt: skip
    sent = route(merged(model), run.processor, run.table, test, run.profile)
    run.keep(routed("sft", test, sent), "triage_sft")


def triage_two(run: Run) -> None:
    """Triage by GRPO on the two labels that the paper's training sets give, tested on all departments; its routes are kept."""
    if run.has_own_rows("triage_two"):
        return
    cases, test, model = [c for c in run.cases("train") if c.specialty in TWO], run.cases("test"), run.fresh()
    out = run.folder / "rollouts" / "triage_two"
    train_triage(model, run.processor, run.table, cases, run.profile, out, run.seed, (format_reward, accuracy_reward))
    sent = route(merged(model), run.processor, run.table, test, run.profile)
    run.keep(routed("two_labels", test, sent), "triage_two")


def shares(run: Run) -> dict[str, dict[str, int]]:
    """How many test cases each triage doctor sends right, of all and of the five departments that two labels leave out."""
    specialty = {c.case_id: c.specialty for c in run.cases("test")}
    found = {}
    for name in ("triage_sft", "triage_two"):
        rows = run.rows(name)
        unseen = rows[~rows["case_id"].map(specialty).isin(TWO)]
        for title, part in ((name, rows), (f"{name}, other departments", unseen)):
            found[title] = {"right": int(part["correct"].sum()), "n": len(part)}
    return found


def main() -> None:
    """Answer what is missing, then write the table."""
    run = open_seed(SEEDS[0])
    triage_sft(run)
    triage_two(run)
    for panel in run.profile.panels:  # asked by one process before the others begin
        for choose in (at_random, zero_shot):
            run.panel_for(run.cases("test"), choose(run), panel)
    side_by_side(run, [(missing, f"{panel}/{step}") for step in STEPS for panel in run.profile.panels])
    write_wide(run, ("trained", "untrained_panel", *STEPS), OUT, sha256(Path(__file__)), triage=shares(run))


if __name__ == "__main__":
    main()
