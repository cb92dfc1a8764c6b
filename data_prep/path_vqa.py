"""PathVQA as a case table: the yes/no questions of the hub's Parquet files, 3,362 of them for test in the paper.

Its pictures belong to textbook publishers: load them for yourself and hand neither them nor the table on. The paper's 9,555 questions for
training could not be counted without the data; ``python -m data_prep path_vqa`` prints what each rule gives.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.departments import look_up
from data_prep.hub import count_rows, fetch, hashes, one_of, parquet_rows, whole
from data_prep.items import YES_NO, Item, Unusable, build, print_sizes, yes_or_no
from data_prep.items import add_arguments as common
from data_prep.pictures import from_cell
from mmedlite.cases import option_key

REPO, REVISION = "flaviagiammarino/path-vqa", "1685832883334b5bb5beaf4e4b333fdeecaa4ad9"  # as others pin it; not confirmed by us online
FIELDS = ("image", "question", "answer")
LICENCE = "MIT by its card; the pictures are from textbooks and must not be redistributed (PathVQA, He et al. 2020)"
PAPER = {"train": 9555, "test": 3362}
RULES = ("all", "yes/no", "yes/no, each question on a picture once", "the same, pictures that no other split has")


def read(files: Sequence[Path], sizes: dict[str, Counter[str]]) -> Iterator[Item | Unusable]:
    """The items of all splits, row by row; ``sizes`` is filled on the way: rule -> split -> questions."""
    modality, specialty = look_up("Histopathology")  # slides for the most part, some gross specimens: the paper sends the set to pathology
    seen: set[tuple[str, str, str]] = set()
    splits_of: dict[str, set[str]] = {}
    asked: Counter[tuple[str, str]] = Counter()
    for file in files:
        split = file.name.split("-")[0]
        for number, (where, row) in enumerate(parquet_rows(file, FIELDS), start=1):
            picture = from_cell(row.get("image"))
            sizes["all"][split] += 1
            splits_of.setdefault(picture.key, set()).add(split)
            if not isinstance(row.get("question"), str) or (answer := yes_or_no(row.get("answer"))) is None:
                yield Unusable(where, "no yes/no question")
                continue
            sizes["yes/no"][split] += 1
            if (key := (split, picture.key, option_key(str(row["question"])))) in seen:
                yield Unusable(where, "the same question on the same picture again")
                continue
            seen.add(key)
            asked[split, picture.key] += 1
            yield Item(
                f"path_vqa-{file.stem.split('-of-')[0]}-{number}", where, split, picture, str(row["question"]).strip(), YES_NO, answer,
                modality, specialty, LICENCE, {"answer": row["answer"]},
            )  # fmt: skip
    for (split, name), count in asked.items():
        sizes[RULES[2]][split] += count
        sizes[RULES[3]][split] += count * (len(splits_of[name]) == 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep path_vqa``."""
    common(parser, "path_vqa", REVISION)


def main(args: argparse.Namespace) -> int:
    """Build the table."""
    folder, origin = fetch(args, REPO, ["data/*.parquet"])
    files = one_of(folder, ["data/*.parquet", "*.parquet"])
    whole(files, ("train", "validation", "test"))
    sizes: dict[str, Counter[str]] = {rule: Counter() for rule in RULES}
    notes = {**origin, "files": hashes(files, folder), "sizes": sizes, "paper": PAPER}
    status = build(args, "path_vqa", read(files, sizes), count_rows(files), **notes)
    print_sizes(sizes, PAPER)
    return status
