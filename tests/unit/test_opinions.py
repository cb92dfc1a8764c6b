"""The key of a request covers all that decides an answer, and nothing else; a stored line survives any text and shows any damage."""

from __future__ import annotations

import copy
import difflib
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from mmedlite import opinions
from mmedlite.opinions import KEY_FIELDS, SCHEMA, canonical, damage_of, digest_of, from_line, request_key, to_line
from mmedlite.profiles import InputError
from tests.stored import REQUEST, opinion

WORDS = ["Is it there?", "ä – ∞", "line\nbreak", "\u2028", "\U0001f9e0", '"quoted" \\ back', "", " ", "0", "null", "\x00", "\ud800"]
NUMBERS = [0, 1, -1, 7, 300, 2**40, 0.0, 0.5, 1.0, 0.95, 1e-9, 1e22, True, False]


def random_request(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    content = [{"type": "image", "sha256": f"{rng.getrandbits(256):064x}"} for _ in range(rng.randrange(3))]
    content += [{"type": "text", "text": rng.choice(WORDS) + rng.choice(WORDS)} for _ in range(rng.randrange(1, 3))]
    sampling = {name: rng.choice(NUMBERS) for name in rng.sample(["temperature", "top_p", "max_tokens", "seed", "logprobs"], 3)}
    return {
        "model": rng.choice(WORDS), "revision": rng.choice(WORDS), "messages": [{"role": "user", "content": content}],
        "image_rule": rng.choice(WORDS), "sampling": {**sampling, "stop": [rng.choice(WORDS)], "format": {"type": rng.choice(WORDS)}},
        "template_sha256": f"{rng.getrandbits(256):064x}", "sample_index": rng.randrange(6),
    }  # fmt: skip


def written_otherwise(value: Any, rng: random.Random) -> Any:
    """The same request with other key order, whole numbers as floats or the other way round, absent entries as null."""
    if isinstance(value, dict):
        items = [(k, written_otherwise(v, rng)) for k, v in value.items()]
        items += [("not_given", None)] if "model" not in value and rng.random() < 0.5 else []
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return tuple(written_otherwise(v, rng) for v in value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return rng.choice([int(value), float(value)])
    return value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from leaves(part, (*path, name))
    if not isinstance(value, dict | list):
        yield path


def changed(request: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    other = copy.deepcopy(request)
    at: Any = other
    for name in path[:-1]:
        at = at[name]
    old = at[path[-1]]
    at[path[-1]] = old + "." if isinstance(old, str) else not old if isinstance(old, bool) else old + 1 if abs(old) < 1e9 else old * 2
    return other


def test_equal_requests_have_one_key() -> None:
    for seed in range(300):
        request = random_request(seed)
        other = written_otherwise(request, random.Random(seed))
        assert request_key(other) == request_key(request), seed
        assert request_key(json.loads(json.dumps(request))) == request_key(request), seed


def test_any_change_is_another_key() -> None:
    """Each leaf of a request, wherever it stands; no two of all these requests have one key."""
    keys = set()
    for seed in range(40):
        request = random_request(seed)
        found = [request_key(request), *(request_key(changed(request, path)) for path in leaves(request))]
        assert len(set(found)) == len(found) > 10, seed
        keys |= set(found)
    assert len(keys) > 400


@pytest.mark.parametrize("field", KEY_FIELDS)
def test_every_field_is_in_the_key(field: str) -> None:
    paths = [p for p in leaves(REQUEST) if p[0] == field]
    assert paths and all(request_key(changed(REQUEST, p)) != request_key(REQUEST) for p in paths)
    assert request_key({k: v for k, v in REQUEST.items() if k != field}) != request_key(REQUEST)


def test_samples_do_not_collapse() -> None:
    assert len({request_key(REQUEST | {"sample_index": i}) for i in range(6)}) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"temperature": 0}, {"temperature": 0.0}), ({"temperature": 0.0}, {"temperature": -0.0}), ({"seed": None}, {}),
        ({"format": {"type": None}}, {"format": {}}), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"stop": ("x",)}, {"stop": ["x"]}),
    ],
    ids=str,
)  # fmt: skip
def test_one_request_written_in_two_ways(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert request_key(REQUEST | {"sampling": one}) == request_key(REQUEST | {"sampling": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 0}, {}), ({"seed": 0}, {"seed": None}), ({"logprobs": True}, {"logprobs": 1}), ({"seed": 0}, {"seed": "0"}),
        ({"stop": ["a", "b"]}, {"stop": ["b", "a"]}), ({"stop": [None]}, {"stop": []}), ({"stop": "\ud800"}, {"stop": "\\ud800"}),
    ],
    ids=lambda value: ascii(value),
)  # fmt: skip
def test_two_requests_that_look_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert request_key(REQUEST | {"sampling": one}) != request_key(REQUEST | {"sampling": other})


