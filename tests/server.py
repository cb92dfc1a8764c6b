"""A small OpenAI-compatible server on loopback, around a tiny specialist or scripted, with a plan of faults and a log of all requests.

``python -m tests.server [--latency S] [--share SHARE] [--stall S] [--seed N]`` runs a scripted one as a process of its own (so that it
does not share the interpreter with the client) and prints its port. GET /log gives what was asked since the last look, as JSON.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

FAULTS = ("429", "500", "stall", "cut", "invalid", "html", "drop")  # of the drawn plan; a test may plan any status, and those below
CONTENTS = ("length", "content_filter", "refusal", "empty")  # answered in full, but with no answer
KEY = "sk-test-0123456789abcdef"  # of the client in tests
PNG = b"\x89PNG\r\n\x1a\n"

Plan = Callable[[int, dict[str, Any]], str | None]  # number of the request and its body -> a fault, or None


class Asked(NamedTuple):
    """One request, and what became of it."""

    question: str  # digest of model, messages and seed: the same for the same question asked again
    model: str
    seed: int
    size: tuple[int, int]  # of the picture
    id: str  # of the response
    text: str  # the answer in it
    fault: str | None
    full: bool  # a whole, good response was sent
    tokens: int
    time: float


def content_of(body: dict[str, Any]) -> tuple[str, Image.Image]:
    """Prompt and picture of a request; ValueError where the picture is no PNG in a data URL."""
    picture, text = body["messages"][0]["content"]
    found = re.fullmatch(r"data:image/png;base64,([A-Za-z0-9+/=]+)", picture["image_url"]["url"])
    data = base64.b64decode(found[1], validate=True) if found else b""
    if not data.startswith(PNG):
        raise ValueError("the picture is no PNG in a data URL")
    return text["text"], Image.open(io.BytesIO(data))


def question_of(body: dict[str, Any]) -> str:
    """Digest of what is asked."""
    text = json.dumps([body["model"], body["messages"], body["seed"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def scripted(body: dict[str, Any]) -> str:
    """The same answer to the same request, one of its options."""
    prompt, _ = content_of(body)
    options = next(line for line in prompt.splitlines() if line.startswith("Options: ")).removeprefix("Options: ").split(", ")
    pick = int(question_of(body), 16) % len(options)
    return f"<think>as scripted</think><answer>{options[pick]}</answer>"


def tiny(folder: Path) -> Callable[[dict[str, Any]], str]:
    """Answers of the specialists in ``folder``, the adapter named by the request, sampled with its seed."""
    from mmedlite.models import generate, load_adapter, load_policy, load_processor  # torch, which the scripted server does without

    processor, lock, loaded = load_processor(folder / "base"), threading.Lock(), dict[str, Any]()

    def answer(body: dict[str, Any]) -> str:
        prompt, picture = content_of(body)
        with lock:  # torch has one random state
            if body["model"] not in loaded:
                loaded[body["model"]] = load_adapter(load_policy(folder / "base"), folder / "adapters" / body["model"], body["model"])
            model = loaded[body["model"]]
            limits = body["max_tokens"], body["temperature"], body["seed"]
            return generate(model, processor, [picture.convert("RGB")], [prompt], *limits)[0].text

    return answer


def drawn(share: float, seed: int = 0) -> Plan:
    """One of FAULTS for that share of the requests, by their number."""

    def plan(number: int, body: dict[str, Any]) -> str | None:
        draw = random.Random(f"{seed} {number}")
        return draw.choice(FAULTS) if draw.random() < share else None

    return plan


class Server(ThreadingHTTPServer):
    """The server; see :func:`serving`.

    Args:
        answer: the answer to a request. plan: faults. latency, stall: seconds before any response, and of a stall. retry_after: header of
            a 429. echo: repeat the Authorization header in every text sent.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, answer: Callable[[dict[str, Any]], str] = scripted, plan: Plan = lambda number, body: None, latency: float = 0.0,
        stall: float = 0.5, retry_after: str = "0.05", echo: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.plan, self.latency, self.stall, self.retry_after, self.echo = answer, plan, latency, stall, retry_after, echo
        self.lock, self.log = threading.Lock(), list[Asked]()
        self.count = self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        """For OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no error here; its threads and the tests' output stay quiet."""
        if not isinstance(sys.exc_info()[1], OSError | ValueError):  # half a request ends as bad JSON
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Chat completions, with the fault that the plan has for this request."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def log_message(self, format: str, *args: Any) -> None:
        """The log is the server's own."""

    def do_GET(self) -> None:
        """The log since the last look."""
        with self.server.lock:
            log, self.server.log = self.server.log, []
        self.send(200, json.dumps({"asked": [a._asdict() for a in log], "most_at_once": self.server.most_at_once}).encode())

    def do_POST(self) -> None:
        """One completion."""
        begin, server, body = time.monotonic(), self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number, server.count, server.at_once = server.count, server.count + 1, server.at_once + 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self.respond(number, body, server.plan(number, body), begin)
        finally:
            with server.lock:
                server.at_once -= 1

    def respond(self, number: int, body: dict[str, Any], fault: str | None, begin: float) -> None:
        """Log the request before any byte of the response, which may never be read."""
        server, name = self.server, f"chatcmpl-{number}"
        text, (prompt, picture) = server.answer(body), content_of(body)
        full = fault is None or fault in CONTENTS
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 7}
        asked = Asked(question_of(body), body["model"], body["seed"], picture.size, name, text, fault, full,
                      sum(usage.values()) if full else 0, begin)  # fmt: skip
        with server.lock:
            server.log.append(asked)
        time.sleep(max(0.0, begin + server.latency - time.monotonic()))  # the work above is a part of it
        echo = self.headers.get("Authorization", "") if server.echo else ""
        if fault is not None and fault.isdigit():
            self.send(int(fault), json.dumps({"error": {"message": f"planned {fault} {echo}", "code": None}}).encode())
            return
        message: dict[str, Any] = {"role": "assistant", "content": f"{echo} {text}".strip()}
        if fault in ("empty", "refusal"):
            message |= {"content": " "} if fault == "empty" else {"content": None, "refusal": "I cannot help with this"}
        reason = fault if fault in ("length", "content_filter") else "stop"
        choice = {"index": 0, "message": message, "finish_reason": reason}
        answer = {"note": echo, "id": name, "object": "chat.completion", "created": 0, "model": f"{body['model']}-served", "choices": [choice]}
        self.send_faulty(json.dumps({**answer, "usage": usage}).encode(), fault)

    def send_faulty(self, data: bytes, fault: str | None) -> None:
        """A good response, or what a fault makes of it."""
        if fault == "drop":
            self.close_connection = True
        elif fault == "cut":
            self.send(200, data[: len(data) // 2], length=len(data))
            self.close_connection = True
        elif fault == "invalid":
            self.send(200, data[:-40])
        elif fault == "html":
            self.send(200, data, kind="text/html")
        elif fault == "trickle":  # each byte in time, the whole never
            self.send(200, b"", length=len(data))
            for _ in range(20):
                time.sleep(self.server.stall / 5)
                self.wfile.write(b" ")
                self.wfile.flush()
            self.close_connection = True
        else:
            if fault == "stall":
                time.sleep(self.server.stall)
            self.send(200, data)

    def send(self, status: int, data: bytes, kind: str = "application/json", length: int | None = None) -> None:
        """Head and body."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        if status == 429:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()


@contextmanager
def serving(**settings: Any) -> Iterator[Server]:
    """A server in a thread of this process; see :class:`Server` for its settings."""
    server = Server(**settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("latency", "share", "stall"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    server = Server(plan=drawn(args.share, args.seed), latency=args.latency, stall=args.stall, retry_after="1")
    print(server.server_address[1], flush=True)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
