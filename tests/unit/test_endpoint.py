"""Specialists behind an endpoint, asked through the real client at a server on loopback: what is sent, what is stored, what it costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmedlite.asks import Ask
from mmedlite.budget import Budget, BudgetReached, Cost
from mmedlite.cases import CaseTable
from mmedlite.endpoint import Again, EndpointSpecialists
from mmedlite.opinions import MissingOpinion, request_key
from mmedlite.profiles import Endpoint, InputError, Model, load_profile
from mmedlite.specialists import Unanswered, by_key, fetch, missing, open_specialists, panel_asks
from mmedlite.store import OpinionStore
from tests.server import Server
from tests.small import profile, specialists, table

MODEL = Model("", {"max_tokens": 40, "temperature": 1.0}, image_tokens=100, input_dollars=2.0, output_dollars=8.0)
ENDPOINT = Endpoint(
    longest_side=32, concurrency=4, timeout_s=2.0, deadline_s=10.0, max_requests=0, max_tokens=0, max_dollars=0.0,
    models={"A": MODEL, "B": replace(MODEL, sampling={"max_completion_tokens": 40, "top_k": 5})},
)  # fmt: skip
PANELS = {"three": ("A", "A", "A"), "mixed": ("A", "A", "B")}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    return table(tmp_path_factory.mktemp("clinic"))


def behind(**changes: Any) -> EndpointSpecialists:
    return EndpointSpecialists(replace(ENDPOINT, **changes), PANELS)


def asks(clinic: CaseTable, n: int, panel: str = "three") -> list[Ask]:
    return panel_asks(clinic.cases[:n], ["Radiologist"] * n, panel)


def test_a_real_model_behind_the_real_client(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    """Samples differ as their seeds do, and the same request gives the same answer again."""
    from tests.server import tiny

    folder = specialists(tmp_path / "specialists", ["Radiologist-0"])
    start(answer=tiny(folder))
    entry = replace(MODEL, sampling={"max_tokens": 12, "temperature": 1.0})
    source = EndpointSpecialists(replace(ENDPOINT, longest_side=64, models={"Radiologist-0": entry}), {"three": ("Radiologist-0",) * 3})
    wanted = [*asks(clinic, 1), *panel_asks(clinic.cases[:1], ["Radiologist"], "three", redraw=True)]
    texts = []
    for name in ("one", "two"):
        opinions, asked = fetch(wanted, clinic, OpinionStore(tmp_path / name), source)
        assert asked == 6 and [o["request"]["sampling"]["seed"] for o in opinions] == list(range(6))
        texts.append([o["response"] for o in opinions])
    assert texts[0] == texts[1] and len(set(texts[0])) > 3 and any(texts[0])


def test_each_sample_is_a_request_with_its_own_seed(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server = start(latency=0.05)
    opinions, asked = fetch(asks(clinic, 8), clinic, OpinionStore(tmp_path), behind())
    assert asked == 24 == len(server.log) == len({a.question for a in server.log})
    assert sorted(a.seed for a in server.log) == sorted([0, 1, 2] * 8)
    assert server.most_at_once == 4  # concurrency: reached, and not passed
    by_id = {a.id: a for a in server.log}
    for opinion, ask in zip(opinions, asks(clinic, 8), strict=True):
        sent = by_id[opinion["raw"]["id"]]
        assert (sent.seed, sent.model) == (ask.sample_index, "A") and opinion["response"] == sent.text
        assert opinion["option"] is not None and opinion["served_model"] == "A-served" and opinion["source"] == "endpoint"
        assert opinion["usage"]["completion_tokens"] == 7 and opinion["latency_s"] >= 0.05 and opinion["finish_reason"] == "stop"


def test_the_picture_is_downsized_by_a_rule_of_the_request(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, ask = start(), asks(clinic, 1)[:1]
    keys = set()
    for side, size in ((32, (32, 32)), (512, (64, 64))):  # a small picture is not blown up
        source = behind(longest_side=side)
        ((opinion,), _) = fetch(ask, clinic, OpinionStore(tmp_path), source)
        assert server.log[-1].size == size and opinion["request"]["image_rule"] == f"at most {side} pixels a side, bicubic, PNG"
        keys.add(opinion["key"])
        assert opinion["key"] == request_key(source.form.request(ask[0]))
    assert len(keys) == 2


MIXED = """
[endpoint]
longest_side = 512
concurrency = 4
timeout_s = 5
deadline_s = 10
max_requests = 100
max_tokens = 0
max_dollars = 1

[endpoint.models."A"]
revision = ""
sampling = { max_tokens = 40, temperature = 1.0 }
image_tokens = 100
input_dollars = 2
output_dollars = 8

