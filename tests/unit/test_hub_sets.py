"""SLAKE, PathVQA, OmniMedVQA, MMMU and VQA-RAD from files in the schema of the hub, written here, and from the real ones where they are."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import main as data_prep
from data_prep.departments import LEFT_OUT, look_up
from data_prep.items import with_distractors
from data_prep.slake import named_choices
from mmedlite.cases import CaseTable, read_table
from tests.sets import SUBJECTS, image, make_mmmu, make_omni, make_path, make_rad, make_slake, mmmu_row, omni_row, parquet


def build(name: str, source: Path, out: Path, *options: str) -> tuple[CaseTable, dict[str, Any]]:
    assert data_prep([name, "--source", str(source), "--out", str(out), *options]) == 0
    return read_table(out), json.loads((out / "card.json").read_text())


# ---- VQA-RAD and PathVQA: Parquet files with pictures in them


@pytest.fixture
def rad(tmp_path: Path) -> Path:
    return make_rad(tmp_path)


def test_vqa_rad_from_the_hubs_files(rad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, card = build("vqa_rad", rad, tmp_path / "out")
    assert (len(table.split("train")), len(table.split("validation")), len(table.split("test"))) == (18, 2, 2)
    assert card["sizes"]["yes/no"] == {"train": 21, "test": 2}
    assert card["sizes"]["the same, each question on a picture once"] == {"train": 20, "test": 2}
    assert card["official_overlap"] == {"test_images": 2, "test_images_also_in_train": 1, "test_questions_also_in_train": 0}
    assert {c.specialty for c in table} == {"Radiologist"} and len(card["files"]) == 2
    assert "the paper" in capsys.readouterr().out


def test_path_vqa_counts_what_each_rule_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, card = build("path_vqa", make_path(tmp_path), tmp_path / "out")
    assert [c.case_id for c in table] == ["path_vqa-test-00000-1", "path_vqa-train-00000-1", "path_vqa-train-00001-1",
                                          "path_vqa-train-00001-2", "path_vqa-validation-00000-1"]  # fmt: skip
    assert card["sizes"] == {
        "all": {"test": 1, "train": 5, "validation": 1}, "yes/no": {"test": 1, "train": 4, "validation": 1},
        "yes/no, each question on a picture once": {"test": 1, "train": 3, "validation": 1},
        "the same, pictures that no other split has": {"test": 0, "train": 2, "validation": 1},
    }  # fmt: skip
    assert {c.specialty for c in table} == {"Pathologist"} and "must not be redistributed" in table.cases[0].licence
    assert card["leaks"]["train/test"]["images_shared"] == 1 and "1 of 1 test pictures also in train" in capsys.readouterr().out


# ---- SLAKE: JSON files in two languages, pictures in a folder or an archive


@pytest.fixture(params=["folder", "archive", "archive without its folder"])
def slake(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_slake(tmp_path, request.param)


def test_slake_closed_questions(slake: Path, tmp_path: Path) -> None:
    table, card = build("slake", slake, tmp_path / "out")
    by_id = {c.case_id: c for c in table}
    assert {i: c.split for i, c in by_id.items()} == {"slake-0": "train", "slake-6": "validation", "slake-8": "test", "slake-9": "test",
                                                     "slake-10": "test"}  # fmt: skip
    assert by_id["slake-9"].options == ("kidney", "liver") and by_id["slake-9"].answer_text == "liver"
    both = by_id["slake-10"]
    assert both.answer_text == "Both" and set(both.options) == {"Both", "Lung", "Liver", "Heart"} and both.question_type == "choice"
    assert {c.modality for c in table} == {"X-ray"} and {c.meta["answer"] for c in table if c.split == "test"} == {"yes ", "Liver", "Both"}
    assert card["dropped"]["reasons"] == {"closed question, answer not yes or no": 4, "open question": 1, "not in English": 1,
                                          "no other option is known for this answer": 1, "missing field img_name": 1}  # fmt: skip
    assert card["sizes"]["English, closed, yes/no"] == {"train": 1, "validation": 1, "test": 1}


def test_options_are_seeded_by_the_question(slake: Path, tmp_path: Path) -> None:
    first, _ = build("slake", slake, tmp_path / "a")
    again, _ = build("slake", slake, tmp_path / "b")
    assert first.sha256 == again.sha256
    pool = [f"option {i}" for i in range(9)]
    drawn = {with_distractors("Right", pool, f"{seed}:1") for seed in range(20)}
    assert len(drawn) > 10 and all(options[answer] == "Right" and len(set(options)) == 4 for options, answer in drawn)
    assert with_distractors("Lung", ["lung", "LUNG ", "Heart"], "0") in ((("Lung", "Heart"), 0), (("Heart", "Lung"), 1))


@pytest.mark.parametrize(("question", "answer", "choices"), [
    ("Which is the biggest in this image,lung,liver or heart?", "Liver", ("lung", "liver", "heart")),
    ("Which is the biggest in this image, spleen,lung, or liver?", "Liver", ("spleen", "lung", "liver")),
    ("Is this a T1 weighted or T2 weighted MRI image?", "T2", ("T1", "T2")),
    ("Is the abnormality hyperdense or hypodense?", "Hyperdense", ("hyperdense", "hypodense")),
    ("Which plane is the image scanned, transverse plane or coronal plane?", "Coronal Plane", ("transverse plane", "coronal plane")),
    ("Where is the heart in this image,left,top or upper left?", "Top", ("left", "top", "upper left")),
    ("Which organ is abnormal, heart or lung?", "Both", None), ("Is it a lung or what", "Yes", None), ("Is it big?", "Yes", None),
    ("Which is bigger, left kidney or spleen ?", "Left Kidney", ("left kidney", "spleen")),
])  # fmt: skip
def test_choices_that_a_question_names(question: str, answer: str, choices: tuple[str, ...] | None) -> None:
    assert named_choices(question, answer) == choices


# ---- OmniMedVQA: one archive


@pytest.fixture(params=["archive", "folder"])
def omni(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_omni(tmp_path, request.param)


def test_what_an_archive_holds_beside_the_questions_is_left_alone(tmp_path: Path) -> None:
    folder = make_omni(tmp_path)
    with zipfile.ZipFile(folder / "OmniMedVQA.zip", "a") as archive:
        archive.writestr("__MACOSX/OmniMedVQA/QA_information/Open-access/._Made.json", b"\x00\x05\x16")
    assert len(build("omnimedvqa", folder, tmp_path / "out")[0]) == 7


def test_omnimedvqa_takes_the_papers_modalities(omni: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, card = build("omnimedvqa", omni, tmp_path / "out")
    assert {c.case_id[-4:]: c.modality for c in table} == {
        "0000": "CT", "0001": "MRI", "0002": "Microscopy", "0003": "X-ray", "0004": "Ultrasound", "0008": "X-ray", "0009": "CT",
    }  # fmt: skip
    assert {c.split for c in table} == {"test"} and table.by_id("omnimedvqa-Made_0009").options == ("Yes", "Perhaps")
    assert card["sizes"]["the paper's five modalities"] == {"test": 11} and card["sizes"]["open access, all modalities"] == {"test": 13}
    reasons = card["dropped"]["reasons"]
    assert reasons["the answer is not among the options, or an option stands twice"] == 1
    assert reasons["a second row of the same id"] == 1 and sum(reasons.values()) == 6
    assert {"missing image"} <= reasons.keys()
    every, more = build("omnimedvqa", omni, tmp_path / "every", "--every")
    assert len(every) == 9 and more["no_department"] == {"Colposcopy": 1} and "Colposcopy (gynaecology" in capsys.readouterr().out


# ---- MMMU: a Parquet file a subject, options as texts


@pytest.fixture
def mmmu(tmp_path: Path) -> Path:
    return make_mmmu(tmp_path)


def test_mmmu_health_and_medicine(mmmu: Path, tmp_path: Path) -> None:
    table, card = build("mmmu", mmmu, tmp_path / "out")
    assert len(table) == 7 and {c.split for c in table} == {"test"} and {c.meta["subject"] for c in table} == set(SUBJECTS)
    one, two, table_shown = table.cases[:3]
    assert one.options == ("a cell", "the patient's bone", "no idea") and one.answer_text == "the patient's bone"
    assert (one.specialty, two.specialty, table_shown.specialty) == ("Pathologist", "Radiologist", None)
    assert table.open_image(two).size == (24 + 8 + 24, 20) and two.meta["pictures"] == 2
    assert sum(card["dropped"]["reasons"].values()) == 4 and card["sizes"] == {"all": {"test": 11}, "multiple choice": {"test": 10}}


def test_every_part_of_a_subject_is_read(mmmu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = mmmu / "Pharmacy" / "validation-00000-of-00001.parquet"
    first.rename(first.with_name("validation-00000-of-00002.parquet"))
    assert data_prep(["mmmu", "--source", str(mmmu), "--out", str(tmp_path / "out")]) == 1
    assert "1 of 2 parts of the split validation" in capsys.readouterr().err
    more = [mmmu_row("9") | {"id": "validation_Pharmacy_9"}]
    parquet(first.with_name("validation-00001-of-00002.parquet"), more, tuple(f"image_{i}" for i in range(1, 8)))
    table, _ = build("mmmu", mmmu, tmp_path / "out")
    assert len(table) == 8 and "mmmu-validation_Pharmacy_9" in {c.case_id for c in table}


@pytest.mark.parametrize("field", [{"option_B": ["No"]}, {"option_C": 0}, {"option_B": True}, {"question_id": None}])
def test_an_option_that_is_no_text_costs_its_row(field: dict[str, Any], tmp_path: Path) -> None:
    folder = make_omni(tmp_path, "folder")
    file = folder / "QA_information" / "Open-access" / "Made.json"
    file.write_text(json.dumps([*json.loads(file.read_text()), {**omni_row(3, "X-Ray"), "question_id": "Made_0100", **field}]))
    table, card = build("omnimedvqa", folder, tmp_path / "out")
    assert card["dropped"]["reasons"]["an option or the question's id is no text"] == 1
    assert not any(c.case_id in ("omnimedvqa-Made_0100", "omnimedvqa-None") for c in table)


# ---- the departments of all their modalities


def test_every_modality_of_the_sets_has_a_department_or_a_reason() -> None:
    modalities = ["CT(Computed Tomography)", "MR (Mag-netic Resonance Imaging)", "Microscopy Images", "X-Ray", "ultrasound", "Dermoscopy",
                  "OCT (Optical Coherence Tomography", "Fundus Photography", "Endoscopy", "Infrared Reflectance Imaging", "Colposcopy",
                  "Digital Photography", "MRI", "CT", "Radiology", "Histopathology", "Pathological Images", "Microscopic Images",
                  "Body Scans: MRI, CT scans, and X-rays", "Medical Images"]  # fmt: skip
    assert {m for m in modalities if look_up(m)[1] is None} == set(LEFT_OUT)
    assert look_up("Tables") == ("Tables", None)


# ---- damage


@pytest.mark.parametrize(("name", "spoil", "words"), [
    ("slake", lambda f: (f / "test.json").write_text("[{"), ["not a readable JSON file", "test.json"]),
    ("slake", lambda f: (f / "test.json").write_text('[{"id": 3}]'), ["no row has the fields", "test.json"]),
    ("slake", lambda f: (f / "train.json").unlink(), ["no file train.json"]),
    ("vqa_rad", lambda f: next(f.glob("data/test*")).write_bytes(b"PAR1 cut"), ["not a readable Parquet file"]),
    ("vqa_rad", lambda f: parquet(next(f.glob("data/test*")), [{"image": image(1), "question": "?"}]), ["missing field", "answer"]),
    ("vqa_rad", lambda f: next(f.glob("data/test*")).unlink(), ["no file of the split test"]),
    ("vqa_rad", lambda f: (p := next(f.glob("data/train*"))).rename(p.with_name("train-00000-of-00007.parquet")),
     ["1 of 7 parts of the split train"]),
    ("omnimedvqa", lambda f: (f / "OmniMedVQA.zip").write_bytes(b"PK cut"), ["not a readable zip archive"]),
    ("omnimedvqa", lambda f: (p := f / "OmniMedVQA.zip").write_bytes(p.read_bytes().replace(b'"Made_0003"', b'"Made_9993"')),
     ["damaged archive"]),
])  # fmt: skip
def test_a_damaged_file_is_named(
    name: str, spoil: Callable[[Path], Any], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(source := {"slake": make_slake, "vqa_rad": make_rad, "omnimedvqa": make_omni}[name](tmp_path))
    status = data_prep([name, "--source", str(source), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert status == 1 and all(word in told for word in [*words, "Fix: "])
    assert not (tmp_path / "out" / "cases.parquet").exists()


# ---- the real thing


def test_slake_gives_the_papers_sizes(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root.parent / "shared" / "data" / "slake"
    if not folder.is_dir():
        pytest.skip("SLAKE (../shared/data/slake) is not on this machine")
    _, card = build("slake", folder, tmp_path / "out")
    assert card["sizes"]["English, closed, yes/no"]["train"] == card["paper"]["train"] == 1681
    assert card["sizes"]["English, closed"]["test"] == card["paper"]["test"] == 416
    told = capsys.readouterr().out
    assert "1,681 =" in told and "416 =" in told
