"""SLAKE as a case table: its closed questions in English, the paper's 1,681 for training (yes/no alone) and 416 for test (all closed ones).

Training and validation take the yes/no questions; the test split also holds closed questions of another kind ("lung or heart?"). These
get options: the choices that the question names, where the answer is one of them, else the answer and up to three answers that closed
training questions on the same subject (content_type) have, drawn by the question's id. Without them question and answer are as they were.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from data_prep.departments import look_up
from data_prep.hub import fetch, hashes, json_rows, one_of, open_zip
from data_prep.items import YES_NO, Item, Row, Unusable, build, each, print_sizes, with_distractors, yes_or_no
from data_prep.items import add_arguments as common
from data_prep.pictures import Picture, from_file, from_zip
from mmedlite.cases import option_key

REPO, REVISION = "BoKelvin/SLAKE", "a9083ce6c34ac3ffb17671a605962924d8a8f9e9"  # as others pin it; not confirmed by us online
NAMES = {"train": ("train",), "validation": ("validation", "validate"), "test": ("test",)}  # the hub and the original say it differently
FILES = {split: [f"{name}{end}" for name in names for end in (".json", ".en.json")] for split, names in NAMES.items()}
FIELDS = ("qid", "img_name", "question", "answer", "q_lang", "modality", "answer_type", "content_type")
LICENCE = "CC BY 4.0 by its card, to be treated as CC BY-SA 4.0 (SLAKE, Liu et al. 2021)"
PAPER = {"train": 1681, "test": 416}


def closed(row: Mapping[str, Any]) -> bool:
    """A closed question, whatever its case and blanks."""
    return str(row["answer_type"]).strip().upper() == "CLOSED"


def named_choices(question: str, answer: str) -> tuple[str, ...] | None:
    """The choices that a question names, if the answer is one of them: "..., lung, liver or heart?", "T1 weighted or T2 weighted",
    "hyperdense or hypodense?".

    >>> named_choices("Which is bigger in this image, kidney or liver?", "Liver")
    ('kidney', 'liver')
    """
    text, found = question.strip().rstrip("?").strip(), list[tuple[str, ...]]()
    listed = [part.strip() for part in re.split(r"\s*,\s*(?:or\s+)?|\s+or\s+", text) if part.strip()]
    if re.search(r"\bor\b", text) and len(listed) > 2:  # what comes before the first comma is the question itself
        found.append(tuple(listed[1:]))
    found += [(a, b) for a, _, b in re.findall(r"\b(\w+) (\w+) or (\w+) \2\b", text)]
    found += re.findall(r"\b(\w+) or (\w+)$", text)
    for choices in found:
        keys = [option_key(c) for c in choices]
        if option_key(answer) in keys and len(set(keys)) == len(keys):
            return choices
    return None


def read(rows: Mapping[str, Sequence[Row]], pictures: Callable[[str], Picture], seed: int) -> Iterator[Item | Unusable]:
    """The items of all splits; ``pictures``: img_name -> Picture."""
    pools = defaultdict(list)
    for _, row in rows["train"]:
        if set(FIELDS) <= row.keys() and row["q_lang"] == "en" and closed(row) and yes_or_no(row["answer"]) is None:
            pools[str(row["content_type"])].append(str(row["answer"]).strip())

    def make(split: str, where: str, row: dict[str, Any]) -> Item | Unusable:
        where, answer, text = f"{where} (qid {row['qid']})", yes_or_no(row["answer"]), str(row["answer"]).strip()
        if row["q_lang"] != "en":
            return Unusable(where, "not in English")
        if not closed(row):
            return Unusable(where, "open question")
        options: tuple[str, ...] = YES_NO
        if answer is None:
            if split != "test":
                return Unusable(where, "closed question, answer not yes or no")
            if named := named_choices(str(row["question"]), text):
                options, answer = named, [option_key(c) for c in named].index(option_key(text))
            else:
                options, answer = with_distractors(text, pools[str(row["content_type"])], f"{seed}:{row['qid']}")
            if len(options) < 2:
                return Unusable(where, "no other option is known for this answer")
        modality, specialty = look_up(str(row["modality"]))
        return Item(
            f"slake-{row['qid']}", where, split, pictures(str(row["img_name"])), str(row["question"]).strip(), options, answer, modality,
            specialty, LICENCE, {name: row[name] for name in ("qid", "img_name", "answer", "content_type")},
        )  # fmt: skip

    for split, part in rows.items():
        yield from each(part, FIELDS, ("img_name", "question", "answer", "modality"), partial(make, split))


def sizes(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, int]]:
    """How many questions each rule gives, by split."""

    def count(rule: Any) -> dict[str, int]:
        return {split: sum(set(FIELDS) <= row.keys() and rule(row) for _, row in part) for split, part in rows.items()}

    def english(row: Mapping[str, Any]) -> bool:
        return bool(row["q_lang"] == "en")

    return {
        "all languages, closed": count(closed), "English": count(english), "English, closed": count(lambda r: english(r) and closed(r)),
        "English, closed, yes/no": count(lambda r: english(r) and closed(r) and yes_or_no(r["answer"]) is not None),
    }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep slake``."""
    common(parser, "slake", REVISION)


def main(args: argparse.Namespace) -> int:
    """Build the table."""
    folder, origin = fetch(args, REPO, ["*.json", "imgs.zip"])
    files = {split: one_of(folder, names)[0] for split, names in FILES.items()}
    rows = {split: json_rows(file, file.name, FIELDS) for split, file in files.items()}
    archive = open_zip(folder / "imgs.zip") if (folder / "imgs.zip").is_file() else None

    def picture(name: str) -> Picture:
        if archive is None:
            return from_file(folder / "imgs", name)
        return from_zip(archive, f"imgs/{name}" if f"imgs/{name}" in archive.NameToInfo else name)

    found = sizes(rows)
    print_sizes(found, PAPER)
    notes = {**origin, "files": hashes([*files.values()], folder), "sizes": found, "paper": PAPER}
    return build(args, "slake", read(rows, picture, args.seed), sum(map(len, rows.values())), **notes)
