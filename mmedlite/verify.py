"""Do the stored files still say what was measured? Four questions, none of which trusts a number that was written down.

Hashes: is each file of the manifest there, byte for byte? Stamps: do run, models and bands name one another (``verify_stamps``)?
Rows and rollouts: do they follow from their texts, cases and panels (``rescore``)?
Numbers: do rows, opinions and checks, counted again, give every number of results.json but those in ``TOLD``? What cannot be seen:
texts that are made up, the scores behind a bias sweep, a check whose status was changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from mmedlite.cases import CaseTable, read_table
from mmedlite.checks import count, tally
from mmedlite.evaluation import bucket_report
from mmedlite.profiles import ROOT, InputError
from mmedlite.provenance import code_sha256, environment
from mmedlite.rescore import Panels, wrong_opinions, wrong_place, wrong_rollouts, wrong_routes, wrong_rows, wrong_sweep
from mmedlite.run_folder import RunFolder, read_rows
from mmedlite.store import OpinionStore
from mmedlite.summary import LIVE, attending_numbers, flip_numbers, shifted_numbers, triage_numbers, trust_numbers
from mmedlite.verify_evidence import COUNTED, apart, leaves, panels_of_run, wrong_evidence
from mmedlite.verify_stamps import own_profile, read_object, wrong_artifacts, wrong_environment, wrong_stamps

MANIFEST, SEALS = "manifest.json", ROOT / "figures" / "seals.json"
# Files at the top of a run folder that are written again while the run goes on; results.json is counted again instead.
GROWING = {MANIFEST, "run.json", "results.json", "demo.json", "checks.jsonl", "notebooks", "report.html", "chair.html", "learner.json"}


def sha256(file: Path) -> str:
    """Hash of a file's bytes, as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path | str, made_from: Mapping[str, Any] | None = None) -> Path:
    """Write ``manifest.json``: {"files": {relative path: sha256}, "made_from": {code, config, cases}, "environment": versions here}; returns
    its path."""
    folder = Path(folder)
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    files = {name: sha256(folder / name) for name in names if name.split("/")[0] not in GROWING}
    content = json.dumps({"files": files, "made_from": dict(made_from or {}), "environment": environment()}, indent=1)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")
    return folder / MANIFEST


def seal(folder: Path, made_from: Mapping[str, Any] | None = None) -> None:
    """Write the manifest of what the kit ships, ``artifacts`` or ``figures/data``, and its hash into ``figures/seals.json``."""
    seals = read_object(SEALS) | {folder.relative_to(ROOT).as_posix(): sha256(write_manifest(folder, made_from))}
    SEALS.write_text(json.dumps(seals, indent=1) + "\n", encoding="utf-8")


def is_shipped(folder: Path) -> bool:
    """Is this ``artifacts`` or ``figures/data``, or a copy of one of them?"""
    return (folder / "reference").is_dir() or (folder / "paper_tables.json").exists()


def broken_seal(folder: Path | str) -> list[str]:
    """Is the manifest of what the kit ships that of ``figures/seals.json``? One written anew over changed files is not."""
    folder = Path(folder)
    if not is_shipped(folder) or not (folder / MANIFEST).is_file():
        return []  # the latter is told by ``verify``
    known = read_object(SEALS).get("artifacts" if (folder / "reference").is_dir() else "figures/data")
    return [] if sha256(folder / MANIFEST) == known else [f"{MANIFEST}: not the one that {SEALS.relative_to(ROOT).as_posix()} names"]


def changed_files(folder: Path) -> list[str]:
    """Problems with the files that the manifest lists: missing, or other bytes than when it was written."""
    if not (folder / MANIFEST).is_file():
        return [f"{MANIFEST}: missing, so no file can be compared"]
    listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    found = {name: sha256(folder / name) if (folder / name).is_file() else "" for name in listed}
    changed = [name for name, expected in listed.items() if found[name] != expected]
    return [f"{name}: {'changed since the manifest was written' if found[name] else 'missing'}" for name in changed]


def _panel_numbers(run: RunFolder, table: CaseTable, panel: str, panels: Panels) -> dict[str, Any]:
    """Bucket shares and error correlation of a panel on the training cases, from the stored opinions and routes."""
    routes = next(f for f in (run.folder / "routes" / "train.json", run.reference / "routes" / "train.json") if f.is_file())
    sent = json.loads(routes.read_text(encoding="utf-8"))
    cases = {c.case_id: c.answer for c in table.split("train")}
    votes = {c: panels(panel, c, sent[c] or "Radiologist") or [] for c in cases}
    rows = [{"case_id": c, "sample_index": i, "option": o} for c, options in votes.items() for i, o in enumerate(options)]
    return bucket_report(pd.DataFrame(rows), cases)


# Sections of results.json that no row can tell: when, how long, what was asked on the way.
TOLD = ("code", "minutes", "cpu_minutes", "peak_memory_gib", "opinions_asked", "stages")


