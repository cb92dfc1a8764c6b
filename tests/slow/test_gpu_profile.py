"""The profile ``gpu-3b`` from end to end without a GPU: the paper's sets in small, a random checkpoint in the hub's layout, an endpoint."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from data_prep.__main__ import main as data_prep
from data_prep.tiny_model import build_processor
from mmedlite.checks import tally
from mmedlite.demo import NOTEBOOKS, PatientKernelManager
from mmedlite.profiles import ROOT, load_profile
from tests.server import Server
from tests.sets import make_mmmu, make_omni, make_path, make_rad, make_slake
from tests.small import base

SMALLER = {  # all else is the profile's own
    r"(?m)^prompts_per_step = \d+": "prompts_per_step = 2", r"(?m)^gradient_accumulation = \d+": "gradient_accumulation = 2",
    r"(?m)^max_new_tokens = \d+": "max_new_tokens = 8", r"(?m)^concurrency = \d+": "concurrency = 4",
    r"(?m)^(\[triage\]\n)steps = \d+": r"\1steps = 2", r"(?m)^steps = (12|25|724)$": "steps = 2", r"(?m)^steps = 761$": "steps = 6",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Case table, checkpoint and profile."""
    folder = tmp_path_factory.mktemp("paper")
    makers = {"vqa_rad": make_rad, "slake": make_slake, "path_vqa": make_path, "omnimedvqa": make_omni, "mmmu": make_mmmu}
    for name, make in makers.items():
        (folder / f"{name}-source").mkdir()
        assert data_prep([name, "--source", str(make(folder / f"{name}-source")), "--out", str(folder / name)]) == 0
    shifted = [str(folder / name) for name in ("omnimedvqa", "mmmu")]
    tables = [str(folder / name) for name in ("vqa_rad", "slake", "path_vqa")]
    assert data_prep(["merge", "--source", *tables, "--shifted", *shifted, "--out", str(folder / "cases")]) == 0
    base(shared=False).save_pretrained(folder / "policy", max_shard_size="1MB")
    build_processor().save_pretrained(folder / "policy")
    text = (ROOT / "mmedlite" / "profiles" / "gpu-3b.toml").read_text(encoding="utf-8")
    for old, new in SMALLER.items():
        text, found = re.subn(old, new, text)
        assert found, old
    text = re.sub(r'(?m)^policy = "[^"]*"', f'policy = "{(folder / "policy").as_posix()}"', text)
    (folder / "gpu-3b.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.timeout(1800)
def test_gpu_3b_from_end_to_end(world: Path, start: Callable[..., Server], tmp_path: Path) -> None:
    """Run, verify, read the adapter without the kit, move the folder, verify again."""
    start()
    where = ["--profile", str(world / "gpu-3b.toml"), "--cases", str(world / "cases")]

    def kit(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "mmedlite", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    assert "requests" in kit("run", *where, "--out", str(tmp_path / "dry"), "--dry-run")
    kit("run", *where, "--out", str(out := tmp_path / "run"))
    results, told = (json.loads((out / name).read_text(encoding="utf-8")) for name in ("results.json", "run.json"))
    assert told["profile"] == "gpu-3b" and told["specialists"]["panels"]["paper_like"] == ["o3-2025-04-16"] * 3
    assert load_profile(str(world / "gpu-3b.toml")).dtype == "bfloat16"
    assert results["attending"]["paper_like"]["n"] == 6 and results["shifted"]["n"] == 14 and results["stages"]["diverse"][-1] == "hard"
    adapter = out / "adapters" / "paper_like" / "hard"
    card = (adapter / "README.md").read_text(encoding="utf-8")
    assert "**Not for clinical use.**" in card and "18 cases of vqa_rad" in card and "1 cases of slake" in card
    assert [*out.rglob("README.md")] == [*out.glob("adapters/*/hard/README.md")]  # none of PEFT's empty ones
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(world / "policy", dtype=torch.bfloat16), adapter)
    assert sum(float(p.abs().sum()) for name, p in model.named_parameters() if "lora_B" in name) > 0
    kit("verify", str(out), "--cases", str(world / "cases"))
    moved = Path(shutil.move(out, tmp_path / "elsewhere"))
    kit("verify", str(moved), "--cases", str(world / "cases"))
    again = kit("run", *where, "--out", str(moved), "--replay")  # nothing is asked or trained again
    assert json.loads((moved / "results.json").read_text(encoding="utf-8"))["attending"] == results["attending"], again


@pytest.mark.timeout(1800)
def test_every_notebook_runs_through(world: Path, start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run, in order: no cell raises, and no number is held to the clinic's, whose cases these are not."""
    start()
    places = {"PROFILE": world / "gpu-3b.toml", "CASES": world / "cases", "RUN": tmp_path / "run"}
    for name, place in places.items():
        monkeypatch.setenv(f"MMEDLITE_{name}", str(place))
    raised, printed = [], ""
    for name in NOTEBOOKS:
        book, resources = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4), {"metadata": {"path": str(ROOT / "notebooks")}}
        NotebookClient(book, timeout=900, kernel_name="python3", allow_errors=True, resources=resources,
                       kernel_manager_class=PatientKernelManager).execute()  # fmt: skip
        for i, cell in enumerate(book.cells):
            outputs = cell.get("outputs", [])
            raised += [f"{name}, cell {i}: {o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
            printed += "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert raised == []
    assert not any(row["band"] for row in tally(tmp_path / "run"))
    for line in (
        "These cases bear no marker", "no band triage_accuracy", "no band attending_diverse_trained", "no check diverse_beats_rl_no_panel",
        "The schedule as printed is not stored", "No attending of this policy is trained yet", "this run's: it is not compared with them",
    ):  # fmt: skip
        assert line in printed, line
