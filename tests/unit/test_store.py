"""The store of answers: what was added is found again, once, in files that anyone can read; one writer at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mmedlite import store as store_module
from mmedlite.opinions import MissingOpinion, damage_of, to_line
from mmedlite.profiles import ROOT
from mmedlite.store import OpinionStore
from mmedlite.store_tools import export
from tests.stored import failure, opinion, shard


def lines(folder: Path, kind: str = "answers") -> list[bytes]:
    return [line for file in sorted(folder.glob(f"{kind}-*.jsonl")) for line in file.read_bytes().split(b"\n") if line]


def found(folder: Path) -> list[str]:
    return sorted(row["case_id"] for row in OpinionStore(folder).values())


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own."""
    begin = "import sys, time\nfrom mmedlite.store import OpinionStore\nfrom tests.stored import opinion\n"
    words = [sys.executable, "-c", begin + code, *map(str, arguments)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_added_opinions_are_found_again(tmp_path: Path) -> None:
    rows = [opinion(0), opinion(1, option=None, reason="no_mark"), opinion(2, response="\ud800\u2028\n")]
    store = OpinionStore(tmp_path / "deep" / "new")
    store.add(rows)
    for seen in (store, OpinionStore(tmp_path / "deep" / "new")):
        assert [seen.get(r["key"]) for r in rows] == rows == list(seen.values())
        assert len(seen) == 3 and rows[0]["key"] in seen and not seen.torn
        assert "0" * 64 not in seen and seen.get("0" * 64) is None


def test_no_folder_is_an_empty_store(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path / "nowhere")
    assert len(store) == 0 and list(store.values()) == [] and not (tmp_path / "nowhere").exists()


def test_first_answer_is_kept(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    store.add([opinion(0, option=1), opinion(0, option=2)])
    store.add([opinion(0, option=0), opinion(1)])
    store.add([])
    for seen in (store, OpinionStore(tmp_path)):
        assert [row["option"] for row in seen.values()] == [1, 1]
    assert len(lines(tmp_path)) == 2


def test_one_line_an_answer(tmp_path: Path) -> None:
    OpinionStore(tmp_path).add(opinion(i, response=f"one\ntwo\u2028{i}") for i in range(4))
    assert sorted(file.name for file in tmp_path.iterdir() if file.name != ".lock") == ["answers-000.jsonl"]
    assert [json.loads(line)["response"] for line in lines(tmp_path)] == [f"one\ntwo\u2028{i}" for i in range(4)]


def test_one_fsync_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced = OpinionStore(tmp_path), list[str]()
    real = os.fsync

    def counted(descriptor: int) -> None:
        file = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        assert file == tmp_path or damage_of(lines(tmp_path)[-1]) is None  # written before it is made durable
        synced.append(file.name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    store.add(opinion(i) for i in range(50))
    assert synced == ["answers-000.jsonl", tmp_path.name]  # the folder too, since the file is new
    store.add(opinion(i) for i in range(50, 60))
    store.add([opinion(60)])
    assert synced[2:] == ["answers-000.jsonl"] * 2
    store.add(opinion(i) for i in range(60))
    assert len(synced) == 4  # nothing new, nothing written


def test_shards_roll_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(to_line(opinion(100)))
    monkeypatch.setattr(store_module, "SHARD_BYTES", 5 * size)
    store = OpinionStore(tmp_path)
    for i in range(100, 110):
        store.add([opinion(i)])
    store.add(opinion(i) for i in range(110, 140))  # more than a shard holds, at once
    files = store.shards()
    assert [f.name for f in files] == [f"answers-{i:03d}.jsonl" for i in range(len(files))] and len(files) == 7
    assert all(5 * size < f.stat().st_size <= 6 * size for f in files[:-1])
    assert found(tmp_path) == [f"c-{i}" for i in range(100, 140)] and len(lines(tmp_path)) == 40


def test_failures_are_no_answers(tmp_path: Path) -> None:
    store, key = OpinionStore(tmp_path), opinion(0)["key"]
    store.add_failures([failure(0, "timeout"), failure(0, "truncated"), failure(1)])
    for seen in (store, OpinionStore(tmp_path)):
        assert len(seen) == 0 and key not in seen and seen.get(key) is None and not list(seen.values())
        assert (seen.failure(key) or {})["reason"] == "truncated" and seen.failure("0" * 64) is None
    assert not shard(tmp_path).exists() and len(lines(tmp_path, "failures")) == 3
    store.add([opinion(0)])  # asked again, and answered
    for seen in (store, OpinionStore(tmp_path)):
        assert seen.failure(key) is None and seen.get(key) == opinion(0) and seen.failure(opinion(1)["key"]) == failure(1)


def test_shipped_answers_are_fallen_back_on(tmp_path: Path) -> None:
    OpinionStore(tmp_path / "a").add([opinion(0), opinion(1)])
    OpinionStore(tmp_path / "a").add_failures([failure(5)])
    shipped = OpinionStore(tmp_path / "a")
    store = OpinionStore(tmp_path / "b", shipped=shipped)
    assert len(store) == 2 and opinion(0)["key"] in store and store.get(opinion(1)["key"]) == opinion(1)
    assert store.failure(opinion(5)["key"]) == failure(5) and store.failure(opinion(0)["key"]) is None
    store.add([opinion(1, option=0), opinion(2)])
    assert len(store) == 3 and sorted(row["case_id"] for row in store.values()) == ["c-0", "c-1", "c-2"]
    assert (store.get(opinion(1)["key"]) or {})["option"] == 0  # its own comes first
    assert len(OpinionStore(tmp_path / "a")) == 2 == len(OpinionStore(tmp_path / "b"))


def test_clock_going_backwards_changes_nothing(tmp_path: Path) -> None:
    rows = [opinion(i, time=100 - i) for i in range(3)]
    for row in rows:
        OpinionStore(tmp_path).add([row])
    os.utime(shard(tmp_path), (1, 1))
    store = OpinionStore(tmp_path)
    assert list(store.values()) == rows
    store.add([opinion(0, option=0, time=-5), opinion(3, time=0)])
    assert [row["option"] for row in OpinionStore(tmp_path).values()] == [1, 1, 1, 1]


def _count(store: OpinionStore) -> int:
    store.add([opinion(9)])
    return len(store)


def test_store_travels_to_another_process(tmp_path: Path) -> None:
    export(_given(tmp_path / "a"), tmp_path / "b")
    store = OpinionStore(tmp_path / "own", shipped=OpinionStore(tmp_path / "b"))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_count, (store,)) == 4
    with store.filling():
        assert len(pickle.loads(pickle.dumps(store))) == len(store) == 4  # with what the other process has stored
    assert found(tmp_path / "own") == ["c-9"]


def _given(folder: Path) -> OpinionStore:
    store = OpinionStore(folder)
    store.add(opinion(i) for i in range(3))
    return store


def test_exported_store_is_read_and_added_to(tmp_path: Path) -> None:
    export(_given(tmp_path / "a"), tmp_path / "b")
    store = OpinionStore(tmp_path / "b")
    assert [store.get(opinion(i)["key"]) for i in range(3)] == [opinion(i) for i in range(3)]
    store.add([opinion(0, option=0), opinion(7)])
    assert found(tmp_path / "b") == ["c-0", "c-1", "c-2", "c-7"] and len(lines(tmp_path / "b")) == 1


def test_missing_opinion_is_bad_input() -> None:
    assert issubclass(MissingOpinion, ValueError)


# Several at once


def test_two_processes_fill_one_store(tmp_path: Path) -> None:
    """Both add the same and their own, in batches and one by one, without holding the store between."""
    code = """
store, mine = OpinionStore(sys.argv[1]), int(sys.argv[2])
for i in range(0, 150, 3):
    store.add(opinion(k, response="x" * 3000) for k in (i, mine + i, mine + i + 1))
    assert store.get(opinion(i)["key"])
"""
    both = [python(code, tmp_path, mine) for mine in (1000, 2000)]
    for process in both:
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 0
    expected = {*range(0, 150, 3), *(m + i + k for m in (1000, 2000) for i in range(0, 150, 3) for k in (0, 1))}
    assert {damage_of(line) for line in lines(tmp_path)} == {None}
    assert len(lines(tmp_path)) == len(expected) and set(found(tmp_path)) == {f"c-{i}" for i in expected}
    assert not OpinionStore(tmp_path).torn


def fill(store: OpinionStore, asked: list[Any], wanted: int = 3) -> None:
    """As ``specialists.fetch``: what is missing is asked by whoever holds the store."""
    with store.filling():
        missing = [i for i in range(wanted) if opinion(i)["key"] not in store]
        asked.extend(missing)
        time.sleep(0.02 * len(missing))
        store.add(opinion(i) for i in missing)


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_threads_ask_once(tmp_path: Path, shared: bool) -> None:
    one, asked = OpinionStore(tmp_path), list[int]()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fill(one if shared else OpinionStore(tmp_path), asked), range(8)))
    assert sorted(asked) == [0, 1, 2] and len(lines(tmp_path)) == 3


