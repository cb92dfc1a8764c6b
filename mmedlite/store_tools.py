"""What a store holds, whether it is whole, and how it travels: ``python -m mmedlite store {stats,audit,export,import} FOLDER``."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmedlite.asks import FINAL, Reply
from mmedlite.opinions import COLUMNS, NESTED, REFUSED, SCHEMA, damage_of, digest_of, request_key, to_line
from mmedlite.profiles import InputError
from mmedlite.store import ANSWERS, FAILURES, TABLE_SCHEMA, OpinionStore, read_parquet, unpacked

TABLE = "answers.parquet"
CARD = """---
license: other
pretty_name: Specialists' answers
configs:
- config_name: default
  data_files: {table}
---

# Specialists' answers

{rows:,} stored answers, schema {schema}, written by `python -m mmedlite store export`. Each row holds a request (JSON; a picture stands
as the SHA-256 of its pixels), the response, the option that was read from it, and where it comes from. `key` is the SHA-256 of the
request; `digest` is a hash of the whole row. `python -m mmedlite store import` checks both.

| model | revision | answers |
|---|---|---|
{models}

No picture, no key and no address of an endpoint is in it. Not for clinical use.
"""


def stats(store: OpinionStore) -> dict[str, Any]:
    """Counts and sums of a store: answers, failures, models, tokens, unread answers, median latency (s), first and last time."""
    answers = list(store.values())
    tokens = Counter[str]()
    for row in answers:
        tokens.update({k: v for k, v in (row["usage"] or {}).items() if isinstance(v, int)})
    latency = sorted(row["latency_s"] for row in answers)
    times = [row["time"] for row in answers]
    return {
        "answers": len(answers), "failures": sum(key not in store for key in store.failures), "torn lines": len(store.torn),
        "models": dict(Counter(row["request"]["model"] for row in answers)), "tokens": dict(tokens),
        "answers without an option": sum(row["option"] is None for row in answers),
        "median seconds an answer": latency[len(latency) // 2] if latency else None,
        "first and last": [min(times), max(times)] if times else None,
    }  # fmt: skip


def _rows(store: OpinionStore) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of the folder with its place, those that another row hides included; torn lines are left out."""
    for file in sorted(store.folder.glob("*.parquet")):
        for number, row in enumerate(read_parquet(file).to_pylist(), start=1):
            try:
                yield f"{file.name}, row {number}", unpacked(row)
            except ValueError:  # no JSON where there should be some: its digest is another, too
                yield f"{file.name}, row {number}", row
    for file in store.shards(ANSWERS):
        for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
            if line and damage_of(line) is None:
                yield f"{file.name}, line {number}", json.loads(line)


def _hashes(store: OpinionStore) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The rows whose hashes are right, by place, and the problems of the others. Of rows with one key the first is read."""
    sound, first, problems = dict[str, dict[str, Any]](), dict[str, str](), list[str]()
    for place, row in _rows(store):
        try:
            if row["digest"] != digest_of(row):
                problems.append(f"{place}: the row is not the one that was stored: its digest is another")
                continue
            if row["key"] != request_key(row["request"]):
                problems.append(f"{place}: the key is not the hash of the request")
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        if row["key"] in first:
            problems.append(f"{place}: has the key of {first[row['key']]}")
            continue
        first[row["key"]] = place
        sound[place] = row
    return sound, problems


def _final_failures(store: OpinionStore) -> list[dict[str, Any]]:
    """The failures of the folder that are not asked again, sorted by key."""
    found = [store.failure(key) for key in sorted(store.failures)]
    return [f for f in found if f and f["reason"] in FINAL and f["key"] == request_key(f["request"])]


def refused_lines(folder: Path) -> list[str]:
    """Lines of the shards for which the store would not open: edited by hand, or of another schema."""
    files = [file for kind in (ANSWERS, FAILURES) for file in sorted(folder.glob(f"{kind}-*.jsonl"))]
    lines = ((file, n, damage_of(line)) for file in files for n, line in enumerate(file.read_bytes().split(b"\n"), start=1) if line)
    return [f"{file.name}, line {n}: {REFUSED[damage][0]}" for file, n, damage in lines if damage in REFUSED]


def audit(store: OpinionStore) -> list[str]:
    """Problems of a store: torn lines, wrong hashes, duplicate keys, sample collapse, mixed revisions, answers that are none.

    Sample collapse: samples of one question share the id that the server gave its response, so one answer stands for several.
    """
    sound, wrong = _hashes(store)
    problems = [*(f"{place}: cut short; it will be asked again" for place in store.torn), *wrong]
    ids = defaultdict[tuple[str, str], list[str]](list)
    revisions, served = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for place, row in sound.items():
        request = row["request"]
        if unfit := Reply(row["response"], row["finish_reason"]).unfit():
            problems.append(f"{place}: a response that is {unfit} is stored as an answer")
        if identity := str((row["raw"] or {}).get("id") or ""):
            question = request_key({**request, "sample_index": None, "sampling": {**(request.get("sampling") or {}), "seed": None}})
            ids[question, identity].append(place)
        revisions[request["model"]].add(request.get("revision") or "")
        served[request["model"]].add(row["served_model"] or "")
    problems += [f"{', '.join(p)}: {len(p)} samples share the answer {i[1]}" for i, p in ids.items() if len(p) > 1]
    for what, found in (("revisions", revisions), ("served models", served)):
        problems += [f"{model}: {len(v)} {what} in one store: {', '.join(sorted(v))}" for model, v in found.items() if len(v) > 1]
    return problems


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it stands in Parquet, with the digest that it has when it is read again."""
    row = {name: row.get(name) for name in COLUMNS}  # half a surrogate pair cannot stand in Parquet text, but in JSON text
    row |= {n: re.sub("[\ud800-\udfff]", "\ufffd", v) for n, v in row.items() if isinstance(v, str)}
    nested = {n: json.dumps(row[n], ensure_ascii=False).encode(errors="backslashreplace").decode() for n in NESTED if row[n] is not None}
    return {**row, **nested, "digest": digest_of(row)}


