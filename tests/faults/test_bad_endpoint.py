"""An endpoint that fails: what is tried again and what is not, what is stored, when a fill ends, and where no key may ever stand."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from mmedlite import endpoint
from mmedlite.asks import Ask
from mmedlite.cases import CaseTable
from mmedlite.endpoint import EndpointSpecialists, retry_after
from mmedlite.profiles import Endpoint, InputError, Model
from mmedlite.specialists import Unanswered, fetch, panel_asks
from mmedlite.store import OpinionStore
from tests.server import FAULTS, KEY, Server, drawn
from tests.small import table
from tests.stored import full_disk

ENDPOINT = Endpoint(
    longest_side=64, concurrency=4, timeout_s=0.3, deadline_s=8.0, max_requests=0, max_tokens=0, max_dollars=0.0,
    models={"A": Model("", {"max_tokens": 40}, image_tokens=100, input_dollars=2.0, output_dollars=8.0)},
)  # fmt: skip


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    return table(tmp_path_factory.mktemp("clinic"))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PAUSE_S", 0.02)


def behind(**changes: Any) -> EndpointSpecialists:
    return EndpointSpecialists(replace(ENDPOINT, **changes), {"three": ("A", "A", "A")})


def asks(clinic: CaseTable, n: int) -> list[Ask]:
    return panel_asks(clinic.cases[:n], ["Radiologist"] * n, "three")


def first(fault: str) -> Callable[[int, dict[str, Any]], str | None]:
    """That fault for the first request alone."""
    return lambda number, body: fault if number == 0 else None


# ---- retries


@pytest.mark.parametrize("fault", [*FAULTS, "trickle", "408", "409", "502", "503", "529"])
def test_what_is_tried_again(fault: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, source = start(plan=first(fault)), behind()
    ((opinion,), _) = fetch(asks(clinic, 1)[:1], clinic, OpinionStore(tmp_path), source)
    assert server.count == 2 == source.budget.spent.requests and opinion["raw"]["id"] == "chatcmpl-1" and opinion["option"] is not None
    assert not list(tmp_path.glob("failures*")) and server.log[1].time - server.log[0].time < 1.5  # the trickle goes on for two seconds


@pytest.mark.parametrize("status", ["400", "402", "413", "422"])
def test_what_is_not_tried_again(status: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, store = start(plan=lambda number, body: status if body["seed"] == 0 else None), OpinionStore(tmp_path)
    with pytest.raises(Unanswered, match=f"1 of 3 .*1 x HTTP {status}"):
        fetch(asks(clinic, 1), clinic, store, behind())
    assert server.count == 3 and len(store) == 2 and len(store.failures) == 1


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_refused_key_stops_all(status: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, store = start(plan=lambda number, body: status if number >= 4 else None, latency=0.02), OpinionStore(tmp_path)
    with pytest.raises(InputError, match=f"the endpoint refused: .*{status}.*OPENAI_API_KEY, OPENAI_BASE_URL.*Fix: check the key") as caught:
        fetch(asks(clinic, 10), clinic, store, behind())
    assert server.count <= 12 and len(store) == 4 and not isinstance(caught.value, Unanswered)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    begin = time.time()
    server = start(plan=first("429"), retry_after="0.7" if form == "seconds" else formatdate(begin + 2, usegmt=True))
    fetch(asks(clinic, 1)[:1], clinic, OpinionStore(tmp_path), behind())
    gap = server.log[1].time - server.log[0].time
    assert server.count == 2 and (gap >= 0.7 if form == "seconds" else time.time() >= int(begin + 2)) and gap < 5


@pytest.mark.parametrize(("header", "seconds"), [(None, 0), ("", 0), ("3", 3), ("-1", 0), ("nan", 0), ("soon", 0),
                                                 ("Mon, 01 Jan 0001 00:00:00 -0000", 0)])  # fmt: skip
def test_retry_after_in_any_form(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_a_question_has_one_deadline_with_all_its_attempts(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    """Seed 0 stalls for ever; a wait that passes the deadline is not begun."""
    server, begin = start(plan=lambda number, body: "stall" if body["seed"] == 0 else None, stall=5), time.monotonic()
    with pytest.raises(Unanswered, match="1 of 3 .*1 x timeout"):
        fetch(asks(clinic, 1), clinic, OpinionStore(tmp_path), behind(deadline_s=1))
    assert time.monotonic() - begin < 4 and server.count >= 4
    server.plan, server.retry_after, begin = first("429"), "30", time.monotonic()
    server.count = 0
    with pytest.raises(InputError, match="429"):
        fetch(asks(clinic, 1)[:1], clinic, OpinionStore(tmp_path), behind(deadline_s=1, concurrency=1))
    assert server.count == 1 and time.monotonic() - begin < 4


# ---- what ends a fill


def test_a_dead_endpoint_costs_one_deadline(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"no answer to 1 questions in a row.*connection.*OPENAI_BASE_URL.*check address, network"):
        fetch(asks(clinic, 12), clinic, OpinionStore(tmp_path), behind(deadline_s=1))
    assert time.monotonic() - begin < 4  # of nine


@pytest.mark.parametrize("fault", ["503", "400", "stall"])
def test_an_endpoint_that_fails_midway(fault: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    """Not 36 deadlines: as many failures in a row as a hopeless endpoint gives end the fill, and those asked are stored."""
    server, store = start(plan=lambda number, body: fault if number >= 6 else None, stall=5), OpinionStore(tmp_path)
    with pytest.raises(InputError, match=r"no answer to 1\d questions in a row"):
        fetch(asks(clinic, 12), clinic, store, behind(deadline_s=0.5))
    assert len(store) == 6 and 10 <= len(store.failures) < 20
    server.plan = first("none")
    assert fetch(asks(clinic, 12), clinic, store, behind())[1] == 30 and len(store) == 36


@pytest.mark.parametrize("moment", ["waiting", "writing"])
def test_ctrl_c_stores_what_was_under_way(
    moment: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it comes: while the main thread waits, or in the middle of a write."""
    server, store, before = start(latency=0.2), OpinionStore(tmp_path), signal.getsignal(signal.SIGINT)
    fsync, pressed = os.fsync, list[None]()

    def press(descriptor: int) -> None:
        if not pressed:
            pressed.append(os.kill(os.getpid(), signal.SIGINT))
        fsync(descriptor)

    if moment == "writing":
        monkeypatch.setattr(os, "fsync", press)
    else:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        fetch(asks(clinic, 12), clinic, store, behind(timeout_s=2))
    found = OpinionStore(tmp_path)
    assert server.count == len(found) in range(4, 12) and not found.torn and not found.failures
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_does_not_wait_for_a_pause(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, begin = start(plan=lambda number, body: "429", retry_after="5"), time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        fetch(asks(clinic, 12), clinic, OpinionStore(tmp_path), behind())
    assert time.monotonic() - begin < 4 and server.count <= 4


def test_a_full_disk_does_not_go_on_asking(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, store = start(latency=0.02), OpinionStore(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        fetch(asks(clinic, 12), clinic, store, behind())
    assert server.count <= 16


# ---- faults together, and secrets


def test_a_fifth_of_all_calls_fails(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, store, source = start(plan=drawn(0.2)), OpinionStore(tmp_path), behind(concurrency=8)
    fetch(asks(clinic, 12) + panel_asks(clinic.cases, ["Surgeon"] * len(clinic), "three"), clinic, store, source)
    good = {a.id: a.text for a in server.log if a.full}
    assert {o["raw"]["id"]: o["response"] for o in store.values()} == good and len(store) == len(good) == 36 + 3 * len(clinic)
    assert source.budget.spent.requests == server.count > len(store) * 1.1 and source.budget.spent.tokens >= sum(a.tokens for a in server.log)


BODIES = {  # of a good status and type
    "no choices": b'{"choices": []}', "list": b"[]", "nan": b'{"choices": [{"message": {"content": "x"}}], "p": NaN}',
    "deep": b"[" * 100_000, "huge": b'{"choices": [{"message": {"content": "x"}}], "p": 1e999}', "number": b"3",
    "parts": b'{"choices": [{"message": {"content": ["x"]}}]}', "reason": b'{"choices": [{"message": {}, "finish_reason": {}}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_completion(
    name: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    real = server.RequestHandlerClass.send_faulty  # type: ignore[attr-defined]
    monkeypatch.setattr(server.RequestHandlerClass, "send_faulty",
                        lambda self, data, fault: self.send(200, BODIES[name]) if server.count == 1 else real(self, data, fault))  # fmt: skip
    fetch(asks(clinic, 1)[:1], clinic, store := OpinionStore(tmp_path), behind())
    assert server.count == 2 and len(store) == 1


@pytest.mark.parametrize("fault", [None, "400", "401", "429", "500", "html", "invalid", "length"])
def test_no_byte_holds_the_key(
    fault: str | None, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server repeats it in every text it sends."""
    start(plan=lambda number, body: fault, echo=True)
    told = ""
    try:
        fetch(asks(clinic, 1), clinic, OpinionStore(tmp_path), behind(deadline_s=0.3))
    except InputError as error:
        told = "".join(traceback.format_exception(error)) + repr(error.args)
    written = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    assert KEY.encode() not in written and KEY not in told and KEY not in "".join(capfd.readouterr())
    assert b"Bearer [key]" in written or fault == "401" and "Bearer [key]" in told


def test_a_key_in_escapes(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY).encode()
    real = server.RequestHandlerClass.send_faulty  # type: ignore[attr-defined]
    monkeypatch.setattr(server.RequestHandlerClass, "send_faulty",
                        lambda self, data, fault: real(self, data.replace(b"as scripted", escaped), fault))  # fmt: skip
    ((opinion,), _) = fetch(asks(clinic, 1)[:1], clinic, OpinionStore(tmp_path), behind())
    assert "[key]" in opinion["response"] and KEY.encode() not in b"".join(f.read_bytes() for f in tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize("key", ["", f"{KEY}\n", f" {KEY}", f"{KEY}\u2019", f'"{KEY}"'])
def test_a_key_that_no_header_can_hold(
    key: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        fetch(asks(clinic, 1), clinic, OpinionStore(tmp_path), behind())
    assert KEY not in "".join(traceback.format_exception(caught.value)) and server.count == 0


def test_a_placeholder_key_is_no_secret(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a local server without keys; it may well be a part of an answer."""
    start()
    monkeypatch.setenv("OPENAI_API_KEY", "answer")
    opinions, _ = fetch(asks(clinic, 1), clinic, OpinionStore(tmp_path), behind())
    assert all(o["option"] is not None and "<answer>" in o["response"] for o in opinions)


def test_a_full_disk_loses_no_answer_that_was_under_way(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is full at the first write: the rest is not asked, and what the server has answered is written by the next call."""
    server, store, source = start(latency=0.05), OpinionStore(tmp_path), behind()
    with monkeypatch.context() as full:
        full_disk(full, 0)
        with pytest.raises(InputError, match="No space left"):
            fetch(asks(clinic, 12), clinic, store, source)
    paid = server.count
    assert 0 < paid < 36 and len(OpinionStore(tmp_path)) == 0
    fetch(asks(clinic, 12), clinic, store, source)
    assert server.count == len(OpinionStore(tmp_path)) == 36
