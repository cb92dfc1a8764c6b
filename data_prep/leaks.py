"""Does a split know another? Pictures and questions that two splits share, and pictures that look alike."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.pictures import dhash
from mmedlite.cases import SPLITS, Case, option_key, read_table

NEAR = 4  # bits of 64 in which the perceptual hashes of two pictures that look alike may differ
LISTED = 20  # pairs that are named


def near(a: Mapping[str, int], b: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """(picture of b, the picture of a that is most like it, bits apart) for the pictures of b that have one within ``NEAR`` bits."""
    names, codes = list(a), np.array([*a.values()], np.uint64)
    for name, code in b.items() if len(names) else ():
        apart = np.bitwise_count(codes ^ np.uint64(code))  # (pictures of a,)
        best = int(apart.argmin())
        if apart[best] <= NEAR:
            yield name, names[best], int(apart[best])


def report(cases: Sequence[Case], hashes: Mapping[str, int]) -> dict[str, Any]:
    """What each pair of splits shares, "a/b" -> numbers about b; hashes: perceptual hash of each picture, by sha256.

    images: pictures of b. images_shared: those that a holds too. images_alike: further ones that look like one of a. questions: rows of
    b. questions_repeated: those that ask the same of the same picture as a row of a. alike: the first pairs (of b, of a, bits apart).
    """
    pictures: dict[str, set[str]] = defaultdict(set)
    asked: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case in cases:
        pictures[case.split].update(case.image_sha256s)
        asked[case.split].append((" ".join(case.image_sha256s), option_key(case.question)))
    found = {}
    for a, b in combinations([s for s in SPLITS if s in pictures], 2):
        shared, known = pictures[a] & pictures[b], set(asked[a])
        alike = list(near({p: hashes[p] for p in sorted(pictures[a])}, {p: hashes[p] for p in sorted(pictures[b] - shared)}))
        found[f"{a}/{b}"] = {
            "images": len(pictures[b]), "images_shared": len(shared), "images_alike": len(alike), "questions": len(asked[b]),
            "questions_repeated": sum(question in known for question in asked[b]), "alike": alike[:LISTED],
        }  # fmt: skip
    return found


def told(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The report in lines."""
    return [
        f"{pair}: {f['images_shared']:,} of {f['images']:,} {pair.split('/')[1]} pictures also in {pair.split('/')[0]}, {f['images_alike']:,} "
        f"more look alike; {f['questions_repeated']:,} of {f['questions']:,} questions repeated"
        for pair, f in found.items()
    ]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m data_prep leaks``."""
    parser.add_argument("--source", type=Path, required=True, help="a case table")


def main(args: argparse.Namespace) -> int:
    """Print the report of a table that is there."""
    table = read_table(args.source)
    places = {sha: (case, view) for case in table for view, sha in enumerate(case.image_sha256s)}
    hashes = {sha: dhash(table.open_image(*place)) for sha, place in tqdm(places.items(), desc="pictures", mininterval=2)}
    print("\n".join(told(report(table.cases, hashes))) or "one split only: nothing to compare")
    return 0
