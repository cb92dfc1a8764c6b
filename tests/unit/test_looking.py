"""Sensitivity to picture and panel counted from invented readers whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmedlite import looking
from mmedlite.looking import NOISE, PANELS, PICTURES


def table(folder: Path, n: int = 400) -> Path:
    """Two policies: "untrained" copies a panel that is always right until corrupted, "hard" reads the picture."""
    rng = np.random.default_rng(0)
    answer, pair = rng.integers(0, 4, n), rng.integers(0, 3, n)
    pair = np.where(pair >= answer, pair + 1, pair)
    kind = np.where(np.arange(n) % 2, "choice", "yes_no")
    pair = np.where(kind == "choice", pair, answer)
    said = {"own": answer, **{f"noise_{s}": np.where(rng.random(n) < s / 100, (answer + 1) % 4, answer) for s in NOISE},
            "panel_adversarial": (answer + 1) % 4, "panel_swapped": rng.integers(0, 4, n), "panel_removed": np.full(n, -1),
            "panel_permuted": answer}  # fmt: skip
    seen = {"own": answer, "blank": np.zeros(n, int), "shuffled": np.zeros(n, int), "swapped": rng.integers(0, 4, n), "pair": pair}
    every = ("own", *PICTURES, *PANELS, *(f"noise_{s}" for s in NOISE))
    columns = {f"untrained_{c}": said.get(c, answer) for c in every} | {f"hard_{c}": seen.get(c, answer) for c in every}
    columns |= {f"{looking.IDEAL}_{c}": said.get(c, answer) for c in every}
    texts = {k: v.astype(str) for k, v in columns.items()}
    facts = {"panel": "diverse", "case_id": [f"c{i}" for i in range(n)], "question_type": kind, "answer": answer, "pair_answer": pair}
    frame = pd.DataFrame({**facts, "options": json.dumps(list("abcd")), **texts})
    frame.to_parquet(folder / "looks.parquet")
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:  # type: ignore[type-arg]
    return looking.count(table(tmp_path_factory.mktemp("looks")))["diverse"]  # type: ignore[no-any-return]


def test_a_copier_relies_on_the_panel_alone(found: dict) -> None:  # type: ignore[type-arg]
    copier = found["changes"]["untrained"]
    assert all(copier[c]["changed"] == 0 for c in PICTURES) and copier["panel_permuted"]["changed"] == 0
    assert (copier["panel_adversarial"]["accuracy"], copier["panel_adversarial"]["changed"]) == (0, 1)
    assert copier["panel_adversarial"]["difference"]["mean"] == -1 and copier["panel_removed"]["accuracy"] == 0
    assert copier["pair"]["follows"] == 0 and copier["pair"]["stays"] == 1 and copier["pair"]["n"] == 200


def test_a_reader_follows_the_picture(found: dict) -> None:  # type: ignore[type-arg]
    reader = found["changes"]["hard"]
    assert all(reader[c]["changed"] == 0 for c in PANELS)
    assert reader["pair"]["follows"] == 1 and reader["pair"]["stays"] == 0 and reader["blank"]["changed"] > 0.6


def test_slope_under_noise(found: dict) -> None:  # type: ignore[type-arg]
    noise = found["noise"]
    assert noise["accuracy"]["untrained"][0] == 1 and noise["accuracy"]["untrained"][-1] == 0 and noise["shares"] == [0, *NOISE]
    assert noise["slope"]["untrained"] == pytest.approx(-1, abs=0.05) and noise["slope"]["hard"] == 0
    assert noise["flatter"]["mean"] == pytest.approx(-noise["slope"]["untrained"]) and noise["flatter"]["low"] > 0
    assert list(found["changes"]) == ["untrained", "hard", looking.IDEAL]  # which is no policy: the rule is about the last stage


def test_a_slope_is_that_of_least_squares() -> None:
    outcomes = np.random.default_rng(1).random((5, len(NOISE) + 1))
    x = np.array([0, *NOISE]) / 100
    assert looking.slopes(outcomes) == pytest.approx([np.polyfit(x, y, 1)[0] for y in outcomes])


def test_nothing_stored_is_nothing(tmp_path: Path) -> None:
    assert looking.count(tmp_path) == {}


def test_average_of_pictures_of_several_sizes() -> None:
    dark, light = Image.new("RGB", (4, 6), (10, 0, 0)), Image.new("RGB", (8, 3), (21, 0, 200))
    mean = looking.average([dark, light])
    assert mean.size == (4, 6) and set(mean.getdata()) == {(16, 0, 100)}  # 15.5 goes to the even number
    noise = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (5, 5, 3), dtype=np.uint8)) for i in range(7)]
    assert (np.asarray(looking.average(noise)) == np.mean([np.asarray(p, float) for p in noise], axis=0).round()).all()
