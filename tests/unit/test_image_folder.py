"""Pictures and labels of one's own become a case table: questions, departments, splits by picture, rows left out."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import pictures
from data_prep.__main__ import main as data_prep
from data_prep.departments import TABLE, look_up
from data_prep.image_folder import CLASS_QUESTION, MODALITY_QUESTION, parse_problem, split_pictures
from mmedlite.cases import CaseTable, read_table
from mmedlite.profiles import DEPARTMENTS


def draw(path: Path, seed: int) -> str:
    """Write a small picture of noise; returns the sha256 of its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_set(folder: Path, modality: str | None, labels: list[str | None], seed: int = 0) -> None:
    """A set with one picture for each label."""
    rows: list[dict[str, Any]] = []
    for n, label in enumerate(labels):
        row = {"image": f"images/{n}.png", "sha256": draw(folder / f"images/{n}.png", seed + n), "licence": "CC0"}
        row |= {"modality": modality} if modality else {}
        rows.append(row | ({"label": label} if label else {}))
    write_lines(folder / "labels.jsonl", rows)


def build(source: Path, out: Path, *options: str) -> tuple[CaseTable, dict[str, Any]]:
    """The table and its card."""
    assert data_prep(["image_folder", "--source", str(source), "--out", str(out), *options]) == 0
    return read_table(out), json.loads((out / "card.json").read_text())


# ---- departments


def test_departments_are_the_papers() -> None:
    assert {department for department, _ in TABLE.values()} == set(DEPARTMENTS)


@pytest.mark.parametrize(
    ("given", "modality", "department"),
    [
        ("X-Ray", "X-ray", "Radiologist"),
        ("CR (X-ray)", "X-ray", "Radiologist"),
        ("US", "Ultrasound", "Radiologist"),
        ("Ultrasound (thyroid)", "Thyroid ultrasound", "Endocrinologist"),
        ("Microscopy (blood smear)", "Microscopy", "Pathologist"),
        ("Microscopy Images", "Microscopy", "Pathologist"),
        ("Histopathology (H&E)", "Histopathology", "Pathologist"),
        ("OCT (Optical Coherence Tomography", "OCT", "Ophthalmologist"),  # as one public set writes it
        ("Fundus photography (crop, green channel)", "Fundus photography", "Ophthalmologist"),
        ("NM", "NM", None),
        ("Colposcopy", "Colposcopy", None),
        ("X", "X", None),
        (" ", "unknown", None),
    ],
)
def test_look_up(given: str, modality: str, department: str | None) -> None:
    assert look_up(given) == (modality, department)


# ---- questions


def test_closed_labels_become_the_options(tmp_path: Path) -> None:
    make_set(tmp_path / "skin", "Dermoscopy", ["benign", "malignant", "Benign ", "benign"])
    table, card = build(tmp_path / "skin", tmp_path / "out")
    assert len(table) == 4
    for case, answer in zip(table, ["benign", "malignant", "benign", "benign"], strict=True):
        assert (case.question, set(case.options)) == (CLASS_QUESTION, {"benign", "malignant"})
        assert (case.answer_text, case.modality, case.specialty) == (answer, "Dermoscopy", "Dermatologist")
        assert (case.source, case.licence, case.question_type) == ("skin", "CC0", "choice")
    assert card["classes"] == {"skin": ["benign", "malignant"]} and card["asked_for"] == {"the class": 4}


def test_without_labels_the_modality_is_asked(tmp_path: Path) -> None:
    for n, modality in enumerate(["CT", "MR", "US", "NM", "Dermoscopy"]):
        make_set(tmp_path / f"set{n}", modality, [None] * 6, seed=100 * n)
    table, card = build(tmp_path, tmp_path.parent / "out_modality")
    names = {"CT", "MRI", "Ultrasound", "NM", "Dermoscopy"}
    assert len(table) == 30 and set(card["modality_distractors_from"]) == names
    for case in table:
        assert case.question == MODALITY_QUESTION and case.answer_text == case.modality
        assert len(case.options) == 4 and set(case.options) <= names
    assert {case.answer for case in table} == {0, 1, 2, 3}, "the answer must not always stand in the same place"
    assert card["no_department"] == {"NM": 6}
    assert {case.specialty for case in table if case.modality == "NM"} == {None}


