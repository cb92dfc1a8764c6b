"""The store of specialists' answers: asked once, never lost, found again by the key of the request (``opinions``).

A store is a folder. Answers are appended to JSON-lines shards, which any editor reads and any diff compares; an exported store is
Parquet (``store_tools``). A line ends with a digest of itself, so that one cut short or changed by hand is seen when it is opened.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from mmedlite.opinions import COLUMNS, NESTED, REFUSED, SCHEMA, damage_of, from_line, to_line
from mmedlite.profiles import InputError

SHARD_BYTES = 16 * 2**20  # the next shard begins behind it, so that each opens in an editor
ANSWERS, FAILURES = "answers", "failures"


class OpinionStore:
    """Opinions of one folder by key. Lines stay as they were read and are parsed when asked for.

    Args:
        folder: of the store; made at the first answer. shipped: a store to fall back on, which is never written.

    Attributes:
        torn: "file, line n" of each line that was cut short by a crash or a full disk. They count as not asked.
        unsaved: lines of answers and failures that could not be written yet, for want of disk space; the next ``add`` writes them.

    Raises:
        InputError: a line that was edited by hand or is of another schema, with file and line; an unreadable Parquet file.
    """

    def __init__(self, folder: Path | str, shipped: OpinionStore | None = None) -> None:
        self.folder, self.shipped = Path(folder), shipped
        self.places: dict[str, bytes | tuple[int, int]] = {}  # a line, or table and row
        self.failures: dict[str, bytes] = {}
        self.tables: list[pa.Table] = []
        self.torn: list[str] = []
        self.unsaved: dict[str, list[bytes]] = {ANSWERS: [], FAILURES: []}
        self._read_to: dict[str, tuple[int, int]] = {}  # of each shard: bytes and lines
        self._writer: int | None = None  # the thread that holds the lock
        for file in sorted(self.folder.glob("*.parquet")):
            table = read_parquet(file)
            for row, key in enumerate(table["key"].to_pylist()):
                self.places.setdefault(key, (len(self.tables), row))
            self.tables.append(table)
        self._read_shards()
        if self.torn:
            print(f"cut short, and to be asked again: {'; '.join(self.torn)}", file=sys.stderr)

    def shards(self, kind: str = ANSWERS) -> list[Path]:
        """Its shards, in the order of their numbers: of answers, or of failures."""
        return sorted(self.folder.glob(f"{kind}-*.jsonl"), key=lambda file: (len(file.name), file.name))

    def _read_shards(self) -> None:
        """Take up what was appended since the last look, by this process or another."""
        for kind in (ANSWERS, FAILURES):
            for file in self.shards(kind):
                begin, number = self._read_to.get(file.name, (0, 0))
                if file.stat().st_size < begin:  # its last lines were taken back, since the disk was full
                    begin = number = 0
                if file.stat().st_size > begin:
                    with file.open("rb") as content:
                        content.seek(begin)
                        *lines, tail = (data := content.read()).split(b"\n")
                    self._take(file, kind, [*lines, tail], number)
                    unread = len(tail) if damage_of(tail) else 0  # cut by a crash, or still being written: looked at again
                    self._read_to[file.name] = (begin + len(data) - unread, number + len(lines))

    def _take(self, file: Path, kind: str, lines: list[bytes], number: int) -> None:
        for line in lines:
            number += 1
            if not line:
                continue
            damage, where = damage_of(line), f"{file}, line {number}"
            if damage in REFUSED:
                raise InputError(f"the line {REFUSED[damage][0]}", where, REFUSED[damage][1])
            if damage is None and where in self.torn:
                self.torn.remove(where)  # it was still being written
            if damage is None and kind == ANSWERS:
                if self.unsaved[ANSWERS]:  # another process has stored it meanwhile
                    self.unsaved[ANSWERS] = [u for u in self.unsaved[ANSWERS] if u[8:72] != line[8:72]]
                self.places.setdefault(line[8:72].decode(), line)
            elif damage is None:
                self.failures[line[8:72].decode()] = line
            elif where not in self.torn:
                self.torn.append(where)

    # Reading
    def __len__(self) -> int:
        return len(self.places) + (sum(key not in self.places for key in self.shipped.places) if self.shipped else 0)

    def __contains__(self, key: str) -> bool:
        return key in self.places or (self.shipped is not None and key in self.shipped)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored opinion, or None."""
        place = self.places.get(key)
        if isinstance(place, bytes):
            return from_line(place)
        if place is not None:
            table, row = self.tables[place[0]], place[1]
            return unpacked({name: table[name][row].as_py() for name in COLUMNS})
        return self.shipped.get(key) if self.shipped else None

    def failure(self, key: str) -> dict[str, Any] | None:
        """The last failure of a request that has no answer, or None."""
        if key in self:
            return None
        return from_line(self.failures[key]) if key in self.failures else self.shipped.failure(key) if self.shipped else None

    def values(self) -> Iterator[dict[str, Any]]:
        """All opinions of this store and the one it falls back on."""
        for store in (self, self.shipped):
            for key in list(store.places) if store else ():
                if store is self or key not in self.places:
                    yield self.get(key) or {}

    # Writing
    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store: one thread of one process at a time asks and writes; the others wait, then find its answers."""
        if self._writer == threading.get_ident():
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                print(f"{self.folder}: another fill is going on; waiting for it", file=sys.stderr)
                lock.acquire()
        except OSError as error:
            raise InputError(f"cannot write to the store: {error}", str(self.folder), "make it writable, or name another folder") from error
        try:
            self._writer = threading.get_ident()
            self._read_shards()
            yield
        finally:
            self._writer = None
            lock.release()

    def add(self, opinions: Iterable[dict[str, Any]]) -> None:
        """Append opinions, one write and one fsync for all of them; an opinion already there is kept as it is.

        Raises:
            InputError: they cannot be written. They stay in memory, and the next call writes them.
        """
        with self.filling():
            for opinion in opinions:
                if (key := opinion["key"]) not in self.places:
                    self.unsaved[ANSWERS].append(line := to_line(opinion))
                    self.places[key] = line[:-1]
            self._save()

    def add_failures(self, failures: Iterable[dict[str, Any]]) -> None:
        """Append failures (key, request, reason, message, time ...); they are never taken for answers."""
        with self.filling():
            for failure in failures:
                self.unsaved[FAILURES].append(line := to_line(failure))
                self.failures[failure["key"]] = line[:-1]
            self._save()

    def _save(self) -> None:
        """Write what is unsaved, answers first."""
        for kind, lines in self.unsaved.items():
            while lines:
                self._save_shard(kind, lines)

    def _save_shard(self, kind: str, lines: list[bytes]) -> None:
        """Write as many lines as the newest shard holds, or begin another."""
        numbers = [int(n[1]) for name in self._read_to if (n := re.fullmatch(rf"{kind}-(\d+)\.jsonl", name))]
        last = f"{kind}-{(newest := max(numbers, default=0)):03d}.jsonl"
        size, number = self._read_to.get(last, (0, 0))
        if size > SHARD_BYTES:
            last, size, number = f"{kind}-{newest + 1:03d}.jsonl", 0, 0
        count = 0
        while count < len(lines) and size <= SHARD_BYTES:
            size += len(lines[count])
            count += 1
        try:
            size, ends = append(f"{self.folder}/{last}", b"".join(lines[:count]))
        except OSError as error:
            what = f"cannot write {len(lines)} {kind}: {error.strerror or error}"
            mend = "free some disk space and run the cell again: they are kept in memory as long as this process lives"
            raise InputError(what, f"{self.folder}/{last}", mend) from error
        self._read_to[last] = (size, number + ends)
        del lines[:count]


def append(file: str, data: bytes) -> tuple[int, int]:
    """Append whole lines to a file, for good: all of them or, where the disk refuses, none.

    Returns:
        The size of the file, and how many line ends were written.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # behind a line that a crash has cut short
        try:
            left = data
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
            if not size:
                _sync_folder(os.path.dirname(file))
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    return size + len(data), data.count(b"\n")


