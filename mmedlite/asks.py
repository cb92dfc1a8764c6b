"""A question to a specialist, the request that it becomes, and the reply (paper section 3.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from mmedlite.cases import Case, CaseTable
from mmedlite.prompts import specialist_prompt, specialist_template

PANEL_SIZE = 3
# How servers tell that an answer is whole (None), and what they call it otherwise; anything else is "unfinished".
FINISHED = {
    **dict.fromkeys(("stop", "eos", "end_turn", "stop_sequence")), **dict.fromkeys(("length", "max_tokens"), "truncated"),
    **dict.fromkeys(("content_filter", "safety"), "content_filter"),
}  # fmt: skip
FINAL = ("truncated", "content_filter", "unfinished", "empty")  # the model was asked and has answered so: it is not asked again


@dataclass(frozen=True)
class Ask:
    """One wanted opinion. Samples 0-2 are the panel, samples 3-5 an independent draw from the same doctors."""

    case: Case
    department: str
    panel: str
    sample_index: int


class Reply(NamedTuple):
    """What came of one question."""

    text: str  # empty where nothing came
    finish_reason: str | None = None  # None: not told
    failure: str | None = None  # what went wrong, in a word or two
    message: str = ""  # and in full
    raw: dict[str, Any] | None = None  # the response as the server gave it
    usage: dict[str, int] | None = None  # tokens
    latency_s: float = 0.0
    served_model: str | None = None
    seed: int | None = None  # of the draw, where it is not part of the request

    def unfit(self) -> str | None:
        """Why it is no answer: the failure, or a text that is cut, withheld or empty; None for an answer."""
        ended = FINISHED.get((self.finish_reason or "stop").lower(), "unfinished")
        return self.failure or ended or (None if self.text.strip() else "empty")


class Estimate(NamedTuple):
    """What a fill would take, at most; before anything is asked."""

    requests: int
    input_tokens: int
    output_tokens: int
    dollars: float
    seconds: float


@dataclass(frozen=True)
class Form:
    """What a request is made of beside the case. It stands in run.json, so that ``verify`` can form the same requests again.

    Args:
        source: "local", "endpoint" or "simulated". panels: who gives each of a panel's three answers. models: for each of them, or for
            "*", all others: "revision" and "sampling". longest_side: pixels to which a picture is downsized; None: as it is.
    """

    source: str
    panels: Mapping[str, Sequence[str]]
    models: Mapping[str, Mapping[str, Any]]
    longest_side: int | None = None

    def doctor(self, ask: Ask) -> str:
        """Who gives this sample."""
        return self.panels[ask.panel][ask.sample_index % PANEL_SIZE]

    def model(self, ask: Ask) -> str:
        """The model that is asked; local specialists have an adapter for each department and doctor."""
        return f"{ask.department}-{self.doctor(ask)}" if self.source == "local" else self.doctor(ask)

    def settings(self, ask: Ask) -> Mapping[str, Any]:
        """Revision and sampling of that model."""
        return self.models.get(self.doctor(ask)) or self.models["*"]

    def view(self, ask: Ask) -> int:
        """Which picture of the case is shown: a local specialist sees his own view where the case has views (simulated)."""
        own = 1 + int(self.doctor(ask)) if self.source == "local" else 0
        return own if len(ask.case.images) > own else 0

    def request(self, ask: Ask) -> dict[str, Any]:
        """The request, as it is hashed and stored: its picture stands as a hash."""
        picture = {"type": "image", "sha256": ask.case.image_sha256s[self.view(ask)]}
        text = {"type": "text", "text": specialist_prompt(ask.case, ask.department)}
        settings = self.settings(ask)
        sampling = dict(settings["sampling"])
        if self.source == "endpoint":
            sampling["seed"] = ask.sample_index
        return {
            "model": self.model(ask), "revision": settings.get("revision"), "messages": [{"role": "user", "content": [picture, text]}],
            "image_rule": f"at most {self.longest_side} pixels a side, bicubic, PNG" if self.longest_side else None, "sampling": sampling,
            "template_sha256": template_sha256(ask.department), "sample_index": ask.sample_index,
        }  # fmt: skip


def template_sha256(department: str) -> str:
    """Hash of the specialist prompt of a department, before a case is put into it."""
    return hashlib.sha256(specialist_template(department).encode()).hexdigest()


class Specialists(Protocol):
    """A source of answers."""

    form: Form

    def answers(self, table: CaseTable, asks: Sequence[Ask]) -> Generator[list[tuple[Ask, Reply]], None, None]:
        """The replies to ``asks``, in parts, as they come; what has been yielded may be stored at once."""

    def estimate(self, asks: Sequence[Ask]) -> Estimate | None:
        """What the asks would take, at most; None where asking is free."""


def batch_seed(asks: Sequence[Ask]) -> int:
    """A seed from a whole batch of questions, so that the same fill draws the same answers."""
    text = json.dumps({"asks": [[a.case.case_id, a.sample_index] for a in asks], "schema": 1}, ensure_ascii=False, separators=(",", ":"))
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