def test_one_modality_borrows_others_from_the_table(tmp_path: Path) -> None:
    make_set(tmp_path / "s", "CT", ["all the same", "all the same"])
    table, card = build(tmp_path / "s", tmp_path / "out")
    assert all(case.answer_text == "CT" and len(case.options) == 4 for case in table)
    assert set(card["modality_distractors_from"]) == set(TABLE)


def test_free_text_labels_are_no_classes(tmp_path: Path) -> None:
    make_set(tmp_path / "s", "CT", [f"report {n}" for n in range(13)])
    table, _ = build(tmp_path / "s", tmp_path / "out")
    assert {case.question for case in table} == {MODALITY_QUESTION}


def test_class_folders(tmp_path: Path) -> None:
    for n, name in enumerate(["cyst", "cyst/deeper", "tumour", ".ipynb_checkpoints"]):  # a hidden folder is no class
        draw(tmp_path / "mine" / name / "a.png", n)
    (tmp_path / "mine" / "cyst" / "notes.txt").write_text("no picture")
    table, card = build(tmp_path / "mine", tmp_path / "out", "--modality", "Ultrasound")
    assert Counter(case.answer_text for case in table) == {"cyst": 2, "tumour": 1}
    assert {case.specialty for case in table} == {"Radiologist"} and [row["row"] for row in card["dropped"]["rows"]] == ["cyst/notes.txt"]
    table, card = build(tmp_path / "mine", tmp_path / "out2")
    assert {(case.modality, case.specialty) for case in table} == {("unknown", None)}
    assert card["no_department"] == {"unknown": 3}


def test_class_folders_that_are_modalities(tmp_path: Path) -> None:
    draw(tmp_path / "mine" / "CT" / "a.png", 1)
    draw(tmp_path / "mine" / "Fundus" / "b.png", 2)
    table, _ = build(tmp_path / "mine", tmp_path / "out")
    assert {case.answer_text: case.specialty for case in table} == {"CT": "Radiologist", "Fundus": "Ophthalmologist"}


def test_a_class_that_sounds_like_a_modality_is_none(tmp_path: Path) -> None:
    """Else the department, and with it the triage doctor, would be told the class."""
    for n, name in enumerate(("normal", "pathology")):
        draw(tmp_path / "mine" / name / "a.png", n)
    table, card = build(tmp_path / "mine", tmp_path / "out")
    assert {case.specialty for case in table} == {None} and card["no_department"] == {"unknown": 2}


def test_a_folder_without_pictures_is_no_class(tmp_path: Path) -> None:
    """As what a Mac leaves beside an archive."""
    draw(tmp_path / "mine" / "CT" / "a.png", 1)
    draw(tmp_path / "mine" / "Fundus" / "b.png", 2)
    (tmp_path / "mine" / "__MACOSX" / "CT").mkdir(parents=True)
    (tmp_path / "mine" / "__MACOSX" / "CT" / "._a.png").write_bytes(b"fork")
    table, card = build(tmp_path / "mine", tmp_path / "out")
    assert {case.specialty for case in table} == {"Radiologist", "Ophthalmologist"}
    assert card["folders_without_labels"] == ["__MACOSX"] and card["dropped"]["count"] == 0


def test_a_class_may_be_a_link(tmp_path: Path) -> None:
    draw(tmp_path / "mine" / "cyst" / "a.png", 1)
    draw(tmp_path / "elsewhere" / "b.png", 2)
    (tmp_path / "mine" / "normal").symlink_to(tmp_path / "elsewhere")
    table, _ = build(tmp_path / "mine", tmp_path / "out")
    assert {case.answer_text for case in table} == {"cyst", "normal"}


def test_what_is_no_picture_of_a_class_is_counted(tmp_path: Path) -> None:
    for n, name in enumerate(("normal/a.png", "cyst/b.png", "loose.png")):
        draw(tmp_path / "mine" / name, n)
    (tmp_path / "mine" / "cyst" / "scan.dcm").write_bytes(b"DICM")
    _, card = build(tmp_path / "mine", tmp_path / "out", "--modality", "CT")
    assert [row["row"] for row in card["dropped"]["rows"]] == ["cyst/scan.dcm", "loose.png"]


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "../../secret.png", "\0.png"])
def test_a_name_that_no_file_can_have_costs_its_row_alone(name: str, tmp_path: Path) -> None:
    make_set(tmp_path / "mine", "CT", ["a", "b"])
    with (tmp_path / "mine" / "labels.jsonl").open("a") as lines:
        lines.write(json.dumps({"image": name, "sha256": "ab", "label": "a"}) + "\n")
    table, card = build(tmp_path / "mine", tmp_path / "out")
    assert len(table) == 2 and card["dropped"]["count"] == 1


