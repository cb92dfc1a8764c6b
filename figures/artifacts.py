"""``make artifacts``: rebuild everything stored, step by step; a step whose product exists is skipped, so a stop loses little.

models -> case table -> reference triage and opinions -> headroom gate -> five seeds -> replayed runs -> bands -> manifest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import nbformat
import pandas as pd
from nbclient import NotebookClient

from figures import cards, readme
from mmedlite.checks import BANDS, make_band
from mmedlite.demo import NOTEBOOKS, PatientKernelManager
from mmedlite.evaluation import wilson
from mmedlite.pipeline import attending_step, evaluation_step, summary, triage_step
from mmedlite.profiles import DEPARTMENTS, ROOT, Stage
from mmedlite.rewards import format_reward
from mmedlite.run import OPINIONS, REFERENCE, Run
from mmedlite.store import OpinionStore, request_key
from mmedlite.triage import route, routing_accuracy
from mmedlite.verify import write_manifest

SEEDS = (0, 1, 2, 3, 4)
EACH_LOOK = 40  # test cases of each look that every department is asked about
WORK = ROOT / "runs" / "artifacts"
NOISE = (str(ROOT), "Warning", "warnings.warn(")  # lines of stderr that say nothing to a reader


def random_reward(completions: list[Any], **_: Any) -> list[float]:
    """Control: a coin toss decided by the text itself. It says nothing of the right department: only which words win a coin is learned."""
    return [float(int(request_key({"text": str(c)})[:8], 16) % 2) for c in completions]


def models_and_cases() -> None:
    """Train the tiny models where they are missing, and draw the clinic."""
    if not (ROOT / "artifacts" / "specialists" / "revision.json").exists() or not (ROOT / "artifacts" / "policy").exists():
        subprocess.run([sys.executable, "-m", "data_prep", "tiny_base"], cwd=ROOT, check=True)
    if not (ROOT / "data" / "phantoms" / "cases.parquet").exists():
        subprocess.run([sys.executable, "-m", "data_prep", "phantoms"], cwd=ROOT, check=True)


def open_seed(seed: int) -> Run:
    """The run folder of a seed; emptied first where other code, settings, models or cases made what lies in it."""
    folder = WORK / f"seed-{seed}"
    made = json.loads((folder / "run.json").read_text(encoding="utf-8")) if (folder / "run.json").exists() else {}
    run = Run(folder, seed=seed)
    if {**made, **run.facts} != made:
        shutil.rmtree(folder)
        run = Run(folder, seed=seed)
    return run


def has_triage(run: Run) -> bool:
    """Has this run taken its triage step to the end?"""
    file = run.folder / "results.json"
    return file.exists() and "triage" in json.loads(file.read_text(encoding="utf-8"))


def opinions() -> None:
    """Reference triage (seed 0), then all opinions: both panels, every split; the redraw for train and validation."""
    run = open_seed(SEEDS[0])
    if not has_triage(run):
        triage_step(run)
    for split, draws in (("train", 2), ("validation", 2), ("test", 1), ("shifted", 1)):
        for panel in run.profile.panels:
            for redraw in (False, True)[:draws]:
                run.panel(split, panel, redraw)
    # What each specialist says of every look: for the card and notebook 02's consultation matrix.
    some = [c for d in DEPARTMENTS for c in [c for c in run.cases("test") if c.specialty == d][:EACH_LOOK]]
    for department in DEPARTMENTS:
        run.panel_for(some, [department] * len(some), run.profile.panels[0])
    if run.asked:
        run.store.pack(OPINIONS / "opinions.parquet")
    print(f"{len(OpinionStore(OPINIONS)):,} opinions stored")


def seed_run(seed: int) -> Run:
    """Train triage and attending with one seed. Seed 0 takes every step of the demo; the others, for the bands, train the first panel only."""
    run = open_seed(seed)
    if not has_triage(run):
        triage_step(run)
    if seed != SEEDS[0]:
        panel = run.profile.panels[0]
        if not run.has_own_rows(f"{panel}/test/trained"):
            model = run.train_attending(panel, run.profile.attending.recipe, panel)
            run.keep(run.answer(model, "trained", "test", panel), f"{panel}/test/trained")
        return run
    if not all(run.has_own_rows(f"{panel}/validation/bias_sweep") for panel in run.profile.panels):
        attending_step(run)
    if not all(run.has_own_rows(f"{panel}/test/ideal_reader") for panel in run.profile.panels):
        evaluation_step(run)
    return run


def paper_schedule(run: Run, panel: str) -> None:
    """The schedule as printed on one panel; validation rows after each stage, test rows after the last."""
    name, stages = f"{panel}_paper_schedule", run.profile.attending.paper_schedule
    if run.has_own_rows(f"{panel}/validation/paper_{stages[-1].name}"):
        return
    model = run.train_attending(panel, stages, name)
    run.keep(run.answer(model, "paper_schedule", "test", panel), f"{panel}/test/paper_schedule")
    for stage in stages:
        rows = run.answer(run.policy(f"{name}/{stage.name}"), stage.name, "validation", panel)
        run.keep(rows, f"{panel}/validation/paper_{stage.name}")


def replays(run: Run) -> None:
    """What the demo replays: the schedule as printed, RL without panel, SFT, and the controls, for seed 0."""
    profile = run.profile
    recipe, first = profile.attending.recipe, profile.panels[0]
    for panel in profile.panels:
        if not run.has_own_rows(f"{panel}/test/sft"):
            model = run.train_sft(panel, sum(s.steps for s in recipe))
            run.keep(run.answer(model, "sft", "test", panel), f"{panel}/test/sft")
        paper_schedule(run, panel)
    if not run.has_own_rows(f"{first}/test/rl_no_panel"):
        rate = profile.attending.no_panel_learning_rate
        model = run.train_attending(first, profile.attending.no_panel, "rl_no_panel", with_panel=False, learning_rate=rate)
        texts = run.answer(model, "rl_no_panel", "test", first, alone=True)["text"].tolist()
        for panel in profile.panels:
            run.keep(run.score("rl_no_panel", "test", panel, texts), f"{panel}/test/rl_no_panel")
    off = tuple(Stage(s.name, s.buckets, s.steps, tuple(0.0 for _ in s.gamma), s.beta) for s in recipe)
    controls: dict[str, tuple[Any, dict[str, Any]]] = {
        "entropy_off": (off, {}),
        "random_reward": (recipe, {"rewards": (format_reward, random_reward)}),
        "redraw": (recipe, {"redraw": True}),
    }
    for name, (stages, change) in controls.items():
        if not run.has_own_rows(f"{first}/test/{name}"):
            model = run.train_attending(first, stages, name, **change)
            run.keep(run.answer(model, name, "test", first), f"{first}/test/{name}")
    if "random_reward_ci" not in json.loads((run.folder / "results.json").read_text(encoding="utf-8"))["triage"]:
        model = run.train_triage("triage_random_reward", rewards=(format_reward, random_reward))
        routes = route(model, run.processor, run.table, run.cases("test"), profile)
        share, n = routing_accuracy(routes, run.cases("test")), len(run.cases("test"))
        run.update_results(triage={"random_reward": share, "random_reward_ci": list(wilson(round(share * n), n))})
    for panel in profile.panels:
        summary(run, panel)


def bands(runs: list[Run]) -> None:
    """Bands from the five seeds, with the untrained policy and the controls that must fall outside."""
    first = runs[0]
    zero = json.loads((first.folder / "results.json").read_text(encoding="utf-8"))
    made: dict[str, Any] = {"source": "figures/artifacts.py", "code": first.facts["code"], "config": first.facts["config_sha256"],
                            "cases_sha256": first.facts["cases_sha256"]}  # fmt: skip
    triage = {r.seed: json.loads((r.folder / "results.json").read_text(encoding="utf-8"))["triage"]["trained"] for r in runs}
    control = {"untrained": zero["triage"]["base"], "random_reward": zero["triage"]["random_reward"]}
    found = {"triage_accuracy": make_band(triage, zero["triage"]["n"], control, **made)}

    def band(name: str, panel: str, keep: Callable[[pd.DataFrame], pd.Series], *controls: str) -> None:
        rows = {r.seed: r.rows(f"{panel}/test/trained") for r in runs}
        shares = {seed: float(frame[keep(frame)]["correct"].mean()) for seed, frame in rows.items()}
        rivals = {c: first.rows(f"{panel}/test/{c}") for c in controls}
        n = int(keep(rows[first.seed]).sum())
        found[name] = make_band(shares, n, {c: float(r[keep(r)]["correct"].mean()) for c, r in rivals.items()}, **made)

    panel = first.profile.panels[0]
    band(f"attending_{panel}_trained", panel, lambda f: f["correct"].notna(), "untrained_panel", "majority_vote")
    band(f"unanimous_{panel}_trained", panel, lambda f: f["unanimous"], "untrained_panel", "majority_vote")
    BANDS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def ship(run: Run) -> None:
    """Copy what is replayed to artifacts/reference: result rows, logs, adapters, routes, results.json."""
    shutil.rmtree(REFERENCE, ignore_errors=True)
    trained = [f"adapters/{name}" for name in ("triage", *run.profile.panels)]  # of the replayed runs, rows and logs are enough
    for name in ("results", "logs", "routes", *trained):
        shutil.copytree(run.folder / name, REFERENCE / name)
    for name in ("results.json", "run.json"):
        shutil.copy(run.folder / name, REFERENCE / name)
    for card in REFERENCE.rglob("README.md"):  # PEFT's empty model cards
        card.unlink()


def store_notebooks() -> None:
    """Execute the seven notebooks in place, in one run folder; keep outputs, drop widget state and all but the last progress line."""
    os.environ |= {"MMEDLITE_RUN": str(WORK / "notebooks"), "MMEDLITE_PROFILE": "tiny", "HF_HUB_OFFLINE": "1"}
    shutil.rmtree(WORK / "notebooks", ignore_errors=True)
    minutes: dict[str, float] = {}
    for name in NOTEBOOKS:
        file = ROOT / "notebooks" / f"{name}.ipynb"
        book = nbformat.read(file, as_version=4)
        resources = {"metadata": {"path": str(file.parent)}}
        start = time.time()
        NotebookClient(book, timeout=3600, kernel_manager_class=PatientKernelManager, resources=resources, coalesce_streams=True).execute()
        book.metadata.pop("widgets", None)
        for cell in (c for c in book.cells if c.cell_type == "code"):
            cell.metadata.pop("execution", None)
            for out in (o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"):
                lines = [line.rsplit("\r", 1)[-1] for line in out.text.split("\n")]
                out.text = "\n".join(line for line in lines if line.strip() and not any(word in line for word in NOISE))
            cell.outputs = [o for o in cell.outputs if o.get("text") != ""]
        nbformat.write(book, file)
        minutes[name] = round((time.time() - start) / 60, 2)
        print(f"{name}: {minutes[name]:.1f} minutes", flush=True)
    (ROOT / "artifacts" / "timings.json").write_text(json.dumps({"tiny": minutes}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run the steps."""
    models_and_cases()
    opinions()
    subprocess.run([sys.executable, "-m", "figures.headroom"], cwd=ROOT, check=True)  # no training in a world that is not fit
    runs = [seed_run(seed) for seed in SEEDS]
    replays(runs[0])
    bands(runs)
    ship(runs[0])
    cards.main()
    write_manifest(ROOT / "artifacts", runs[0].facts)
    store_notebooks()
    readme.main()
    write_manifest(ROOT / "artifacts", runs[0].facts)  # again, with the minutes the notebooks took


if __name__ == "__main__":
    main()
