"""Do the stored files still say what was measured? Three questions, none of which trusts a number that was written down.

Hashes: is each file of the manifest there, byte for byte? Rows: does each stored text, parsed again, give the stored option and
verdict? Numbers: do the rows, counted again, give the shares in results.json?
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmedlite.answers import parse_strict
from mmedlite.cases import CaseTable, read_table
from mmedlite.curriculum import BUCKETS
from mmedlite.evaluation import accuracy, flip_rate
from mmedlite.profiles import ROOT, InputError

MANIFEST = "manifest.json"
# Files at the top of a run folder that are written again while the run goes on; results.json is counted again instead.
GROWING = {MANIFEST, "run.json", "results.json", "demo.json", "checks.jsonl", "notebooks", "report.html"}
REFERENCE = ROOT / "artifacts" / "reference"  # a run leaves out what it replays from there


def sha256(file: Path) -> str:
    """Hash of a file's bytes, as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path | str, made_from: Mapping[str, Any] | None = None) -> Path:
    """Write ``manifest.json``: {"files": {relative path: sha256}, "made_from": {code, config, cases}}; returns its path."""
    folder = Path(folder)
    names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    files = {name: sha256(folder / name) for name in names if name.split("/")[0] not in GROWING}
    content = json.dumps({"files": files, "made_from": dict(made_from or {})}, indent=1)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")
    return folder / MANIFEST


def changed_files(folder: Path) -> list[str]:
    """Problems with the files that the manifest lists: missing, or other bytes than when it was written."""
    if not (folder / MANIFEST).is_file():
        return [f"{MANIFEST}: missing, so no file can be compared"]
    listed: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    found = {name: sha256(folder / name) if (folder / name).is_file() else "" for name in listed}
    changed = [name for name, expected in listed.items() if found[name] != expected]
    return [f"{name}: {'changed since the manifest was written' if found[name] else 'missing'}" for name in changed]


def wrong_rows(rows: pd.DataFrame, table: CaseTable, where: str) -> list[str]:
    """Problems with Result rows: a text that says something else than the row, a verdict that does not follow."""
    problems, cases = [], {case.case_id: case for case in table}
    columns = zip(*(rows[c] for c in ("case_id", "text", "reason", "option", "answer", "n_options", "correct")), strict=True)
    for number, (case_id, text, reason, option, answer, n_options, correct) in enumerate(columns, start=1):
        at, case = f"{where}, row {number} ({case_id})", cases.get(case_id)
        if case is None:
            problems.append(f"{at}: no such case in the table")
            continue
        if (answer, n_options) != (case.answer, len(case.options)):
            problems.append(f"{at}: answer {answer} of {n_options}, the table says {case.answer} of {len(case.options)}")
        if text or reason:  # a vote or a classifier writes nothing
            parsed = parse_strict(text, case.options).option
            said = -1 if parsed is None else parsed
            if said != option:
                problems.append(f"{at}: the text says option {said}, the row says {option}")
        if bool(correct) != (option == answer):
            problems.append(f"{at}: marked {'right' if correct else 'wrong'}, option {option}, answer {answer}")
    return problems


def _counted(base: Path, results: Mapping[str, Any], table: CaseTable) -> Iterator[tuple[str, list[Any], list[float]]]:
    """(name, numbers in results.json, the same counted again from rows) for every share that has rows."""
    for panel, numbers in results.get("attending", {}).items():
        for system in [key.removesuffix("_ci") for key in numbers if key.endswith("_ci")]:
            files = [b / "results" / panel / "test" / f"{system}.parquet" for b in (base, REFERENCE)]
            found = next((pd.read_parquet(f) for f in files if f.is_file()), None)
            if found is None:  # best_single is taken from the panel, not from rows
                continue
            name, share = f"attending.{panel}.{system}", accuracy(found)
            yield f"{name} and interval", [numbers[system], *numbers[f"{system}_ci"]], [share["mean"], *share["ci"]]
            levels = [accuracy(found[found["difficulty"] == level])["mean"] for level in BUCKETS]
            yield f"{name} by difficulty", [numbers["by_difficulty"][level][system] for level in BUCKETS], levels
            if system == "trained" and panel in results.get("flip", {}):
                yield f"flip.{panel}", list(results["flip"][panel].values()), list(flip_rate(found).values())
    routes = base / "routes" / "test.json"
    if "triage" in results and routes.is_file():
        sent = json.loads(routes.read_text(encoding="utf-8"))
        hits = [sent[c.case_id] == c.specialty for c in table.split("test") if c.specialty and c.case_id in sent]
        yield "triage.trained", [results["triage"]["trained"]], [sum(hits) / len(hits)]


def wrong_numbers(base: Path, table: CaseTable) -> list[str]:
    """Problems with results.json of a run folder: a share that its rows do not give, another case table."""
    results = json.loads((base / "results.json").read_text(encoding="utf-8"))
    problems = []
    for name, stored, again in _counted(base, results, table):
        if not np.allclose(np.array(stored, float), again, rtol=0, atol=1e-9, equal_nan=True):  # null in JSON is nan
            problems.append(f"results.json, {name}: {stored}, counted again {[round(a, 6) for a in again]}")
    if results.get("cases_sha256", table.sha256) != table.sha256:
        problems.append("results.json, cases_sha256: made from another case table")
    return problems


def verify(folder: Path | str, table: CaseTable | None = None) -> list[str]:
    """Every problem of a run folder or of ``artifacts``, one line each; an empty list means that all agrees.

    table: the cases that the rows are about; by default the phantom clinic in ``data/phantoms``.

    Raises:
        InputError: no such folder, or no case table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", str(folder), "name a run folder, or `artifacts`")
    table = table or read_table(ROOT / "data" / "phantoms", check_images=False)
    problems = changed_files(folder)
    for results in sorted(f for f in [folder, *folder.rglob("*")] if f.name == "results" and f.is_dir()):
        for file in sorted(results.rglob("*.parquet")):
            name = file.relative_to(folder).as_posix()
            try:
                rows = pd.read_parquet(file)
            except (OSError, ValueError) as error:
                problems.append(f"{name}: cannot be read ({type(error).__name__})")
                continue
            if "option" in rows:  # the bias sweep holds verdicts without options
                problems += wrong_rows(rows, table, name)
    return problems + [p for file in sorted(folder.rglob("results.json")) for p in wrong_numbers(file.parent, table)]


def main(argv: list[str] | None = None) -> int:
    """``python -m mmedlite verify [FOLDER] [--cases TABLE]``: print every problem; 0 if there is none, else 1."""
    parser = argparse.ArgumentParser(prog="python -m mmedlite verify", description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(ROOT / "artifacts"), help="a run folder, or artifacts (the default)")
    parser.add_argument("--cases", help="the case table of the run, where it is not the phantom clinic")
    args = parser.parse_args(argv)
    problems = verify(args.folder, read_table(args.cases, check_images=False) if args.cases else None)
    print(*problems, f"{len(problems)} problems in {args.folder}", sep="\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
