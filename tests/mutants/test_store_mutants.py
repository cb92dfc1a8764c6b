"""Damaged copies of the store: each must be told apart from the right one by a few plain rules."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mmedlite import opinions, store, store_tools
from mmedlite.profiles import InputError
from tests.stored import REQUEST, failure, full_disk, opinion, shard

MUTANTS: dict[str, tuple[str, str, str]] = {
    "key without the sample": ("opinions", "**canonical(request)}", '**canonical({**request, "sample_index": 0})}'),
    "key without the template": ("opinions", "**canonical(request)}", '**canonical({**request, "template_sha256": 0})}'),
    "key of 0 is not that of 0.0": ("opinions", "int(value) if value.is_integer() else value", "value"),
    "key with null entries": ("opinions", " for k, v in value.items() if v is not None}", " for k, v in value.items()}"),
    "key in the order given": ("opinions", "sort_keys=True", "sort_keys=False"),
    "address in the key": ("opinions", "set(request) - set(KEY_FIELDS)", "set()"),
    "digest not checked": ("opinions", "if _digest(line[:-29]) != line[-18:-2]:", "if False:"),
    "schema not checked": ("opinions", "return None if found == SCHEMA else", "return None if True else"),
    "no fsync": ("store", "os.fsync(descriptor)\n            if not size", "if not size"),
    "one fsync an answer": ("store", "while count < len(lines) and size", "while count < 1 and size"),
    "failures among the answers": ("store", "self.failures[line[8:72].decode()] = line", "self.places[line[8:72].decode()] = line"),
    "last answer kept": ("store", 'if (key := opinion["key"]) not in self.places:', 'if key := opinion["key"]:'),
    "half a line accepted": ("store", "elif where not in self.torn:", 'elif self.places.setdefault(line[8:72].decode(), line + b\'"}\'):'),
    "glued to a torn line": ("store", 'data = b"\\n" + data', "pass"),
    "not cut back": ("store", "os.ftruncate(descriptor, size)", "pass"),
    "lost on a full disk": ("store", 'mend = "free', 'lines.clear()\n            mend = "free'),
    "no lock": ("store", "lock.acquire(timeout=1)", "pass"),
    "not read again under the lock": ("store", "self._read_shards()\n            yield", "yield"),
    "import without checks": ("store_tools", "    if wrong:", "    if False:"),
    "export in the order of asking": ("store_tools", 'sorted(store.values(), key=lambda row: row["key"])', "list(store.values())"),
}  # fmt: skip


def broken(name: str, kit: dict[str, types.ModuleType], monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """The three modules of the store, of which one is changed in one place, and the others use it."""
    where, old, new = MUTANTS.get(name, ("", "", ""))
    for short in kit:
        text = Path(str(kit[short].__file__)).read_text(encoding="utf-8")
        if short == where:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        module = types.ModuleType(f"mmedlite.{short}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, f"{short}.py", "exec"), module.__dict__)
        kit = kit | {short: module}
    return kit


def fresh(folder: Path, o: Any, **changes: Any) -> Any:
    """An opinion whose key is that of the copy."""
    row = opinion(**changes)
    return row | {"key": o.request_key(row["request"])}


def refused(action: Any, *arguments: Any) -> bool:
    try:
        action(*arguments)
    except InputError:
        return True
    return False


def complaints(kit: dict[str, types.ModuleType], folder: Path) -> Iterator[str]:
    """The rules that these modules break."""
    o, s, t = kit["opinions"], kit["store"], kit["store_tools"]
    keys = [o.request_key(REQUEST | more) for more in ({}, {"sample_index": 1}, {"template_sha256": "x"})]
    sampling = {"top_p": 1.0, "temperature": 0.0}
    same = [dict(reversed(sampling.items())), {"top_p": 1, "temperature": 0}, {**sampling, "seed": None}]
    if len(set(keys)) < 3 or {o.request_key(REQUEST | {"sampling": v}) for v in same} != {o.request_key(REQUEST | {"sampling": sampling})}:
        yield "the key"
    if not refused(o.request_key, REQUEST | {"base_url": "x"}):
        yield "an address in the request"

    rows, synced, real = [fresh(folder, o, index=i) for i in range(4)], [0], os.fsync
    one = s.OpinionStore(folder / "a")
    one.add([rows[0]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (synced.__setitem__(0, synced[0] + 1), real(descriptor)))
        one.add([*rows[:2], rows[2], rows[0] | {"option": 9}])
    if synced != [1]:
        yield f"{synced[0]} fsyncs a batch"
    one.add_failures([failure(3)])
    again = s.OpinionStore(folder / "a")
    if len(again) != 3 or again.get(rows[0]["key"]) != rows[0]:
        yield "what is stored"

    file = shard(folder / "a")
    right = file.read_bytes()
    for old, new in ((b"yes", b"yet"), (b'"schema":2', b'"schema":3')):
        line = right.splitlines()[0].replace(old, new)
        end = line[:-29] + b',"digest":"' + o._digest(line[:-29]) + b'"}' if new != b"yet" else line
        file.write_bytes(end + b"\n")
        if not refused(s.OpinionStore, folder / "a"):
            yield f"{new!r} accepted"
    file.write_bytes(right + o.to_line(rows[3])[:-40])
    torn = s.OpinionStore(folder / "a")
    if len(torn) != 3 or rows[3]["key"] in torn:
        yield "half a line accepted"
    torn.add([rows[3]])
    if refused(s.OpinionStore, folder / "a") or len(s.OpinionStore(folder / "a")) != 4:
        yield "an answer behind a torn line lost"

    full = s.OpinionStore(folder / "b")
    full.add([rows[0]])
    before = shard(folder / "b").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        full_disk(patch, 100)
        if not refused(full.add, rows[1:3]) or shard(folder / "b").read_bytes() != before:
            yield "half a batch left on a full disk"
    full.add([])
    if len(s.OpinionStore(folder / "b")) != 3:
        yield "lost on a full disk"

    first, second = s.OpinionStore(folder / "c"), s.OpinionStore(folder / "c")
    with ThreadPoolExecutor(1) as pool:
        with first.filling():
            waiting = pool.submit(second.add, [rows[0] | {"option": 9}])
            try:
                waiting.result(timeout=0.2)
                yield "two at once"
            except TimeoutError:
                first.add(rows[:1])
        waiting.result(timeout=10)
    if len(shard(folder / "c").read_bytes().splitlines()) != 1:
        yield "stored twice"

    t.export(one, folder / "out")
    backwards = s.OpinionStore(folder / "d")
    backwards.add(reversed(list(one.values())))
    if t.export(backwards, folder / "out2").read_bytes() != (folder / "out" / t.TABLE).read_bytes():
        yield "another export of the same store"
    table = s.read_parquet(folder / "out" / t.TABLE)
    changed = table.set_column(table.column_names.index("option"), "option", [[0] * len(table)])
    s.pq.write_table(changed, folder / "out" / t.TABLE)
    if not refused(t.take_in, s.OpinionStore(folder / "e"), folder / "out"):
        yield "a changed row imported"


KIT = {"opinions": opinions, "store": store, "store_tools": store_tools}


def test_the_store_itself_passes(tmp_path: Path) -> None:
    assert list(complaints(KIT, tmp_path)) == []


def test_an_unchanged_copy_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(complaints(broken("none", KIT, monkeypatch), tmp_path)) == []


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_rejected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(complaints(broken(name, KIT, monkeypatch), tmp_path), None)