[endpoint.models."B"]
revision = "r2"
sampling = { max_completion_tokens = 40, top_k = 5 }
image_tokens = 100
input_dollars = 0
output_dollars = 0
"""


def test_a_mixed_panel_is_one_line_of_a_profile(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    """And what the client does not know, as top_k, reaches the server all the same."""
    bodies: list[dict[str, Any]] = []
    server = start(plan=lambda number, body: bodies.append(body))
    file = profile(tmp_path, ('diverse = ["0", "1", "2"]\npaper_like = ["0", "0", "0"]', 'mixed = ["A", "A", "B"]'))
    file.write_text(file.read_text(encoding="utf-8") + MIXED, encoding="utf-8")
    source = open_specialists(load_profile(file))
    opinions, _ = fetch(asks(clinic, 2, "mixed"), clinic, OpinionStore(tmp_path / "store"), source)
    assert [o["request"]["model"] for o in opinions] == ["A", "A", "B"] * 2
    assert sorted((a.model, a.seed) for a in server.log) == [("A", 0), ("A", 0), ("A", 1), ("A", 1), ("B", 2), ("B", 2)]
    assert {(b["model"], b.get("top_k"), b.get("max_tokens")) for b in bodies} == {("A", None, 40), ("B", 5, None)}


def test_fifty_threads_make_one_call(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, store, source, found = start(latency=0.1), OpinionStore(tmp_path), behind(), []
    ask = asks(clinic, 1)[:1]
    threads = [threading.Thread(target=lambda: found.append(fetch(ask, clinic, store, source))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.log) == 1 and sum(asked for _, asked in found) == 1
    assert len({o["raw"]["id"] for opinions, _ in found for o in opinions}) == 1 and len(found) == 50


def test_the_estimate_comes_first_and_calls_nobody(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, source, wanted = start(), behind(max_requests=1), asks(clinic, 4)
    estimate = source.estimate(wanted)
    assert estimate is not None and server.count == 0 and estimate.requests == 12 and estimate.output_tokens == 12 * 40
    assert estimate.dollars == pytest.approx((estimate.input_tokens * 2 + estimate.output_tokens * 8) / 1e6) and estimate.seconds > 0
    with pytest.raises(BudgetReached):
        fetch(wanted, clinic, OpinionStore(tmp_path), source)
    told = capsys.readouterr().err
    for part in ("12 requests", f"{estimate.input_tokens:,} tokens in", "480 out", "$0.0", "minutes"):
        assert part in told


def test_replay_never_calls(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, store = start(), OpinionStore(tmp_path)
    with pytest.raises(MissingOpinion):
        fetch(asks(clinic, 1), clinic, store, behind(), replay=True)
    assert server.count == 0
    fetch(asks(clinic, 1), clinic, store, behind())
    assert "OPENAI_API_KEY" not in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY")  # nor does it need a key, though it says that there is none
    opinions, asked = fetch(asks(clinic, 1), clinic, OpinionStore(tmp_path), behind(), replay=True)
    assert (server.count, asked, len(opinions)) == (3, 0, 3) and "OPENAI_API_KEY is not set" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["requests", "tokens", "dollars"])
def test_the_budget_stops_before_the_call_that_would_break_it(
    kind: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path
) -> None:
    """What was under way is stored, and the answers that are paid for are those that were asked."""
    server, store = start(latency=0.02), OpinionStore(tmp_path)
    most = Cost(*(2 * getattr(behind().most(asks(clinic, 1)[0]), name) for name in Cost._fields))
    source = behind(**{f"max_{kind}": getattr(most, kind)})
    with pytest.raises(BudgetReached, match=rf"the next call could bring {kind} to .* so it was not made \(endpoint.max_{kind}\)"):
        fetch(asks(clinic, 8), clinic, store, source)
    answered, spent = len(OpinionStore(tmp_path)), source.budget.spent
    assert spent[:2] == (len(server.log), sum(a.tokens for a in server.log)) and getattr(spent, kind) <= getattr(most, kind)
    assert answered == len(server.log) and (answered == 2 if kind == "requests" else 4 <= answered < 24)
    fetch(asks(clinic, 8), clinic, store, behind())
    assert len(server.log) == 24 == len({a.question for a in server.log})  # no answer is asked twice


def test_a_call_waits_for_what_those_under_way_cost() -> None:
    """Twenty may cost 100 each and cost 10: a limit of 250 lets all of them through, and none beyond it."""
    budget, made, top = Budget(Cost(0, 250, 0.0)), [], []

    def call() -> None:
        budget.reserve(Cost(1, 100))
        time.sleep(0.005)
        top.append(budget.spent.tokens + sum(c.tokens for c in budget._reserved))
        budget.settle(Cost(1, 100), Cost(1, 10))
        made.append(1)

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(made) == 16 and budget.spent == Cost(16, 160) and max(top) <= 250
    with pytest.raises(BudgetReached, match="tokens to 260 of 250"):
        budget.reserve(Cost(1, 100))


@pytest.mark.parametrize(("kind", "reason"), [("length", "truncated"), ("content_filter", "content_filter"), ("refusal", "content_filter"),
                                              ("empty", "empty")])  # fmt: skip
def test_what_is_no_answer_is_a_failure_and_is_not_asked_again(
    kind: str, reason: str, start: Callable[..., Server], clinic: CaseTable, tmp_path: Path
) -> None:
    server = start(plan=lambda number, body: kind if body["seed"] == 1 else None)
    for asked in (3, 0):  # the second time as another process would see the store
        store = OpinionStore(tmp_path)
        opinions, now = fetch(asks(clinic, 1), clinic, store, behind())
        assert now == asked and len(store) == 2 and len(server.log) == 3
        assert (opinions[1]["reason"], opinions[1]["option"]) == (reason, None) and opinions[0]["option"] is not None


def test_a_transport_failure_is_stored_and_asked_again(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    server, store = start(plan=lambda number, body: "400" if number == 1 else None), OpinionStore(tmp_path)
    with pytest.raises(Unanswered, match=r"1 of 3 questions got no answer \(1 x HTTP 400\)"):
        fetch(asks(clinic, 1), clinic, store, behind(concurrency=1))
    assert server.count == 3 and len(store) == 2  # a 400 is not tried again, and the rest is asked all the same
    (key,) = missing(by_key(asks(clinic, 1), behind().form), store)
    assert (OpinionStore(tmp_path).failure(key) or {})["reason"] == "HTTP 400"
    assert fetch(asks(clinic, 1), clinic, store, behind())[1] == 1 and server.count == 4 and len(store) == 3


@pytest.mark.parametrize("address", [f"http://{a}" for a in ("ann:secret@h/v1", ":secret@h/v1", "h/v1?key=secret")] + ["h:80/v1"])
def test_an_address_that_cannot_be_used_or_holds_a_secret_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(InputError, match="OPENAI_BASE_URL") as caught:
        behind()
    assert "secret" not in str(caught.value)


def test_what_goes_to_another_process() -> None:
    import pickle

    again = pickle.loads(pickle.dumps(behind()))
    assert again.form == behind().form and again.endpoint == ENDPOINT


def test_the_bound_counts_bytes_and_the_picture(clinic: CaseTable) -> None:
    """A token may be one byte of a letter: the question in other letters costs more, at most; so does a dearer picture."""
    plain = asks(clinic, 1)[0]
    wide = replace(plain, case=replace(plain.case, question="\u4e2d" * len(plain.case.question)))
    source = behind()
    assert source.most(wide).tokens - source.most(plain).tokens == 2 * len(plain.case.question)
    text = source.form.request(plain)["messages"][0]["content"][1]["text"]
    entry = source.endpoint.models["A"]
    assert source.most(plain).tokens >= len(text.encode()) + entry.image_tokens + entry.sampling["max_tokens"]


def test_no_room_on_the_disk_is_told_before_the_first_call(
    start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    monkeypatch.setattr("mmedlite.specialists.shutil.disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(InputError, match="0 MiB are free, for 3 answers .* nothing was asked"):
        fetch(asks(clinic, 1), clinic, OpinionStore(tmp_path), behind())
    assert server.count == 0


def test_a_swapped_picture_is_not_asked_about(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path) -> None:
    """Its answer would be stored under the hash of another."""
    server, ask = start(), asks(clinic, 1)[0]
    other = replace(ask, case=replace(ask.case, image_sha256s=("0" * 64, *ask.case.image_sha256s[1:])))
    with pytest.raises(InputError, match="the picture is not the one of the case table"):
        fetch([other], clinic, OpinionStore(tmp_path), behind())
    assert server.count == 0


@pytest.mark.parametrize("address", ["http://user:SECRET/v1", "http://[::1"])
def test_an_address_that_cannot_be_read_is_not_repeated(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(InputError, match="the address cannot be read") as caught:
        behind()
    assert "SECRET" not in str(caught.value)


def test_a_content_policy_is_final(start: Callable[..., Server], clinic: CaseTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers tell it by status 400: kept as a failure, not asked again, and no reason to stop the fill."""
    server = start()
    real = server.RequestHandlerClass.send_faulty  # type: ignore[attr-defined]
    body = b'{"error": {"message": "blocked", "code": "content_filter"}}'
    monkeypatch.setattr(server.RequestHandlerClass, "send_faulty", lambda self, data, fault: self.send(400, body))
    found, _ = fetch(asks(clinic, 5), clinic, OpinionStore(tmp_path), behind())
    assert {o["reason"] for o in found} == {"content_filter"} and server.count == 15
    monkeypatch.setattr(server.RequestHandlerClass, "send_faulty", real)
    assert fetch(asks(clinic, 5), clinic, OpinionStore(tmp_path), behind())[1] == 0 and server.count == 15


@pytest.mark.parametrize("form", ["sk-/abc+def12345", r"sk-\/abc+def12345", r"sk-/abc\u002Bdef12345", "sk-%2Fabc%2bdef12345"])
def test_a_key_in_escapes_is_taken_out_of_any_text(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-/abc+def12345")
    source = behind()
    assert source._clean(f'{{"error": "no {form}"}}') == '{"error": "no [key]"}' and source._clean("nothing here") == "nothing here"
    with pytest.raises(Again) as caught:
        source._read("application/json", f'{{"error": "no {form}"}}')
    assert form not in str(caught.value.args) and "def12345" not in str(caught.value.args)
