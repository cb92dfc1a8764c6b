"""The run that is measured on a GPU: its profiles load, and the shipped policy goes the same way on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.phantoms import build
from figures import gpu_stages
from mmedlite.cases import read_table
from mmedlite.profiles import load_profile

FEW = {"train": 64, "validation": 8, "test": 8}


@pytest.mark.parametrize("shape", ["3b", "7b", "tiny"])
def test_profile_keeps_all_but_panel_policy_and_steps(shape: str, tmp_path: Path) -> None:
    (file := tmp_path / "p.toml").write_text(gpu_stages.profile_text(shape, tmp_path / "policy", 3), encoding="utf-8")
    made, own = load_profile(file), load_profile("tiny" if shape == "tiny" else f"gpu-{shape}")
    assert made.panels == {"diverse": ("simulated",) * 3} and made.endpoint is None and made.simulated is not None
    assert (made.grpo, made.lora, made.dtype) == (own.grpo, own.lora, own.dtype) and made.policy == (tmp_path / "policy").as_posix()
    assert {stage.steps for stage in made.attending.recipe} == {made.triage.steps} == {3}


def test_a_gpu_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_stages", "--shape", "3b", "--cases", "nowhere"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_stages.main()
    assert "needs a GPU" in capsys.readouterr().err


def test_every_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_stages, "FEW", FEW)
    build(tmp_path / "cases", 0, FEW)
    gpu_stages.few(read_table(tmp_path / "cases"), tmp_path / "few")
    assert all(len(case.images) == 1 for case in read_table(tmp_path / "few"))
    monkeypatch.setattr("sys.argv", ["gpu_stages", "--shape", "tiny", "--cases", str(tmp_path / "cases"), "--steps", "1"])
    gpu_stages.main()
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if " s (n " in line]
    assert told == ["triage", "easy", "medium", "hard", "evaluation"]
