"""From rows to a table: pictures stored once, a stopped build taken up, bad rows and pictures listed, never fatal; splits by picture."""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep import pictures
from data_prep.__main__ import main as data_prep
from data_prep.items import Item, Stored, Unusable, build, held_out, print_sizes, yes_or_no
from data_prep.leaks import near, report
from data_prep.pictures import Picture, beside_each_other, dhash, from_bytes, from_file, from_zip
from mmedlite.cases import Case, TableWriter, load_rgb, read_table
from mmedlite.pictures import SMALLEST, usable
from mmedlite.profiles import InputError


def noise(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    picture.save(content := io.BytesIO(), kind)
    return content.getvalue()


def item(number: int, picture: Picture | None = None, **more: Any) -> Item:
    fields = {"case_id": f"made-{number}", "where": f"rows.json, row {number}", "split": ("train", "test")[number % 2],
              "question": "Is it?", "options": ("yes", "no"), "answer": number % 2, "modality": "CT", "specialty": "Radiologist",
              "licence": "MIT", "meta": {}}  # fmt: skip
    return Item(**{**fields, "picture": picture or from_bytes(encoded(noise(number))), **more})  # type: ignore[arg-type]


def options(out: Path, **more: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"source": None, "out": out, "seed": 0, "group_by_image": False, **more})


def card(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "card.json").read_text()))


# ---- bad pictures


PICTURES: dict[str, tuple[bytes | None, str]] = {
    "1 x 1": (encoded(noise(0, (1, 1))), "picture of 1 x 1 pixels"),
    "narrow": (encoded(noise(0, (3000, 20))), "over 100 times as long as wide"),
    "20,000 pixels": (encoded(Image.new("L", (20_000, 20_000))), "unreadable image (DecompressionBombError)"),
    "cut": (encoded(noise(0))[:200], "unreadable image"), "no picture": (b"hello", "unreadable image"), "empty": (b"", "missing image"),
    "nothing": (None, "missing image"),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_bad_picture_costs_its_row_alone(name: str, tmp_path: Path) -> None:
    content, why = PICTURES[name]
    assert build(options(tmp_path), "made", [item(0), item(1, from_bytes(content)), item(2)], 3) == 0
    assert [c.case_id for c in read_table(tmp_path)] == ["made-0", "made-2"]
    (dropped,) = card(tmp_path)["dropped"]["rows"]
    assert dropped["row"] == "rows.json, row 1" and why in dropped["why"]


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "RGBA", "I;16", "1"])
def test_every_kind_of_picture_is_read_as_rgb(mode: str, tmp_path: Path) -> None:
    deep = Image.fromarray((np.arange(24 * 20, dtype=np.uint16) * 100).reshape(20, 24))
    picture = deep if mode == "I;16" else noise(1).convert(mode)
    content = encoded(picture, "TIFF" if mode in ("CMYK", "I;16") else "PNG")
    build(options(tmp_path), "made", [item(0, from_bytes(content))], 1)
    table = read_table(tmp_path)
    shown = np.asarray(table.open_image(table.cases[0]))
    assert shown.shape == (20, 24, 3) and np.ptp(shown) > 200


def test_names_that_climb_out_of_an_archive_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", content := encoded(noise(0)))
        archive.writestr("../out.png", content)
        archive.writestr("/abs.png", content)
    archive = zipfile.ZipFile(tmp_path / "a.zip")
    assert from_zip(archive, "good.png").load().size == (24, 20)
    for name, why in {"../out.png": "climbs out", "/abs.png": "climbs out", "gone.png": "missing image"}.items():
        with pytest.raises(InputError, match=why):
            from_zip(archive, name).load()
    damaged = (tmp_path / "a.zip").read_bytes().replace(content[50:60], b"0123456789", 1)
    (tmp_path / "b.zip").write_bytes(damaged)
    with pytest.raises(InputError, match="damaged archive"):
        from_zip(zipfile.ZipFile(tmp_path / "b.zip"), "good.png").load()
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("good.png", bytes(5000))
    whole = bytearray((tmp_path / "c.zip").read_bytes())
    whole[38:44] = b"\xff" * 6  # of the packed bytes, behind the header
    (tmp_path / "c.zip").write_bytes(whole)
    with pytest.raises(InputError, match="damaged archive"):
        from_zip(zipfile.ZipFile(tmp_path / "c.zip"), "good.png").load()


