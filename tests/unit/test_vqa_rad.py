"""VQA-RAD as a case table: the yes/no questions, the official test split, everything left out counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.vqa_rad import overlap
from mmedlite.cases import CaseTable, option_key, read_table


def question(qid: int, image: int, answer: Any, kind: str = "CLOSED", organ: str = "CHEST") -> dict[str, Any]:
    return {
        "qid": qid, "image_name": f"synpic{image}.jpg", "image_organ": organ, "question": f"Is it {qid}?",
        "answer": answer, "answer_type": kind, "question_type": "PRES", "phrase_type": "freeform",
    }  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder like VQA-RAD's, with its known oddities: case, blanks, 'CLOSED ', whole numbers, a missing picture."""
    folder = tmp_path / "vqa"
    (folder / "images").mkdir(parents=True)
    for n in range(20):
        Image.new("RGB", (16, 16), (n * 10, 90, 30)).save(folder / "images" / f"synpic{n}.jpg")
    train = [question(n, n, "Yes" if n % 2 else "no ", organ="HEAD") for n in range(20)]
    train += [
        question(20, 0, "Left", "CLOSED "),
        question(21, 0, 3, "OPEN"),
        question(22, 99, "yes"),
        question(23, 1, "YES", "CLOSED ", "ABD"),
        question(24, 1, "no", organ="FOOT"),
        question(25, 5, "no") | {"phrase_type": "frame"},
        question(26, 1, "no") | {"question": " is it  24?", "phrase_type": "para"},
    ]
    test = [question(30, 0, "No"), question(31, 1, "yes"), question(32, 1, "CT"), question(33, 2, "a mass", "OPEN")]
    test.append(question(34, 3, "yes") | {"question": "is it  3?"})
    for name, rows in (("trainset.json", train), ("testset.json", test)):
        (folder / name).write_text(json.dumps(rows))
    return folder


def build(source: Path, out: Path, *options: str) -> tuple[CaseTable, dict[str, Any]]:
    assert data_prep(["vqa_rad", "--source", str(source), "--out", str(out), *options]) == 0
    return read_table(out), json.loads((out / "card.json").read_text())


def test_yes_no_questions_become_cases(source: Path, tmp_path: Path) -> None:
    table, card = build(source, tmp_path / "out")
    assert len(table) == 25
    assert {case.options for case in table} == {("yes", "no")} and {case.question_type for case in table} == {"yes_no"}
    answers = {case.case_id: case.answer_text for case in table}
    assert [answers[f"vqa_rad-{qid}"] for qid in (0, 1, 23, 24, 30, 31)] == ["no", "yes", "yes", "no", "no", "yes"]
    assert [case.case_id for case in table.split("test")] == ["vqa_rad-30", "vqa_rad-31", "vqa_rad-34"]
    assert card["dropped"]["reasons"] == {
        "closed question, answer not yes or no": 2, "no yes/no question": 2, "missing image": 1,
        "'frame' question, made from a template": 1, "the same question on the same picture again": 1,
    }  # fmt: skip
    assert {"row": "trainset.json, row 23 (qid 22)", "why": "missing image"} in card["dropped"]["rows"]
    assert str(tmp_path) not in (tmp_path / "out" / "card.json").read_text()


def test_every_known_body_part_is_read_in_radiology(source: Path, tmp_path: Path) -> None:
    table, _ = build(source, tmp_path / "out")
    departments = {case.modality: case.specialty for case in table}
    assert departments == {
        "Radiology (head)": "Radiologist", "Radiology (chest)": "Radiologist", "Radiology (abdomen)": "Radiologist",
        "Radiology (FOOT)": None,
    }  # fmt: skip


def test_validation_is_taken_by_picture(source: Path, tmp_path: Path) -> None:
    table, card = build(source, tmp_path / "out")
    train = {case.images[0] for case in table.split("train")}
    validation = {case.images[0] for case in table.split("validation")}
    assert len(validation) == 2 and len(train) == 18 and not train & validation
    assert "train/validation" not in card["images_shared"]
    again, _ = build(source, tmp_path / "again")
    others = [build(source, tmp_path / f"seed{seed}", "--seed", str(seed))[0] for seed in range(1, 9)]
    assert table.sha256 == again.sha256 and table.sha256 not in {other.sha256 for other in others}
    # test pictures are among the training pictures, here as in the real files: the test split stays the official one
    assert any({c.images[0] for c in o.split("validation")} & {c.images[0] for c in o.split("test")} for o in others)
    assert all(len(other.split("test")) == 3 for other in others)


