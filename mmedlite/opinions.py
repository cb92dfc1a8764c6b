"""One opinion: the key of its request, and the line in which it is stored.

The key covers what decides an answer, and nothing else:

==================  ===================================================================
in the key          why
==================  ===================================================================
schema              the meaning of the fields below
model, revision     another model, or other weights under its name, answers otherwise
messages            the words; a picture stands in them as the hash of its pixels
image_rule          how a picture was downsized before it was sent
sampling            temperature, top_p, max_tokens, seed, whatever else is asked for
template_sha256     the prompt's template, so that two versions of it never mix
sample_index        or the samples of one model would collapse into one
not in the key      endpoint, API key, version of the client: they carry the question
==================  ===================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from mmedlite.profiles import InputError

SCHEMA = 2
KEY_FIELDS = ("model", "revision", "messages", "image_rule", "sampling", "template_sha256", "sample_index")
COLUMNS = (
    "key", "schema", "case_id", "department", "panel", "source", "request", "response", "raw", "option", "reason", "finish_reason",
    "usage", "latency_s", "served_model", "seed", "time",
)  # fmt: skip
NESTED = ("request", "raw", "usage")  # JSON text in Parquet


def canonical(value: Any) -> Any:
    """A request in the form that is hashed: null entries left out, whole floats as integers.

    Raises:
        InputError: it holds something that JSON cannot, as nan.
    """
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [canonical(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() else value
    raise InputError(f"a request cannot hold {value!r}", "", "use text, finite numbers, true, false, null, lists and tables of them")


def request_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a request; see the table above for what it covers. Equal requests have one key.

    Raises:
        InputError: a field that is no part of a request, as an endpoint or an API key.
    """
    if strange := set(request) - set(KEY_FIELDS):
        raise InputError(f"{', '.join(sorted(strange))}: no part of a request", "", f"use {', '.join(KEY_FIELDS)}")
    text = json.dumps({"schema": SCHEMA, **canonical(request)}, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


_KNOWN = {*COLUMNS, "digest"}


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode()


def _body(row: Mapping[str, Any]) -> bytes:
    """A row as JSON, its columns in the order of ``COLUMNS``, without its closing brace."""
    ordered = {name: SCHEMA if name == "schema" else row[name] for name in COLUMNS if name in row or name == "schema"}
    if extra := row.keys() - _KNOWN:  # as the message of a failure
        ordered |= {name: row[name] for name in sorted(extra)}
    return _to_json(ordered).encode(errors="backslashreplace")[:-1]  # half a surrogate pair becomes its JSON escape


def digest_of(row: Mapping[str, Any]) -> str:
    """The digest that stands at the end of the row's line."""
    return _digest(_body(row)).decode()


def to_line(row: Mapping[str, Any]) -> bytes:
    """One line of a shard: the row as JSON, key and schema first, a digest of all that at its end."""
    return (body := _body(row)) + b',"digest":"' + _digest(body) + b'"}\n'


def damage_of(line: bytes) -> str | None:
    """What is wrong with a line (without its line end): None, "torn", "edited", "newer" or "older"."""
    if line[-29:-18] == b',"digest":"' and line[-2:] == b'"}':
        if _digest(line[:-29]) != line[-18:-2]:
            return "torn" if b"\0" in line else "edited"  # a power cut can leave a hole of zeros in a file
        schema = re.match(rb'\{"key":"[0-9a-f]{64}","schema":(\d+)[,}]', line)
        found = int(schema[1]) if schema else 0
        return None if found == SCHEMA else "newer" if found > SCHEMA else "older"
    try:
        row = json.loads(line)
    except ValueError:
        return "torn"
    return "older" if isinstance(row, dict) and "key" in row and "digest" not in row else "edited"


REFUSED = {
    "edited": ("was changed after it was written", "restore the line, or delete it: it will be asked again"),
    "newer": (f"is of a newer kit than this one, which reads schema {SCHEMA}", "update the kit, or use another folder"),
    "older": (f"is of an older kit; this one reads schema {SCHEMA}", "use another folder, or the kit that wrote it"),
}


class MissingOpinion(InputError):
    """Replay met a request that nobody has asked yet."""


def from_line(line: bytes) -> dict[str, Any]:
    """The row of a whole line."""
    row: dict[str, Any] = json.loads(line)
    del row["digest"]
    return row
