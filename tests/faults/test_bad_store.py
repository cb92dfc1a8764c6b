"""Damage to a store, full disks and closed folders: told with file and line, never taken for an answer, nothing lost or doubled."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from mmedlite import opinions
from mmedlite.opinions import SCHEMA, to_line
from mmedlite.profiles import InputError
from mmedlite.store import OpinionStore
from mmedlite.store_tools import audit, export
from tests.stored import failure, full_disk, opinion, shard


def found(store: OpinionStore) -> list[str]:
    return sorted(row["case_id"] for row in store.values())


def line(index: int) -> bytes:
    return to_line(opinion(index, response=f"ä{index}\n"))


def test_a_last_line_cut_at_every_byte(tmp_path: Path) -> None:
    """The good ones are found, the cut one is named and asked again; what is then added is found by the next to open the store."""
    whole = line(2)
    for end in range(1, len(whole) - 1):
        file = shard(tmp_path)
        file.write_bytes(line(0) + line(1) + whole[:end])
        store = OpinionStore(tmp_path)
        assert found(store) == ["c-0", "c-1"] and store.torn == [f"{file}, line 3"], end
        if end % 9 == 0:  # an fsync each
            store.add([opinion(3), opinion(2)])
            again = OpinionStore(tmp_path)
            assert found(again) == ["c-0", "c-1", "c-2", "c-3"] and again.torn == [f"{file}, line 3"], end
            assert len(audit(again)) == 1


def test_only_the_line_end_is_missing(tmp_path: Path) -> None:
    """Such a line is whole: it is found, and not asked and stored a second time."""
    shard(tmp_path).write_bytes(line(0) + line(1)[:-1])
    store = OpinionStore(tmp_path)
    assert found(store) == ["c-0", "c-1"] and not store.torn
    store.add([opinion(1), opinion(2)])
    assert found(OpinionStore(tmp_path)) == ["c-0", "c-1", "c-2"] and audit(OpinionStore(tmp_path)) == []
    assert shard(tmp_path).read_bytes() == line(0) + line(1) + to_line(opinion(2))


@pytest.mark.parametrize("end", [1, 20, 200, -30, -2])
def test_a_torn_line_in_the_middle(tmp_path: Path, end: int, capsys: pytest.CaptureFixture[str]) -> None:
    shard(tmp_path).write_bytes(line(0) + line(1)[:-1][:end] + b"\n" + line(2))
    shard(tmp_path, "failures").write_bytes(to_line(failure(5)) + to_line(failure(6))[:end])
    store = OpinionStore(tmp_path)
    places = [f"{shard(tmp_path)}, line 2", f"{shard(tmp_path, 'failures')}, line 2"]
    assert found(store) == ["c-0", "c-2"] and store.torn == places and opinion(1)["key"] not in store
    assert store.failure(opinion(5)["key"]) and not store.failure(opinion(6)["key"])
    assert f"cut short, and to be asked again: {'; '.join(places)}" in capsys.readouterr().err


def test_a_hole_of_zeros_after_a_power_cut(tmp_path: Path) -> None:
    data = b"".join(map(line, range(5)))
    first = len(line(0))
    shard(tmp_path).write_bytes(data[: first + 50] + bytes(len(line(1)) + 100) + data[first + 150 + len(line(1)) :])
    assert found(OpinionStore(tmp_path)) == ["c-0", "c-3", "c-4"]


def test_a_reader_beside_a_writer(tmp_path: Path) -> None:
    """Half a line is never accepted; the reader takes it up when it is whole, and no longer calls it torn."""
    file, data = shard(tmp_path), line(0) + line(1) + line(2)
    file.write_bytes(b"")
    reader, written = OpinionStore(tmp_path), 0
    ends = [len(line(0)), len(line(0) + line(1)), len(data)]
    for begin in range(0, len(data), 37):
        with file.open("ab") as out:
            out.write(data[begin : begin + 37])
        written = min(begin + 37, len(data))
        reader._read_shards()
        assert len(reader) == sum(end - 1 <= written for end in ends), written
        assert len(reader.torn) == (written not in [*ends, *(e - 1 for e in ends)])
    assert list(reader.values()) == list(OpinionStore(tmp_path).values()) and len(reader) == 3 and reader.torn == []
    reader.add([opinion(3)])
    assert found(OpinionStore(tmp_path)) == ["c-0", "c-1", "c-2", "c-3"] and audit(OpinionStore(tmp_path)) == []


def test_an_answer_changed_by_hand_is_refused(tmp_path: Path) -> None:
    OpinionStore(tmp_path).add(opinion(i) for i in range(3))
    file = shard(tmp_path)
    right = file.read_text()
    file.write_text(right.replace("yes – 1", "yet – 1"))
    with pytest.raises(InputError, match=r"was changed after it was written \(.*answers-000\.jsonl, line 2\)\. Fix: restore the line, or"):
        OpinionStore(tmp_path)
    file.write_text(right.replace("yes – 2", "yet – 2").rstrip("\n"))  # the last one, by an editor that writes no last line end
    with pytest.raises(InputError, match="line 3"):
        OpinionStore(tmp_path)
    file.write_text("\n".join(right.splitlines()[::2]) + "\n")  # deleted: it will be asked again
    assert found(OpinionStore(tmp_path)) == ["c-0", "c-2"]


def test_a_failure_changed_by_hand_is_refused(tmp_path: Path) -> None:
    OpinionStore(tmp_path).add_failures([failure(0), failure(1)])
    file = shard(tmp_path, "failures")
    file.write_text(file.read_text().replace("no reply", "a reply"))
    with pytest.raises(InputError, match=r"failures-000\.jsonl, line 1"):
        OpinionStore(tmp_path)


def test_glued_lines_are_refused(tmp_path: Path) -> None:
    shard(tmp_path).write_bytes(line(0) + line(1)[:-1] + line(2) + line(3))
    with pytest.raises(InputError, match=r"was changed .*line 2\)"):
        OpinionStore(tmp_path)
    shard(tmp_path).write_bytes(line(0) + line(1)[:90] + line(2) + line(3))
    with pytest.raises(InputError, match=r"was changed .*line 2\)"):
        OpinionStore(tmp_path)


@pytest.mark.parametrize(("step", "told"), [(1, "is of a newer kit than this one, which reads schema 2"), (-1, "is of an older kit")])
def test_another_schema_is_refused(tmp_path: Path, step: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(opinions, "SCHEMA", SCHEMA + step)
        shard(tmp_path).write_bytes(to_line(opinion(0)))
    before = shard(tmp_path).read_bytes()
    with pytest.raises(InputError, match=rf"{told}.*answers-000\.jsonl, line 1\)\. Fix: .*use another folder"):
        OpinionStore(tmp_path)
    assert shard(tmp_path).read_bytes() == before


def test_the_store_of_the_first_kit_is_refused(tmp_path: Path) -> None:
    shard(tmp_path).write_text(json.dumps({"key": "a" * 64, "case_id": "c-1", "response": "yes"}) + "\n")
    with pytest.raises(InputError, match="of an older kit"):
        OpinionStore(tmp_path)


# A disk that is full, a folder that is closed


@pytest.mark.parametrize("room", [0, 1, 500, 1_000, 1_900])
def test_disk_full(tmp_path: Path, room: int) -> None:
    store, file = OpinionStore(tmp_path), shard(tmp_path)
    store.add([opinion(0), opinion(1)])
    before = file.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, room)
        with pytest.raises(InputError, match=r"cannot write 3 answers: No space left .*answers-000\.jsonl\)\. Fix: free some disk space"):
            store.add(opinion(i) for i in (2, 3, 4))
        assert file.read_bytes() == before  # cut back
        assert store.get(opinion(3)["key"]) == opinion(3)  # kept in memory: not asked again
        with pytest.raises(InputError, match="cannot write 4 answers"):
            store.add([opinion(4), opinion(5)])
    store.add([opinion(2), opinion(6)])
    store.add([opinion(2)])
    again = OpinionStore(tmp_path)
    assert found(again) == found(store) == [f"c-{i}" for i in range(7)] and again.torn == []
    assert len(file.read_bytes().splitlines()) == 7 and audit(again) == []


def test_disk_full_at_the_first_answer(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path / "new")
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, 30)
        with pytest.raises(InputError, match="No space left"):
            store.add([opinion(0)])
    assert len(OpinionStore(tmp_path / "new")) == 0
    store.add([])
    assert found(OpinionStore(tmp_path / "new")) == ["c-0"]


def test_disk_full_for_a_failure(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, 100)
        with pytest.raises(InputError, match="cannot write 1 failures"):
            store.add_failures([failure(0)])
    store.add_failures([failure(1)])
    again = OpinionStore(tmp_path)
    assert again.failure(opinion(0)["key"]) == failure(0) and again.failure(opinion(1)["key"]) and not again.torn


def test_fsync_fails(tmp_path: Path) -> None:
    """What the disk did not take is not counted as stored."""
    store = OpinionStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(InputError, match="cannot write 1 answers: Input/output error"):
            store.add([opinion(0)])
        assert shard(tmp_path).read_bytes() == b""
    store.add([opinion(1)])
    assert found(OpinionStore(tmp_path)) == ["c-0", "c-1"]


@pytest.mark.parametrize("after", [False, True], ids=["before fsync", "after fsync"])
def test_stopped_by_hand_while_writing(tmp_path: Path, after: bool) -> None:
    """Ctrl-C between write and return: the answer may be there or not, but never twice."""
    store, real = OpinionStore(tmp_path), os.fsync

    def stop(descriptor: int) -> None:
        if after:
            real(descriptor)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            store.add([opinion(0), opinion(1)])
    store.add([opinion(0), opinion(2)])
    assert found(store) == found(OpinionStore(tmp_path)) == ["c-0", "c-1", "c-2"]
    assert len(shard(tmp_path).read_bytes().splitlines()) == 3 and audit(OpinionStore(tmp_path)) == []


def test_another_process_stored_it_while_the_disk_was_full(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, 0)
        with pytest.raises(InputError):
            store.add([opinion(0), opinion(1)])
    OpinionStore(tmp_path).add([opinion(1)])
    store.add([])
    assert found(OpinionStore(tmp_path)) == ["c-0", "c-1"] and audit(OpinionStore(tmp_path)) == []


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the system's refusal is played."""
    OpinionStore(tmp_path).add([opinion(0)])
    real = os.open

    def refused(path: str | Path, flags: int, *more: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and Path(path).parent == tmp_path:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refused)
    store = OpinionStore(tmp_path)
    assert store.get(opinion(0)["key"]) == opinion(0)
    with pytest.raises(InputError, match=rf"cannot write to the store: .*Permission denied.*\({tmp_path}\)\. Fix: make it writable"):
        store.add([opinion(1)])


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "below"):
        store = OpinionStore(folder)
        assert len(store) == 0
        with pytest.raises(InputError, match="cannot write to the store: .*Fix: make it writable, or name another folder"):
            store.add([opinion(0)])


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    store = OpinionStore(tmp_path / "a")
    store.add([opinion(0)])
    file = export(store, tmp_path / "b")
    whole = pd.read_parquet(file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"not a file of opinions: .*answers\.parquet\)\. Fix: restore it"):
        OpinionStore(tmp_path / "b")
    for column in ("key", "response", "digest"):
        whole.drop(columns=column).to_parquet(file)
        with pytest.raises(InputError, match=rf"no column {column} \(.*answers\.parquet\)\. Fix: "):
            OpinionStore(tmp_path / "b")
    for schema, told in ((SCHEMA + 1, "newer kit"), (1, "older kit"), (None, "older kit"), ("x", "not a file of opinions")):
        whole.assign(schema=schema).to_parquet(file)
        with pytest.raises(InputError, match=rf"{told}.*answers\.parquet\)"):
            OpinionStore(tmp_path / "b")
