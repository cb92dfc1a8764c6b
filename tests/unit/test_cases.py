"""The case table: what is written is read back, a picture keeps its name, a failed build leaves no half table."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmedlite.cases import SCHEMA, Case, CaseTable, TableWriter, read_table
from mmedlite.pictures import image_sha256, load_rgb, to_rgb
from mmedlite.profiles import InputError


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def add_case(out: TableWriter, number: int, **changes: Any) -> Case:
    """Add a good case, with some fields changed."""
    path, sha = out.add_image(picture(number))
    case = Case(
        f"case-{number}", "toy", "train", (path,), (sha,), "Is it there?", ("yes", "no"), 0, "X-ray", "Radiologist",
        "yes_no", "CC0", {"n": number},
    )  # fmt: skip
    case = replace(case, **changes)
    out.add(case)
    return case


@pytest.fixture
def table(tmp_path: Path) -> CaseTable:
    with TableWriter(tmp_path / "table") as out:
        add_case(out, 1)
        add_case(out, 2, split="test", specialty=None, modality="Unknown")
        add_case(out, 3, options=("a cyst", "Zyste, groß", "none"), answer=2, question_type="choice")
        out.drop("row 9", "unreadable image")
        out.notes["seed"] = 7
    return read_table(tmp_path / "table")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with TableWriter(tmp_path) as out:
        written = [add_case(out, 1), add_case(out, 2, meta={"deep": {"x": [1, 2.5, None, "é"]}})]
    table = read_table(tmp_path / "cases.parquet")
    assert table.cases == written and list(table) == written and len(table) == 2
    assert table.by_id("case-2").meta["deep"]["x"] == [1, 2.5, None, "é"]
    assert table.cases[0].answer_text == "yes"
    assert table.open_image(written[1]).tobytes() == picture(2).tobytes()


def test_views_come_in_order(tmp_path: Path) -> None:
    with TableWriter(tmp_path) as out:
        stored = [out.add_image(picture(n)) for n in (5, 6, 7)]
        paths, shas = zip(*stored, strict=True)
        case = add_case(out, 5, images=paths, image_sha256s=shas)
    for view, seed in enumerate((5, 6, 7)):
        assert read_table(tmp_path).open_image(case, view).tobytes() == picture(seed).tobytes()


def test_readable_without_the_kit(table: CaseTable, tmp_path: Path) -> None:
    frame = pd.read_parquet(table.path)
    assert list(frame.columns) == SCHEMA.names
    assert frame.loc[2, "options"][frame.loc[2, "answer"]] == "none"
    assert json.loads(frame.loc[0, "meta"]) == {"n": 1}
    with Image.open(table.path.parent / frame.loc[0, "images"][0]) as image:
        assert image.format == "PNG" and image.mode == "RGB"
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_parquet(str(table.path), cache_dir=str(tmp_path / "cache"))
    assert rows["case_id"][:] == ["case-1", "case-2", "case-3"]


def test_each_picture_is_stored_once(tmp_path: Path) -> None:
    with TableWriter(tmp_path) as out:
        for n in range(4):
            path, sha = out.add_image(picture(1))
            add_case(out, n, images=(path,), image_sha256s=(sha,))
    used = {case.images[0] for case in read_table(tmp_path)}
    assert len(used) == 1
    assert not list(tmp_path.glob("part*")), "no half-written file may stay"


def test_splits_and_ids(table: CaseTable) -> None:
    assert [case.case_id for case in table.split("train")] == ["case-1", "case-3"]
    assert table.split("shifted") == []
    with pytest.raises(InputError, match="unknown split 'dev'.*validation"):
        table.split("dev")
    with pytest.raises(InputError, match="no case 'case-9'"):
        table.by_id("case-9")


def test_card_counts_and_names_no_path(table: CaseTable) -> None:
    text = (table.path.parent / "card.json").read_text(encoding="utf-8")
    card = json.loads(text)
    assert card["sha256"] == table.sha256
    assert (card["cases"], card["images"], card["seed"]) == (3, 3, 7)
    assert card["counts"]["split"] == {"train": 2, "test": 1}
    assert card["counts"]["specialty"] == {"Radiologist": 2, "None": 1}
    assert card["dropped"] == {
        "count": 1, "reasons": {"unreadable image": 1}, "rows": [{"row": "row 9", "why": "unreadable image"}],
    }  # fmt: skip
    assert str(table.path.parent) not in text


def test_card_tells_of_pictures_shared_between_splits(tmp_path: Path) -> None:
    with TableWriter(tmp_path) as out:
        first = add_case(out, 1)
        add_case(out, 2, split="test", images=first.images, image_sha256s=first.image_sha256s)
    assert json.loads((tmp_path / "card.json").read_text())["images_shared"] == {"train/test": 1}


# ---- the hash of a picture, and hashes that must be rejected


def same_pixels_same_hash(hash_of: Callable[[Path], str], folder: Path) -> None:
    """What a picture's hash must do, whatever file it lies in."""
    picture(1).save(folder / "a.png", compress_level=9)
    picture(1).save(folder / "b.png", compress_level=0)
    picture(1).save(folder / "c.bmp")
    assert len({hash_of(folder / name) for name in ("a.png", "b.png", "c.bmp")}) == 1, "the file format counts"
    changed = np.array(picture(1))
    changed[0, 0, 2] ^= 1
    Image.fromarray(changed).save(folder / "d.png")
    assert hash_of(folder / "d.png") != hash_of(folder / "a.png"), "one level in one channel does not count"
    Image.new("RGB", (4, 6)).save(folder / "e.png")
    Image.new("RGB", (6, 4)).save(folder / "f.png")
    assert hash_of(folder / "e.png") != hash_of(folder / "f.png"), "the size does not count"


