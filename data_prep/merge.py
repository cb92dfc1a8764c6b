"""Several case tables as one: the training sets keep their splits, the test questions of other sets become out-of-domain ones ("shifted").

``python -m data_prep merge --source data/vqa_rad data/slake data/path_vqa --shifted data/omnimedvqa data/mmmu --out data/paper``
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from mmedlite.cases import CaseTable, TableWriter, read_table
from mmedlite.profiles import ROOT, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep merge``."""
    parser.add_argument("--source", type=Path, nargs="+", required=True, help="tables that keep their splits")
    parser.add_argument("--shifted", type=Path, nargs="*", default=[], help="tables whose test questions are out of domain")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "paper", help="the new table's folder")


def main(args: argparse.Namespace) -> int:
    """Copy all of them into one table; returns the exit status."""
    tables = [(path, read_table(path), path in args.shifted) for path in (*args.source, *args.shifted)]
    seen: dict[str, Path] = {}
    for path, table, _ in tables:  # before anything is copied
        if twice := next((c.case_id for c in table if seen.setdefault(c.case_id, path) is not path), None):
            fix = "name each table once; of two with the same ids take one"
            raise InputError(f"the case {twice!r} stands in two tables", f"{seen[twice]}, {path}", fix)
    with TableWriter(args.out) as out:
        for path, table, shifted in tables:
            _copy(table, out, shifted, path.name)
        out.cases.sort(key=lambda case: hashlib.sha256(case.case_id.encode()).digest())  # so that the first ones are some of every source
        out.notes |= {"tables": {path.name: table.sha256 for path, table, _ in tables}}
    print(f"{len(out.cases):,} cases in {args.out}")
    return 0


def _copy(table: CaseTable, out: TableWriter, shifted: bool, name: str) -> None:
    for case in tqdm(table, desc=name, unit=" cases", mininterval=2):
        if shifted and case.split != "test":
            out.drop(case.case_id, f"{name}: no test question")
            continue
        for view in range(len(case.images)):
            out.add_image(table.open_image(case, view))
        out.add(replace(case, split="shifted") if shifted else case)
