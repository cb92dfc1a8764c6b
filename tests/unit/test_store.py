"""The store of opinions: a key for all that decides an answer, rows that survive packing, damage named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmedlite.profiles import InputError
from mmedlite.store import COLUMNS, OpinionStore, request_key

REQUEST: dict[str, Any] = {
    "model": "Surgeon-0", "revision": "r1", "prompt": "Is it there?", "images": ["ab"], "temperature": 1.0, "max_tokens": 20,
    "sample_index": 0,
}  # fmt: skip


def opinion(index: int, option: int | None = 1, **changes: Any) -> dict[str, Any]:
    request = REQUEST | {"sample_index": index}
    return {
        "key": request_key(request), "case_id": "c-1", "department": "Surgeon", "panel": "diverse", "source": "local",
        "model": "Surgeon-0", "revision": "r1", "served_model": "Surgeon-0", "sample_index": index, "seed": index,
        "request": json.dumps(request), "response": "<answer>yes – ä</answer>", "option": option,
        "reason": None if option is not None else "no_mark", "finish_reason": "stop", "usage": 3, "latency_s": 0.25, "time": 17,
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"model": "Surgeon-1"}, {"revision": "r2"}, {"prompt": "Is it there? "}, {"images": ["ac"]}, {"images": ["ab", "ab"]},
        {"temperature": 0.9}, {"max_tokens": 21}, {"sample_index": 1}, {"seed": 0},
    ],
    ids=lambda change: f"{change}",
)  # fmt: skip
def test_every_field_changes_the_key(change: dict[str, Any]) -> None:
    assert request_key(REQUEST | change) != request_key(REQUEST)


def test_equal_requests_have_one_key() -> None:
    backwards = dict(reversed(list(REQUEST.items())))
    assert request_key(backwards) == request_key(REQUEST) == request_key(json.loads(json.dumps(REQUEST)))
    assert len(request_key(REQUEST)) == 64


def test_key_is_stable_over_versions() -> None:
    """Shipped opinions are found by this hash: a change of it must be meant, and raises SCHEMA_VERSION."""
    assert request_key({"a": "ä", "b": [1, 2.5]}) == "ec42c85845155bb9c8f2a2d44a9cd9ea1ac4ed7d263f8499905835a52043ca78"


def test_samples_do_not_collapse(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    store.add(opinion(i, option=i) for i in range(6))
    assert len(store) == 6 and [store.rows[opinion(i)["key"]]["option"] for i in range(6)] == list(range(6))


def test_added_opinions_are_found_again(tmp_path: Path) -> None:
    rows = [opinion(0), opinion(1, None)]
    OpinionStore(tmp_path / "new").add(rows)
    store = OpinionStore(tmp_path / "new")
    assert [store.get(r["key"]) for r in rows] == rows
    assert store.get("0" * 64) is None


def test_an_opinion_is_kept_as_it_was_first_given(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    store.add([opinion(0, option=1)])
    store.add([opinion(0, option=0), opinion(1)])
    store.add([])
    assert store.rows[opinion(0)["key"]]["option"] == 1
    assert len((tmp_path / "asked.jsonl").read_text().splitlines()) == 2


def test_pack_and_read_again(tmp_path: Path) -> None:
    rows = [opinion(i, None if i == 2 else i) for i in range(4)]
    store = OpinionStore(tmp_path / "a")
    store.add(rows)
    store.pack(tmp_path / "b" / "opinions.parquet")
    store.pack(tmp_path / "c" / "opinions.parquet")
    again = OpinionStore(tmp_path / "b")
    assert {k: again.rows[k] for k in store.rows} == store.rows
    assert list(pd.read_parquet(tmp_path / "b" / "opinions.parquet").columns) == list(COLUMNS)
    assert (tmp_path / "b" / "opinions.parquet").read_bytes() == (tmp_path / "c" / "opinions.parquet").read_bytes()
    again.add([opinion(9)])  # a packed store still takes new opinions
    assert len(OpinionStore(tmp_path / "b")) == 5


def test_columns_are_those_of_an_opinion() -> None:
    assert set(opinion(0)) == set(COLUMNS)


def test_no_folder_is_an_empty_store(tmp_path: Path) -> None:
    assert len(OpinionStore(tmp_path / "nowhere")) == 0 and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("line", ['{"key": "a", "case', '{"case_id": "c"}', "3", '"key"', "[1]", "null"])
def test_broken_line_is_named(tmp_path: Path, line: str) -> None:
    good = json.dumps(opinion(0))
    (tmp_path / "asked.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InputError, match=r"not an opinion \(.*asked\.jsonl, line 2\)\. Fix: delete that line"):
        OpinionStore(tmp_path)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    store.add([opinion(0)])
    store.pack(tmp_path / "packed.parquet")
    (tmp_path / "packed.parquet").write_bytes((tmp_path / "packed.parquet").read_bytes()[:200])
    with pytest.raises(InputError, match=r"packed\.parquet.*Fix: "):
        OpinionStore(tmp_path)
    pd.DataFrame({"key": ["a"]}).to_parquet(tmp_path / "packed.parquet")
    with pytest.raises(InputError, match=r"packed\.parquet.*Fix: "):
        OpinionStore(tmp_path)
