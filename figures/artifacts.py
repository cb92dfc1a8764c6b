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
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbclient import NotebookClient

from figures import cards, readme
from mmedlite import copies
from mmedlite.cases import SPLITS
from mmedlite.checks import BANDS, make_band
from mmedlite.demo import NOTEBOOKS, PatientKernelManager, PeakMemory
from mmedlite.models import merged
from mmedlite.pipeline import attending_step, evaluation_step, panel_step, routed, summary, triage_step
from mmedlite.profiles import DEPARTMENTS, ROOT
from mmedlite.rewards import format_reward, random_reward
from mmedlite.run import Run
from mmedlite.run_folder import OtherRun, RunFolder, groups_of, read_rows
from mmedlite.side_by_side import Step, side_by_side
from mmedlite.store import OpinionStore
from mmedlite.store_tools import export
from mmedlite.summary import triage_numbers
from mmedlite.triage import route
from mmedlite.verify import seal
from mmedlite.world_bands import world_bands

SEEDS = (0, 1, 2, 3, 4)
EACH_LOOK = 40  # test cases of each look that every department is asked about
WORK = ROOT / "runs" / "artifacts"
NOISE = (str(ROOT), "Warning", "warnings.warn(")  # lines of stderr that say nothing to a reader


def models_and_cases() -> None:
    """Train the tiny models where they are missing, and draw the clinic."""
    if not (ROOT / "artifacts" / "specialists" / "revision.json").exists() or not (ROOT / "artifacts" / "policy").exists():
        subprocess.run([sys.executable, "-m", "data_prep", "tiny_base"], cwd=ROOT, check=True)
    if not (ROOT / "data" / "phantoms" / "cases.parquet").exists():
        subprocess.run([sys.executable, "-m", "data_prep", "phantoms"], cwd=ROOT, check=True)


def open_seed(seed: int) -> Run:
    """The run folder of a seed; emptied first where other code, settings, models or cases made what lies in it."""
    folder = WORK / f"seed-{seed}"
    try:
        return Run(folder, seed=seed)
    except OtherRun:
        shutil.rmtree(folder)
        return Run(folder, seed=seed)


def has_triage(run: Run) -> bool:
    """Has this run taken its triage step to the end?"""
    return "triage" in run.results()


def opinions() -> None:
    """Reference triage (seed 0), then all opinions: both panels, every split, both draws."""
    run = open_seed(SEEDS[0])
    if not has_triage(run):
        triage_step(run)
    for split in SPLITS:
        for panel in run.profile.panels:
            for redraw in (False, True):
                run.panel(split, panel, redraw)
    # What each specialist says of every look: for the card and notebook 02's consultation matrix.
    some = [c for d in DEPARTMENTS for c in [c for c in run.cases("test") if c.specialty == d][:EACH_LOOK]]
    for department in DEPARTMENTS:
        run.panel_for(some, [department] * len(some), [*run.profile.panels][0])
    if run.store.places:  # of its own, beyond those shipped
        export(run.store, RunFolder.opinions)
    print(f"{len(OpinionStore(RunFolder.opinions)):,} opinions stored")


def reference_run() -> Run:
    """Every step of the demo, with seed 0."""
    run = open_seed(SEEDS[0])
    panel_step(run)
    if not all(run.has_own_rows(f"{panel}/validation/bias_sweep") for panel in run.profile.panels):
        attending_step(run)
    if not all(run.has_own_rows(f"{panel}/test/best_single") for panel in run.profile.panels):
        evaluation_step(run)
    return run


def band_seed(_: Run, seed: str) -> None:
    """Triage and the attending of every panel with another seed, for the bands."""
    run = open_seed(int(seed))
    if not has_triage(run):
        triage_step(run)
    for panel in run.profile.panels:
        if not run.has_own_rows(f"{panel}/test/trained"):
            model = run.train_attending(panel, run.profile.attending.recipe, panel)
            run.keep(run.answer(merged(model), "trained", "test", panel), f"{panel}/test/trained")


def keep_answers(run: Run, model: Any, system: str, panel: str, alone: bool = False) -> None:
    """The test cases answered by a policy: greedy, and for the figure beside it sampled at T = 1."""
    model = merged(model)
    run.keep(run.answer(model, system, "test", panel, alone=alone, temperature=1.0), f"{panel}/test_sampled/{system}")
    run.keep(run.answer(model, system, "test", panel, alone=alone), f"{panel}/test/{system}")


def sft(run: Run, panel: str) -> None:
    """SFT on the same prompts and cases, as many updates as the recipe has."""
    if not run.has_own_rows(f"{panel}/test/sft"):
        keep_answers(run, run.train_sft(panel, sum(s.steps for s in run.profile.attending.recipe)), "sft", panel)


