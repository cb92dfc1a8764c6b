"""MMMU Health & Medicine as a case table: five subjects of 30 validation questions, the paper's 150.

A question may come with several pictures: they stand beside each other in one, in the order of "<image 1>", "<image 2>", ... Most questions
show no picture that a department reads (diagrams, tables): they have no department, and nothing is trained on them.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.departments import look_up
from data_prep.hub import count_rows, fetch, hashes, one_of, parquet_rows, whole
from data_prep.items import Item, Unusable, build, for_test_alone, print_sizes
from data_prep.items import add_arguments as common
from data_prep.pictures import beside_each_other, from_bytes, from_cell
from mmedlite.cases import option_key

REPO, REVISION = "MMMU/MMMU", "98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68"  # as others pin it; not confirmed by us online
SUBJECTS = ("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health")
IMAGES = tuple(f"image_{i}" for i in range(1, 8))
FIELDS = ("id", "question", "options", "answer", "question_type", "img_type", "subfield", *IMAGES)
LICENCE = "Apache 2.0 by its card (MMMU, Yue et al. 2024)"
PAPER = {"test": 150}


def listed(text: Any) -> list[str]:
    """A list that is written as a text ("['a', 'b']"), as MMMU writes options and picture types; ValueError where it is none."""
    try:
        value = ast.literal_eval(text) if isinstance(text, str) else text
    except (SyntaxError, MemoryError, RecursionError) as error:  # brackets without end
        raise ValueError(str(error)) from error
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise ValueError("no list of texts")
    return [v.strip() for v in value]


def read(files: Sequence[Path], sizes: dict[str, Counter[str]]) -> Iterator[Item | Unusable]:
    """The items of all subjects, all of them for test; ``sizes`` is filled on the way."""
    for file in files:
        for where, row in parquet_rows(file, FIELDS):
            if not isinstance(row.get("question"), str):
                yield Unusable(where, "field question is no text")
                continue
            where = f"{where} ({row['id']})"
            sizes["all"]["test"] += 1
            if str(row["question_type"]).strip() != "multiple-choice":
                yield Unusable(where, "open question")
                continue
            sizes["multiple choice"]["test"] += 1
            try:
                options, kinds = listed(row["options"]), listed(row["img_type"])
            except ValueError:
                yield Unusable(where, "options or picture types that are no list of texts")
                continue
            letters = [chr(ord("A") + i) for i in range(len(options))]
            if str(row["answer"]).strip() not in letters or len({option_key(o) for o in options}) < len(options) or len(options) < 2:
                yield Unusable(where, "the answer is not among the options, or an option stands twice")
                continue
            modality, specialty = look_up(kinds[0] if kinds else "unknown")
            pictures = [from_cell(row[name]) for name in IMAGES if row[name]]
            yield Item(
                f"mmmu-{row['id']}", where, "test", beside_each_other(pictures or [from_bytes(None)]), str(row["question"]).strip(),
                tuple(options), letters.index(str(row["answer"]).strip()), modality, specialty, LICENCE,
                {"subject": file.parent.name, "subfield": str(row["subfield"]), "img_type": kinds, "pictures": len(pictures)},
            )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep mmmu``."""
    common(parser, "mmmu", REVISION)


def main(args: argparse.Namespace) -> int:
    """Build the table."""
    for_test_alone(args)
    folder, origin = fetch(args, REPO, [f"{subject}/validation-*.parquet" for subject in SUBJECTS])
    files = []
    for subject in SUBJECTS:
        files += (parts := one_of(folder, [f"{subject}/validation-*.parquet"]))
        whole(parts, ("validation",))
    sizes: dict[str, Counter[str]] = {"all": Counter(), "multiple choice": Counter()}
    notes = {**origin, "files": hashes(files, folder), "sizes": sizes, "paper": PAPER}
    status = build(args, "mmmu", read(files, sizes), count_rows(files), **notes)
    print_sizes(sizes, PAPER)
    return status
