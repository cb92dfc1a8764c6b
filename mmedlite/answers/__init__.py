"""Reading an answer out of a model's text: strict for the reward, lenient for the frozen specialists.

Both return the index of an option or the reason why there is none. An abstention counts as wrong; a guessed letter would
pass for evidence, so neither parser guesses. Order of trust in the lenient parser:

1. explicit marks ("Answer: B", ``<answer>``, ``\\boxed{}``, JSON, a line that is only a letter); the last one wins;
2. letters in prose: asserted ("therefore B is correct"), at the very start, mentioned alone;
3. the text of exactly one option, not negated.

What others are said to answer, what stands in a condition or a list, and what is taken back at once does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mmedlite.answers.reader import ALPHABET, Parsed, Reader, fold
from mmedlite.profiles import InputError

__all__ = ["Parsed", "parse_lenient", "parse_strict", "score_cases"]

_reader = lru_cache(maxsize=1024)(Reader)


def parse_lenient(text: str, options: Sequence[str]) -> Parsed:
    """Read a frozen specialist's free text: the last explicit mark wins; an unclosed ``<think>`` is no answer; no guess.

    Letters A, B, ... stand for places in ``options`` (the option texts); an empty text is answered by its letter only.
    """
    return _reader(tuple(options)).lenient(text)


def parse_strict(text: str, options: Sequence[str]) -> Parsed:
    """Read only the last ``<answer>...</answer>`` behind the last ``</think>``, for the reward (paper section 3.3).

    It must hold exactly one option: its letter ("B", "B.", "(B)"), its text (case, blanks, punctuation aside) or both
    ("B. yes"). No answer: an unclosed ``<think>`` or ``<answer>``, two letters, a letter with another option's text.
    """
    body = text.rpartition("</think>")[2]
    content, closed, _ = body.rpartition("<answer>")[2].partition("</answer>")
    if "<think>" in body or "<answer>" not in body or not closed:
        return Parsed(None, "unclosed_think" if "<think>" in body else "no_mark")
    reader, content = _reader(tuple(options)), fold(content).strip()
    found = reader.exact(content)
    if m := re.fullmatch(r"[(\[*]*([A-Za-z])[)\]*]*(?:[.:)]\s*[)\]*]*(.*))?", content, re.S):
        index, named = reader.letter(m[1]), reader.exact(m[2]) if m[2] else None
        if index is not None and (named is None or index in named):
            found |= named or {index}
    return Parsed(found.pop()) if len(found) == 1 else Parsed(None, "ambiguous" if found else "no_option" if content else "empty")


def _case(line: str, where: str) -> tuple[str, dict[str, str], str | None]:
    """Response, option texts by name and expected name of one line; a list of options is named A, B, ..."""
    try:
        row = json.loads(line)
        options = row["options"] if isinstance(row["options"], dict) else dict(zip(ALPHABET, row["options"], strict=False))
        response, expected, known = row["response"], row["expected"], bool(options) and isinstance(row["response"], str)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a grader case: {error!r}", where, "write one JSON object a line: response, options, expected") from error
    if not known or expected not in (None, *options):
        raise InputError(f"expected {expected!r} is no option, or response no text", where, "name an option or null")
    return response, {name: str(text or "") for name, text in options.items()}, expected


def score_cases(path: str | Path) -> dict[str, float | int]:
    """Score :func:`parse_lenient` on a JSONL file of {response, options, expected}; expected null = must abstain.

    Returns overall (share right), wrong_letter (an option other than the expected), false_accept (an option where none is
    expected) and n. Raises InputError naming file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the cases: {error}", str(path), "give a UTF-8 JSONL file") from error
    outcomes = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            response, options, expected = _case(line, f"{path}, line {number}")
            if all(re.fullmatch("[A-Z]|[0-9]+", name) for name in options):  # names are labels; others (yes, no) are texts
                reader = _reader(tuple(options.values()), tuple(options))
            else:
                reader = _reader(tuple(text or name for name, text in options.items()))
            index = reader.lenient(response).option
            outcomes.append((None if index is None else list(options)[index], expected))
    if not outcomes:
        raise InputError("no cases", str(path), "write one JSON object a line")
    return {
        "overall": sum(given == expected for given, expected in outcomes) / len(outcomes),
        "wrong_letter": sum(None not in (given, expected) and given != expected for given, expected in outcomes),
        "false_accept": sum(expected is None and given is not None for given, expected in outcomes),
        "n": len(outcomes),
    }
