"""The files of one run: rows, logs and numbers, each read from the run's folder, else from the stored reference run."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from mmedlite.profiles import ROOT, InputError
from mmedlite.provenance import no_nan


def read_rows(file: Path, last: int = 0) -> list[dict[str, Any]]:
    """Rows of a JSON lines file, or those in its ``last`` bytes; a line that was cut off is left out, a file that is not there is empty."""
    if not file.exists():
        return []
    with file.open("rb") as content:
        content.seek(-min(last, file.stat().st_size), os.SEEK_END if last else os.SEEK_SET)
        lines = content.read().splitlines()
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def groups_of(rollouts: pd.DataFrame) -> pd.Series:
    """The group of each rollout, counted from 1 in the order stored. Not by case: a small table shows a case twice in one step."""
    return (rollouts["sample_index"] == 0).cumsum()


class OtherRun(InputError):
    """The folder holds a run of other code, settings, seed, cases or models."""


class RunFolder:
    """A folder of results, and the reference run that it falls back on where both saw the same cases.

    Args:
        folder: of the run. facts: what stands beside its numbers; "cases_sha256" decides whether the reference may serve.
    """

    reference = ROOT / "artifacts" / "reference"
    opinions = ROOT / "artifacts" / "opinions"  # shipped; a run keeps beside itself what it asks on top of them

    def __init__(self, folder: Path | str, facts: dict[str, Any]) -> None:
        self.folder, self.facts = Path(folder), facts

    def claim(self) -> None:
        """Make the folder.

        Raises:
            OtherRun: another run lies there, and two would be mixed in it.
            InputError: it cannot be made or read.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = json.loads(file.read_text(encoding="utf-8")) if (file := self.folder / "run.json").exists() else no_nan(self.facts)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot use the run folder: {error}", str(self.folder), "name another folder with --out") from error
        if other := [name for name, value in no_nan(self.facts).items() if made.get(name) != value]:
            raise OtherRun(f"another run lies here, with other {', '.join(other)}", str(self.folder), "name another folder with --out")

    def save_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run in one step."""
        (part := self.folder / f"{name}.part").parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(no_nan(content), indent=1) + "\n", encoding="utf-8")
        part.replace(self.folder / name)

    @staticmethod
    def _results_in(folder: Path) -> dict[str, Any]:
        file = folder / "results.json"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return found

    def results(self) -> dict[str, Any]:
        """results.json of this run; empty where there is none yet."""
        return self._results_in(self.folder)

    def update_results(self, **numbers: Any) -> None:
        """Merge numbers into results.json, beside seed, code version and data hash."""
        old = self.results()
        for key, value in numbers.items():
            old[key] = {**old[key], **value} if isinstance(value, dict) and isinstance(old.get(key), dict) else value
        self.save_json("results.json", {**old, **{k: self.facts[k] for k in ("seed", "code", "cases_sha256")}})

    def reference_results(self) -> dict[str, Any]:
        """results.json of the stored reference run; empty where there is none, or where it saw other cases."""
        found = self._results_in(self.reference)
        return found if found.get("cases_sha256") == self.facts["cases_sha256"] else {}

    def _folders(self) -> list[Path]:
        return [self.folder, *([self.reference] if self.reference_results() else [])]

    def keep(self, rows: pd.DataFrame, name: str) -> pd.DataFrame:
        """Store rows under ``results/<name>.parquet``; returns them."""
        (part := self.folder / "results" / f"{name}.part").parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(part, compression="zstd", index=False)
        part.replace(part.with_suffix(".parquet"))  # in one step: a table that is there is a whole one
        return rows

    def has_own_rows(self, name: str) -> bool:
        """Has this run itself stored rows of that name?"""
        return (self.folder / "results" / f"{name}.parquet").exists()

    def has_rows(self, name: str) -> bool:
        """Are there rows of that name in this run or the reference run?"""
        return any((base / "results" / f"{name}.parquet").exists() for base in self._folders())

    def rows(self, name: str) -> pd.DataFrame:
        """Rows of this run, else of the reference run.

        Raises:
            InputError: neither has them.
        """
        for file in (base / "results" / f"{name}.parquet" for base in self._folders()):
            if file.exists():
                return pd.read_parquet(file)
        raise InputError(f"no stored results '{name}'", str(self.folder), "run the earlier notebook, or `make artifacts`")

    def known_routes(self, split: str) -> dict[str, str | None]:
        """Departments that are stored, by case id: those of this run, or of the reference run where this one has no triage doctor."""
        own = (self.folder / "routes" / f"{split}.json").exists() or (self.folder / "adapters" / "triage").exists()
        file = (self.folder if own else self.reference) / "routes" / f"{split}.json"
        known: dict[str, str | None] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return known

    def find_adapter(self, name: str) -> Path | None:
        """Folder of an adapter of this run, else of the reference run where that stands on the same policy."""
        told = self.reference / "run.json"
        theirs = json.loads(told.read_text(encoding="utf-8"))["policy"] if told.exists() else self.facts.get("policy")
        bases = [self.folder, *([self.reference] if theirs == self.facts.get("policy") else [])]
        return next((folder for folder in (base / "adapters" / name for base in bases) if folder.exists()), None)

    def adapter(self, name: str) -> Path:
        """The same; InputError where neither run has it."""
        if (found := self.find_adapter(name)) is None:
            fix = "train it first: `mmedlite run`, or the earlier notebook"
            raise InputError(f"no adapter '{name}' of this policy", str(self.folder), fix)
        return found

    def log(self, name: str) -> list[dict[str, Any]]:
        """A training log of this run, else of the reference run: one row a step."""
        for file in (base / "logs" / f"{name}.json" for base in self._folders()):
            if file.exists():
                log: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
                return log
        raise InputError(f"no training log '{name}'", str(self.folder), "run the earlier notebook, or `make artifacts`")
