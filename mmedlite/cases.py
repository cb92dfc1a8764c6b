"""The case table, readable without this kit: a folder of ``cases.parquet`` (one row a case), ``images/<sha256>.png`` (each picture once,
named after its decoded pixels) and ``card.json`` (what it holds, where it came from, what was dropped and why). Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mmedlite.pictures import image_sha256, load_rgb, to_rgb, usable
from mmedlite.profiles import DEPARTMENTS, InputError

SPLITS = ("train", "validation", "test", "shifted")
TABLE_NAME, CARD_NAME = "cases.parquet", "card.json"
MAX_LISTED = 20  # problems named in one error; more than a screenful helps nobody


@dataclass(frozen=True)
class Case:
    """One question about one picture, or about several views of it.

    ``images[0]`` is what triage and the attending see; specialist i reads ``images[1 + i]`` where there is one, else
    ``images[0]``. ``answer`` indexes ``options``. ``specialty`` is one of ``DEPARTMENTS``, or None where no
    department is certain. ``meta`` holds whatever JSON the source adds.
    """

    case_id: str
    source: str
    split: str
    images: tuple[str, ...]
    image_sha256s: tuple[str, ...]
    question: str
    options: tuple[str, ...]
    answer: int
    modality: str
    specialty: str | None
    question_type: str
    licence: str
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def answer_text(self) -> str:
        """The right option, as text."""
        return self.options[self.answer]

    def to_row(self) -> dict[str, Any]:
        """The case as a row of the Parquet table: the same fields, ``meta`` as JSON text."""
        return asdict(self) | {"meta": json.dumps(self.meta, sort_keys=True, ensure_ascii=False)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Case:
        """The inverse of :meth:`to_row`, for a row that :func:`validate` has passed; further columns are ignored."""
        lists = {name: tuple(row[name]) for name in ("images", "image_sha256s", "options")}
        return cls(**{name: row[name] for name in SCHEMA.names} | lists | {"meta": json.loads(row["meta"])})


_KINDS = dict.fromkeys(("images", "image_sha256s", "options"), pa.list_(pa.string())) | {"answer": pa.int64()}
SCHEMA = pa.schema([(name, _KINDS.get(name, pa.string())) for name in Case.__dataclass_fields__])


@dataclass
class CaseTable:
    """The cases of one table; ``path`` is its Parquet file."""

    path: Path
    cases: list[Case]

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def split(self, name: str) -> list[Case]:
        """The cases of one split, in table order; InputError for a name that is no split."""
        if name not in SPLITS:
            raise InputError(f"unknown split {name!r}", str(self.path), f"use one of {', '.join(SPLITS)}")
        return [case for case in self.cases if case.split == name]

    @cached_property
    def _by_id(self) -> dict[str, Case]:
        return {case.case_id: case for case in self.cases}

    def by_id(self, case_id: str) -> Case:
        """The case of that id; InputError where there is none."""
        if case_id not in self._by_id:
            raise InputError(f"no case {case_id!r}", str(self.path), "take a case_id of this table")
        return self._by_id[case_id]

    def open_image(self, case: Case, view: int = 0) -> Image.Image:
        """View ``view`` (0 to ``len(case.images) - 1``) as an RGB picture; InputError where its file is bad."""
        return load_rgb(self.path.parent / case.images[view])

    @cached_property
    def sha256(self) -> str:
        """Hash of the logical content (every field of every row, in order), not of the Parquet bytes."""
        rows = (json.dumps(case.to_row(), sort_keys=True, ensure_ascii=False) for case in self.cases)
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def option_key(text: str) -> str:
    """An option without case, spare spaces and marks that nobody sees: two options with one key cannot be told apart in an answer."""
    seen = "".join(c for c in unicodedata.normalize("NFC", text) if c.isspace() or c.isprintable())
    return " ".join(seen.split()).casefold()


def _texts(value: Any) -> bool:
    """A list of texts, none of them empty or with half a character (a lone surrogate, which no file can hold)."""
    return isinstance(value, list | tuple) and all(isinstance(v, str) and v.strip() and v.encode(errors="ignore").decode() == v for v in value)


# What a prompt or an answer is built of: a question or an option that holds it would break both, after opinions have been paid for.
CONTROL = re.compile(r"<\|[^<>|]{1,40}\|>|</?(?:think|answer|img)>|<(?:image|video|IMG_CONTEXT|(?:start|end)_of_image|image_soft_token)>", re.I)


def row_problems(row: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(field, what is wrong, mend) for one row, pictures aside."""
    for name in ("case_id", "source", "question", "modality", "licence"):
        if not _texts([row[name]]):
            yield name, f"{row[name]!r} is no text", "write a text that is not empty"
    one_of = {"split": SPLITS, "question_type": ("yes_no", "choice"), "specialty": (*DEPARTMENTS, None)}
    for name, allowed in one_of.items():
        if row[name] not in allowed:
            yield name, f"unknown value {row[name]!r}", f"use one of {', '.join(map(str, allowed))}"
    options, answer = row["options"], row["answer"]
    for name, texts in (("question", [row["question"]]), ("options", options)):
        if _texts(texts) and not all(map(option_key, texts)):
            yield name, "a text that shows nothing", "write one that can be read"
        if found := [text for text in texts if CONTROL.search(text)] if _texts(texts) else []:
            yield name, f"{found[0]!r} holds a control token or a tag of the answer", "take it out"
    if not _texts(options) or len(options) < 2:
        yield "options", f"{options!r} is no list of two or more texts", "give at least two options, none empty"
        return
    keys = [option_key(option) for option in options]
    if len(set(keys)) < len(keys):
        yield "options", f"a duplicate option in {list(options)!r}", "make every option differ"
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        yield "answer", f"{answer!r} is not among the {len(options)} options", "write the index of one, from 0"
    if row["question_type"] == "yes_no" and set(keys) != {"yes", "no"}:
        yield "question_type", f"yes_no with options {list(options)!r}", "write choice, or the options yes and no"
    try:
        meta = json.loads(row["meta"])
    except (TypeError, ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict) or not _texts([row["meta"]]):
        yield "meta", "no JSON object", "write {} where there is nothing to say"