def export(store: OpinionStore, folder: Path) -> Path:
    """Write all answers, sorted by key, as a ``datasets`` Parquet folder with a data card; the same store gives the same bytes.

    Requests that the model has finally answered with no answer go along, as a shard of failures; other failures stay behind.

    Raises:
        InputError: the folder cannot be written, or is itself a store that is being filled.
    """
    if any(folder.glob(f"{ANSWERS}-*.jsonl")):
        raise InputError("a store is filled here; each of its answers would stand twice", str(folder), "name another folder")
    rows = sorted(store.values(), key=lambda row: row["key"])
    counts = Counter((row["request"]["model"], row["request"].get("revision") or "") for row in rows)
    models = "\n".join(f"| {m} | {r[:12]} | {n:,} |" for (m, r), n in sorted(counts.items()))
    card = CARD.format(table=TABLE, rows=len(rows), schema=SCHEMA, models=models)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([_flat(row) for row in rows], schema=TABLE_SCHEMA)
        pq.write_table(table, part := folder / f"{TABLE}.part", compression="zstd")
        part.replace(folder / TABLE)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if final := _final_failures(store):
            (folder / f"{FAILURES}-000.jsonl").write_bytes(b"".join(map(to_line, final)))
    except OSError as error:
        raise InputError(f"cannot write the export: {error}", str(folder), "make it writable, or name another folder") from error
    return folder / TABLE


def take_in(store: OpinionStore, folder: Path) -> int:
    """Import an exported folder: every hash is checked first, and nothing is taken from a folder with a wrong one.

    Returns:
        How many answers were new.

    Raises:
        InputError: no such folder, a wrong key or digest, a response that is no answer, with file and row.
    """
    if not (folder / TABLE).is_file():
        raise InputError("no exported store", str(folder / TABLE), "name a folder that `store export` has written")
    given, wrong = _hashes(OpinionStore(folder))
    unfit = {place: Reply(row["response"], row["finish_reason"]).unfit() for place, row in given.items()}
    wrong += [f"{place}: a response that is {why} is no answer" for place, why in unfit.items() if why]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise InputError(f"{wrong[0]}{more}; nothing was taken", str(folder), "ask for the folder again")
    before = len(store.places)
    store.add({k: v for k, v in row.items() if k != "digest"} for row in given.values())
    store.add_failures(f for f in _final_failures(OpinionStore(folder)) if store.failure(f["key"]) is None and f["key"] not in store)
    return len(store.places) - before


def main(action: str, folder: Path, other: Path | None) -> int:
    """The command; 1 where an audit finds a problem."""
    if action != "import" and not folder.is_dir():
        raise InputError("no such store", str(folder), "name the folder of a store, as runs/latest/opinions or artifacts/opinions")
    if action in ("export", "import") and other is None:
        raise InputError(f"store {action} needs two folders", "", f"write: store {action} STORE FOLDER")
    if action == "audit" and (refused := refused_lines(folder)):
        print(*refused, f"{len(refused)} lines for which the store does not open: restore or delete them", sep="\n")
        return 1
    store = OpinionStore(folder)
    if action == "stats":
        print(json.dumps(stats(store), indent=1, ensure_ascii=False))
    if action == "audit":
        problems = audit(store)
        print(*problems, f"{len(problems)} problems in {len(store):,} answers of {folder}", sep="\n")
        return int(bool(problems))
    if action == "export" and other:
        print(f"{len(store):,} answers written to {export(store, other)}")
    if action == "import" and other:
        print(f"{take_in(store, other):,} new answers taken from {other}")
    return 0
