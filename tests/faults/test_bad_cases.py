"""Bad case tables: one clear error that names file, row, field and mend, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from mmedlite.cases import SCHEMA, Case, TableWriter, read_table, validate
from mmedlite.profiles import InputError

Row = dict[str, Any]
Validator = Callable[[Iterable[Row], Path, Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good table of three cases."""
    with TableWriter(tmp_path / "table") as out:
        for n in range(3):
            path, sha = out.add_image(Image.new("RGB", (8, 8), (n, 50, 90)))
            head = (f"case-{n}", "toy", "train", (path,), (sha,))
            out.add(Case(*head, "Is it there?", ("yes", "no"), 0, "X-ray", "Radiologist", "yes_no", "CC0"))
    return tmp_path / "table"


def rows_of(folder: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(folder / "cases.parquet").to_pylist()
    return rows


def write(folder: Path, rows: list[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "cases.parquet")


# fault -> (what is done to row 2, the field that must be named, words that must stand in the error)
FIELD_FAULTS: dict[str, tuple[Row, str, str]] = {
    "answer beyond the options": ({"answer": 2}, "answer", "2 is not among the 2 options"),
    "negative answer": ({"answer": -1}, "answer", "-1 is not among"),
    "answer missing": ({"answer": None}, "answer", "None is not among"),
    "no options": ({"options": []}, "options", "two or more"),
    "one option": ({"options": ["yes"]}, "options", "two or more"),
    "options missing": ({"options": None}, "options", "two or more"),
    "empty option": ({"options": ["yes", " "]}, "options", "two or more"),
    "duplicate options": ({"options": ["Yes", "yes "], "question_type": "choice"}, "options", "a duplicate"),
    "unknown department": ({"specialty": "Cardiologist"}, "specialty", "use one of Pathologist, Radiologist"),
    "unknown split": ({"split": "dev"}, "split", "use one of train, validation, test, shifted"),
    "unknown question type": ({"question_type": "open"}, "question_type", "yes_no, choice"),
    "yes_no without yes and no": ({"options": ["a", "b"]}, "question_type", "yes_no with options"),
    "empty question": ({"question": " "}, "question", "is no text"),
    "no licence": ({"licence": None}, "licence", "is no text"),
    "meta is no JSON": ({"meta": "n = 1"}, "meta", "no JSON object"),
    "meta is no object": ({"meta": "[1]"}, "meta", "no JSON object"),
    "no picture": ({"images": []}, "images", "name at least one picture"),
    "fewer hashes than pictures": ({"image_sha256s": []}, "images", "not one sha256 for each"),
    "hash is no hash": ({"image_sha256s": ["abc"]}, "image_sha256s", "wrong sha256 'abc'"),
    "picture outside the table": ({"images": ["../../secret.png"]}, "image_sha256s", "'../../secret.png'"),
    "duplicate case id": ({"case_id": "case-0"}, "case_id", "duplicate of row 1"),
}


def catches(validator: Validator, rows: list[Row], folder: Path, field: str, words: str) -> bool:
    """Whether a validator raises one error that names file, row 2, the field, the fault and a mend."""
    try:
        validator(rows, folder / "cases.parquet", folder)
    except InputError as error:
        text = str(error)
        return all(part in text for part in ("cases.parquet", "row 2 ", f"field {field}: ", words, " -> ", "Fix: "))
    return False


def missed(validator: Validator, folder: Path) -> list[str]:
    """The faults that a validator lets through or tells badly."""
    names = []
    for name, (change, field, words) in FIELD_FAULTS.items():
        rows = rows_of(folder)
        rows[1] |= change
        if not catches(validator, rows, folder, field, words):
            names.append(name)
    return names


def test_every_fault_is_caught(folder: Path) -> None:
    validate(rows_of(folder), folder / "cases.parquet", folder)
    assert missed(validate, folder) == []


def ignores_duplicates(rows: Iterable[Row], file: Path, folder: Path) -> None:
    for row in rows:
        validate([row | {"case_id": "any"}], file, folder)


def clamps_answers(rows: Iterable[Row], file: Path, folder: Path) -> None:
    validate([row | {"answer": min(max(row["answer"] or 0, 0), 1)} for row in rows], file, folder)


def guesses_departments(rows: Iterable[Row], file: Path, folder: Path) -> None:
    validate([row | {"specialty": None} for row in rows], file, folder)


def follows_any_path(rows: Iterable[Row], file: Path, folder: Path) -> None:
    validate([row | {"images": [f"images/{sha}.png" for sha in row["image_sha256s"]]} for row in rows], file, folder)


@pytest.mark.parametrize(
    ("mutant", "fault"),
    [
        (ignores_duplicates, "duplicate case id"),
        (clamps_answers, "negative answer"),
        (guesses_departments, "unknown department"),
        (follows_any_path, "picture outside the table"),
    ],
)
def test_mutant_validators_are_rejected(mutant: Validator, fault: str, folder: Path) -> None:
    assert fault in missed(mutant, folder)


# ---- pictures


def spoil_missing(file: Path) -> None:
    file.unlink()


def spoil_truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def spoil_not_a_picture(file: Path) -> None:
    file.write_text("no picture")


def spoil_other_pixels(file: Path) -> None:
    Image.new("RGB", (8, 8), (200, 0, 0)).save(file)


PICTURE_FAULTS: dict[Callable[[Path], None], str] = {
    spoil_missing: "missing image",
    spoil_truncated: "unreadable image",
    spoil_not_a_picture: "unreadable image",
    spoil_other_pixels: "wrong sha256",
}


@pytest.mark.parametrize("spoil", PICTURE_FAULTS)
def test_bad_pictures(spoil: Callable[[Path], None], folder: Path) -> None:
    rows = rows_of(folder)
    spoil(folder / rows[1]["images"][0])
    with pytest.raises(InputError) as caught:
        read_table(folder)
    text = str(caught.value)
    assert PICTURE_FAULTS[spoil] in text and "row 2 ('case-1'), field images" in text and "cases.parquet" in text
    # a validator that trusts the names lets all of these through
    assert len(read_table(folder, check_images=False)) == 3


# ---- many faults, and files that are no table


def test_the_first_twenty_are_listed(folder: Path) -> None:
    rows = [rows_of(folder)[0] | {"case_id": f"c{n}", "answer": 9} for n in range(25)]
    with pytest.raises(InputError) as caught:
        validate(rows, folder / "cases.parquet", folder)
    text = str(caught.value)
    assert "25 problem(s)" in text and "first 20" in text
    assert text.count("field answer") == 20 and "row 20 " in text and "row 21 " not in text


def test_several_faults_of_one_row_are_told_at_once(folder: Path) -> None:
    rows = rows_of(folder)
    rows[1] |= {"answer": 5, "split": "dev", "specialty": "GP"}
    with pytest.raises(InputError, match="3 problem"):
        validate(rows, folder / "cases.parquet", folder)


@pytest.mark.parametrize("name", SCHEMA.names)
def test_a_missing_column(name: str, folder: Path) -> None:
    write(folder, [{key: value for key, value in row.items() if key != name} for row in rows_of(folder)])
    with pytest.raises(InputError, match=f"row 1 .*field {name}: missing -> add the column"):
        read_table(folder)


def test_text_for_an_answer(folder: Path) -> None:
    write(folder, [row | {"answer": "yes"} for row in rows_of(folder)])
    with pytest.raises(InputError, match="field answer: 'yes' is not among the 2 options -> write the index"):
        read_table(folder)


def test_further_columns_do_no_harm(folder: Path) -> None:
    write(folder, [row | {"note": "mine"} for row in rows_of(folder)])
    assert len(read_table(folder)) == 3


def test_files_that_are_no_table(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no case table .*nowhere.*python -m data_prep"):
        read_table(tmp_path / "nowhere")
    pq.write_table(SCHEMA.empty_table(), folder / "cases.parquet")
    with pytest.raises(InputError, match="empty"):
        read_table(folder)
    (folder / "cases.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match="not a readable Parquet file .*cases.parquet"):
        read_table(folder)


def test_the_command_line_tells_bad_input_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert data_prep(["image_folder", "--source", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert data_prep(["vqa_rad", "--source", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: no such folder") and told[1].startswith("error: no file trainset.json")
    assert all("Fix: " in line for line in told)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        data_prep(["no_such_source"])
    assert "image_folder" in capsys.readouterr().err
