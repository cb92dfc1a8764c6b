"""Wide tables of answers: a row a panel and test case, the case's facts, and a column a system."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmedlite.profiles import InputError
from mmedlite.run import Run

FACTS = ["panel", "case_id", "question_type", "n_options", "answer", "difficulty", "unanimous", "panel_vote"]


def write_wide(
    run: Run, names: Sequence[str], file: Path, script: str, kind: str = "test", facts: Mapping[str, Mapping[str, Any]] | None = None,
    **told: Any,
) -> None:  # fmt: skip
    """Write the table: a system's column holds its text, or the option where it writes none.

    Args:
        names: systems, whose rows lie in ``results/<panel>/<kind>/``. script: hash of the source that made the rows. facts: further
            columns, by case id. told: of the whole table, kept beside seed, code and hash of the cases.
    """
    parts, known = [], {c.case_id: c for c in run.cases("test")}
    for panel in run.profile.panels:
        rows = {name: run.rows(f"{panel}/{kind}/{name}") for name in names}
        said = {name: r["text"] if r["text"].any() else r["option"].astype(str) for name, r in rows.items()}
        part = rows[names[0]][FACTS]
        more = {name: part["case_id"].map(by_case) for name, by_case in (facts or {}).items()}
        marked, options = (part["case_id"].map(f) for f in (lambda c: known[c].meta["marked"], lambda c: json.dumps(known[c].options)))
        parts.append(part.assign(marked=marked, **more, options=options, **said))
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs = {"seed": run.seed, "code": run.facts["code"], "script": script, "cases_sha256": run.table.sha256, **told}
    file.parent.mkdir(parents=True, exist_ok=True)
    _put(frame, file)


def _put(frame: pd.DataFrame, file: Path) -> None:
    """Write a table; a stop leaves no half one."""
    frame.to_parquet(part := file.with_suffix(".part"), compression="zstd", index=False)
    part.replace(file)


def add_columns(run: Run, names: Sequence[str], file: Path, script: str, **told: Any) -> None:
    """Add systems to a stored table; what it has is not changed, and keeps the code that it was made with.

    Args:
        told: of the added columns, kept beside their code and script.

    Raises:
        InputError: cases, or votes and buckets of the panels, are not those of the file.
    """
    stored = pd.read_parquet(file)
    write_wide(run, names, added := file.with_suffix(".added"), script)
    frame = pd.read_parquet(added)
    facts = [column for column in frame if column not in names]
    if not frame[facts].equals(stored[facts]):
        raise InputError("the added systems saw other cases or panels than the stored ones", str(file), f"compare it with {added}")
    whole = stored.join(frame[list(names)])
    by = {name: {k: frame.attrs[k] for k in ("code", "script")} | told for name in names}
    whole.attrs = stored.attrs | {"added": stored.attrs.get("added", {}) | by}
    _put(whole, file)
    added.unlink()
