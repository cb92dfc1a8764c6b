"""OmniMedVQA as a case table: its open-access questions, all for test, read from the archive where it lies.

``--source`` is a folder with OmniMedVQA.zip, or with what it holds: Images/ and QA_information/Open-access/*.json. The paper scores five
modalities (its Table 17). Its 11,124 questions are those of another group's evaluation file; the card counts what the archive gives.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.departments import look_up
from data_prep.hub import fetch, hashes, json_rows, member, one_of, open_zip
from data_prep.items import Item, Row, Unusable, build, each, for_test_alone, print_sizes
from data_prep.items import add_arguments as common
from data_prep.pictures import Picture, from_file, from_zip
from mmedlite.cases import option_key

REPO, REVISION = "foreverbeliever/OmniMedVQA", "1ba51c28fc0773bdf7efb8396e5bcfd4227e22da"  # as others pin it; not confirmed by us online
QUESTIONS = "QA_information/Open-access"
FIELDS = ("dataset", "question_id", "question_type", "question", "gt_answer", "image_path", "option_A", "option_B")
LETTERS = ("A", "B", "C", "D")
SCORED = ("CT", "MRI", "Microscopy", "X-ray", "Ultrasound")  # the paper's five modalities
LICENCE = "each source's own (OmniMedVQA, Hu et al. 2024, open-access part)"
PAPER = {"test": 11_124}


def read(rows: Sequence[Row], pictures: Callable[[str], Picture], every: bool) -> Iterator[Item | Unusable]:
    """The items; with ``every`` also those of modalities that the paper does not score."""

    def make(where: str, row: dict[str, Any]) -> Item | Unusable:
        where, (modality, specialty) = f"{where} ({row['question_id']})", modality_of(row)
        if not every and modality not in SCORED:
            return Unusable(where, f"modality {modality}: the paper does not score it (--every takes it)")
        given = [row[f"option_{c}"] for c in LETTERS if row.get(f"option_{c}") not in (None, "")]
        if not all(isinstance(value, str) for value in (*given, row["question_id"])):
            return Unusable(where, "an option or the question's id is no text")
        options = tuple(value.strip() for value in given)
        keys, answer = [option_key(o) for o in options], option_key(str(row["gt_answer"]))
        if keys.count(answer) != 1 or len(set(keys)) < len(keys) or len(keys) < 2:
            return Unusable(where, "the answer is not among the options, or an option stands twice")
        return Item(
            f"omnimedvqa-{row['question_id']}", where, "test", pictures(str(row["image_path"])), str(row["question"]).strip(), options,
            keys.index(answer), modality, specialty, LICENCE,
            {"dataset": row["dataset"], "question_type": row["question_type"], "image_path": row["image_path"]},
        )  # fmt: skip

    return each(rows, FIELDS, ("question", "gt_answer", "image_path", "option_A"), make)


def modality_of(row: dict[str, Any]) -> tuple[str, str | None]:
    """Canonical modality and department; one entry of the archive says 'modality' for 'modality_type'."""
    return look_up(str(row.get("modality_type") or row.get("modality") or "unknown"))


def sizes(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many questions each rule gives."""
    of = Counter(modality_of(row)[0] for _, row in rows)
    five = {f"{name} alone": {"test": of[name]} for name in SCORED}
    return {"open access, all modalities": {"test": of.total()}, "the paper's five modalities": {"test": sum(of[m] for m in SCORED)}, **five}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep omnimedvqa``."""
    common(parser, "omnimedvqa", REVISION)
    parser.add_argument("--every", action="store_true", help="all modalities, not the paper's five alone")


def main(args: argparse.Namespace) -> int:
    """Build the table."""
    for_test_alone(args)
    folder, origin = fetch(args, REPO, ["OmniMedVQA.zip"])
    files = one_of(folder, ["OmniMedVQA.zip", f"{QUESTIONS}/*.json"])
    if files[0].suffix == ".zip":
        archive = open_zip(files[0])
        names = sorted(n for n in archive.namelist() if QUESTIONS in n and n.endswith(".json") and not Path(n).name.startswith("._"))
        rows = [row for n in names for row in json_rows(member(archive, n), Path(n).name, FIELDS)]
        top = names[0].split(QUESTIONS)[0] if names else ""

        def picture(name: str) -> Picture:
            return from_zip(archive, top + name)
    else:
        rows = [row for file in files for row in json_rows(file, file.name, FIELDS)]

        def picture(name: str) -> Picture:
            return from_file(folder, name)

    found = sizes(rows)
    print_sizes(found, PAPER)
    notes = {**origin, "files": hashes(files, folder), "sizes": found, "paper": PAPER}
    return build(args, "omnimedvqa", read(rows, picture, args.every), len(rows), **notes)