def test_second_filler_waits_and_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
store = OpinionStore(sys.argv[1])
with store.filling():
    print("held", flush=True)
    time.sleep(1.5)
    store.add(opinion(i) for i in range(3))
"""
    first = python(code, tmp_path)
    assert first.stdout and first.stdout.readline() == "held\n"
    store, asked = OpinionStore(tmp_path), list[int]()
    assert len(store) == 0
    fill(store, asked)
    assert first.wait(timeout=30) == 0
    assert asked == [] and len(store) == 3 and len(lines(tmp_path)) == 3
    assert f"{tmp_path}: another fill is going on; waiting for it" in capsys.readouterr().err


def test_killed_holder_frees_the_store(tmp_path: Path) -> None:
    code = """
store = OpinionStore(sys.argv[1])
with store.filling():
    store.add([opinion(0)])
    print("held", flush=True)
    time.sleep(60)
"""
    first = python(code, tmp_path)
    assert first.stdout and first.stdout.readline() == "held\n"
    store, asked = OpinionStore(tmp_path), list[int]()
    waiting = threading.Thread(target=fill, args=(store, asked))
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive() and asked == []
    first.kill()
    waiting.join(timeout=20)
    first.wait()
    assert not waiting.is_alive() and asked == [1, 2] and len(store) == 3 and found(tmp_path) == ["c-0", "c-1", "c-2"]


KILLS = """
import os, random, signal
folder, told, rng, rows = *sys.argv[1:], random.Random(0), [opinion(i) for i in range(9000)]
for _ in range(40):
    child = os.fork()
    if child == 0:  # asks what is missing, three at a time, and notes what is stored
        store, out = OpinionStore(folder), os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        with store.filling():
            missing = [row for row in rows if row["key"] not in store]
            for part in (missing[i : i + 3] for i in range(0, len(missing), 3)):
                store.add(part)
                os.write(out, "".join(row["case_id"] + "\\n" for row in part).encode())
        os._exit(0)
    time.sleep(rng.uniform(0.005, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """What was acknowledged is there, once; no line is torn into an answer, and the lock is free."""
    told = tmp_path / "told"
    process = python(KILLS, tmp_path / "store", told)
    assert process.communicate(timeout=60) and process.returncode == 0
    acknowledged = told.read_text().split()
    store = OpinionStore(tmp_path / "store")
    assert len(acknowledged) > 100 and len(set(acknowledged)) == len(acknowledged)  # none was asked twice
    assert set(acknowledged) <= set(found(tmp_path / "store")) and len(store) <= len(acknowledged) + 3 * 40
    assert all(row == opinion(int(row["case_id"][2:])) for row in store.values())
    assert len(lines(tmp_path / "store")) == len(store) + len(store.torn)  # none stands twice
    fill(store, [], 1)


def test_the_store_is_freed_by_an_error(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    with pytest.raises(RuntimeError), store.filling(), store.filling():  # held once more by its own holder
        raise RuntimeError("stop")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(store.add, [opinion(0)]).result(timeout=5)
    assert len(store) == 1
