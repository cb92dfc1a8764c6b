"""A data set's files: a local copy, or one commit of it downloaded from the hub. Questions are read row by row, with their row numbers."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmedlite.profiles import InputError

LARGEST_MEMBER = 500_000_000  # bytes unpacked: a bomb is refused before it is
BATCH = 64  # rows of a Parquet file in memory at once: each may hold a picture


def fetch(args: argparse.Namespace, repo: str, patterns: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """(folder, where it comes from, for card.json): ``--source``, else the files of ``repo`` at ``--revision``; a stopped download goes on.

    Raises:
        InputError: no such folder, data set or revision, terms not accepted, no network.
    """
    if args.source is not None:
        if not args.source.is_dir():
            raise InputError("no such folder", str(args.source), f"name a local copy of {repo}")
        return args.source, {"repository": repo, "revision": "a local copy"}
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    local = "or name a local copy with --source"
    try:
        folder = snapshot_download(repo, repo_type="dataset", revision=args.revision, allow_patterns=list(patterns))
    except GatedRepoError as error:
        fix = f"accept its terms on its page and set HF_TOKEN, {local}"
        raise InputError("the data set asks for your consent first", repo, fix) from error
    except RevisionNotFoundError as error:
        raise InputError(f"no revision '{args.revision}'", repo, f"name another with --revision, {local}") from error
    except RepositoryNotFoundError as error:
        raise InputError("no such data set on the hub, or a private one", repo, f"set HF_TOKEN if it is yours, {local}") from error
    except Exception as error:  # offline, proxy, server, disk: each library in between has its own errors
        fix = f"run the same command again when the network is there (what is downloaded is kept), {local}"
        raise InputError(f"cannot download it ({type(error).__name__})", repo, fix) from error
    return Path(folder), {"repository": repo, "revision": args.revision}


def one_of(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of the first pattern that finds any; InputError where none does."""
    for pattern in patterns:
        if files := sorted(folder.glob(pattern)):
            return files
    raise InputError(f"no file {' or '.join(patterns)}", str(folder), "download it again, or name the right folder with --source")


def hashes(files: Sequence[Path], folder: Path) -> dict[str, str]:
    """sha256 of the files, by name, for card.json."""
    found = {}
    for file in files:
        with file.open("rb") as content:
            found[file.relative_to(folder).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def json_rows(content: bytes | Path, name: str, fields: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """("name, row n", row) of a JSON file that holds a list of objects; a row that lacks a field is given as it is, for its source to drop.

    Raises:
        InputError: no JSON, no list, or no row with all fields (another kind of file).
    """
    try:
        rows = json.loads(content.read_bytes() if isinstance(content, Path) else content)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"not a readable JSON file ({type(error).__name__})", name, "download it again") from error
    if not isinstance(rows, list):
        raise InputError("not a list of questions", name, "download it again")
    told = [(f"{name}, row {n}", row if isinstance(row, dict) else {}) for n, row in enumerate(rows, start=1)]
    if not any(set(fields) <= row.keys() for _, row in told):
        raise InputError(f"no row has the fields {', '.join(fields)}", name, "is it the file that this source ships?")
    return told


def parquet_rows(file: Path, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """("name, row n", row) of a Parquet file, a few rows in memory at once.

    Raises:
        InputError: not readable (half downloaded), or a field is missing.
    """
    try:
        table = pq.ParquetFile(file)
        if lacking := [f for f in fields if f not in table.schema_arrow.names]:
            raise InputError("missing field", f"{file}, field {lacking[0]}", "is it the file that this source ships?")
        number = 0
        for batch in table.iter_batches(BATCH, columns=list(fields)):
            for place in range(batch.num_rows):
                number += 1
                try:
                    row = batch.slice(place, 1).to_pylist()[0]
                except UnicodeDecodeError:
                    row = {}  # half a character: the row has no usable text
                yield f"{file.name}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Parquet file ({type(error).__name__})", str(file), "download it again") from error


def whole(files: Sequence[Path], splits: Sequence[str]) -> None:
    """Raise an InputError where a split or a part ("...-00001-of-00007...") is not there: the download was cut."""
    there = {file.name.split("-")[0] for file in files}
    if lacking := [split for split in splits if split not in there]:
        raise InputError(f"no file of the split {lacking[0]}", str(files[0].parent), "download the rest")
    for file in files:
        if found := re.search(r"^(\w+)-\d+(-of-0*(\d+))", file.name):
            parts = [other for other in files if other.name.startswith(f"{found[1]}-") and found[2] in other.name]
            if len(parts) != int(found[3]):
                raise InputError(f"{len(parts)} of {found[3]} parts of the split {found[1]}", str(file.parent), "download the rest")


def count_rows(files: Sequence[Path]) -> int:
    """Rows of Parquet files; InputError where one is not readable."""
    try:
        return sum(pq.ParquetFile(file).metadata.num_rows for file in files)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Parquet file ({type(error).__name__})", str(files), "download it again") from error


def open_zip(file: Path) -> zipfile.ZipFile:
    """An archive, read in place; InputError where it is damaged or half downloaded."""
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"not a readable zip archive ({type(error).__name__})", str(file), "download it again") from error


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """What a member of an archive holds; InputError where it is damaged."""
    if (size := archive.getinfo(name).file_size) > LARGEST_MEMBER:
        raise InputError(f"member of {size:,} bytes unpacked", f"{archive.filename}, {name}", "no source has one so large: download it again")
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        raise InputError(f"damaged archive ({type(error).__name__})", f"{archive.filename}, {name}", "download it again") from error
