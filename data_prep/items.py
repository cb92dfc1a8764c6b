"""Questions on their way from a public data set into a case table: options made, pictures stored, unusable rows listed.

A source gives ``Item`` and ``Unusable`` rows; ``build`` writes the table. Nothing is guessed: a row that cannot be used is dropped,
counted and listed in card.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from data_prep.departments import LEFT_OUT
from data_prep.leaks import report, told
from data_prep.pictures import Picture, dhash
from data_prep.splits import split_pictures
from mmedlite.cases import Case, TableWriter, option_key, row_problems
from mmedlite.profiles import ROOT, InputError

YES_NO = ("yes", "no")
CHOICES = 4  # options of a question that comes without any
Row = tuple[str, dict[str, Any]]  # where it stands, its fields


@dataclass(frozen=True)
class Item:
    """A question of a source, before its picture is stored; ``where`` is "file, row n" for messages."""

    case_id: str
    where: str
    split: str
    picture: Picture
    question: str
    options: tuple[str, ...]
    answer: int
    modality: str
    specialty: str | None
    licence: str
    meta: dict[str, Any]


class Unusable(NamedTuple):
    """A row that becomes no case, and why."""

    where: str
    why: str


def yes_or_no(answer: Any) -> int | None:
    """0 for yes, 1 for no, in any case and spacing; None for any other answer."""
    key = option_key(str(answer))
    return YES_NO.index(key) if key in YES_NO else None


def with_distractors(answer: str, pool: Sequence[str], key: str) -> tuple[tuple[str, ...], int]:
    """(options, index of the answer): the answer and up to three others of the pool, drawn and shuffled by ``key`` alone.

    The same key gives the same options on any machine; without the distractors the question and its answer are as they were.
    """
    draw = random.Random(key)  # a text seeds alike everywhere
    others = sorted({option_key(o): o for o in pool if option_key(o) != option_key(answer)}.values())
    options = [answer, *draw.sample(others, min(CHOICES - 1, len(others)))]
    shuffled = draw.sample(options, len(options))
    return tuple(shuffled), shuffled.index(answer)


def each(
    rows: Iterable[Row], fields: Sequence[str], texts: Sequence[str], make: Callable[[str, dict[str, Any]], Item | Unusable]
) -> Iterator[Item | Unusable]:
    """What ``make(where, row)`` makes of every row that has all fields, ``texts`` among them as texts; a row of another form is unusable,
    and costs no other."""
    for where, row in rows:
        if lacking := [name for name in fields if name not in row]:
            yield Unusable(where, f"missing field {lacking[0]}")
            continue
        if wrong := [name for name in texts if not isinstance(row[name], str)]:
            yield Unusable(where, f"field {wrong[0]} is no text")
            continue
        try:
            yield make(where, row)
        except (TypeError, ValueError, AttributeError, KeyError, RecursionError):
            yield Unusable(where, "a field of another kind than this source has")


def held_out(names: Iterable[str], share: float, seed: int) -> set[str]:
    """That share of the names, drawn by hash: the same whatever their order."""
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return set(ordered[: round(share * len(ordered))])


def add_arguments(parser: argparse.ArgumentParser, name: str, revision: str | None = None) -> None:
    """The options that every source has; with ``revision`` also where it comes from."""
    if revision is not None:
        parser.add_argument("--source", type=Path, help="a local copy; without it the set is downloaded from the hub")
        parser.add_argument("--revision", default=revision, help=f"commit on the hub (default {revision[:12]})")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / name, help="the table's folder")
    parser.add_argument("--seed", type=int, default=0, help="draws splits and options (default 0)")
    parser.add_argument("--group-by-image", action="store_true", help="split anew, so that no picture lies in two splits")


def refuse_inside(out: Path, source: Path, what: str) -> None:
    """InputError where a table would be written into the folder that it is made from."""
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(what, str(out), "name a folder elsewhere with --out")


class Stored:
    """What a build has stored so far, by picture key; a build that was stopped reads it again (``pictures.jsonl``)."""

    def __init__(self, out: TableWriter) -> None:
        self.out, self.file = out, out.out / "pictures.jsonl"
        self.known = {row["key"]: row for row in self._read()}

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self.file.exists():
            return
        for line in self.file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # cut short by a stop
                continue
            kinds = {"key": str, "path": str, "sha256": str, "dhash": int}
            whole = isinstance(row, dict) and all(isinstance(row.get(k), kind) for k, kind in kinds.items())
            if whole and (self.out.out / row["path"]).is_file():
                yield row

    def add(self, picture: Picture) -> dict[str, Any]:
        """Path, hash and perceptual hash of a picture; InputError where it cannot be used."""
        if picture.key not in self.known:
            image = picture.load()
            path, sha = self.out.add_image(image)
            self.known[picture.key] = row = {"key": picture.key, "path": path, "sha256": sha, "dhash": dhash(image)}
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
        return self.known[picture.key]


def build(args: argparse.Namespace, source: str, items: Iterable[Item | Unusable], total: int, **notes: Any) -> int:
    """Write the table of a source and tell what is in it; returns the exit status.

    Args:
        total: rows of the source, for the time left. notes: for card.json.

    Raises:
        InputError: no usable row, or a table that the validator does not take.
    """
    hashes: dict[str, int] = {}
    if args.source is not None:
        refuse_inside(args.out, args.source, "the table would lie in its source")
    with TableWriter(args.out) as out:
        stored = Stored(out)
        cases = []
        for item in tqdm(items, total=total, desc=source, unit=" rows", mininterval=2):
            if isinstance(item, Unusable):
                out.drop(*item)
                continue
            try:
                row = stored.add(item.picture)
            except InputError as error:
                out.drop(item.where, error.what)
                continue
            hashes[row["sha256"]] = row["dhash"]
            cases.append(_case(source, item, row))
        if args.group_by_image:
            split = split_pictures({c.image_sha256s[0]: c.modality for c in cases}, args.seed)
            cases = [replace(c, split=split[c.image_sha256s[0]]) for c in cases]
        add_once(out, cases)
        out.notes |= {"seed": args.seed, "group_by_image": args.group_by_image, **notes}
        out.notes |= {"leaks": report(out.cases, hashes), "no_department": dict(Counter(c.modality for c in out.cases if not c.specialty))}
    print(f"{len(out.cases):,} cases in {args.out}, {len(out.dropped):,} rows dropped (listed in card.json)")
    print("\n".join(told(out.notes["leaks"])))
    if unknown := out.notes["no_department"]:
        why = ", ".join(f"{name} ({LEFT_OUT.get(name, 'not in the table')})" for name in sorted(unknown))
        print(f"no department, and none is guessed: {why}; see data_prep/departments.py")
    return 0


def _case(source: str, item: Item, row: dict[str, Any]) -> Case:
    yes_no = {option_key(o) for o in item.options} == set(YES_NO)
    return Case(
        case_id=item.case_id, source=source, split=item.split, images=(row["path"],), image_sha256s=(row["sha256"],), question=item.question,
        options=item.options, answer=item.answer, modality=item.modality, specialty=item.specialty,
        question_type="yes_no" if yes_no else "choice", licence=item.licence, meta={**item.meta, "row": item.where},
    )  # fmt: skip


def add_once(out: TableWriter, cases: Sequence[Case]) -> None:
    """Add the cases that the validator takes, each id once, so that one bad row does not cost the others."""
    seen: dict[str, Case] = {}
    for case in cases:
        try:
            problem = next(row_problems(case.to_row()), None)
        except (RecursionError, TypeError):  # lists in lists without end, or what no JSON holds
            problem = ("meta", "", "")
        if problem:
            out.drop(case.meta["row"], f"field {problem[0]} cannot be used")
        elif seen.setdefault(case.case_id, case) is case:
            out.add(case)
        else:
            out.drop(case.meta["row"], "a second row of the same id")


def for_test_alone(args: argparse.Namespace) -> None:
    """InputError, before anything is downloaded, where a set that is for test alone is to be split."""
    if args.group_by_image:
        raise InputError("these questions are for test alone", "--group-by-image", "leave it out")


def print_sizes(found: Mapping[str, Mapping[str, int]], paper: Mapping[str, int]) -> None:
    """A table of rules that were tried: {rule: {split: questions}}, beside the paper's sizes (its Table 3)."""
    splits = list(paper)
    print(f"{'rule':<60} " + " ".join(f"{s:>11}" for s in splits))
    for rule, counts in found.items():
        cells = [f"{counts.get(s, 0):>8,} {'=' if counts.get(s) == paper[s] else ' '} " for s in splits]
        print(f"{rule:<60} " + " ".join(cells))
    print(f"{'the paper (= where a rule gives its number)':<60} " + " ".join(f"{paper[s]:>8,}   " for s in splits))
