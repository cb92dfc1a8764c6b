"""The reward of the paper (section 3.3): R = format (0 or 0.5) + accuracy (0 or 1), each without the other.

Accuracy comes from the strict parse of ``<answer>``; whether it may score without the form is left open by the paper, and
the kit lets it: a right answer in the wrong form is worth 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmedlite.answers import parse_strict

FORMAT, ACCURACY = 0.5, 1.0  # paper, section 3.3
# DOTALL: reasoning and answer may run over several lines.
_FORM = re.compile(r"\s*<think>(.*\S.*)</think>\s*<answer>(.*\S.*)</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_ok(text: str) -> bool:
    """Whether ``text`` is ``<think>...</think><answer>...</answer>``: both filled, each tag once, nothing around them."""
    return all(text.count(tag) == 1 for tag in _TAGS) and _FORM.fullmatch(text) is not None


def reward_parts(text: str, options: Sequence[str], answer: int) -> dict[str, Any]:
    """The two rewards of one completion and the strict parse: ``format`` 0 or 0.5, ``accuracy`` 0 or 1, ``parsed``."""
    parsed = parse_strict(text, options)
    right = parsed.option is not None and parsed.option == answer
    return {"format": FORMAT * format_ok(text), "accuracy": ACCURACY * right, "parsed": parsed}


def completion_text(completion: Any) -> str:
    """The text of a completion as TRL hands it over: a string, or the messages of a conversation (the last one counts)."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def format_reward(completions: Sequence[Any], **columns: Any) -> list[float]:
    """TRL reward function: 0.5 for the form, else 0."""
    return [FORMAT * format_ok(completion_text(c)) for c in completions]


def accuracy_reward(completions: Sequence[Any], options: Sequence[Sequence[str]], answer: Sequence[int], **columns: Any) -> list[float]:
    """TRL reward function: 1 for the right option, else 0; ``options`` and ``answer`` are columns of the data set."""
    rows = zip(completions, options, answer, strict=True)
    return [reward_parts(completion_text(c), o, int(a))["accuracy"] for c, o, a in rows]


def random_reward(completions: Sequence[Any], trainer_state: Any, **columns: Any) -> list[float]:
    """Control, a TRL reward function: a coin tossed anew for each completion of each update (0 or 1), whatever it says."""
    return np.random.default_rng([7, trainer_state.global_step]).integers(0, 2, len(completions)).astype(float).tolist()