def _sections(run: RunFolder, results: Mapping[str, Any], table: CaseTable, panels: Callable[[], Panels]) -> dict[str, Callable[[], Any]]:
    """How each section of results.json is counted again, from the rows, opinions and checks beside it."""
    kinds = list(results.get("attending", {}))

    def own(*names: str) -> None:
        for name in names:
            if not run.has_own_rows(name):  # what a run measured itself is never taken from the reference run
                raise InputError(f"results/{name}.parquet is missing", str(run.folder))

    def attending() -> dict[str, Any]:
        own(*(f"{p}/test/{system}" for p in kinds for system in LIVE))
        return {p: attending_numbers(run, p) for p in kinds}

    def trust() -> dict[str, Any]:
        own(*(f"{p}/test/bias_sweep" for p in kinds))
        return {p: trust_numbers(run, p) for p in kinds}

    def triage() -> dict[str, Any]:
        own("triage")
        return triage_numbers(run)

    return {
        "triage": triage,
        "panel": lambda: {p: _panel_numbers(run, table, p, panels()) for p in results["panel"]},
        "attending": attending,
        "flip": lambda: {p: flip_numbers(run, p) for p in kinds},
        "trust": trust,
        "shifted": lambda: shifted_numbers(run, kinds[0]),
        "checks": lambda: count(tally(run.folder)),
        "seed": lambda: int(run.rows(f"{kinds[0]}/test/trained")["seed"].iloc[0]) if kinds else results["seed"],
        "cases_sha256": lambda: table.sha256,
    }


def wrong_numbers(run: RunFolder, table: CaseTable, panels: Callable[[], Panels]) -> list[str]:
    """Problems with results.json of a run folder: a number that the rows beside it do not give, another case table."""
    problems = []
    try:
        results = run.results()
        sections = _sections(run, results, table, panels)
    except (ValueError, AttributeError) as error:
        return [f"results.json: cannot be read ({error})"]
    if results.get("code", code_sha256()) != code_sha256():  # its numbers may have been counted in another way
        return [f"results.json, code: made by another version of the kit ({str(results['code'])[:8]}); verify it with that version"]
    for section, stored in results.items():
        if section in TOLD:
            continue
        if section not in sections:
            problems.append(f"results.json, {section}: a number that the kit does not know")
            continue
        try:
            was, again = dict(leaves(stored, section)), dict(leaves(sections[section](), section))
            problems += [f"results.json, {name}: {old}, counted again {new}" for name, old, new in apart(was, again)]
        except Exception as error:  # rows or numbers damaged in any way: said, and the other sections are still counted
            problems.append(f"results.json, {section}: cannot be counted again ({type(error).__name__}: {error})")
    return problems


def _eval_cases(run: RunFolder) -> int | None:
    """How many cases of a split the run's profile answers, 0 for all; None for a profile that is not one of the kit's, whatever its name."""
    profile = own_profile(read_object(run.folder / "run.json"))
    return profile.eval_cases if profile else None


def wrong_files(run: RunFolder, table: CaseTable, panels: Callable[[], Panels]) -> list[str]:
    """Problems with the rows of a run folder."""
    problems, limit = [], _eval_cases(run)
    for file in tqdm(sorted((run.folder / "results").rglob("*.parquet")), desc="checking rows", delay=3):
        name = file.relative_to(run.folder).as_posix()
        try:
            rows = pd.read_parquet(file)
            if "bias" in rows:
                untrained = pd.read_parquet(file.with_name("untrained_panel.parquet"))
                problems += wrong_sweep(rows, untrained, name)
            elif "option" in rows:
                problems += wrong_place(rows, table, name, limit) + wrong_rows(rows, table, name, panels())
            else:
                problems += wrong_routes(rows, table, name)
        except Exception as error:  # not Parquet, a column missing, ...: said, and the other files are still read
            problems.append(f"{name}: cannot be checked ({type(error).__name__}: {error})")
    for file in tqdm(sorted((run.folder / "rollouts").rglob("rollouts.jsonl")), desc="checking rollouts", delay=3):
        name = file.relative_to(run.folder).as_posix()
        try:
            problems += wrong_rollouts(pd.DataFrame(read_rows(file)), table, name)
        except Exception as error:
            problems.append(f"{name}: cannot be checked ({type(error).__name__}: {error})")
    return problems


def verify(folder: Path | str, table: CaseTable | None = None) -> list[str]:
    """Every problem of a run folder, ``artifacts`` or ``figures/data``, one line each; an empty list means that all agrees.

    table: the cases that the rows are about; by default the phantom clinic in ``data/phantoms``.

    Raises:
        InputError: no such folder, or no case table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", str(folder), "name a run folder, artifacts, or figures/data")
    table = read_table(ROOT / "data" / "phantoms", check_images=False) if table is None else table
    problems = changed_files(folder) + wrong_environment(read_object(folder / MANIFEST), is_shipped(folder))
    if (folder / "reference").is_dir():
        problems += wrong_artifacts(folder)
    if any((folder / name).exists() for name in (*(f"{name}.json" for name in COUNTED), "worlds", "rivals.parquet")):
        problems += wrong_evidence(folder, table)
    opinions_of = cache(OpinionStore)  # the shipped ones are many: read once
    for opinions in sorted(f for f in folder.rglob("opinions") if f.is_dir()):
        try:
            problems += wrong_opinions(opinions_of(opinions.resolve()).values(), table, opinions.relative_to(folder).as_posix())
        except (InputError, KeyError) as error:
            problems.append(f"{opinions.name}: cannot be checked ({type(error).__name__}: {error})")
    for base in sorted({f.parent for f in [*folder.rglob("results.json"), *folder.rglob("results")]}):
        run = RunFolder(base, {"cases_sha256": table.sha256})
        panels = cache(partial(panels_of_run, run, table, opinions_of))
        problems += wrong_stamps(base, table) + wrong_files(run, table, panels) + wrong_numbers(run, table, panels)
    return problems