def test_several_pictures_stand_beside_each_other() -> None:
    left, right = noise(1), noise(2, (30, 40))
    whole = np.asarray(beside_each_other([from_bytes(encoded(left)), from_bytes(encoded(right))]).load())
    assert whole.shape == (40, 24 + 8 + 30, 3) and (whole[:20, :24] == np.asarray(left)).all() and (whole[:, 32:] == np.asarray(right)).all()
    assert not whole[:, 24:32].any()


# ---- stopping and going on


def test_a_stopped_build_goes_on(tmp_path: Path) -> None:
    """The rows before the stop are not decoded again; the table is that of a build in one go."""
    opened: list[str] = []

    def counted(number: int) -> Picture:
        picture = from_bytes(encoded(noise(number)))
        return Picture(picture.key, lambda: (opened.append(picture.key), picture.load())[1])

    def stopped() -> Iterator[Item | Unusable]:
        yield from (item(n, counted(n)) for n in range(5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(options(tmp_path / "a"), "made", stopped(), 8)
    assert len(opened) == 5 and not (tmp_path / "a" / "cases.parquet").exists()
    with (tmp_path / "a" / "pictures.jsonl").open("a") as lines:
        lines.write('{"key": "cut sho')
    build(options(tmp_path / "a"), "made", [item(n, counted(n)) for n in range(8)], 8)
    build(options(tmp_path / "b"), "made", [item(n) for n in range(8)], 8)
    assert len(opened) == 8 and read_table(tmp_path / "a").sha256 == read_table(tmp_path / "b").sha256


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "a.png")
    first = from_file(tmp_path, "a.png").key
    noise(2, (30, 30)).save(tmp_path / "a.png")
    assert from_file(tmp_path, "a.png").key != first
    with TableWriter(tmp_path / "t") as out:
        stored = Stored(out)
        row = stored.add(from_file(tmp_path, "a.png"))
        (out.out / row["path"]).unlink()
        assert not Stored(out).known  # its picture is gone: it is stored anew
        assert stored.add(from_file(tmp_path, "a.png")) == row
        out.add_image(noise(2, (30, 30)))
        out.add(Case("a", "made", "test", (row["path"],), (row["sha256"],), "?", ("yes", "no"), 0, "CT", None, "yes_no", "MIT"))


# ---- splits and leaks


def test_grouping_by_image_leaves_no_picture_in_two_splits(tmp_path: Path) -> None:
    items = [item(n, from_bytes(encoded(noise(n % 40)))) for n in range(120)]
    build(options(tmp_path / "a"), "made", items, 120)
    build(options(tmp_path / "b", group_by_image=True), "made", items, 120)
    before, after = card(tmp_path / "a"), card(tmp_path / "b")
    assert before["leaks"]["train/test"]["images_shared"] == 0 and before["images_shared"] == {}  # 120 and 40 are even
    assert after["images_shared"] == {} and after["counts"]["split"].keys() == {"train", "validation", "test"} and after["group_by_image"]


def made(name: str, split: str, sha: str, question: str = "Is it?") -> Case:
    return Case(name, "made", split, (f"images/{sha}.png",), (sha,), question, ("yes", "no"), 0, "CT", None, "yes_no", "MIT")


def test_leaks_are_counted_by_hand() -> None:
    cases = [made("1", "train", "a"), made("2", "train", "b", "Where?"), made("3", "test", "a", "is  IT?"), made("4", "test", "a", "New?"),
             made("5", "test", "c"), made("6", "test", "d"), made("7", "validation", "d")]  # fmt: skip
    found = report(cases, {"a": 0, "b": (1 << 64) - 1, "c": 0b1011, "d": (1 << 40) - 1})
    assert found["train/test"] == {"images": 3, "images_shared": 1, "images_alike": 1, "questions": 4, "questions_repeated": 1,
                                   "alike": [("c", "a", 3)]}  # fmt: skip
    assert found["validation/test"]["images_shared"] == 1 and found["train/validation"]["images_alike"] == 0
    assert list(near({}, {"a": 1})) == [] and report(cases[:2], {}) == {}


def test_the_perceptual_hash_survives_what_the_eye_forgives() -> None:
    """Smaller, brighter, JPEG: few bits move; another picture: about half of them."""
    picture = Image.fromarray(np.kron(np.random.default_rng(3).integers(0, 200, (9, 9), dtype=np.uint8), np.ones((20, 20), np.uint8)))
    own = dhash(picture)
    same = [picture.resize((90, 90)), picture.point(lambda v: v + 40), load_rgb(io.BytesIO(encoded(picture.convert("RGB"), "JPEG")))]
    assert all((own ^ dhash(p)).bit_count() <= 4 for p in same)
    assert 20 < (own ^ dhash(picture.transpose(Image.Transpose.ROTATE_90))).bit_count() < 44


def test_leaks_of_a_table_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(options(tmp_path), "made", [item(0), item(1, from_bytes(encoded(noise(0)))), item(3)], 3)
    capsys.readouterr()
    assert data_prep(["leaks", "--source", str(tmp_path)]) == 0
    assert "train/test: 1 of 2 test pictures also in train, 0 more look alike; 1 of 2 questions repeated" in capsys.readouterr().out


def test_the_gap_between_pictures_counts_too() -> None:
    """Two of 50 to 1: with the gap the picture would be over 100 to 1, and the table refused when it is read."""
    with pytest.raises(InputError, match="808 x 8 pixels"):
        beside_each_other([from_bytes(encoded(noise(n, (400, 8)))) for n in range(2)]).load()


def test_two_files_of_one_name_are_two_pictures(tmp_path: Path) -> None:
    keys = set()
    for n, folder in enumerate(("a/set", "b/set")):
        (tmp_path / folder).mkdir(parents=True)
        (file := tmp_path / folder / "1.bmp").write_bytes(encoded(noise(n), "BMP"))
        os.utime(file, (1, 1))  # as out of an archive
        keys.add(from_file(tmp_path / folder, "1.bmp").key)
    assert len(keys) == 2


def test_leaks_of_a_further_picture_of_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TableWriter(tmp_path) as out:
        for n, split in enumerate(("train", "test")):
            (path, sha), (own, own_sha) = out.add_image(noise(0)), out.add_image(noise(5 + n))
            out.add(Case(f"c{n}", "made", split, (own, path), (own_sha, sha), "Is it?", ("yes", "no"), 0, "CT", None, "yes_no", "CC0", {}))
    assert data_prep(["leaks", "--source", str(tmp_path)]) == 0
    assert "train/test: 1 of 2 test pictures also in train" in capsys.readouterr().out


def test_a_table_is_not_written_into_its_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="would lie in its source"):
        build(options(tmp_path / "in" / "out", source=tmp_path / "in"), "made", [item(0)], 1)
    assert not (tmp_path / "in").exists()


