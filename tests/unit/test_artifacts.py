"""What is stored was made by this code, this profile and this clinic, and no byte of it has changed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from data_prep.phantoms import _FIRST_SEED, DEPARTMENT, DIALS, sample
from mmedlite.checks import BANDS
from mmedlite.evaluation import above_curve, bias_curve, trust_plane
from mmedlite.profiles import load_profile
from mmedlite.provenance import code_sha256, models_sha256, weights_sha256
from mmedlite.verify import changed_files


def test_stored_files_are_those_of_the_manifest(root: Path) -> None:
    assert changed_files(root / "artifacts") == []


def test_stored_numbers_were_made_by_this_code_and_profile(root: Path) -> None:
    made = json.loads((root / "artifacts" / "manifest.json").read_text(encoding="utf-8"))["made_from"]
    assert made["code"] == code_sha256(), "the code that decides numbers has changed: run `make artifacts`"
    assert made["config_sha256"] == load_profile("tiny").sha256(), "the profile has changed: run `make artifacts`"
    bands = json.loads(BANDS.read_text(encoding="utf-8"))
    assert {b["code"] for b in bands.values()} == {made["code"]} and {b["cases_sha256"] for b in bands.values()} == {made["cases_sha256"]}
    revision = json.loads((root / "artifacts" / "specialists" / "revision.json").read_text(encoding="utf-8"))["revision"]
    assert made["specialists"]["models"]["*"]["revision"] == revision, "the specialists have changed: run `make artifacts`"


def test_stored_models_were_made_by_this_recipe(root: Path) -> None:
    made = json.loads((root / "artifacts" / "recipe.json").read_text(encoding="utf-8"))["sources_sha256"]
    assert made == models_sha256(), "the recipe of the tiny models has changed: delete them, then run `make artifacts`"


def test_controls_fall_outside_their_bands() -> None:
    for name, band in json.loads(BANDS.read_text(encoding="utf-8")).items():
        assert len(band["seeds"]) >= 5
        assert all(not band["low"] <= value <= band["high"] for value in band["control"].values()), name


def test_size(root: Path) -> None:
    weights = sum(f.stat().st_size for f in (root / "artifacts").rglob("*.safetensors"))
    assert weights <= 24e6, f"{weights / 1e6:.1f} MB of weights are shipped, at most 24"


def made_from(root: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((root / "artifacts" / "manifest.json").read_text(encoding="utf-8"))["made_from"]
    return {k: v for k, v in found.items() if k not in ("seed", "cases_sha256", "code")}


def test_measured_figures_are_of_these_models_and_this_profile(root: Path) -> None:
    """What was measured keeps the hash of the sources it was measured with: a later change of them measures nothing again."""
    made = made_from(root)
    assert made["policy"] == weights_sha256(root / "artifacts" / "policy")
    headroom = json.loads((root / "figures" / "data" / "headroom.json").read_text(encoding="utf-8"))
    real = json.loads((root / "figures" / "data" / "real_triage.json").read_text(encoding="utf-8"))
    for facts in (headroom["made_from"], real):
        assert {k: facts[k] for k in made} == made


def test_the_world_passed_its_gate_before_training(root: Path) -> None:
    found = json.loads((root / "figures" / "data" / "headroom.json").read_text(encoding="utf-8"))
    diverse = found["diverse"]
    assert found["gate_passed"] and diverse["headroom"] >= 0.06 and diverse["unanimous_headroom"] >= 0.05


def test_specialists_are_good_at_home_and_poor_elsewhere(root: Path) -> None:
    """65 to 85 % at home, at least 15 points less elsewhere, each of the seven departments."""
    rows = pd.read_parquet(root / "artifacts" / "opinions" / "answers.parquet", columns=["case_id", "department", "option"])
    facts = {i: sample(_FIRST_SEED[i.split("-")[2]] + int(i[-5:]), DIALS, int("shifted" in i)) for i in rows["case_id"].unique()}
    rows["right"] = [facts[i]["options"].index(facts[i]["text"]) == o for i, o in zip(rows["case_id"], rows["option"], strict=True)]
    rows["home"] = [DEPARTMENT[facts[i]["look"]] == d for i, d in zip(rows["case_id"], rows["department"], strict=True)]
    rows = rows[~rows["case_id"].str.contains("shifted")]
    shares = rows.groupby(["department", "home"])["right"].mean().unstack()
    assert len(shares) == 7
    assert shares[True].between(0.65, 0.85).all() and (shares[True] - shares[False] >= 0.15).all(), shares


def test_pool_of_unanimous_and_wrong_panels(root: Path) -> None:
    rows = pd.read_parquet(root / "artifacts" / "reference" / "results" / "diverse" / "test" / "majority_vote.parquet")
    assert (rows["unanimous"] & (rows["panel_vote"] != rows["answer"])).sum() >= 300


def test_real_pictures_reach_their_target(root: Path) -> None:
    """Macro recall over modalities with at least 20 pictures, five folds by picture; numbers only."""
    text = (root / "figures" / "data" / "real_triage.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert found["folds"] == 5 and min(found["pictures"].values()) >= 20 and found["n"] == sum(found["pictures"].values())
    assert found["trained"] >= 0.85 and found["trained"] > max(found["histogram"], found["majority"], found["base"])
    assert not re.search(r"\.(png|jpe?g)|/", text.replace(found["code"], ""))


def test_tracked_files_are_at_most_40_mb(root: Path) -> None:
    names = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split()
    assert sum((root / n).stat().st_size for n in names if (root / n).is_file()) <= 40e6


@pytest.mark.parametrize("panel", ["diverse", "paper_like"])
def test_the_bias_curve_is_fine_enough(root: Path, panel: str) -> None:
    """The height above the curve does not hang on its grid: with half of the biases it stays. With whole nats it was 2.5 times as high."""
    rows = root / "artifacts" / "reference" / "results" / panel / "test"
    swept, trained = pd.read_parquet(rows / "bias_sweep.parquet"), pd.read_parquet(rows / "trained.parquet")
    place = trust_plane(trained)
    by_bias = [part for _, part in swept.groupby("bias")]
    points = [tuple(part[part["panel_right"] == side]["correct"].mean() for side in (True, False)) for part in by_bias]
    fine, half = above_curve(place, bias_curve(points)), above_curve(place, bias_curve(points[::2]))
    whole = [point for point, part in zip(points, by_bias, strict=True) if part["bias"].iloc[0].is_integer()]
    assert abs(fine - half) < 0.02 and above_curve(place, bias_curve(whole)) > fine + 0.1
