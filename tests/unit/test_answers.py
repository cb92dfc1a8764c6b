"""The two readers of answers against a truth table, parsers that are known to be wrong, and random text."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmedlite.answers import Parsed, parse_lenient, parse_strict, reader, score_cases
from mmedlite.profiles import InputError

TABLE = Path(__file__).resolve().parents[1] / "fixtures" / "answer_truth_table.jsonl"
ROWS = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "answer_cases.jsonl"
Parser = Callable[[str, Sequence[str]], Parsed]


def wrong_rows(parser: Parser, column: str) -> list[str]:
    return [row["why"] for row in ROWS if parser(row["text"], row["options"]).option != row[column]]


def test_the_table_is_large_and_mixed() -> None:
    assert len(ROWS) >= 40
    for column in ("strict", "lenient"):
        given = [row[column] for row in ROWS]
        assert 10 <= given.count(None) <= len(ROWS) - 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["why"])
def test_truth_table(row: dict) -> None:
    for column, parser in (("strict", parse_strict), ("lenient", parse_lenient)):
        parsed = parser(row["text"], row["options"])
        assert parsed.option == row[column], f"{column}: {parsed}"
        assert (parsed.option is None) == (parsed.reason is not None)


# Parsers with one fault each, most of them seen in public graders. The table must turn every one down.
def first_tag(text: str, options: Sequence[str]) -> Parsed:
    found = re.search("<answer>(.*?)</answer>", text, re.S)
    return parse_strict(f"<answer>{found[1]}</answer>", options) if found else Parsed(None, "no_mark")


def tag_on_one_line(text: str, options: Sequence[str]) -> Parsed:
    found = re.findall("<answer>(.*?)</answer>", text)
    return parse_strict(f"<answer>{found[-1]}</answer>", options) if found else Parsed(None, "no_mark")


def reasoning_counts(text: str, options: Sequence[str]) -> Parsed:
    return parse_strict(re.sub("</?think>", "", text), options)


def first_letter(text: str, options: Sequence[str]) -> Parsed:
    found = re.search(r"<answer>\W*([A-D])", text.upper().replace("<ANSWER>", "<answer>"))
    return Parsed("ABCD".index(found[1]) if found and "ABCD".index(found[1]) < len(options) else None)


def part_of_a_word(text: str, options: Sequence[str]) -> Parsed:
    content = text.rpartition("<answer>")[2].lower()
    hits = [i for i, option in enumerate(options) if option.lower() in content]
    return Parsed(hits[0] if len(hits) == 1 else None)


def first_mark(text: str, options: Sequence[str]) -> Parsed:
    found = re.search(r"(?:answer|is)\W+([A-D])\b", text)
    return Parsed("ABCD".index(found[1])) if found else parse_lenient(text, options)


def guesser(text: str, options: Sequence[str]) -> Parsed:
    parsed = parse_lenient(text, options)
    return parsed if parsed.option is not None else Parsed(0)


def blind_to_negation(text: str, options: Sequence[str]) -> Parsed:
    return parse_lenient(re.sub(r"\b(not|no|neither|nor|cannot be)\b", "", text), options)


def blind_to_names(text: str, options: Sequence[str]) -> Parsed:
    return parse_lenient(re.sub(r"(?i)\bvitamin |\bgroup |\bstage ", "option ", text), [""] * len(options))


@pytest.mark.parametrize(
    ("parser", "column"),
    [
        *((p, "strict") for p in (first_tag, tag_on_one_line, reasoning_counts, first_letter, part_of_a_word)),
        *((p, "lenient") for p in (first_mark, guesser, blind_to_negation, blind_to_names)),
        (parse_lenient, "strict"),
        (parse_strict, "lenient"),
    ],
)
def test_the_table_rejects_a_faulty_parser(parser: Parser, column: str) -> None:
    assert wrong_rows(parser, column)


PIECES = [
    *("A", "B", "C", "I", " or ", ", ", "Answer: ", "answer is ", "<think>", "</think>", "<answer>", "</answer>", "\\boxed{"),
    *(
        "}",
        "{",
        "\n",
        ". ",
        "not ",
        "yes",
        "no",
        "?",
        "2",
        "14",
        "正",
        "答案是",
        "정답은 ",
        "В",
        "\ud800",
        "🅱",
        "\0",
        '{"choice": "',
    ),
    *("**", "(", ")", "[[", "]]", "line", "E. coli", "option ", "the ", "is ", " ", "٣", "²", "ǅ", "ß"),
]
OPTIONS = [["a", "b", "c"], ["yes", "no"], [""] * 4, ["E. coli", "line"], ["1", "2"], ["+", "-"], ["A", "B"], ["yes", "yes"], ["x"]]


@pytest.mark.parametrize("parser", [parse_strict, parse_lenient])
def test_any_text_gives_an_option_in_range_or_a_reason(parser: Parser) -> None:
    rng = random.Random(7)
    for _ in range(3000):
        text, options = "".join(rng.choices(PIECES, k=rng.randint(0, 20))), rng.choice(OPTIONS)
        parsed = parser(text, options)
        if parsed.option is None:
            assert parsed.reason, text
        else:
            assert 0 <= parsed.option < len(options) and parsed.reason is None, text


def test_an_unclosed_think_is_never_an_answer() -> None:
    rng = random.Random(8)
    for _ in range(1000):
        text = "<think>" + "".join(rng.choices([p for p in PIECES if p != "</think>"], k=rng.randint(0, 12)))
        assert parse_strict(text, ["a", "b"]).option is None and parse_lenient(text, ["a", "b"]).option is None, text


LONG = ["A ", "B or ", "Answer: ", "<answer>", "\\boxed{", "the ", "not ", ". ", "-", "line ", "A, "]


@pytest.mark.parametrize("piece", [*LONG, "A: 1 ", "A. x\n", "the panel chose ", "if ", "all but ", "wait, ", "~~", "[ ] "])
def test_long_repetitions_take_no_longer_than_their_length(piece: str) -> None:
    start = time.process_time()
    parse_lenient(piece * 300, ["line", "dot", "spot"])
    assert time.process_time() - start < 1.0


def test_options_beyond_z_have_no_letter() -> None:
    options = [f"finding {i}" for i in range(30)]
    assert parse_strict("<answer>finding 29</answer>", options).option == 29
    assert parse_lenient("Answer: Z", options).option == 25


def test_every_pattern_is_used() -> None:
    source = Path(reader.__file__).read_text(encoding="utf-8")
    assert [name for name in vars(reader.P) if f"P.{name}" not in source] == []


# --- score_cases
def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def case(response: str, expected: str | None, options: object = None) -> dict:
    return {"response": response, "options": options or {"A": "", "B": ""}, "expected": expected}


def test_score_cases_counts_each_kind_of_error(tmp_path: Path) -> None:
    rows = [case("B", "B"), case("B", "A"), case("B", None), case("who knows", "A"), case("who knows", None), ""]
    assert score_cases(write(tmp_path / "c.jsonl", *rows)) == {"overall": 0.4, "wrong_letter": 1, "false_accept": 1, "n": 5}


def test_score_cases_reads_letters_numbers_names_and_lists(tmp_path: Path) -> None:
    rows = [
        case("Answer: 3", "3", {"1": "", "2": "", "3": "third"}),
        case("Yes, it is.", "yes", {"yes": "yes", "no": "no"}),
        case("No.", "no", {"yes": "", "no": ""}),
        case("a dark patch", "B", ["line", "dark patch"]),
        case("Answer: D", "D", {"B": "", "D": ""}),
        case("Answer: A", None, {"B": "", "D": ""}),
        case("one\u2028Answer: A", "A"),
    ]
    assert score_cases(write(tmp_path / "c.jsonl", *rows))["overall"] == 1.0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{broken", "not a grader case"),
        ("[1]", "not a grader case"),
        ({"response": "A", "expected": "A"}, "not a grader case"),
        ({"response": "A", "options": {"A": ""}}, "not a grader case"),
        ({"response": "A", "options": 3, "expected": "A"}, "not a grader case"),
        ({"response": None, "options": {"A": ""}, "expected": "A"}, "response no text"),
        ({"response": "A", "options": {}, "expected": None}, "no option"),
        ({"response": "A", "options": {"A": ""}, "expected": "Q"}, "'Q' is no option"),
        ({"response": "A", "options": {"A": ""}, "expected": ["A"]}, "is no option"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        score_cases(write(tmp_path / "cases.jsonl", case("A", "A"), row))
    assert "cases.jsonl, line 2" in str(error.value) and "Fix:" in str(error.value)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.jsonl"):
        score_cases(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="no cases"):
        score_cases(write(tmp_path / "empty.jsonl", ""))


def test_collected_cases_of_public_graders() -> None:
    if not SHARED.is_file():
        pytest.skip("the collected grader cases (../shared/data/answer_cases.jsonl) are not here")
    scores = score_cases(SHARED)
    assert scores["overall"] >= 0.95 and scores["wrong_letter"] == 0 and scores["false_accept"] == 0
    held = {json.loads(line)["response"] for line in SHARED.read_text(encoding="utf-8").splitlines()}
    assert held.isdisjoint({row["text"] for row in ROWS if row["text"]}), "the table holds strings of our own only"