def _sync_folder(folder: str) -> None:
    """The name of a new file is safe only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


TABLE_SCHEMA = pa.schema([
    (name, pa.int64() if name in ("schema", "option", "seed", "time") else pa.float64() if name == "latency_s" else pa.string())
    for name in (*COLUMNS, "digest")
])  # fmt: skip


def unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table with its JSON fields read."""
    return {k: json.loads(v) if k in NESTED and v is not None else v for k, v in row.items()}


def read_parquet(file: Path) -> pa.Table:
    """An exported table of opinions.

    Raises:
        InputError: it cannot be read, lacks a column, or is of another schema.
    """
    mend = "restore it from git, or delete it"
    try:
        table = pq.read_table(file).combine_chunks()
        if absent := set(TABLE_SCHEMA.names) - set(table.column_names):
            raise InputError(f"not a file of opinions: no column {', '.join(sorted(absent))}", str(file), mend)
        table = table.select(TABLE_SCHEMA.names).cast(TABLE_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a file of opinions: {error}", str(file), mend) from error
    for schema in set(table["schema"].to_pylist()) - {SCHEMA}:
        age = "newer" if (schema or 0) > SCHEMA else "older"
        raise InputError(f"an opinion {REFUSED[age][0]}", str(file), REFUSED[age][1])
    return table