def paper_schedule(run: Run, panel: str) -> None:
    """The schedule as printed on one panel; validation rows after each stage, test rows after the last."""
    name, stages = f"{panel}_paper_schedule", run.profile.attending.paper_schedule
    if run.has_own_rows(f"{panel}/validation/paper_{stages[-1].name}"):
        return
    keep_answers(run, run.train_attending(panel, stages, name), "paper_schedule", panel)
    for stage in stages:
        rows = run.answer(run.policy(f"{name}/{stage.name}"), stage.name, "validation", panel)
        run.keep(rows, f"{panel}/validation/paper_{stage.name}")


def rl_no_panel(run: Run, panel: str) -> None:
    """The same budget without the panel in the prompt; its answers stand beside every panel."""
    if not run.has_own_rows(f"{[*run.profile.panels][-1]}/test_sampled/rl_no_panel"):  # written last
        profile = run.profile.attending
        model = run.train_attending(panel, profile.no_panel, "rl_no_panel", with_panel=False, learning_rate=profile.no_panel_learning_rate)
        keep_answers(run, model, "rl_no_panel", panel, alone=True)
        for kind in ("test", "test_sampled"):
            texts = run.rows(f"{panel}/{kind}/rl_no_panel")["text"].tolist()
            for name in [*run.profile.panels][1:]:
                run.keep(run.score("rl_no_panel", "test", name, texts), f"{name}/{kind}/rl_no_panel")


def control(run: Run, name: str) -> None:
    """A control of the recipe on the first panel: ``entropy_off``, ``random_reward`` or ``redraw``."""
    panel, recipe = [*run.profile.panels][0], run.profile.attending.recipe
    if run.has_own_rows(f"{panel}/test/{name}"):
        return
    changes: dict[str, dict[str, Any]] = {
        "entropy_off": {"stages": tuple(replace(s, gamma=tuple(0.0 for _ in s.gamma)) for s in recipe)},
        "random_reward": {"rewards": (format_reward, random_reward)},
        "redraw": {"redraw": True},
    }
    model = run.train_attending(panel, **{"stages": recipe, "name": name, **changes[name]})
    run.keep(run.answer(merged(model), name, "test", panel), f"{panel}/test/{name}")


def untrained_sampled(run: Run, panel: str) -> None:
    """The untrained policy at T = 1, with the panel and alone."""
    for system, alone in (("untrained_panel", False), ("no_panel", True)):
        if not run.has_own_rows(f"{panel}/test_sampled/{system}"):
            run.keep(run.answer(run.policy(), system, "test", panel, alone=alone, temperature=1.0), f"{panel}/test_sampled/{system}")


def random_triage(run: Run, name: str) -> None:
    """Triage trained on random reward."""
    if not run.has_own_rows(name):
        model, cases = run.train_triage(name, rewards=(format_reward, random_reward)), run.cases("test")
        run.keep(routed("random_reward", cases, route(model, run.processor, run.table, cases, run.profile)), name)


def replays(run: Run) -> list[tuple[Step, str]]:
    """What the demo replays from seed 0: the schedule as printed, RL without panel, SFT and the controls."""
    panels = [*run.profile.panels]
    return [
        *((step, p) for step in (paper_schedule, sft, untrained_sampled) for p in panels), (rl_no_panel, panels[0]),
        *((control, name) for name in ("entropy_off", "random_reward", "redraw")), (random_triage, "triage_random_reward"),
    ]  # fmt: skip


def bands(runs: list[Run]) -> None:
    """Bands from the five seeds, with the untrained policy and the controls that must fall outside."""
    first = runs[0]
    zero = first.results()
    made: dict[str, Any] = {"source": "figures/artifacts.py", "code": first.facts["code"], "config": first.facts["config_sha256"],
                            "cases_sha256": first.facts["cases_sha256"]}  # fmt: skip
    triage = {r.seed: r.results()["triage"]["trained"] for r in runs}
    control = {"untrained": zero["triage"]["base"], "random_reward": zero["triage"]["random_reward"]}
    found = {"triage_accuracy": make_band(triage, zero["triage"]["n"], control, **made)}

    def band(name: str, panel: str, keep: Callable[[pd.DataFrame], pd.Series], *controls: str) -> None:
        rows = {r.seed: r.rows(f"{panel}/test/trained") for r in runs}
        shares = {seed: float(frame[keep(frame)]["correct"].mean()) for seed, frame in rows.items()}
        rivals = {c: first.rows(f"{panel}/test/{c}") for c in controls}
        n = int(keep(rows[first.seed]).sum())
        found[name] = make_band(shares, n, {c: float(r[keep(r)]["correct"].mean()) for c, r in rivals.items()}, **made)

    for panel in first.profile.panels:
        band(f"attending_{panel}_trained", panel, lambda f: f["correct"].notna(), "untrained_panel", "majority_vote")
        band(f"unanimous_{panel}_trained", panel, lambda f: f["unanimous"], "untrained_panel", "majority_vote")
    BANDS.write_text(json.dumps(found | world_bands(made), indent=1) + "\n", encoding="utf-8")