def test_image_hash(tmp_path: Path) -> None:
    same_pixels_same_hash(lambda path: image_sha256(load_rgb(path)), tmp_path)
    grey = Image.new("L", (3, 3), 9)
    assert image_sha256(grey) == image_sha256(grey.convert("RGB"))
    # pinned: shipped tables and stored answers name pictures by this hash
    expected = hashlib.sha256(b"2x1:" + bytes([1, 2, 3, 1, 2, 3])).hexdigest()
    assert image_sha256(Image.new("RGB", (2, 1), (1, 2, 3))) == expected


MUTANT_HASHES: dict[str, Callable[[Path], str]] = {
    "file bytes": lambda path: hashlib.sha256(path.read_bytes()).hexdigest(),
    "pixels without size": lambda path: hashlib.sha256(load_rgb(path).tobytes()).hexdigest(),
    "grey levels": lambda path: image_sha256(load_rgb(path).convert("L")),
}


@pytest.mark.parametrize("name", MUTANT_HASHES)
def test_mutant_hashes_are_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        same_pixels_same_hash(MUTANT_HASHES[name], tmp_path)


def test_table_hash_is_of_the_content(table: CaseTable, tmp_path: Path) -> None:
    before = table.sha256
    data = pq.read_table(table.path)
    size = table.path.stat().st_size
    pq.write_table(data, table.path, compression="none")
    assert table.path.stat().st_size != size and read_table(table.path).sha256 == before
    changes: dict[str, Any] = {
        "case_id": "x", "source": "x", "split": "shifted", "question": "x", "answer": 1, "modality": "x",
        "specialty": None, "licence": "x", "meta": {}, "options": ("no", "yes"), "images": ("x",),
        "image_sha256s": ("x",), "question_type": "choice",
    }  # fmt: skip
    assert set(changes) == set(SCHEMA.names)
    for name, value in changes.items():
        other = [replace(table.cases[0], **{name: value}), *table.cases[1:]]
        assert CaseTable(table.path, other).sha256 != before, name
    assert CaseTable(table.path, table.cases[::-1]).sha256 != before


# ---- pictures of many kinds


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = to_rgb(picture(1).convert("L").convert(mode))
    assert image.mode == "RGB" and image.size == (12, 10)
    assert np.ptp(np.asarray(image)) > 100, "the picture is gone"


def test_deep_grey_is_stretched_not_clipped(tmp_path: Path) -> None:
    ramp = np.arange(100, 4100, 40, dtype=np.uint16).reshape(10, 10)
    Image.fromarray(ramp).save(tmp_path / "scan.png")
    pixels = np.asarray(load_rgb(tmp_path / "scan.png"))
    assert pixels.min() == 0 and pixels.max() == 255 and len(np.unique(pixels)) == 100
    assert np.asarray(to_rgb(Image.fromarray(np.full((3, 3), 700, dtype=np.uint16)))).max() == 0, "flat stays flat"


def test_pictures_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # "rotate by 90 degrees to view"
    picture(1).save(tmp_path / "photo.jpg", exif=exif)
    assert load_rgb(tmp_path / "photo.jpg").size == (10, 12)


# ---- builds that fail


def test_a_failed_build_leaves_the_old_table(table: CaseTable) -> None:
    folder = table.path.parent
    before = (table.path.read_bytes(), (folder / "card.json").read_bytes())
    with pytest.raises(KeyError), TableWriter(folder) as out:
        add_case(out, 5)
        raise KeyError("the source broke")
    with pytest.raises(InputError, match="duplicate of row 1"), TableWriter(folder) as out:
        add_case(out, 5)
        add_case(out, 6, case_id="case-5")
    assert (table.path.read_bytes(), (folder / "card.json").read_bytes()) == before
    assert read_table(folder).cases == table.cases


def test_an_empty_build_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row became a case.*missing image"), TableWriter(tmp_path) as out:
        out.drop("row 1", "missing image")
    assert not (tmp_path / "cases.parquet").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write here"), TableWriter(tmp_path / "file"):
        raise AssertionError("the block must not start")


def test_import_is_light() -> None:
    heavy = "import sys, mmedlite.cases; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
