"""What is stored was made by this code, this profile and this clinic, and no byte of it has changed."""

from __future__ import annotations

import json
from pathlib import Path

from mmedlite.checks import BANDS
from mmedlite.profiles import load_profile
from mmedlite.provenance import code_sha256
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
    assert made["specialists"] == revision, "the specialists have changed: run `make artifacts`"


def test_controls_fall_outside_their_bands() -> None:
    for name, band in json.loads(BANDS.read_text(encoding="utf-8")).items():
        assert len(band["seeds"]) >= 5
        assert all(not band["low"] <= value <= band["high"] for value in band["control"].values()), name


def test_size(root: Path) -> None:
    weights = sum(f.stat().st_size for f in (root / "artifacts").rglob("*.safetensors"))
    assert weights <= 24e6, f"{weights / 1e6:.1f} MB of weights are shipped, at most 24"
