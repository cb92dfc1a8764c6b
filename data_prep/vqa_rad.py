"""VQA-RAD as a case table: the closed yes/no questions, the paper's 251 in the test split.

``--source`` is a folder with trainset.json, testset.json and images/. The official test split is kept; the official
train split is divided by picture into train and validation. Open questions and closed choices other than yes/no are
dropped, counted and listed. Every test picture of VQA-RAD also occurs in train (its split is by question): card.json
says how many, here as in the official files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from mmedlite.cases import Case, TableWriter, load_rgb, option_key
from mmedlite.profiles import ROOT, InputError

FILES = {"train": "trainset.json", "test": "testset.json"}
FIELDS = ("qid", "image_name", "image_organ", "question", "answer", "answer_type")
OPTIONS = ("yes", "no")
VALIDATION = 0.1  # share of the training pictures
LICENCE = "CC0 1.0 (VQA-RAD, Lau et al. 2018; MedPix teaching cases)"

# VQA-RAD names the body part, not the modality (radiographs, CT and MRI, mixed within a part); radiology reads them all
ORGANS = {
    "CHEST": ("Radiology (chest)", "Radiologist"),
    "ABD": ("Radiology (abdomen)", "Radiologist"),
    "HEAD": ("Radiology (head)", "Radiologist"),
}


def read_rows(source: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one official file; InputError names file, row and field where it is not what VQA-RAD ships."""
    file = source / name
    if not file.is_file():
        raise InputError("missing file", str(file), "point --source at the folder with trainset.json and testset.json")
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("not a JSON file", str(file), "download it again") from error
    if not isinstance(rows, list):
        raise InputError("not a list of questions", str(file), "download it again")
    for number, row in enumerate(rows, start=1):
        missing = [key for key in FIELDS if not isinstance(row, dict) or key not in row]
        if missing:
            raise InputError("missing field", f"{file}, row {number}, field {missing[0]}", "add it, or drop the row")
    return rows


def shared(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> dict[str, int]:
    """How many test pictures, and test rows with the same question on the same picture, also occur in train."""

    def asked(row: dict[str, Any]) -> tuple[str, str]:
        return row["image_name"], option_key(str(row["question"]))

    pictures, questions = {row["image_name"] for row in train}, {asked(row) for row in train}
    return {
        "test_images": len({row["image_name"] for row in test}),
        "test_images_also_in_train": len({row["image_name"] for row in test} & pictures),
        "test_questions_also_in_train": sum(asked(row) in questions for row in test),
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep vqa_rad``."""
    parser.add_argument("--source", type=Path, required=True, help="the folder with trainset.json and testset.json")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "vqa_rad", help="the table's folder")
    parser.add_argument("--seed", type=int, default=0, help="draws the validation pictures (default 0)")


def main(args: argparse.Namespace) -> int:
    """Build the table; rows that are no yes/no question, or whose picture is bad, are listed in its card.json."""
    official = {split: read_rows(args.source, name) for split, name in FILES.items()}
    names = sorted({row["image_name"] for row in official["train"]})
    names.sort(key=lambda name: hashlib.sha256(f"{args.seed}:{name}".encode()).digest())
    validation = set(names[: round(VALIDATION * len(names))])
    stored: dict[str, tuple[str, str]] = {}
    with TableWriter(args.out) as out:
        for split, rows in official.items():
            for number, row in enumerate(rows, start=1):
                where = f"{FILES[split]}, row {number} (qid {row['qid']})"
                answer = option_key(str(row["answer"]))
                if answer not in OPTIONS:
                    closed = str(row["answer_type"]).strip().upper() == "CLOSED"  # the files hold 'CLOSED ' as well
                    out.drop(where, "closed question, answer not yes or no" if closed else "open question")
                    continue
                name = row["image_name"]
                try:
                    if name not in stored:
                        stored[name] = out.add_image(load_rgb(args.source / "images" / name))
                except InputError as error:
                    out.drop(where, error.what)
                    continue
                modality, specialty = ORGANS.get(row["image_organ"], (f"Radiology ({row['image_organ']})", None))
                out.add(
                    Case(
                        case_id=f"vqa_rad-{row['qid']}",
                        source="vqa_rad",
                        split="validation" if split == "train" and name in validation else split,
                        images=(stored[name][0],),
                        image_sha256s=(stored[name][1],),
                        question=str(row["question"]).strip(),
                        options=OPTIONS,
                        answer=OPTIONS.index(answer),
                        modality=modality,
                        specialty=specialty,
                        question_type="yes_no",
                        licence=LICENCE,
                        meta={key: row.get(key) for key in ("qid", "image_name", "question_type", "phrase_type")},
                    )
                )
        out.notes |= {"official_overlap": shared(official["train"], official["test"]), "seed": args.seed}
    print(f"{len(out.cases)} cases in {args.out}, {len(out.dropped)} rows dropped (listed in card.json)")
    print(f"official overlap of test and train: {out.notes['official_overlap']}")
    return 0