def some_rollouts(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a training's rollouts two groups of every twentieth update of each stage, from its first on, and all of the very last update."""
    group = groups_of(rows).groupby([rows["stage"], rows["step"]]).rank("dense")
    last = rows[["stage", "step"]].eq(rows[["stage", "step"]].iloc[-1]).all(axis=1)
    return rows[last | ((rows["step"] % 20 == 0) & (group <= 2))]


def ship_rollouts(file: Path, to: Path) -> None:
    """Write what ``some_rollouts`` keeps of a file of rollouts into a folder."""
    to.mkdir(parents=True)
    some_rollouts(pd.DataFrame(read_rows(file))).to_json(to / "rollouts.jsonl", orient="records", lines=True)


def ship(run: Run) -> None:
    """Copy what is replayed to artifacts/reference: result rows, logs, adapters, routes, results.json, some of the rollouts."""
    reference = RunFolder.reference
    shutil.rmtree(reference, ignore_errors=True)
    trained = [f"adapters/{name}" for name in ("triage", *run.profile.panels)]  # of the replayed runs, rows and logs are enough
    for name in ("results", "logs", "routes", *trained):
        shutil.copytree(run.folder / name, reference / name, ignore=shutil.ignore_patterns("sft") if name in trained else None)
    for name in ("results.json", "run.json"):
        shutil.copy(run.folder / name, reference / name)
    for name in ("triage", *run.profile.panels):
        ship_rollouts(run.folder / "rollouts" / name / "rollouts.jsonl", reference / "rollouts" / name)
    for card in reference.rglob("README.md"):  # PEFT's empty model cards
        card.unlink()


def store_notebooks() -> None:
    """Execute the seven notebooks in place, in one run folder; keep outputs, drop widget state and all but the last progress line."""
    os.environ |= {"MMEDLITE_RUN": str(WORK / "notebooks"), "MMEDLITE_PROFILE": "tiny", "HF_HUB_OFFLINE": "1"}
    shutil.rmtree(WORK / "notebooks", ignore_errors=True)
    took: dict[str, dict[str, float]] = {}
    for name in NOTEBOOKS:
        file = ROOT / "notebooks" / f"{name}.ipynb"
        book = nbformat.read(file, as_version=4)
        resources = {"metadata": {"path": str(file.parent)}}
        start = time.time()
        with PeakMemory() as peak:
            NotebookClient(book, timeout=3600, kernel_manager_class=PatientKernelManager, resources=resources, coalesce_streams=True).execute()
        book.metadata.pop("widgets", None)
        for cell in (c for c in book.cells if c.cell_type == "code"):
            cell.metadata.pop("execution", None)
            for out in (o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"):
                lines = [line.rsplit("\r", 1)[-1] for line in out.text.split("\n")]
                out.text = "\n".join(line for line in lines if line.strip() and not any(word in line for word in NOISE))
            cell.outputs = [o for o in cell.outputs if o.get("text") != ""]
        nbformat.write(book, file)
        took[name] = {"minutes": round((time.time() - start) / 60, 2), "peak_memory_gib": round(peak.gib, 2)}
        print(f"{name}: {took[name]}", flush=True)
    (ROOT / "artifacts" / "timings.json").write_text(json.dumps({"tiny": took}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run the steps."""
    models_and_cases()
    opinions()
    subprocess.run([sys.executable, "-m", "figures.headroom"], cwd=ROOT, check=True)  # no training in a world that is not fit
    zero = reference_run()
    side_by_side(zero, [*((band_seed, str(seed)) for seed in SEEDS[1:]), *replays(zero)])
    zero.update_results(triage=triage_numbers(zero))  # with the random-reward control
    for panel in zero.profile.panels:
        summary(zero, panel)
    bands([zero, *(open_seed(seed) for seed in SEEDS[1:])])
    ship(zero)
    cards.main()
    seal(ROOT / "artifacts", zero.facts)
    store_notebooks()
    readme.main()
    copies.main([])
    seal(ROOT / "artifacts", zero.facts)  # again, with what the notebooks took


if __name__ == "__main__":
    main()
