"""VQA-RAD as a case table: the yes/no questions, the paper's 940 for training and 251 for test.

``--source`` is a folder with trainset.json, testset.json and images/ (the official files), or a copy of the hub's Parquet files. Taken are
free-form and paraphrased questions ('frame' ones, made from templates, are not on the hub either), each question on a picture once. The
official test split is kept; a tenth of the training pictures is for validation. Every test picture also occurs in train (the split is by
question): card.json says how many.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.hub import fetch, hashes, json_rows, one_of, parquet_rows, whole
from data_prep.items import YES_NO, Item, Row, Unusable, build, each, held_out, print_sizes, yes_or_no
from data_prep.items import add_arguments as common
from data_prep.pictures import from_cell, from_file
from mmedlite.cases import option_key

REPO, REVISION = "flaviagiammarino/vqa-rad", "bcf91e7654fb9d51c8ab6a5b82cacf3fafd2fae9"  # as others pin it; not confirmed by us online
FILES = {"train": "trainset.json", "test": "testset.json"}
FIELDS = ("qid", "image_name", "image_organ", "question", "answer", "answer_type", "phrase_type")
HUB_FIELDS = ("image", "question", "answer")
VALIDATION = 0.1  # share of the training pictures
LICENCE = "CC0 1.0 (VQA-RAD, Lau et al. 2018; MedPix teaching cases)"
PAPER = {"train": 940, "test": 251}

# VQA-RAD names the body part, not the modality (radiographs, CT and MRI, mixed within a part); radiology reads them all
ORGANS = {
    "CHEST": ("Radiology (chest)", "Radiologist"), "ABD": ("Radiology (abdomen)", "Radiologist"),
    "HEAD": ("Radiology (head)", "Radiologist"), None: ("Radiology", "Radiologist"),
}  # fmt: skip


def official(folder: Path) -> Iterator[Row]:
    """The rows of the official files, with their split and picture."""
    for split, name in FILES.items():
        for where, row in json_rows(folder / name, name, FIELDS):
            yield where, {**row, "split": split, "picture": from_file(folder / "images", str(row.get("image_name")))}


def on_hub(files: Sequence[Path], pictures: bool) -> Iterator[Row]:
    """The rows of the hub's Parquet files, with the fields that it leaves out: none of its questions is a 'frame' one.

    Args:
        pictures: with the pictures; without, so that all rows may be held at once, only the keys of them.
    """
    numbers = Counter[str]()
    for file in files:
        split = file.name.split("-")[0]
        for where, row in parquet_rows(file, HUB_FIELDS):
            numbers[split] += 1
            picture = from_cell(row.get("image"))
            more = {
                "qid": f"{split}-{numbers[split]}",
                "image_name": picture.key,
                "image_organ": None,
                "answer_type": None,
                "phrase_type": None,
            }
            shown = {"picture": picture} if pictures else {}
            yield where, {"question": row.get("question"), "answer": row.get("answer"), **more, "split": split, **shown}


def asked(row: Mapping[str, Any]) -> tuple[str, str]:
    """A question on a picture, whatever its case and blanks."""
    return str(row["image_name"]), option_key(str(row["question"]))


def overlap(rows: Sequence[Row]) -> dict[str, int]:
    """How many test pictures, by their names, and test rows with the same question on the same picture, also occur in train."""
    train, test = ([row for _, row in rows if row["split"] == split and set(FIELDS) <= row.keys()] for split in ("train", "test"))
    pictures, questions = {str(row["image_name"]) for row in train}, {asked(row) for row in train}
    shown = {str(row["image_name"]) for row in test}
    return {
        "test_images": len(shown),
        "test_images_also_in_train": len(shown & pictures),
        "test_questions_also_in_train": sum(asked(row) in questions for row in test),
    }


def sizes(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """How many questions each rule gives, by split."""
    whole = [row for _, row in rows if set(FIELDS) <= row.keys()]
    yes_no = [row for row in whole if yes_or_no(row["answer"]) is not None]
    natural = [row for row in yes_no if row["phrase_type"] != "frame"]
    once = {(row["split"], *asked(row)): row for row in natural}.values()
    rules = {"all": whole, "yes/no": yes_no, "yes/no, without 'frame' questions": natural, "the same, each question on a picture once": once}
    return {rule: {s: sum(row["split"] == s for row in part) for s in PAPER} for rule, part in rules.items()}


def read(rows: Sequence[Row], pictured: Iterable[Row], seed: int) -> Iterator[Item | Unusable]:
    """The items of both splits; pictured: the same rows with their pictures, one after the other."""
    validation = held_out((str(row.get("image_name")) for _, row in rows if row["split"] == "train"), VALIDATION, seed)
    seen = set()

    def make(where: str, row: dict[str, Any]) -> Item | Unusable:
        split, where = row["split"], f"{where} (qid {row['qid']})"
        if (answer := yes_or_no(row["answer"])) is None:
            closed = str(row["answer_type"]).strip().upper() == "CLOSED"  # the files hold 'CLOSED ' as well
            return Unusable(where, "closed question, answer not yes or no" if closed else "no yes/no question")
        if row["phrase_type"] == "frame":
            return Unusable(where, "'frame' question, made from a template")
        if (key := (split, *asked(row))) in seen:
            return Unusable(where, "the same question on the same picture again")
        seen.add(key)
        modality, specialty = ORGANS.get(row["image_organ"], (f"Radiology ({row['image_organ']})", None))
        part = "validation" if split == "train" and str(row["image_name"]) in validation else split
        return Item(
            f"vqa_rad-{row['qid']}", where, part, row["picture"], str(row["question"]).strip(), YES_NO, answer, modality, specialty, LICENCE,
            {key: row.get(key) for key in ("qid", "image_name", "answer", "question_type", "phrase_type")},
        )  # fmt: skip

    return each(pictured, FIELDS, ("question", "image_name"), make)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep vqa_rad``."""
    common(parser, "vqa_rad", REVISION)


def main(args: argparse.Namespace) -> int:
    """Build the table."""
    folder, origin = fetch(args, REPO, ["data/*.parquet"])
    files = one_of(folder, [FILES["train"], "data/*.parquet", "*.parquet"])
    if files[0].suffix == ".json":
        files, rows = [folder / name for name in FILES.values()], list(official(folder))
        pictured: Iterable[Row] = rows
    else:
        whole(files, ("train", "test"))
        rows, pictured = list(on_hub(files, pictures=False)), on_hub(files, pictures=True)
    found = sizes(rows)
    print_sizes(found, PAPER)
    notes = {**origin, "files": hashes(files, folder), "sizes": found, "paper": PAPER, "official_overlap": overlap(rows)}
    print(f"official overlap of test and train: {notes['official_overlap']}")
    return build(args, "vqa_rad", read(rows, pictured, args.seed), len(rows), **notes)
