"""What a store says of itself (stats, audit), and how it travels (export, import): every hash is checked before anything is taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import load_dataset

from mmedlite.cli import main
from mmedlite.opinions import COLUMNS, request_key, to_line
from mmedlite.profiles import InputError
from mmedlite.store import OpinionStore
from mmedlite.store_tools import TABLE, audit, export, stats, take_in
from tests.stored import REQUEST, failure, opinion, shard

PANEL = [opinion(i) for i in range(3)]


def stored(folder: Path, rows: list[dict[str, Any]] = PANEL) -> OpinionStore:
    OpinionStore(folder).add(rows)
    return OpinionStore(folder)


def exported(folder: Path, rows: list[dict[str, Any]] = PANEL) -> Path:
    export(stored(folder / "from", rows), folder / "out")
    return folder / "out"


# Stats and audit


def test_stats(tmp_path: Path) -> None:
    other = opinion(3, request=REQUEST | {"model": "o3"}, option=None, reason="no_mark", usage=None, latency_s=9.0, time=5)
    store = stored(tmp_path, [*PANEL, other])
    store.add_failures([failure(0), failure(7), failure(8), failure(8)])
    with shard(tmp_path).open("ab") as file:
        file.write(b'{"key"')
    assert stats(OpinionStore(tmp_path)) == {
        "answers": 4, "failures": 2, "torn lines": 1, "models": {"gpt-4o": 3, "o3": 1},
        "tokens": {"prompt_tokens": 21, "completion_tokens": 9}, "answers without an option": 1, "median seconds an answer": 0.25,
        "first and last": [5, 1_700_000_002],
    }  # fmt: skip
    assert stats(OpinionStore(tmp_path / "none"))["first and last"] is None


def test_sound_store_has_no_problems(tmp_path: Path) -> None:
    """Three samples of one question; a question whose server gives no ids; another question with the same id by chance."""
    other = REQUEST | {"messages": [{"role": "user", "content": "Else?"}]}
    silent = [opinion(i, raw=raw, request=other | {"sample_index": i}) for i, raw in enumerate((None, None, {}, {"id": "r-0"}))]
    assert audit(stored(tmp_path / "a", [*PANEL, *silent])) == []
    export(OpinionStore(tmp_path / "a"), tmp_path / "b")
    assert audit(OpinionStore(tmp_path / "b")) == []


def seeded(index: int) -> dict[str, Any]:
    """A sample with its own seed, whose server gave the same response to all."""
    request = REQUEST | {"sample_index": index, "sampling": {**REQUEST["sampling"], "seed": index}}
    return opinion(index, request=request, raw={"id": "r-0"})


def revised(index: int, revision: str) -> dict[str, Any]:
    return opinion(index, request=REQUEST | {"sample_index": index, "revision": revision})


AUDITS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "wrong key": ([opinion(0, key="0" * 64)], "answers-000.jsonl, line 1: the key is not the hash of the request"),
    "strange request": ([opinion(0, key="0" * 64) | {"request": {"base_url": "x"}}], "answers-000.jsonl, line 1: base_url: no part of"),
    "sample collapse": (
        [seeded(i) for i in range(3)],
        "answers-000.jsonl, line 1, answers-000.jsonl, line 2, answers-000.jsonl, line 3: 3 samples share the answer r-0",
    ),
    "mixed revisions": ([revised(0, "r1"), revised(1, "r2")], "gpt-4o: 2 revisions in one store: r1, r2"),
    "mixed served models": ([opinion(0), opinion(1, served_model="gpt-4o-mini")], "gpt-4o: 2 served models in one store: gpt-4o-2024-08-06, "),
    "truncated": ([opinion(0, finish_reason="length")], "answers-000.jsonl, line 1: a response that is truncated is stored"),
    "withheld": ([opinion(0, finish_reason="content_filter")], "line 1: a response that is content_filter is stored"),
    "truncated, in other words": ([opinion(0, finish_reason="max_tokens")], "line 1: a response that is truncated is stored"),
    "cut for a reason of its own": ([opinion(0, finish_reason="tool_calls")], "line 1: a response that is unfinished is stored"),
    "empty": ([opinion(0, response=" \n")], "line 1: a response that is empty is stored"),
}  # fmt: skip


@pytest.mark.parametrize("name", AUDITS)
def test_audit_finds(name: str, tmp_path: Path) -> None:
    rows, told = AUDITS[name]
    (problem,) = audit(stored(tmp_path, rows))
    assert told in problem


def test_audit_finds_torn_lines_and_merged_shards(tmp_path: Path) -> None:
    stored(tmp_path / "a")
    stored(tmp_path / "b", [opinion(1, option=0), opinion(5)])
    shutil.copy(shard(tmp_path / "b"), shard(tmp_path / "a", number=1))
    with shard(tmp_path / "a").open("ab") as file:
        file.write(to_line(opinion(9))[:60])
    store = OpinionStore(tmp_path / "a")
    assert len(store) == 4 and store.get(opinion(1)["key"]) == opinion(1)
    torn, double = audit(store)
    assert torn == f"{shard(tmp_path / 'a')}, line 4: cut short; it will be asked again"
    assert double == "answers-001.jsonl, line 1: has the key of answers-000.jsonl, line 2"


def test_audit_finds_a_changed_table(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    table = pd.read_parquet(folder / TABLE)
    table.loc[1, "option"] = 2
    table.to_parquet(folder / TABLE)
    (problem,) = audit(OpinionStore(folder))
    assert problem == "answers.parquet, row 2: the row is not the one that was stored: its digest is another"


# Export and import


def test_rows_survive_the_journey(tmp_path: Path) -> None:
    raw = {"id": "x", "n": [1, None, 0.5, "half \ud800"]}
    odd = opinion(3, response="a\nb\u2028\U0001f9e0\x00 \\ud800", raw=raw, latency_s=1e-9, usage=None)
    silent = opinion(4, raw=None, option=None, reason="no_mark", served_model=None, seed=2**40)
    folder = exported(tmp_path, [*PANEL, odd, silent])
    taken = OpinionStore(tmp_path / "to")
    assert take_in(taken, folder) == 5 and take_in(taken, folder) == 0
    for store in (taken, OpinionStore(tmp_path / "to"), OpinionStore(folder)):
        assert [store.get(row["key"]) for row in (*PANEL, odd, silent)] == [*PANEL, odd, silent]
    export(taken, tmp_path / "again")
    assert (tmp_path / "again" / TABLE).read_bytes() == (folder / TABLE).read_bytes()


def test_half_a_pair_is_marked_in_the_text_and_kept_in_the_raw_response(tmp_path: Path) -> None:
    row = opinion(0, response="half \ud800", raw={"id": "x", "text": "half \ud800"})
    folder = exported(tmp_path, [row])
    assert audit(OpinionStore(folder)) == [] and take_in(OpinionStore(tmp_path / "to"), folder) == 1
    assert OpinionStore(tmp_path / "to").get(row["key"]) == row | {"response": "half \ufffd"}


def test_the_same_store_exports_the_same_bytes(tmp_path: Path) -> None:
    """In whatever order it was filled; failures stay behind, answers of the store it falls back on come along."""
    one = stored(tmp_path / "a")
    stored(tmp_path / "b", PANEL[:1])
    two = OpinionStore(tmp_path / "c", shipped=OpinionStore(tmp_path / "b"))
    two.add(PANEL[:0:-1])
    two.add_failures([failure(8)])
    files = [export(store, tmp_path / f"out{i}") for i, store in enumerate((one, two, one))]
    assert len({file.read_bytes() for file in files}) == 1 == len({(file.parent / "README.md").read_text() for file in files})
    assert sorted(file.name for file in files[0].parent.iterdir()) == ["README.md", TABLE]


def test_datasets_reads_the_export(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    table = load_dataset("parquet", data_files=str(folder / TABLE), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.column_names == [*COLUMNS, "digest"] and len(table) == 3
    assert {row["key"]: json.loads(row["request"]) for row in table} == {row["key"]: row["request"] for row in PANEL}
    assert all(request_key(json.loads(row["request"])) == row["key"] and row["response"].startswith("<answer>yes – ") for row in table)


def test_data_card(tmp_path: Path) -> None:
    card = (exported(tmp_path) / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n") and "data_files: answers.parquet" in card
    assert "3 stored answers, schema 2" in card and "| gpt-4o | 2024-08-06 | 3 |" in card


def other_request(row: pd.Series) -> str:
    return json.dumps({**json.loads(row["request"]), "sample_index": 7})


CHANGES: dict[str, tuple[str, Callable[[pd.Series], Any]]] = {
    "response": ("response", lambda row: row["response"].replace("yes", "no")), "request": ("request", other_request),
    "request without JSON": ("request", lambda row: "{"), "no request": ("request", lambda row: None),
    "key": ("key", lambda row: "0" * 64), "no key": ("key", lambda row: None), "digest": ("digest", lambda row: "0" * 16),
    "option": ("option", lambda row: 3), "latency": ("latency_s", lambda row: float("inf")), "time": ("time", lambda row: None),
    "raw": ("raw", lambda row: '{"id":"r-9"}'),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_import_refuses_a_changed_row(name: str, tmp_path: Path) -> None:
    folder, (column, change) = exported(tmp_path), CHANGES[name]
    table = pd.read_parquet(folder / TABLE).astype({column: object})
    table.loc[1, column] = change(table.loc[1])
    table.to_parquet(folder / TABLE)
    store = stored(tmp_path / "to", [opinion(8)])
    before = shard(tmp_path / "to").read_bytes()
    with pytest.raises(InputError, match=r"row 2: .*; nothing was taken \(.*\)\. Fix: ask for the folder again"):
        take_in(store, folder)
    assert len(store) == 1 and shard(tmp_path / "to").read_bytes() == before


def test_import_refuses_a_missing_column_and_a_double_row(tmp_path: Path) -> None:
    folder, store = exported(tmp_path), OpinionStore(tmp_path / "to")
    whole = pd.read_parquet(folder / TABLE)
    for column in whole.columns:
        whole.drop(columns=column).to_parquet(folder / TABLE)
        with pytest.raises(InputError, match=f"no column {column} "):
            take_in(store, folder)
    pd.concat([whole, whole[:1]]).to_parquet(folder / TABLE)
    with pytest.raises(InputError, match="row 4: has the key of answers.parquet, row 1; nothing was taken"):
        take_in(store, folder)
    assert len(store) == 0 and not store.folder.exists()


def test_a_store_with_two_revisions_may_travel(tmp_path: Path) -> None:
    """A matter for ``audit``: each row is what was stored, though the store is mixed."""
    assert take_in(OpinionStore(tmp_path / "to"), exported(tmp_path, [revised(0, "r1"), revised(1, "r2")])) == 2


def test_export_does_not_write_into_a_store(tmp_path: Path) -> None:
    store = stored(tmp_path)
    with pytest.raises(InputError, match="each of its answers would stand twice .*Fix: name another folder"):
        export(store, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the export: .*Fix: make it writable"):
        export(store, tmp_path / "file")
    assert not (tmp_path / TABLE).exists()


# The command


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, c = (str(tmp_path / name) for name in "abc")
    stored(tmp_path / "a")
    assert main(["store", "export", a, b]) == 0 and f"3 answers written to {Path(b) / TABLE}" in capsys.readouterr().out
    assert main(["store", "import", c, b]) == 0 and f"3 new answers taken from {b}" in capsys.readouterr().out
    assert main(["store", "import", c, b]) == 0 and "0 new answers" in capsys.readouterr().out
    assert main(["store", "stats", c]) == 0 and json.loads(capsys.readouterr().out)["answers"] == 3
    assert main(["store", "audit", c]) == 0 and capsys.readouterr().out == f"0 problems in 3 answers of {c}\n"
    OpinionStore(c).add([opinion(3, finish_reason="length")])
    assert main(["store", "audit", c]) == 1
    problem, last = capsys.readouterr().out.splitlines()
    assert "answers-000.jsonl, line 4: a response that is truncated" in problem and last == f"1 problems in 4 answers of {c}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stats", "NONE"], "no such store (NONE). Fix: name the folder of a store"), (["audit", "NONE"], "no such store (NONE)"),
        (["export", "NONE", "HERE"], "no such store (NONE)"), (["export", "HERE"], "store export needs two folders. Fix: write: store export"),
        (["import", "HERE"], "store import needs two folders"), (["import", "NEW", "NONE"], "no exported store (NONE/answers.parquet). Fix: "),
    ],
    ids=" ".join,
)  # fmt: skip
def test_command_with_bad_input(words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "HERE").mkdir()
    assert main(["store", *words]) == 1
    assert f"error: {told}" in capsys.readouterr().err and not (tmp_path / "NEW").exists()


def test_command_on_a_changed_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path)
    shard(tmp_path).write_text(shard(tmp_path).read_text().replace("yes – 1", "yet – 1"))
    assert main(["store", "stats", str(tmp_path)]) == 1
    assert "error: the line was changed after it was written" in (err := capsys.readouterr().err) and "line 2" in err
    shard(tmp_path).write_text(shard(tmp_path).read_text().replace("yes – 2", "yet – 2"))
    assert main(["store", "audit", str(tmp_path)]) == 1  # every such line, not only the first
    out = capsys.readouterr().out
    assert "line 2: was changed" in out and "line 3: was changed" in out and "2 lines for which the store does not open" in out


@pytest.mark.parametrize("row", [opinion(0, finish_reason="max_tokens"), opinion(0, response=" ", finish_reason="stop")])
def test_what_is_no_answer_is_not_imported(row: dict[str, Any], tmp_path: Path) -> None:
    export(stored(tmp_path / "from", [row, opinion(1)]), tmp_path / "folder")
    store = OpinionStore(tmp_path / "to")
    with pytest.raises(InputError, match=r"row \d: a response that is (truncated|empty) is no answer; nothing was taken"):
        take_in(store, tmp_path / "folder")
    assert len(store) == 0
