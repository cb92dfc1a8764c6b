"""The whole pipeline on real pictures, and triage of their modality; the pictures are not part of the kit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep import small_base
from data_prep.__main__ import main as data_prep
from figures import real_small, real_triage
from figures._real import READERS
from mmedlite.run import Run
from tests.small import short_profile


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    folder = root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real pictures: {folder.name} lies beside the project only where it is built")
    return folder


@pytest.fixture(scope="module")
def tables(root: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    for name, source in (("image_folder", data), ("vqa_rad", data / "vqa_rad")):
        command = [sys.executable, "-m", "data_prep", name, "--source", str(source), "--out", str(out / name)]
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("profile") / "short.toml"
    file.write_text(short_profile(), encoding="utf-8")
    return file


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["image_folder", "vqa_rad"])
def test_pipeline_on_real_pictures(root: Path, tables: Path, short: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "mmedlite", "run", "--profile", str(short), "--cases", str(tables / name), "--out", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    card = json.loads((tables / name / "card.json").read_text(encoding="utf-8"))
    for panel in ("diverse", "paper_like"):
        attending = results["attending"][panel]
        assert attending["n"] == card["counts"]["split"]["test"]
        assert {"trained", "untrained_panel", "no_panel", "majority_vote", "ideal_reader", "best_single"} <= attending.keys()
        assert results["stages"][panel][-1] == "hard"
    assert str(tables) not in (out / "results.json").read_text(encoding="utf-8")
    check = [sys.executable, "-m", "mmedlite", "verify", str(out), "--cases", str(tables / name)]
    done = subprocess.run(check, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.timeout(1200)
def test_modality_triage_on_real_pictures(tables: Path, tmp_path: Path) -> None:
    """One fold of five, as `python -m figures.real_triage` runs them all."""
    found = real_triage.measure(Run(tmp_path / "run", cases=tables / "image_folder"), folds=1)
    assert found["n"] >= 100 and min(found["pictures"].values()) >= real_triage.MIN_COUNT
    assert found["trained"] > max(found["base"], found["majority"]) + 0.3
    assert not re.search(r"\.png|\.jpg|/", json.dumps({k: v for k, v in found.items() if k != "code"}))


@pytest.mark.timeout(1800)
def test_real_small_in_few_steps(root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m figures.real_small --source DIR`, shortened: every reader answers every test case, and no picture's name is stored."""
    text = (root / "mmedlite" / "profiles" / "real-small.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^steps = (60|105|120)$", "steps = 3", text.replace("data/real_small/", f"{tmp_path}/real_small/"))
    (profile := tmp_path / "short.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(real_small, "DATA", tmp_path)
    for name in ("POLICY_STEPS", "BASE_STEPS", "ADAPTER_STEPS"):
        monkeypatch.setattr(small_base, name, 5)
    *tables, models, pipeline = real_small.commands(data, tmp_path / "run")
    for command in tables:
        subprocess.run([sys.executable, "-m", *command], cwd=root, check=True, capture_output=True)
    assert data_prep(models[1:]) == 0
    pipeline[pipeline.index("real-small")] = str(profile)
    subprocess.run([sys.executable, "-m", *pipeline], cwd=root, check=True, capture_output=True)
    found = real_small.measure(Run(tmp_path / "run", str(profile), tmp_path / "real_small" / "cases"), tmp_path / "real_small" / "school")
    assert set(found["by_set"]) == {"VQA-RAD", "SLAKE", "OmniMedVQA", "label sets", "all"}
    assert found["by_set"]["all"]["n"] == found["cases"]["test"] == sum(p["n"] for name, p in found["by_set"].items() if name != "all")
    assert all(set(READERS) <= part["accuracy"].keys() for part in found["by_set"].values())
    assert found["by_set"]["label sets"]["accuracy"]["linear_probe"] > found["by_set"]["label sets"]["accuracy"]["text_only"]  # pictures count
    assert not re.search(r"\.png|\.jpg", json.dumps(found)) and str(tmp_path) not in json.dumps(found)