def _image_problems(row: dict[str, Any], folder: Path | None, seen: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """The same for the pictures of one row. ``seen`` keeps one verdict a file; without a folder only names count."""
    paths, shas = row["images"], row["image_sha256s"]
    if not _texts(paths) or not paths or not _texts(shas) or len(shas) != len(paths):
        yield "images", "no pictures, or not one sha256 for each", "name at least one picture, and the hash of each"
        return
    for path, sha in zip(paths, shas, strict=True):
        # the fixed form of the path also keeps a stranger's table from pointing outside its folder
        if not re.fullmatch(r"[0-9a-f]{64}", sha) or path != f"images/{sha}.png":
            yield "image_sha256s", f"wrong sha256 {sha!r} for {path!r}", "use image_sha256; name it images/<sha256>.png"
            continue
        if folder is not None and path not in seen:
            try:
                usable((image := load_rgb(folder / path)).size)
                same = image_sha256(image) == sha
                seen[path] = "" if same else "wrong sha256, its pixels are not those of its name"
            except InputError as error:
                seen[path] = error.what
        if seen.get(path):
            yield "images", f"{path}: {seen[path]}", "put the right picture back, or build the table again"


def validate(rows: Iterable[dict[str, Any]], file: Path | str, folder: Path | None = None) -> None:
    """Raise one InputError that lists the first 20 problems with file, row (counted from 1), field and mend. With
    ``folder`` (the table's own) each picture too must be there, be readable and have the pixels its name says."""
    problems: list[str] = []
    ids: dict[str, int] = {}
    seen: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        case_id = row.get("case_id")
        found = [(name, "missing", "add the column") for name in SCHEMA.names if name not in row]
        if not found:
            found = [*row_problems(row), *_image_problems(row, folder, seen)]
        if (first := ids.setdefault(str(case_id), number)) != number:
            found.append(("case_id", f"duplicate of row {first}", "give every case its own id"))
        problems += [f"row {number} ({case_id!r}), field {name}: {what} -> {fix}" for name, what, fix in found]
    if problems:
        more = f", the first {MAX_LISTED} of them listed" if len(problems) > MAX_LISTED else ""
        where = "\n  ".join([f"{file}:", *problems[:MAX_LISTED]])
        raise InputError(f"{len(problems)} problem(s) in the case table{more}", where, "mend each row as its -> says")


def _rows(table: pa.Table, file: Path) -> list[dict[str, Any]]:
    """Its rows; InputError names the first that holds a text that is none."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except UnicodeDecodeError as error:
        for place in range(table.num_rows):
            try:
                table.slice(place, 1).to_pylist()
            except UnicodeDecodeError:
                raise InputError("a text that is no UTF-8", f"{file}, row {place + 1}", "build the table again, or take it out") from error
        raise
    return rows


def read_table(path: Path | str, check_images: bool = True) -> CaseTable:
    """Read and check a table, given its folder or its Parquet file. InputError names whatever is wrong.

    ``check_images`` decodes every picture and compares its hash; turn it off only for a table checked before.
    """
    file = Path(path) / TABLE_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError("no case table", str(file), "build one: python -m data_prep SOURCE --out FOLDER")
    try:
        there = pq.read_schema(file).names
        rows = _rows(pq.read_table(file, columns=[name for name in SCHEMA.names if name in there]), file)  # further columns do no harm
    except (pa.ArrowException, OSError) as error:
        raise InputError("not a readable Parquet file", str(file), "build the table again") from error
    if not rows:
        raise InputError("the case table is empty", str(file), "build it again from a source with usable rows")
    validate(rows, file, file.parent if check_images else None)
    return CaseTable(file, [Case.from_row(row) for row in rows])


class TableWriter:
    """Write a table: ``with TableWriter(folder) as out: out.add(Case(images=..., ...))``.

    Pictures are written as they come; the Parquet file and card.json (counts, pictures shared between splits, what was
    dropped and why) only when the block ends well and every row passes :func:`validate`: no half table is ever left.
    """

    def __init__(self, out: Path | str) -> None:
        self.out = Path(out)
        self.cases: list[Case] = []
        self.dropped: list[dict[str, str]] = []
        self.notes: dict[str, Any] = {}  # what else the source wants in card.json

    def __enter__(self) -> TableWriter:
        try:
            (self.out / "images").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write here ({error.strerror})", str(self.out), "name another folder") from error
        return self

    def add_image(self, image: Image.Image) -> tuple[str, str]:
        """Store a picture once; returns (path within the table's folder, sha256 of its pixels)."""
        rgb = to_rgb(image)
        sha = image_sha256(rgb)
        path = f"images/{sha}.png"
        if not (self.out / path).exists():
            rgb.save(self.out / "part.png", compress_level=3)
            os.replace(self.out / "part.png", self.out / path)  # a killed build leaves no half picture
        return path, sha

    def add(self, case: Case) -> None:
        """Add a case; it is checked with all others when the block ends."""
        self.cases.append(case)

    def drop(self, row: str, why: str) -> None:
        """Note a row of the source that becomes no case; it is counted and listed in card.json."""
        self.dropped.append({"row": row.encode(errors="backslashreplace").decode(), "why": why.encode(errors="backslashreplace").decode()})

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            return
        file = self.out / TABLE_NAME
        reasons = dict(Counter(row["why"] for row in self.dropped))
        if not self.cases:
            raise InputError(f"no row became a case; dropped: {reasons}", fix="mend the source, then build again")
        rows = [case.to_row() for case in self.cases]
        validate(rows, file)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), self.out / "part.parquet")
        os.replace(self.out / "part.parquet", file)
        used = {name: {sha for c in self.cases if c.split == name for sha in c.image_sha256s} for name in SPLITS}
        shared = {f"{a}/{b}": len(used[a] & used[b]) for a, b in combinations(SPLITS, 2)}
        counted = ("source", "licence", "split", "modality", "specialty", "question_type")
        card = {
            "sha256": CaseTable(file, self.cases).sha256,
            "cases": len(self.cases),
            "images": len(set().union(*used.values())),
            "counts": {name: dict(Counter(str(getattr(case, name)) for case in self.cases)) for name in counted},
            "images_shared": {pair: n for pair, n in shared.items() if n},
            "dropped": {"count": len(self.dropped), "reasons": reasons, "rows": self.dropped},
            **self.notes,
        }
        (self.out / CARD_NAME).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
