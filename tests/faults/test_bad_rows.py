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
from mmedlite.cases import TABLE_NAME, Case, option_key, read_table, row_problems, validate
from mmedlite.pictures import load_rgb
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
    assert refused > 9_000  # a few damages are none, as another text


@pytest.mark.parametrize(("change", "field"), [
    ({"question": "What is <|image_pad|> this?"}, "question"), ({"options": ["yes", "no <|im_end|>"]}, "options"),
    ({"options": ["a</answer>", "b"]}, "options"), ({"options": ["mass", "mass\u200b"]}, "options"),
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
