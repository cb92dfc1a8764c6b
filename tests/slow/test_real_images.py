"""The whole pipeline on real pictures: `data_prep image_folder`, then `mmedlite run --cases`, a few steps of each training."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

# A short profile: the same keys as tiny, with a handful of steps; four prompts an update, so that a small bucket still fills one.
SHORT = (
    (r"steps = \d+", "steps = 2"),
    (r"prompts_per_step = \d+", "prompts_per_step = 4"),
    (r"eval_cases = 0", "eval_cases = 60"),
    (r'panels = \["diverse", "paper_like"\]', 'panels = ["diverse"]'),
)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("source", ["image_folder", "vqa_rad"])
def test_pipeline_on_real_images(source: str, root: Path, tmp_path: Path) -> None:
    data = root.parent / "shared" / "data"
    folder = data / "vqa_rad" if source == "vqa_rad" else data
    if not folder.is_dir():
        pytest.skip("the real test images (../shared/data) are not beside this checkout")
    text = (root / "mmedlite" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    for pattern, value in SHORT:
        text = re.sub(pattern, value, text)
    (tmp_path / "short.toml").write_text(text, encoding="utf-8")
    prepare = [sys.executable, "-m", "data_prep", source, "--source", str(folder), "--out", str(tmp_path / "table")]
    subprocess.run(prepare, cwd=root, check=True)
    run = [sys.executable, "-m", "mmedlite", "run", "--profile", str(tmp_path / "short.toml"), "--cases", str(tmp_path / "table"),
           "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(run, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert results["attending"]["diverse"]["n"] == 60
    assert 0 <= results["attending"]["diverse"]["trained"] <= 1
    assert results["opinions_asked"] > 0  # nothing was stored for these pictures
    assert not list((tmp_path / "run").rglob("*.png")), "a run folder holds numbers, no picture"
