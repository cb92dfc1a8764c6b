"""Your own pictures as a case table: a folder with labels.jsonl, a folder of such folders, or class sub-folders.

labels.jsonl holds one JSON object a line: ``image`` (path within the folder) and, where known, ``modality``, ``label``,
``licence``, ``sha256`` (of the file) and ``source``. qa.jsonl holds ready questions: ``image``, ``problem``
("... A) yes, B) no") and ``solution`` ("<answer> A </answer>"). Splits are by picture: no picture lies in two.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.departments import TABLE, look_up
from data_prep.hub import hashes
from data_prep.items import Stored, add_once, refuse_inside
from data_prep.pictures import from_file
from data_prep.splits import split_pictures
from mmedlite.cases import Case, TableWriter, option_key
from mmedlite.profiles import ROOT, InputError

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
LABEL_FILES = ("labels.jsonl", "qa.jsonl")
UNREAD = "\n"  # the only field of a row that is no JSON object; no sane row has it
MAX_CLASSES = 12  # labels with more values than this are free text, not a closed set
MODALITY_OPTIONS = 4
CLASS_QUESTION = "Which class does this picture belong to?"
MODALITY_QUESTION = "Which imaging modality is this?"


@dataclass
class Row:
    """One row of a source: ``where`` is "file, line n" for messages, ``label`` None where the row has none."""

    set_name: str
    where: str
    folder: Path
    image: str
    modality: str
    department: str | None
    label: str | None
    fields: dict[str, Any]
    sha256: str = ""  # of the decoded pixels, once stored
    stored: str = ""
    question: str = ""
    options: list[str] = field(default_factory=list)
    answer: int = 0


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(line number from 1, object) for each line of a JSON-lines file, None for one that is no JSON object in UTF-8."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"unreadable file ({type(error).__name__})", str(file), "save it again") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            value = None
        yield number, value if isinstance(value, dict) else None


def find_rows(source: Path, modality: str | None) -> tuple[list[Row], list[str], list[str]]:
    """Every row of the source, ``UNREAD`` where it is no JSON object; the names of sub-folders without labels, which are left out; and, of
    class sub-folders, the files that are no pictures of a known kind or lie in no class."""
    if not source.is_dir():
        raise InputError("no such folder", str(source), "name the folder of your pictures with --source")
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    sets = [source] if labelled(source) else [folder for folder in folders if labelled(folder)]
    rows = [
        make_row(folder, f"{folder.name}/{name}, row {number}", {UNREAD: True} if fields is None else fields, modality)
        for folder in sets
        for name in LABEL_FILES
        if (folder / name).is_file()
        for number, fields in read_lines(folder / name)
    ]
    if sets:
        return rows, [folder.name for folder in folders if sets != [source] and folder not in sets], []
    seen = {folder: sorted(file for file in folder.rglob("*") if not (file.is_dir() or hidden(file, source))) for folder in folders}
    pictures = {folder: [file for file in files if file.suffix.lower() in PICTURES] for folder, files in seen.items()}
    classes = [folder for folder, found in pictures.items() if found]
    # The folder's name is the label; the modality too, where every class is one ("normal" beside "pathology" are none).
    are_modalities = all(look_up(folder.name)[1] for folder in classes)
    for folder in classes:
        given = modality or (folder.name if are_modalities else None)
        names = [file.relative_to(source).as_posix() for file in pictures[folder]]
        rows += [make_row(source, name, {"image": name, "label": folder.name}, given) for name in names]
    others = [file for file in source.iterdir() if not (file.is_dir() or hidden(file, source))]
    others += [file for files in seen.values() for file in files if file.suffix.lower() not in PICTURES]
    if not rows:
        fix = f"add a {LABEL_FILES[0]}, or sort the pictures into one sub-folder a class"
        raise InputError("no labels and no class sub-folders", str(source), fix)
    return rows, [f.name for f in folders if f not in classes], sorted(file.relative_to(source).as_posix() for file in others)


def hidden(file: Path, source: Path) -> bool:
    """Does a name on the way to a file begin with a dot?"""
    return any(part.startswith(".") for part in file.relative_to(source).parts)


def labelled(folder: Path) -> bool:
    """Whether a folder says what its pictures are."""
    return any((folder / name).is_file() for name in LABEL_FILES)


def make_row(folder: Path, where: str, fields: dict[str, Any], modality: str | None) -> Row:
    """One row with its canonical modality and department (None where the modality is not in the table)."""
    name, department = look_up(str(fields.get("modality") or modality or "unknown"))
    label = fields.get("label")
    text = " ".join(str(label).split()) if isinstance(label, str | int) else ""
    return Row(folder.name, where, folder, str(fields.get("image") or ""), name, department, text or None, fields)


def parse_problem(problem: str, solution: str) -> tuple[str, list[str], int]:
    """A question in Med-R1's form, as (question, options, index of the answer); ValueError says why it cannot be read.

    >>> parse_problem("Is it a cyst? A) yes, B) no", "<answer> B </answer>")
    ('Is it a cyst?', ['yes', 'no'], 1)
    """
    marks = list(re.finditer(r"(?:^|(?<=[\s,]))([A-Z])\)\s*", problem))
    start = max((i for i, mark in enumerate(marks) if mark[1] == "A"), default=0)
    marks = marks[start:]
    if [mark[1] for mark in marks] != [chr(ord("A") + i) for i in range(len(marks))] or len(marks) < 2:
        raise ValueError("no options A), B), ... in the problem")
    ends = [mark.start() for mark in marks[1:]] + [len(problem)]
    options = [problem[m.end() : end].strip().rstrip(",").strip() for m, end in zip(marks, ends, strict=True)]
    if not all(options) or len({option_key(option) for option in options}) < len(options):
        raise ValueError("empty or duplicate options")
    letters = re.findall(r"<answer>\s*([A-Z])\s*</answer>", solution) or re.findall(r"^\s*([A-Z])\s*$", solution)
    if len(letters) != 1 or ord(letters[0]) - ord("A") >= len(options):
        raise ValueError("the answer is not among the options")
    return problem[: marks[0].start()].strip(), options, ord(letters[0]) - ord("A")


def store_images(rows: list[Row], out: TableWriter) -> list[Row]:
    """Store the picture of every row that has a good one; other rows are dropped with their reason. A build that was stopped goes on."""
    kept: list[Row] = []
    pictures = Stored(out)
    seen: dict[tuple[str, str, str], str | None] = {}
    for row in tqdm(rows, desc="image_folder", unit=" rows", mininterval=2):
        expected = row.fields.get("sha256")
        try:
            if UNREAD in row.fields:
                raise InputError("not a JSON object in UTF-8")
            if not row.image:
                raise InputError("no field image")
            found = pictures.add(from_file(row.folder, row.image))
            if expected and hashlib.sha256((row.folder / row.image).read_bytes()).hexdigest() != expected:
                raise InputError("the file is not the one labelled (sha256 differs)")
        except InputError as error:
            out.drop(row.where, error.what)
            continue
        row.stored, row.sha256 = found["path"], found["sha256"]
        key = (row.set_name, row.sha256, str(row.fields.get("problem")))
        if key in seen:
            same = seen[key] == (row.label or row.fields.get("solution"))
            out.drop(row.where, f"a second row about the same picture, {'same' if same else 'another'} answer")
            continue
        seen[key] = row.label or row.fields.get("solution")
        kept.append(row)
    return kept


def ask(rows: list[Row], out: TableWriter, seed: int) -> list[Row]:
    """Give each row its question: its own (qa.jsonl), the classes of its set, or else the modality, with distractors
    drawn from the modalities present. Options are shuffled, seeded by picture."""
    classes: dict[str, dict[str, str]] = defaultdict(dict)  # set -> label without case -> label as first written
    for row in rows:
        if row.label and "problem" not in row.fields:
            row.label = classes[row.set_name].setdefault(option_key(row.label), row.label)
    closed = {name: sorted(labels.values()) for name, labels in classes.items() if 2 <= len(labels) <= MAX_CLASSES}
    present = sorted({row.modality for row in rows if row.modality != "unknown"})
    pool = present if len(present) > 1 else sorted({*present, *TABLE})
    asked: list[Row] = []
    kinds: Counter[str] = Counter()
    for row in rows:
        draw = random.Random(f"{seed}:{row.set_name}:{row.sha256}")  # a text seeds alike on every machine
        if "problem" in row.fields:
            try:
                parsed = parse_problem(str(row.fields["problem"]), str(row.fields.get("solution")))
            except ValueError as error:
                out.drop(row.where, str(error))
                continue
            row.question, row.options, row.answer = parsed
            kinds["its own question"] += 1
        elif row.label and row.set_name in closed:
            row.question, row.options = CLASS_QUESTION, draw.sample(closed[row.set_name], len(closed[row.set_name]))
            row.answer = row.options.index(row.label)
            kinds["the class"] += 1
        elif row.modality != "unknown":
            others = [name for name in pool if name != row.modality]
            options = [row.modality, *draw.sample(others, min(MODALITY_OPTIONS - 1, len(others)))]
            row.question, row.options = MODALITY_QUESTION, draw.sample(options, len(options))
            row.answer = row.options.index(row.modality)
            kinds["the modality"] += 1
        else:
            out.drop(row.where, "neither a closed label nor a modality to ask about")
            continue
        asked.append(row)
    out.notes |= {"asked_for": dict(kinds), "classes": closed, "modality_distractors_from": pool}
    return asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep image_folder``."""
    parser.add_argument("--source", type=Path, required=True, help="the folder, or a folder of such folders")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "image_folder", help="the table's folder")
    parser.add_argument("--modality", help="what the pictures are where the labels do not say, as Dermoscopy")
    parser.add_argument("--seed", type=int, default=0, help="draws splits and options (default 0)")