def test_the_official_overlap_is_reported(source: Path, tmp_path: Path) -> None:
    _, card = build(source, tmp_path / "out")
    expected = {"test_images": 4, "test_images_also_in_train": 4, "test_questions_also_in_train": 1}
    assert card["official_overlap"] == expected
    rows = [("", question(qid, image, "no") | {"split": split}) for qid, image, split in ((1, 1, "train"), (2, 1, "test"), (3, 2, "test"))]
    assert overlap(rows) == {
        "test_images": 2, "test_images_also_in_train": 1, "test_questions_also_in_train": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "testset.json").unlink(), ["not a readable JSON file", "testset.json"]),
        (lambda folder: (folder / "testset.json").write_text("[{"), ["not a readable JSON file", "testset.json"]),
        (lambda folder: (folder / "testset.json").write_text("{}"), ["not a list", "testset.json"]),
        (lambda folder: (folder / "testset.json").write_text('[{"qid": 1}]'), ["no row has the fields", "testset.json"]),
        (lambda folder: (folder / "testset.json").write_text("[3]"), ["no row has the fields", "testset.json"]),
    ],
)
def test_damaged_files(
    spoil: Callable[[Path], Any], words: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(source)
    assert data_prep(["vqa_rad", "--source", str(source), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in [*words, "Fix: "])
    assert not (tmp_path / "out").exists(), "nothing is built from damaged files"


# ---- the real thing


@pytest.fixture(scope="module")
def official(root: Path) -> Path:
    folder = root.parent / "shared" / "data" / "vqa_rad"
    if not folder.is_dir():
        pytest.skip("VQA-RAD (../shared/data/vqa_rad) is not on this machine")
    return folder


@pytest.fixture(scope="module")
def real(official: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CaseTable, dict[str, Any]]:
    return build(official, tmp_path_factory.mktemp("vqa_rad") / "table")


def test_the_papers_940_and_251_questions(real: tuple[CaseTable, dict[str, Any]]) -> None:
    table, card = real
    assert len(table.split("test")) == 251
    assert len(table.split("train")) + len(table.split("validation")) == 940
    assert {rule: counts["train"] for rule, counts in card["sizes"].items()} == {
        "all": 3064, "yes/no": 1713, "yes/no, without 'frame' questions": 942, "the same, each question on a picture once": 940,
    }  # fmt: skip
    assert Counter(case.answer_text for case in table.split("test")) == {"no": 133, "yes": 118}
    assert card["dropped"]["reasons"] == {
        "no yes/no question": 1420, "closed question, answer not yes or no": 131, "'frame' question, made from a template": 771,
        "the same question on the same picture again": 2,
    }  # fmt: skip
    assert len(card["dropped"]["rows"]) == card["dropped"]["count"] == 3515 - len(table)


def test_every_official_test_picture_occurs_in_train(real: tuple[CaseTable, dict[str, Any]]) -> None:
    _, card = real
    expected = {"test_images": 203, "test_images_also_in_train": 203, "test_questions_also_in_train": 14}
    assert card["official_overlap"] == expected
    assert set(card["images_shared"]) == {"train/test", "validation/test"}
    shared = {pair: card["leaks"][pair]["images_shared"] for pair in ("train/test", "validation/test")}
    assert shared == card["images_shared"] and card["leaks"]["train/test"]["questions_repeated"] == 0


MUTANT_READERS: dict[str, Callable[[Any], str]] = {
    "case counts": lambda answer: str(answer).strip(),
    "closed means yes/no": lambda answer: "yes",
}


@pytest.mark.parametrize("name", MUTANT_READERS)
def test_mutant_answer_readers_miss_251(name: str, official: Path) -> None:
    rows = json.loads((official / "testset.json").read_text())
    closed = [row["answer"] for row in rows if row["answer_type"].strip() == "CLOSED"]
    assert sum(option_key(str(answer)) in ("yes", "no") for answer in closed) == 251
    assert sum(MUTANT_READERS[name](answer) in ("yes", "no") for answer in closed) != 251