def test_what_no_json_can_hold_costs_its_row_alone(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    build(options(tmp_path), "made", [item(0), item(2, meta={"deep": deep}), item(4, meta={"raw": b"\xff"}), item(6)], 4)
    assert len(read_table(tmp_path)) == 2 and card(tmp_path)["dropped"]["reasons"] == {"field meta cannot be used": 2}


def test_a_table_given_twice_is_told_before_anything_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(options(tmp_path / "in"), "one", [item(0)], 1)
    twice = [str(tmp_path / "in")] * 2
    (tmp_path / "other").symlink_to(tmp_path / "in")
    assert data_prep(["merge", "--source", twice[0], str(tmp_path / "other"), "--out", str(tmp_path / "all")]) == 1
    assert "stands in two tables" in capsys.readouterr().err and not (tmp_path / "all").exists()


def test_no_path_of_this_machine_stands_in_a_table(tmp_path: Path) -> None:
    noise(0).save(tmp_path / "a.png")
    build(options(tmp_path / "out"), "made", [item(0, from_file(tmp_path, "a.png"))], 1)
    assert [str(tmp_path) in file.read_text() for file in (tmp_path / "out").glob("*.json*")] == [False, False]


def test_tables_become_one_and_others_lie_out_of_domain(tmp_path: Path) -> None:
    build(options(tmp_path / "in"), "one", [item(n) for n in range(6)], 6)
    build(options(tmp_path / "out"), "two", [item(n, case_id=f"two-{n}", picture=from_bytes(encoded(noise(50 + n)))) for n in range(4)], 4)
    assert data_prep(["merge", "--source", str(tmp_path / "in"), "--shifted", str(tmp_path / "out"), "--out", str(tmp_path / "all")]) == 0
    table = read_table(tmp_path / "all")
    assert [len(table.split(s)) for s in ("train", "validation", "test", "shifted")] == [3, 0, 3, 2]
    assert card(tmp_path / "all")["dropped"]["reasons"] == {"out: no test question": 2}


# ---- rows


def test_yes_and_no_in_any_case() -> None:
    assert [yes_or_no(a) for a in ("Yes", " no ", "YES", "yes.", 1, None, "left")] == [0, 1, 0, None, None, None, None]


def test_what_is_held_out_does_not_depend_on_the_order() -> None:
    names = [f"picture {n}" for n in range(50)]
    assert held_out(names, 0.2, 0) == held_out(names[::-1] + names, 0.2, 0) != held_out(names, 0.2, 1)
    assert len(held_out(names, 0.2, 0)) == 10


def test_rules_stand_beside_the_papers_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    print_sizes({"all": {"train": 12, "test": 3}, "closed": {"train": 7}}, {"train": 7, "test": 3})
    rule, first, second, paper = capsys.readouterr().out.splitlines()
    assert first.count("=") == 1 and second.count("=") == 1 and paper.split()[-2:] == ["7", "3"] and "train" in rule


def test_ten_thousand_damaged_rows_cost_no_good_one(tmp_path: Path) -> None:
    """Questions of a JSON file with fields missing, of other types, doubled or empty: every whole row becomes a case."""
    rng = random.Random(0)
    fields = {"img_name": "xmlab0/source.jpg", "question": "Is it?", "answer": "Yes", "q_lang": "en", "modality": "CT",
              "answer_type": "CLOSED", "content_type": "Size"}  # fmt: skip
    junk = [None, "", 0, -1, 3.5, [], {}, "zh", "maybe", "CLOSED ", True, "x" * 5000, ["yes"], "\udcff", "是"]
    rows: list[Any] = [{"qid": n, **fields} for n in range(50)]
    for n in range(10_000):
        row: dict[str, Any] = {"qid": 50 + n, **fields}
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(list(row))
            if rng.random() < 0.3:
                row.pop(name)
            else:
                row[name] = rng.choice(junk)
        rows.insert(rng.randrange(len(rows)), rng.choice([row, row, row, row, None, 7, "row", []]))
    (tmp_path / "s" / "imgs" / "xmlab0").mkdir(parents=True)
    noise(0).save(tmp_path / "s" / "imgs" / "xmlab0" / "source.jpg")
    for name, part in (("train", rows), ("validate", [{"qid": -2, **fields}]), ("test", [{"qid": -1, **fields}])):
        (tmp_path / "s" / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    assert data_prep(["slake", "--source", str(tmp_path / "s"), "--out", str(tmp_path / "t")]) == 0
    ids = {c.case_id for c in read_table(tmp_path / "t")}
    assert {f"slake-{n}" for n in range(50)} <= ids and "slake--1" in ids
    assert {c.question for c in read_table(tmp_path / "t")} <= {"Is it?", "zh", "maybe", "CLOSED", "x" * 5000, "是"}  # no None, no list
    assert card(tmp_path / "t")["dropped"]["count"] + len(ids) == len(rows) + 2


def test_a_picture_below_the_smallest_side_is_the_only_one_refused() -> None:
    usable((SMALLEST, SMALLEST))
    with pytest.raises(InputError, match=f"a side is below {SMALLEST}"):
        usable((SMALLEST - 1, 200))


def test_a_large_picture_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "load_rgb", lambda file: pytest.fail("decoded"))
    with pytest.raises(InputError, match="more than 100,000,000 pixels"):
        pictures.read(io.BytesIO(encoded(Image.new("1", (12_000, 9_000)))))


def test_a_name_that_climbs_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    noise(0).save(tmp_path / "secret.png")
    (tmp_path / "images").mkdir()
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(InputError, match="climbs out of the folder"):
            from_file(tmp_path / "images", name).load()
    with pytest.raises(InputError, match="missing image"):
        from_file(tmp_path / "images", "x" * 5000).load()