def main(args: argparse.Namespace) -> int:
    """Build the table; rows that cannot be used are counted and listed in its card.json."""
    source = args.source.resolve()
    refuse_inside(args.out, source, "the table would lie among the pictures")
    rows, left_out, no_pictures = find_rows(source, args.modality)
    with TableWriter(args.out) as out:
        for name in no_pictures:
            out.drop(name, f"in no class folder, or no picture of a known kind ({', '.join(sorted(PICTURES))})")
        usable = ask(store_images(rows, out), out, args.seed)
        split = split_pictures({row.sha256: row.modality for row in reversed(usable)}, args.seed)
        number: Counter[tuple[str, str]] = Counter()
        cases: list[Case] = []
        for row in usable:
            number[row.set_name, row.sha256] += 1
            again = number[row.set_name, row.sha256]
            given = {key: row.fields.get(key) for key in ("modality", "label", "source", "question_type", "split")}
            yes_no = {option_key(option) for option in row.options} == {"yes", "no"}
            cases.append(
                Case(
                    case_id=f"{row.set_name}-{row.sha256[:16]}" + (f"-{again}" if again > 1 else ""),
                    source=row.set_name,
                    split=split[row.sha256],
                    images=(row.stored,),
                    image_sha256s=(row.sha256,),
                    question=row.question,
                    options=tuple(row.options),
                    answer=row.answer,
                    modality=row.modality,
                    specialty=row.department,
                    question_type="yes_no" if yes_no else "choice",
                    licence=str(row.fields.get("licence") or row.fields.get("license") or "not stated"),
                    meta={"row": row.where, "image": row.image, "given": {k: v for k, v in given.items() if v}},
                )
            )
        add_once(out, cases)
        unknown = Counter(case.modality for case in out.cases if case.specialty is None)
        read = {row.folder / name for row in rows for name in LABEL_FILES}
        files = sorted(file for file in read if file.is_file())
        out.notes |= {"no_department": dict(unknown), "folders_without_labels": left_out, "seed": args.seed, "files": hashes(files, source)}
    print(f"{len(out.cases)} cases in {args.out}, {len(out.dropped)} rows dropped (listed in card.json)")
    if unknown:
        print(f"no department for: {', '.join(sorted(unknown))} (no guess is made; data_prep/departments.py)")
    return 0
