"""Requests and opinions for the tests of the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmedlite.opinions import SCHEMA, request_key

REQUEST: dict[str, Any] = {
    "model": "gpt-4o", "revision": "2024-08-06",
    "messages": [{"role": "user", "content": [{"type": "image", "sha256": "ab" * 32}, {"type": "text", "text": "Is it there? – ä"}]}],
    "image_rule": "at most 768 pixels a side, PNG", "sampling": {"temperature": 1.0, "top_p": 0.95, "max_tokens": 300, "seed": 0},
    "template_sha256": "cd" * 32, "sample_index": 0,
}  # fmt: skip


def opinion(index: int = 0, **changes: Any) -> dict[str, Any]:
    """The opinion of one sample; ``changes`` to its columns leave the key as it is, unless they change the request."""
    request = changes.pop("request", REQUEST | {"sample_index": index})
    return {
        "key": request_key(request), "schema": SCHEMA, "case_id": f"c-{index}", "department": "Surgeon", "panel": "diverse",
        "source": "endpoint", "request": request, "response": f"<answer>yes – {index}</answer>", "raw": {"id": f"r-{index}"}, "option": 1,
        "reason": None, "finish_reason": "stop", "usage": {"prompt_tokens": 7, "completion_tokens": 3}, "latency_s": 0.25,
        "served_model": "gpt-4o-2024-08-06", "seed": None, "time": 1_700_000_000 + index,
    } | changes  # fmt: skip


def failure(index: int = 0, reason: str = "timeout") -> dict[str, Any]:
    """A question that came to nothing."""
    return opinion(index, response="", raw=None, option=None, reason=reason, finish_reason=None, usage=None, message="no reply in 10 s")


def full_disk(monkeypatch: Any, room: int) -> None:
    """From now on only ``room`` more bytes can be written."""
    left, write = [room], os.write

    def limited(descriptor: int, data: Any) -> int:
        if left[0] <= 0:
            raise OSError(28, "No space left on device")
        written = write(descriptor, bytes(data)[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", limited)


def shard(folder: Path, kind: str = "answers", number: int = 0) -> Path:
    """A shard's file."""
    return folder / f"{kind}-{number:03d}.jsonl"
