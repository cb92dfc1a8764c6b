"""Readers beside the policy on real pictures: what each may see, and that a table says which sets were counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from figures import real_small
from mmedlite.cases import Case, TableWriter, read_table


def case(number: int, question: str, options: tuple[str, ...], answer: int, source: str = "vqa_rad") -> Case:
    return Case(f"c{number}", source, "test", (), (f"sha{number // 2}",), question, options, answer, "CT", "Radiologist", "choice", "none", {})


def test_likeliest_answer_is_one_of_the_options() -> None:
    cases = [case(0, "q", ("Lung", "heart"), 0), case(1, "q", ("liver", "spleen"), 0)]
    probabilities = np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7]])  # of heart, lung, skin
    assert real_small.likeliest(probabilities, ["heart", "lung", "skin"], cases) == [0, 0]  # of unknown options the first


def read(pictures: bool, seed: int = 0) -> dict[str, float]:
    """Accuracy of the linear readers where the answer stands in the question (first half) or in the picture (second half)."""
    rng = np.random.default_rng(seed)

    def cases(n: int) -> tuple[list[Case], np.ndarray]:
        answers = rng.integers(0, 2, n)
        told = [f"is it {('fine', 'bad')[a]}?" if i < n // 2 else "what is it?" for i, a in enumerate(answers)]
        shown = rng.normal(size=(n, 4)) + (3 * answers[:, None] if pictures else 0)
        return [case(i, q, ("yes", "no"), int(a)) for i, (q, a) in enumerate(zip(told, answers, strict=True))], shown

    (train, seen), (test, shown) = cases(200), cases(200)
    found = real_small.linear_readers(train, seen, test, shown)
    gold = np.array([c.answer for c in test])
    return {name: float((np.array(said) == gold).mean()) for name, said in found.items()}


def test_words_alone_see_no_picture_and_the_probe_sees_both() -> None:
    with_pictures, without = read(pictures=True), read(pictures=False)
    assert with_pictures["text_only"] == pytest.approx(0.75, abs=0.06) and with_pictures["linear_probe"] > 0.9
    assert without["linear_probe"] < 0.85
    assert with_pictures["majority_answer"] == pytest.approx(0.5, abs=0.12)


def test_table_counts_each_set_and_all() -> None:
    cases = [case(i, "q", ("a", "b") if i < 4 else ("a", "b", "c", "d"), 0, "vqa_rad" if i < 4 else "mednist") for i in range(8)]
    right, wrong = [0] * 8, [1] * 8
    names = ("text_only", "linear_probe", "no_panel", "majority_vote", "blank", "shuffled", "swapped")
    found = real_small.table_of({**dict.fromkeys(names, wrong), "blank": [-1] * 8, "trained": right}, cases)
    assert {group: part["n"] for group, part in found.items()} == {"VQA-RAD": 4, "label sets": 4, "all": 8}
    assert [found[group]["chance"] for group in found] == [0.5, 0.25, 0.375]
    assert found["all"]["accuracy"]["trained"] == 1.0 and found["all"]["trained_minus"]["text_only"]["mean"] == 1.0
    assert found["all"]["no_answer"] == {name: float(name == "blank") for name in (*names, "trained")}


def test_sets_are_split_by_picture_and_taught_before_the_run() -> None:
    plan = real_small.commands(Path("/source"), Path("/out"))
    assert [command[:2] for command in plan][-2:] == [["data_prep", "small_base"], ["mmedlite", "run"]]
    assert all("--group-by-image" in command for command in plan if command[1] in ("vqa_rad", "slake"))  # split by picture


def test_without_pictures_nothing_is_touched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(real_small.subprocess, "run", never)
    monkeypatch.setattr("sys.argv", ["real_small"])
    assert real_small.main() == 0 and "left as they are" in capsys.readouterr().out


def test_a_folder_without_the_sets_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["real_small", "--source", str(tmp_path)])
    assert real_small.main() == 1 and "holds no folders vqa_rad and slake" in capsys.readouterr().err


def test_look_alikes_are_counted_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen, other = (Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(2))
    near = Image.fromarray(np.clip(np.asarray(seen).astype(int) + 1, 0, 255).astype(np.uint8))  # a grey level brighter
    tables = {"school": [("train", seen)], "rest": [("train", other), ("test", seen), ("test", near)]}
    for name, rows in tables.items():
        with TableWriter(tmp_path / name) as table:
            for i, (split, picture) in enumerate(rows):
                path, sha = table.add_image(picture)
                table.add(Case(f"{name}{i}", "made", split, (path,), (sha,), "q", ("yes", "no"), 0, "CT", "Radiologist", "yes_no", "none", {}))
    found = real_small.look_alikes(*(read_table(tmp_path / name) for name in tables))
    assert found == {"images": 2, "images_shared": 1, "images_alike": 1}
