"""Specialists behind any OpenAI-compatible endpoint: a hosted model, or a local server for an open medical one.

The client reads OPENAI_API_KEY and OPENAI_BASE_URL from the environment; neither is ever written. One answer is one request with
its own sample index and seed. Retries are made here alone, with a deadline for each question; every attempt counts in the budget.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import openai
import tenacity

from mmedlite.asks import Ask, Estimate, Form, Reply
from mmedlite.budget import Budget, BudgetReached, Cost
from mmedlite.cases import CaseTable
from mmedlite.chat import data_url, output_limit, retry_after
from mmedlite.profiles import Endpoint, InputError
from mmedlite.prompts import specialist_prompt

TYPICAL_S = 5.0  # of one answer, for the estimate before anything is asked
PAUSE_S = 0.5  # before a second attempt, at most; doubled with each
GATHER_S = 0.02  # after an answer, for those that come with it: they are stored in one write
AGAIN = {408, 409, 429}  # and all from 500 on
IN_A_ROW = 10  # questions without an answer, or as many as are asked at once: nobody is there
STOPPED = "stopped"  # kind of a question that was given up because the fill ends: neither answered nor failed
SECRET = 8  # letters; a shorter key is a placeholder, as "none" for a server without keys, and may be a word of an answer


class Again(Exception):
    """An attempt came to nothing, and another may do better."""

    def __init__(self, kind: str, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.message, self.after = kind, message, after


class Refused(Exception):
    """The server will not answer this request, however often it is asked."""


class EndpointSpecialists:
    """The models of a profile's panels, asked at one endpoint, several questions at once.

    Raises:
        InputError: an address that cannot be read, or holds a key or password, which could be written down.
    """

    def __init__(self, endpoint: Endpoint, panels: Mapping[str, Sequence[str]]) -> None:
        models = {name: {"revision": m.revision or None, "sampling": m.sampling} for name, m in endpoint.models.items()}
        self.endpoint, self.form = endpoint, Form("endpoint", panels, models, endpoint.longest_side)
        self.budget = Budget(Cost(endpoint.max_requests, endpoint.max_tokens, endpoint.max_dollars))
        self._stop = threading.Event()
        self._answered = False
        try:
            address = urlsplit(os.environ.get("OPENAI_BASE_URL") or "https://")
            _ = address.port
        except ValueError:  # its text is not repeated: it may hold a password
            raise InputError("the address cannot be read", "OPENAI_BASE_URL", "write http://HOST:PORT/v1") from None
        if address.username or address.password or address.query or address.fragment:
            raise InputError("the address holds a user, a password or a query", "OPENAI_BASE_URL", "put the key in OPENAI_API_KEY alone")
        if address.scheme not in ("http", "https"):
            raise InputError("the address does not begin with http:// or https://", "OPENAI_BASE_URL", "write it in full")
        if not os.environ.get("OPENAI_API_KEY"):  # told before triage trains for hours; a full store needs none
            print("OPENAI_API_KEY is not set: stored answers are used, and the first one missing stops the run.", file=sys.stderr)

    def __reduce__(self) -> Any:
        return EndpointSpecialists, (self.endpoint, self.form.panels)  # what may be sent to another process: no lock, no client

    @functools.cached_property
    def _client(self) -> openai.OpenAI:
        key, where = os.environ.get("OPENAI_API_KEY", ""), "environment, OPENAI_API_KEY"
        if not key:
            raise InputError("no key for the endpoint", where, "set it (any text for a local server without keys)")
        if not (key.isascii() and key.isprintable()) or set(key) & set(" '\"\\"):  # the client would repeat it in its error
            raise InputError("the key holds a space, a quote, a line end or the like", where, "set it again, without them")
        if len(key) >= SECRET and key in json.dumps(dict(self.form.models)):
            raise InputError("the key stands in the profile, from where it would be written", where, "take it out of the profile")
        return openai.OpenAI(max_retries=0, timeout=self.endpoint.timeout_s)

    def most(self, ask: Ask) -> Cost:
        """The most that one attempt can cost: a token has at least one byte, and the profile states those of a picture."""
        entry = self.endpoint.models[self.form.doctor(ask)]
        given = len(specialist_prompt(ask.case, ask.department).encode()) + 64 + entry.image_tokens
        return self._cost(ask, given, output_limit(entry.sampling))

    def _cost(self, ask: Ask, given: int, written: int) -> Cost:
        entry = self.endpoint.models[self.form.doctor(ask)]
        return Cost(1, given + written, (given * entry.input_dollars + written * entry.output_dollars) / 1e6)

    def estimate(self, asks: Sequence[Ask]) -> Estimate | None:
        """What the asks would take if each is answered at once, at most; nothing is asked."""
        written = sum(output_limit(self.form.settings(a)["sampling"]) for a in asks)
        total = functools.reduce(Cost.plus, (self.most(a) for a in asks), Cost())
        seconds = len(asks) * TYPICAL_S / self.endpoint.concurrency
        return Estimate(total.requests, total.tokens - written, written, total.dollars, seconds)

    def answers(self, table: CaseTable, asks: Sequence[Ask]) -> Generator[list[tuple[Ask, Reply]], None, None]:
        """Replies as they come. What is under way is waited for, and yielded, when the budget is reached or Ctrl-C is pressed.

        Raises:
            BudgetReached: the rest was not asked. InputError: the key was refused, or the endpoint does not answer at all.
        """
        self._stop.clear()
        left, running, stop, ready = iter(asks), dict[Future[Reply], Ask](), list[BaseException](), SimpleQueue[Future[Reply]]()
        _ = self._client  # no key: told before any thread begins
        silent = 0  # questions without an answer, in a row
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool, self._gentle_stop(stop):
            done: list[tuple[Ask, Reply]] = []
            while True:
                while not stop and len(running) < 2 * self.endpoint.concurrency and (ask := next(left, None)):
                    running[future := pool.submit(self._answer, table, ask)] = ask  # half of them wait, so that no worker does
                    future.add_done_callback(ready.put)
                try:
                    if done:
                        yield done  # behind the new questions, so that storing these costs no time
                except InputError as unstored:  # they could not be stored: the rest is not asked, what is under way is waited for
                    stop.append(unstored)
                    self._stop.set()
                if not running:
                    break
                done = []
                one = ready.get()
                time.sleep(GATHER_S)
                for future in [one, *(ready.get() for _ in range(ready.qsize()))]:
                    ask = running.pop(future)
                    if (error := future.exception()) is not None:
                        stop.append(error)
                        continue
                    if (reply := future.result()).failure == STOPPED:
                        continue
                    done.append((ask, reply))
                    silent = silent + 1 if reply.failure and reply.failure != "content_filter" else 0
                    self._answered |= not silent
                    never = not self._answered and reply.failure in ("connection", "timeout")
                    if not stop and (never or silent >= max(IN_A_ROW, self.endpoint.concurrency)):
                        what = f"no answer to {silent} questions in a row; the last: {reply.failure}, {reply.message}"
                        fix = "see what it says; check address, network and the models' sampling; nothing was lost"
                        stop.append(InputError(what, "OPENAI_BASE_URL", fix))
                if stop:
                    self._stop.set()
        if stop:
            raise next((e for e in stop if not isinstance(e, BudgetReached)), stop[0])

    @contextmanager
    def _gentle_stop(self, stop: list[BaseException]) -> Iterator[None]:
        """Ctrl-C is noted, wherever it comes, so that no answer is lost on its way to the store; pressed again it breaks off."""
        before = signal.getsignal(signal.SIGINT)
        noted = callable(before) and threading.current_thread() is threading.main_thread()

        def pressed(*_: Any) -> None:
            signal.signal(signal.SIGINT, before)
            if not stop:  # else the main thread may be at it, and would wait for itself
                self._stop.set()
            stop.append(KeyboardInterrupt())

        try:
            if noted:
                signal.signal(signal.SIGINT, pressed)
            yield
        finally:
            if noted:
                signal.signal(signal.SIGINT, before)
            self._stop.set()  # nobody takes another answer: pauses end

    def _answer(self, table: CaseTable, ask: Ask) -> Reply:
        """One question, asked until it is answered, refused, or its deadline has come."""
        body = {**self.form.settings(ask)["sampling"], "seed": ask.sample_index, **self._message(table, ask)}
        begin, waited = time.monotonic(), tenacity.wait_random_exponential(multiplier=PAUSE_S, max=30)

        def pause(state: tenacity.RetryCallState) -> float:
            asked_for = getattr(state.outcome.exception() if state.outcome else None, "after", 0.0)
            return max(float(asked_for), waited(state))

        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again), wait=pause, sleep=tenacity.sleep_using_event(self._stop),
            stop=tenacity.stop_any(tenacity.stop_before_delay(self.endpoint.deadline_s), tenacity.stop_when_event_set(self._stop)),
            reraise=True,
        )  # fmt: skip
        try:
            reply: Reply = again(self._attempt, body, ask, begin)
            return reply
        except Again as error:
            return Reply("", None, error.kind, error.message, latency_s=time.monotonic() - begin)
        except Refused as error:
            return Reply("", None, str(error.args[0]), str(error.args[1]), latency_s=time.monotonic() - begin)

    def _attempt(self, body: dict[str, Any], ask: Ask, begin: float) -> Reply:
        most = cost = self.most(ask)
        self.budget.reserve(most)
        start = time.monotonic()
        limit = min(self.endpoint.timeout_s, max(begin + self.endpoint.deadline_s - start, 0.1))
        try:
            if self._stop.is_set():
                cost = Cost()
                raise Again(STOPPED, "not asked again")
            create = self._client.chat.completions.with_streaming_response.create
            # The extra body is sent as it is and wins: sampling may hold what the client does not know, and its own checks take time.
            with create(model="", messages=[], extra_body=body, timeout=limit) as response:
                text = b""
                for part in response.iter_bytes():
                    text += part
                    if time.monotonic() - start > limit:  # the client's own limit is for each part
                        raise Again("timeout", f"not all of the response has come in {limit:g} s")
                raw, usage = self._read(response.headers.get("content-type", ""), text.decode(errors="replace"))
            if usage and {"prompt_tokens", "completion_tokens"} <= usage.keys():
                cost = self._cost(ask, usage["prompt_tokens"], usage["completion_tokens"])
        except openai.APITimeoutError as error:
            raise Again("timeout", self._clean(str(error))) from None
        except openai.APIStatusError as error:
            cost = Cost(1)
            self._told(error)
        except Exception as error:
            if not isinstance(error, openai.APIConnectionError) and not type(error).__module__.startswith("httpx"):
                raise
            kind = "timeout" if "Timeout" in type(error).__name__ else "connection"  # httpx or httpx2, by the client's version
            raise Again(kind, self._clean(f"{error} {error.__cause__ or ''}".strip())) from None
        finally:
            self.budget.settle(most, cost)  # of a call that broke off, or tells no tokens, nobody knows the cost: the most is taken
        choice = raw["choices"][0]
        withheld = "content_filter" if choice["message"].get("refusal") else choice.get("finish_reason")
        return Reply(
            choice["message"].get("content") or "", withheld, raw=raw, usage=usage,
            latency_s=round(time.monotonic() - start, 4), served_model=raw.get("model"),
        )  # fmt: skip

    def _told(self, error: openai.APIStatusError) -> None:
        """Raise what a status means: ask again, give this question up, or give all of them up."""
        kind, message = f"HTTP {error.status_code}", self._clean(str(error))
        if error.status_code in (401, 403, 404):
            fix = "check the key, the address and the names of the models; all answers so far are stored"
            raise InputError(f"the endpoint refused: {message}", "OPENAI_API_KEY, OPENAI_BASE_URL", fix) from None
        if error.status_code in AGAIN or error.status_code >= 500:
            raise Again(kind, message, retry_after(error.response.headers.get("retry-after"))) from None
        withheld = re.search("content.(filter|policy)", f"{message} {error.body}", re.IGNORECASE)  # as some servers tell it
        raise Refused("content_filter" if withheld else kind, message) from None

    def _clean(self, text: str) -> str:
        """A server's text without the key, which some repeat, in JSON's or a URL's escapes too."""
        key = self._client.api_key
        forms = (rf"(?:{re.escape(c)}|\\{re.escape(c)}|(?i:\\u{ord(c):04x}|%{ord(c):02x}))" for c in key)
        return re.sub("".join(forms), "[key]", text) if len(key) >= SECRET else text

    def _read(self, content_type: str, text: str) -> tuple[dict[str, Any], dict[str, int] | None]:
        """The response of a chat completion, and its tokens; Again where it is none."""
        start = self._clean(text)[:200]
        if "json" not in content_type:
            raise Again("wrong content type", self._clean(f"{content_type}: ") + start)
        try:
            plain = json.dumps(json.loads(text), allow_nan=False)  # a key in escapes is plain now; a store cannot hold nan
            raw = json.loads(self._clean(plain))
            choice = raw["choices"][0]
            for value in (choice["message"].get("content"), choice.get("finish_reason"), raw.get("model")):
                if not (value is None or isinstance(value, str)):
                    raise TypeError(f"{type(value).__name__} in place of text")
            given = {k: v for k, v in (raw.get("usage") or {}).items() if isinstance(v, int) and v >= 0}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise Again("invalid response", f"{type(error).__name__}: {start}") from None
        return raw, given or None

    def _message(self, table: CaseTable, ask: Ask) -> dict[str, Any]:
        view = self.form.view(ask)
        url = data_url(table.path.parent / ask.case.images[view], ask.case.image_sha256s[view], self.endpoint.longest_side)
        text = {"type": "text", "text": specialist_prompt(ask.case, ask.department)}
        parts = [{"type": "image_url", "image_url": {"url": url}}, text]
        return {"model": self.form.model(ask), "messages": [{"role": "user", "content": parts}]}
