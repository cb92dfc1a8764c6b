"""The yardstick of the store: each side does what its name says, and a slow store would show."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from figures import store_speed
from figures.store_speed import BATCH, BYTES, TARGETS, alternating, answer, get, measure, opening, put, ratio, told
from mmedlite import store
from mmedlite.opinions import COLUMNS, to_line


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measure(tmp_path_factory.mktemp("speed"), rounds=2, puts=6, gets=30, stored=50)


def test_an_answer_has_its_size() -> None:
    assert {len(to_line(answer(i))) for i in (0, 7, 99_999)} == {BYTES} and list(answer(0)) == list(COLUMNS)
    assert len({answer(i)["key"] for i in range(50)}) == 50


def test_all_is_measured_and_told(found: dict[str, Any]) -> None:
    figures, lines = told(found)
    assert set(figures) == set(TARGETS) and all(value > 0 for value in figures.values()) and len(lines) == 5
    assert found["put"]["ratio"] == pytest.approx(ratio(found["put"]["all_ms"]["ours"], found["put"]["all_ms"]["plain"]))
    assert {len(v) for part in (found["put"]["all_ms"], found["get"]["all_us"]) for v in part.values()} == {2}
    assert found["open"]["answers"] == 50 and found["open"]["bytes_an_answer"] == BYTES
    assert all(found["open"][form]["mib"] > 10 for form in ("filled", "exported")) and not found["import"]["torch"]
    json.dumps(found)


def test_targets_are_those_of_the_issue(found: dict[str, Any]) -> None:
    assert TARGETS | {"open_mib": TARGETS["open_mib"] * 2**20 / 1e6} == {
        "put_ratio": 1.3, "put_batch_ms": 0.2, "get_ratio": 1.0, "open_s": 1.0, "open_mib": pytest.approx(600), "import_s": 0.3,
    }  # fmt: skip
    slow = found | {"import": found["import"] | {"s": 0.31}, "put": found["put"] | {"ratio": 1.29}}
    _, lines = told(slow)
    assert "0.310 s (target 0.3: MISSED)" in lines[4] and "1.29 times (target 1.3: met)" in lines[0]


def test_rounds_alternate() -> None:
    seen = list[str]()
    times = alternating({name: lambda name=name: seen.append(name) for name in "abc"}, 3)
    assert "".join(seen) == "cbaabccba" and {len(v) for v in times.values()} == {3}


def test_both_sides_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fsync an answer on both sides, one a batch; and all of it is there."""
    real, synced = os.fsync, Counter[str]()

    def counted(descriptor: int) -> None:
        synced[Path(os.readlink(f"/proc/self/fd/{descriptor}")).name] += 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    put(tmp_path, rounds=3, count=4)
    assert synced == {"plain.jsonl": 12, "answers-000.jsonl": 1 + 12 + 3, "put": 1}
    assert len((tmp_path / "plain.jsonl").read_text().splitlines()) == 12
    assert len(store.OpinionStore(tmp_path / "put")) == 1 + 12 + 3 * BATCH


def test_a_slow_store_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.append
    monkeypatch.setattr(store, "append", lambda *args: (time.sleep(0.03), real(*args))[1])
    slow = put(tmp_path, rounds=2, count=3)
    assert slow["ms"]["ours"] > 30 and slow["ms"]["batch"] > 30 / BATCH and slow["ratio"] > 1.3


def test_without_diskcache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "diskcache", None)
    assert get(tmp_path, rounds=2, count=5)["beside"] == "dict"
    assert "diskcache is not installed" in capsys.readouterr().err


def test_a_store_that_opens_short_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_speed, "OPEN", store_speed.OPEN.replace("len(store)", "len(store) - 1"))
    with pytest.raises(AssertionError):
        opening(tmp_path, 1, 10)


def test_quick_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], capsys: Any) -> None:
    folders = list[Path]()
    monkeypatch.setattr(store_speed, "measure", lambda folder, *_: (folders.append(folder), found)[1])
    monkeypatch.setattr(store_speed, "OUT", tmp_path / "out.json")
    monkeypatch.setattr(sys, "argv", ["store_speed", "--quick", "--json"])
    store_speed.main()
    assert not (tmp_path / "out.json").exists() and not folders[0].exists()
    assert set(json.loads(capsys.readouterr().out.splitlines()[-1])) == set(TARGETS)
    monkeypatch.setattr(sys, "argv", ["store_speed"])
    store_speed.main()
    assert set(json.loads((tmp_path / "out.json").read_text())) == {*found, "made_from"}
    assert folders[1].parent == store_speed.ROOT / "runs"  # on the repository's disk, where fsync is real