@pytest.mark.parametrize("name", ["endpoint", "base_url", "api_key", "client_version", "headers", "schema"])
def test_what_carries_the_question_is_no_part_of_it(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}: no part of a request\. Fix: use model, revision"):
        request_key(REQUEST | {name: "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1, 2}, object()], ids=lambda v: type(v).__name__)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="a request cannot hold .*Fix: "):
        request_key(REQUEST | {"sampling": {"temperature": [value]}})


def test_key_is_stable_over_versions() -> None:
    """Shipped opinions are found by this hash: a change of it must be meant, and raises SCHEMA."""
    assert SCHEMA == 2
    assert request_key(REQUEST) == "a077f0b50c786ccc9d34b87736469311b84d24e3fb7fcdaa098737dcbe5d780a"


def test_canonical_form_is_plain() -> None:
    assert canonical({"b": (1.0, None), "a": None, 3: 0.5}) == {"b": [1, None], "3": 0.5}


# Lines

ODD = [
    "", "plain", "two\nlines\r\n", "next line\x85 separator \u2028 paragraph \u2029", "half \ud800 a pair \udfff", "\U0001f9e0 e\u0301 \u202e",
    "\x00\x07\x1b[31m", '{"key":"' + "0" * 64 + '","schema":2,"digest":"0123456789abcdef"}', "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text)[:24])
def test_any_text_survives(text: str) -> None:
    row = opinion(response=text, raw={"choices": [{"text": text}], "null": None}, request=REQUEST | {"image_rule": text})
    line = to_line(row)
    assert line.count(b"\n") == 1 and line.endswith(b"\n") and damage_of(line[:-1]) is None
    assert from_line(line[:-1]) == row
    assert json.loads(line.decode())["digest"] == digest_of(row) == digest_of(from_line(line[:-1]))
    assert line.startswith(f'{{"key":"{row["key"]}","schema":{SCHEMA},'.encode())


def test_text_stands_as_it_is() -> None:
    """In a text editor the words can be read and found."""
    assert "<answer>yes – 0</answer>" in to_line(opinion()).decode()


def test_one_changed_answer_is_one_changed_line() -> None:
    rows = [opinion(i) for i in range(5)]
    before = b"".join(map(to_line, rows)).decode().split("\n")
    after = b"".join(map(to_line, [*rows[:2], rows[2] | {"response": "no"}, *rows[3:]])).decode().split("\n")
    diff = [d for d in difflib.unified_diff(before, after, n=0, lineterm="") if d[:1] in "+-" and d[:3] not in ("+++", "---")]
    assert len(diff) == 2 and f'"{rows[2]["key"]}"' in diff[0]


def test_order_of_columns_does_not_matter() -> None:
    row = opinion(message="x", attempt=2, address="y")
    assert to_line(dict(reversed(row.items()))) == to_line(row)


def test_a_line_cut_anywhere_is_torn() -> None:
    line = to_line(opinion(response="a\U0001f9e0b"))[:-1]
    assert {damage_of(line[:end]) for end in range(1, len(line))} == {"torn"}


def test_a_hole_of_zeros_is_torn() -> None:
    line = to_line(opinion())[:-1]
    assert damage_of(line[:100] + bytes(60) + line[160:]) == damage_of(bytes(100)) == "torn"


def test_no_byte_can_be_changed() -> None:
    line = to_line(opinion())[:-1]
    found = {damage_of(line[:i] + bytes([line[i] ^ 1]) + line[i + 1 :]) for i in range(len(line))}
    assert None not in found and "edited" in found
    at = line.index(b"<answer>")
    assert {damage_of(line[:i] + b"#" + line[i + 1 :]) for i in range(at, at + 20)} == {"edited"}


@pytest.mark.parametrize(("schema", "found"), [(SCHEMA + 1, "newer"), (10 * SCHEMA, "newer"), (SCHEMA - 1, "older")])
def test_lines_of_other_schemas(schema: int, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(opinions, "SCHEMA", schema)
        line = to_line(opinion())[:-1]
    assert damage_of(line) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"key":"a","response":"x"}', "older"), (b'{"case_id":"c"}', "edited"), (b"3", "edited"), (b"null", "edited"), (b"[1]", "edited"),
        (to_line(opinion())[:-1] + b"\r", "edited"), (b" " + to_line(opinion())[:-1], "edited"), (2 * to_line(opinion())[:-1], "edited"),
        (b'{"key":"a', "torn"), (b"\xff\xfe", "torn"),
    ],
)  # fmt: skip
def test_what_is_no_line_of_ours(line: bytes, found: str) -> None:
    assert damage_of(line) == found