def test_folders_without_labels_are_named(tmp_path: Path) -> None:
    make_set(tmp_path / "all" / "good", "CT", ["a", "b"])
    (tmp_path / "all" / "other").mkdir()
    _, card = build(tmp_path / "all", tmp_path / "out")
    assert card["folders_without_labels"] == ["other"]


# ---- ready questions


def test_parse_problem() -> None:
    text = "What technique (CT or A) is it? A)CT, with contrast, B)X-ray, C)Chest X-ray, D)PET scan"
    expected = ["CT, with contrast", "X-ray", "Chest X-ray", "PET scan"]
    assert parse_problem(text, "<answer> C </answer>") == ("What technique (CT or A) is it?", expected, 2)
    assert parse_problem("Is it? A) yes\nB) no", "B") == ("Is it?", ["yes", "no"], 1)


@pytest.mark.parametrize(
    ("problem", "solution", "why"),
    [
        ("Is it a cyst?", "<answer> A </answer>", "no options"),
        ("Is it? A) yes", "<answer> A </answer>", "no options"),
        ("Is it? A) yes, C) no", "<answer> A </answer>", "no options"),
        ("Is it? A) yes, B) Yes", "<answer> A </answer>", "duplicate"),
        ("Is it? A) , B) no", "<answer> B </answer>", "empty"),
        ("Is it? A) yes, B) no", "<answer> C </answer>", "not among the options"),
        ("Is it? A) yes, B) no", "<answer> A </answer><answer> B </answer>", "not among the options"),
        ("Is it? A) yes, B) no", "None", "not among the options"),
    ],
)
def test_problems_that_cannot_be_read(problem: str, solution: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_problem(problem, solution)


def test_ready_questions_keep_their_order_and_share_their_pictures_split(tmp_path: Path) -> None:
    rows = []
    for n in range(12):
        draw(tmp_path / "qa" / f"{n}.png", n)
        for text, letter in (("Is it? A) yes, B) no", "B"), ("What? A) CT, B) X-ray, C) MRI", "A")):
            rows.append({"image": f"{n}.png", "problem": text, "solution": f"<answer>{letter}</answer>"})
    write_lines(tmp_path / "qa" / "qa.jsonl", rows)
    table, card = build(tmp_path / "qa", tmp_path / "out")
    assert len(table) == 24 and card["images"] == 12 and card["images_shared"] == {}
    assert Counter((case.options, case.answer_text, case.question_type) for case in table) == {
        (("yes", "no"), "no", "yes_no"): 12,
        (("CT", "X-ray", "MRI"), "CT", "choice"): 12,
    }


# ---- splits


Splitter = Callable[[list[str], list[str]], list[str]]


def by_picture(shas: list[str], modalities: list[str]) -> list[str]:
    """The kit's splits, for rows given as picture and modality."""
    split = split_pictures(dict(zip(shas, modalities, strict=True)), 0)
    return [split[sha] for sha in shas]


def by_row(shas: list[str], modalities: list[str]) -> list[str]:
    """Mutant: every row draws its own split."""
    rows = [f"{sha}{n}" for n, sha in enumerate(shas)]
    split = split_pictures(dict(zip(rows, modalities, strict=True)), 0)
    return [split[row] for row in rows]


def all_alike(shas: list[str], modalities: list[str]) -> list[str]:
    """Mutant: the shares are kept over all rows only, whatever the modality."""
    return by_picture(shas, ["any"] * len(shas))


def in_order(shas: list[str], modalities: list[str]) -> list[str]:
    """Mutant: the first pictures of the source are the test pictures."""
    rank = {sha: n for n, sha in enumerate(dict.fromkeys(shas))}
    return ["test" if rank[sha] < len(rank) / 4 else "train" for sha in shas]


def check_splits(splitter: Splitter) -> None:
    """No picture in two splits; each modality has its share in each; the order of the source does not matter."""
    shas = [hashlib.sha256(b"%d" % n).hexdigest() for n in range(48)] * 2
    modalities = (["CT"] * 40 + ["MRI"] * 8) * 2
    splits = splitter(shas, modalities)
    assert len(set(zip(shas, splits, strict=True))) == 48, "a picture lies in two splits"
    found = Counter(zip(modalities, splits, strict=True))
    assert found["CT", "test"] == 20 and found["CT", "validation"] == 12 and found["CT", "train"] == 48
    assert found["MRI", "test"] == 4 and found["MRI", "validation"] == 2 and found["MRI", "train"] == 10
    assert splitter(shas[::-1], modalities[::-1])[::-1] == splits, "the order of the rows counts"


def test_splits() -> None:
    check_splits(by_picture)
    pictures = {hashlib.sha256(b"%d" % n).hexdigest(): "CT" for n in range(40)}
    assert split_pictures(pictures, 0) != split_pictures(pictures, 1)
    assert split_pictures({"a": "CT"}, 0) == {"a": "train"}


@pytest.mark.parametrize("mutant", [by_row, all_alike, in_order])
def test_mutant_splits_are_rejected(mutant: Splitter) -> None:
    with pytest.raises(AssertionError):
        check_splits(mutant)


def test_the_same_picture_in_two_sets_lies_in_one_split(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_set(tmp_path / "all" / name, "CT", ["a", "b"] * 10)
    table, card = build(tmp_path / "all", tmp_path / "out")
    assert len(table) == 40 and card["images"] == 20 and card["images_shared"] == {}


def test_the_seed_decides(tmp_path: Path) -> None:
    make_set(tmp_path / "s", "CT", ["a", "b", "c"] * 8)
    tables = [build(tmp_path / "s", tmp_path / f"out{n}", "--seed", seed)[0] for n, seed in enumerate("112")]
    assert tables[0].sha256 == tables[1].sha256 != tables[2].sha256


# ---- rows that cannot be used


def test_bad_rows_are_counted_and_listed(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make_set(folder, "CT", ["a", "b", "a", "b"])
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    (folder / "images" / "broken.png").write_text("no picture")
    (folder / "images" / "3.png").write_bytes((folder / "images" / "2.png").read_bytes())  # not what was labelled
    rows += [
        {"image": "images/none.png", "label": "a"},
        {"image": "images/broken.png", "label": "a"},
        {"label": "a"},
        rows[0],
        rows[0] | {"label": "b"},
    ]
    write_lines(folder / "labels.jsonl", rows)
    table, card = build(folder, tmp_path / "out")
    assert len(table) == 3 and card["dropped"]["count"] == 6
    told = {row["row"].removeprefix("s/labels.jsonl, "): row["why"] for row in card["dropped"]["rows"]}
    assert told == {
        "row 4": "the file is not the one labelled (sha256 differs)",
        "row 5": "missing image",
        "row 6": "unreadable image (UnidentifiedImageError)",
        "row 7": "no field image",
        "row 8": "a second row about the same picture, same answer",
        "row 9": "a second row about the same picture, another answer",
    }
    assert str(tmp_path) not in (tmp_path / "out" / "card.json").read_text(), "a card names no path of this machine"


def test_a_ready_question_without_its_answer_is_dropped(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for n, letter in enumerate("ABC"):
        draw(tmp_path / "qa" / f"{n}.png", n)
        rows.append({"image": f"{n}.png", "problem": "Is it? A) yes, B) no", "solution": f"<answer>{letter}</answer>"})
    write_lines(tmp_path / "qa" / "qa.jsonl", rows)
    table, card = build(tmp_path / "qa", tmp_path / "out")
    assert len(table) == 2
    assert card["dropped"]["rows"] == [{"row": "qa/qa.jsonl, row 3", "why": "the answer is not among the options"}]


def test_one_bad_row_costs_no_other(tmp_path: Path) -> None:
    make_set(tmp_path / "s", "CT", ["a", "b"])
    make_set(tmp_path / "other", "CT", ["a", "b"])
    os.mkfifo(tmp_path / "s" / "pipe.png")
    with (tmp_path / "s" / "labels.jsonl").open("ab") as file:
        file.write(b"{image: 3}\n" + '{"image": "é.png"}\n'.encode("latin-1") + b"[" * 5000 + b"\n")
        for fields in ({"image": "../other/images/0.png"}, {"image": str(tmp_path / "other" / "images" / "0.png")}, {"image": "pipe.png"}):
            file.write(json.dumps({"label": "a", **fields}).encode() + b"\n")
    assert data_prep(["image_folder", "--source", str(tmp_path / "s"), "--out", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))
    why = {row["row"].rsplit(" ", 1)[1]: row["why"] for row in card["dropped"]["rows"]}
    assert card["cases"] >= 2 and [why[str(n)] for n in sorted(map(int, why))] == [
        *["not a JSON object in UTF-8"] * 3, *["the name of the picture climbs out of the folder"] * 2, "no regular file"
    ]  # fmt: skip
    assert [*card["files"]] == ["labels.jsonl"]


def test_a_text_that_no_file_can_hold_costs_its_row_alone(tmp_path: Path) -> None:
    make_set(tmp_path / "s", "CT", ["a", "b"])
    lines = (tmp_path / "s" / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    lines[0] = lines[0].replace("}", ', "licence": "\\ud800"}')
    (tmp_path / "s" / "labels.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert data_prep(["image_folder", "--source", str(tmp_path / "s"), "--out", str(tmp_path / "out")]) == 0
    card = json.loads((tmp_path / "out" / "card.json").read_text(encoding="utf-8"))
    assert card["cases"] == len(lines) - 1 and card["dropped"]["rows"][0]["why"] == "field licence cannot be used"


def test_a_stopped_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(tmp_path / "s", "CT", ["a", "b"])
    command = ["image_folder", "--source", str(tmp_path / "s"), "--out", str(tmp_path / "out")]
    assert data_prep(command) == 0
    before = (tmp_path / "out" / "card.json").read_bytes()
    monkeypatch.setattr(pictures, "read", lambda path: pytest.fail("read again"))
    assert data_prep(command) == 0 and (tmp_path / "out" / "card.json").read_bytes() == before


@pytest.mark.parametrize("where", ["s/table", "s"])
def test_the_table_must_not_lie_among_the_pictures(where: str, tmp_path: Path) -> None:
    make_set(tmp_path / "s", "CT", ["a", "b"])
    assert data_prep(["image_folder", "--source", str(tmp_path / "s"), "--out", str(tmp_path / where)]) == 1
    assert not (tmp_path / "s" / "table").exists()


def test_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert data_prep(["image_folder", "--source", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert "no labels and no class sub-folders" in capsys.readouterr().err


# ---- real pictures


@pytest.fixture(scope="module")
def real(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CaseTable, dict[str, Any]]:
    source = root.parent / "shared" / "data"
    if not source.is_dir():
        pytest.skip("the real pictures (../shared/data) are not on this machine")
    return source, *build(source, tmp_path_factory.mktemp("real") / "table")


def test_real_rows_are_all_accounted_for(real: tuple[Path, CaseTable, dict[str, Any]]) -> None:
    source, table, card = real
    files = [file for name in ("labels.jsonl", "qa.jsonl") for file in source.glob(f"*/{name}")]
    rows = sum(len(file.read_text().splitlines()) for file in files)
    assert len(table) + card["dropped"]["count"] == rows == 797
    assert card["dropped"]["count"] == 0 and card["images"] == 770 and card["images_shared"] == {}
    assert set(card["folders_without_labels"]) == {"slake", "vqa_rad"}


def test_real_modalities_and_departments(real: tuple[Path, CaseTable, dict[str, Any]]) -> None:
    _, table, card = real
    pictures = Counter({case.image_sha256s[0]: case.modality for case in table}.values())
    assert {name: n for name, n in pictures.items() if n >= 20} == {
        "Microscopy": 299, "X-ray": 260, "CT": 78, "Dermoscopy": 40, "Ultrasound": 32, "MRI": 23,
        "Fundus photography": 22,
    }  # fmt: skip
    assert card["no_department"] == {"NM": 1}
    assert {case.split for case in table} == {"train", "validation", "test"}


def test_real_questions(real: tuple[Path, CaseTable, dict[str, Any]]) -> None:
    _, table, card = real
    assert card["asked_for"] == {"the class": 260, "the modality": 33, "its own question": 504}
    assert card["classes"]["busi_ultrasound"] == ["benign", "malignant", "normal"]
    assert all(len(case.options) >= 2 for case in table)
