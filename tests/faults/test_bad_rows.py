"""Case tables, archives and profiles as nobody should write them: each is refused in one message, and nothing else happens."""

from __future__ import annotations

import copy
import io
import random
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import hub, mmmu, omnimedvqa
from mmedlite.cases import SCHEMA, TABLE_NAME, Case, option_key, read_table, row_problems, validate
from mmedlite.pictures import image_sha256, load_rgb
from mmedlite.profiles import ROOT, InputError, load_profile

SHA = "ab" * 32
GOOD = Case(
    "c1", "toy", "train", (f"images/{SHA}.png",), (SHA,), "Is it there?", ("yes", "no"), 0, "CT", "Radiologist", "yes_no", "CC0", {"a": 1}
).to_row()  # fmt: skip
NASTY: list[Any] = [
    None, "", " ", "\ud800", "\x00", 0, -1, 2**80, 1.5, float("nan"), True, [], {}, [[]], ["yes"], ["yes", "yes"], ["yes", "yes\u200b"],
    ["yes", None], {"a": {}}, "[" * 5000, "{}", b"\xff", ("a", "b"), "<|image_pad|>", ["a</answer>", "b"], "../x", [SHA, SHA], object(),
]  # fmt: skip


def test_damaged_rows_are_refused_not_raised() -> None:
    """10,000 rows, each damaged in one to three fields."""
    draw, refused = random.Random(0), 0
    for number in range(10_000):
        row = copy.copy(GOOD)
        for name in draw.sample([*GOOD], draw.randint(1, 3)):
            if draw.random() < 0.1:
                del row[name]
            else:
                row[name] = draw.choice(NASTY)
        try:
            validate([row], "table")
        except InputError as error:
            refused += 1
            assert "row 1" in str(error), number
        else:  # what is taken can be asked and answered
            assert option_key(row["question"]) and len({option_key(o) for o in row["options"]} - {""}) == len(row["options"]) >= 2
            assert 0 <= row["answer"] < len(row["options"]) and isinstance(row["case_id"], str)
    assert refused > 9_000  # a few damages are none, as another text


@pytest.mark.parametrize(("change", "field"), [
    ({"question": "What is <|image_pad|> this?"}, "question"), ({"options": ["yes", "no <|im_end|>"]}, "options"),
    ({"options": ["a</answer>", "b"]}, "options"), ({"options": ["mass", "mass\u200b"]}, "options"),
    ({"question": "Where is <image> this?"}, "question"), ({"question": "\x00"}, "question"), ({"question": "\u200b"}, "question"),
    ({"options": ["yes", "yes\x00"]}, "options"), ({"options": ["yes", "\x00"]}, "options"),
    ({"options": ["caf\u00e9", "cafe\u0301"]}, "options"), ({"meta": "[" * 100_000}, "meta"),
])  # fmt: skip
def test_what_would_break_a_prompt_is_refused(change: dict[str, Any], field: str) -> None:
    assert [name for name, *_ in row_problems(GOOD | {"question_type": "choice"} | change)] == [field]


def test_options_keep_what_differs() -> None:
    assert option_key("  Mass\u200b ") == option_key("mass") and option_key("cm\u00b2") != option_key("cm2")


def written(folder: Path, **columns: Any) -> Path:
    rows = {name: [value, value] for name, value in GOOD.items()} | {"case_id": ["c1", "c2"]} | columns
    pq.write_table(pa.table(rows), folder / TABLE_NAME)
    return folder


def test_ids_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 1 .*case_id"):
        read_table(written(tmp_path, case_id=[["a"], ["a"]]), check_images=False)


def test_a_row_of_broken_text_is_named(tmp_path: Path) -> None:
    texts = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 2, texts.buffers())
    with pytest.raises(InputError, match="no UTF-8") as error:
        read_table(written(tmp_path, question=broken), check_images=False)
    assert "row 2" in str(error.value)


def test_a_picture_of_no_numbers_is_unreadable(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(file := tmp_path / "a.tiff")
    with pytest.raises(InputError, match="unreadable image"):
        load_rgb(file)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(file := tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", b"0" * 10_000)
    monkeypatch.setattr(hub, "LARGEST_MEMBER", 1000)
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive, pytest.raises(InputError, match="10,000 bytes"):
        hub.member(archive, "big")


def test_brackets_without_end_are_no_list() -> None:
    with pytest.raises(ValueError, match=r".*"):
        mmmu.listed("[" + "-" * 20_000 + "1]")


@pytest.mark.parametrize("source", [mmmu, omnimedvqa])
def test_a_set_for_test_alone_is_not_split(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "fetch", lambda *_: pytest.fail("downloaded first"))
    with pytest.raises(InputError, match="for test alone"):
        source.main(Namespace(group_by_image=True))


TINY = (ROOT / "mmedlite" / "profiles" / "tiny.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("line", "said"), [
    ("learning_rate = nan", "learning_rate"), ("learning_rate = inf", "learning_rate"), ("temperature = nan", "temperature"),
    ("max_pixels = 1", "max_pixels"), (f"seed = {10**20}", "seed"), ('policy = ""', "policy"), ("gamma = [nan]", "gamma"),
    ("gamma = nan", "triage.gamma"), ("beta = -1.0", "triage.beta"), ("beta = [-1.0]", "beta"),
])  # fmt: skip
def test_impossible_settings_are_refused(line: str, said: str, tmp_path: Path) -> None:
    name, lines = line.split(" = ")[0], TINY.splitlines()
    lines[next(i for i, text in enumerate(lines) if text.startswith(f"{name} = ") and ("[" in text) == ("[" in line))] = line
    (file := tmp_path / "p.toml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        load_profile(file)


def test_profiles_in_other_encodings(tmp_path: Path) -> None:
    (file := tmp_path / "p.toml").write_text("\ufeff" + TINY, encoding="utf-8")
    assert load_profile(file).sha256() == load_profile("tiny").sha256()
    file.write_bytes(b'name = "\xe9"\n')
    with pytest.raises(InputError, match="not valid TOML"):
        load_profile(file)
    file.write_text("a = " + "[" * 5000, encoding="utf-8")
    with pytest.raises(InputError, match="not valid TOML"):
        load_profile(file)


@pytest.mark.parametrize("size", [(1, 1), (4000, 10), (7, 300)])
def test_a_picture_that_no_policy_could_read_is_told_before_any_training(size: tuple[int, int], tmp_path: Path) -> None:
    """Qwen's processor refuses sides over 200 to 1, in the midst of a training."""
    picture = Image.new("RGB", size, "white")
    sha = image_sha256(picture)
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / f"{sha}.png")
    row = GOOD | {"images": [f"images/{sha}.png"], "image_sha256s": [sha]}
    pq.write_table(pa.Table.from_pylist([row], SCHEMA), tmp_path / TABLE_NAME)
    with pytest.raises(InputError, match=r"row 1 \('c1'\), field images: .*picture of {} x {} pixels".format(*size)):
        read_table(tmp_path)


def test_a_further_column_does_no_harm(tmp_path: Path) -> None:
    """Whatever it holds, as a time that Python has no date for."""
    table = pa.Table.from_pylist([GOOD], SCHEMA).append_column("when", pa.array([2**50], pa.timestamp("s")))
    pq.write_table(table, tmp_path / TABLE_NAME)
    assert len(read_table(tmp_path, check_images=False)) == 1
