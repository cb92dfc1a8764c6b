"""The store of specialists' answers: asked once, kept as rows, found again by the hash of the request.

A store is a folder of Parquet files (shipped, compressed) and JSON-lines files (appended while asking). The key covers all that
decides an answer, the sample index included: without it three samples of one model would collapse into one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from mmedlite.profiles import InputError

SCHEMA_VERSION = 1
COLUMNS = (
    "key", "case_id", "department", "panel", "source", "model", "revision", "served_model", "sample_index", "seed", "request",
    "response", "option", "reason", "finish_reason", "usage", "latency_s", "time",
)  # fmt: skip


def request_key(request: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a request: model, revision, prompt, image hash, sampling fields, sample index."""
    text = json.dumps({"schema": SCHEMA_VERSION, **request}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class MissingOpinion(InputError):
    """Replay met a request that nobody has asked yet."""


class OpinionStore:
    """Opinions of one folder, in memory by key.

    Raises:
        InputError: a file of the folder cannot be read; it names file and line.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.rows: dict[str, dict[str, Any]] = {}
        for file in sorted(self.folder.glob("*.parquet")):
            try:
                stored = pd.read_parquet(file, columns=list(COLUMNS))
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"not a file of opinions: {error}", str(file), "restore it from git, or delete it") from error
            for row in stored.astype(object).where(stored.notna(), None).to_dict("records"):
                row["option"] = None if row["option"] is None else int(row["option"])
                self.rows[row["key"]] = row
        for file in sorted(self.folder.glob("*.jsonl")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                try:
                    row = json.loads(line)
                    self.rows[row["key"]] = row
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise InputError("not an opinion", f"{file}, line {number}", "delete that line; it will be asked again") from error

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored opinion, or None."""
        return self.rows.get(key)

    def add(self, opinions: Iterable[dict[str, Any]]) -> None:
        """Append opinions to ``asked.jsonl`` (one flush a batch) and to memory; an opinion already there is kept as it is."""
        fresh = [o for o in opinions if o["key"] not in self.rows]
        if not fresh:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "asked.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(o, ensure_ascii=False) + "\n" for o in fresh)
        self.rows.update((o["key"], o) for o in fresh)

    def pack(self, file: Path) -> None:
        """Write every opinion as one compressed Parquet file, sorted by key."""
        file.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(sorted(self.rows.values(), key=lambda o: o["key"]), columns=list(COLUMNS))
        frame["option"] = frame["option"].astype("Int64")
        frame.to_parquet(file, compression="zstd", index=False)
