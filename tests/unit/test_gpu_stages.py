"""The run that is measured on a GPU: its profiles load, and the shipped policy goes the same way on any machine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_prep.phantoms import build
from figures import _speed, gpu_notebooks, gpu_stages
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


GOOD = '<testcase name="{0}" time="1.5"><properties><property name="compared" value="stdout"/></properties></testcase>'
XML = {"good": GOOD, "silent": '<testcase name="{0}" time="1"/>', "bad": '<testcase name="{0}" time="2"><failure/></testcase>',
       "skipped": '<testcase name="{0}" time="0"><skipped/></testcase>'}  # fmt: skip


def test_the_notebooks_on_a_gpu_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what nbval wrote; on a machine without a GPU nothing is run."""
    asked: list[list[str]] = []
    cells = ["good", "silent", "bad", "skipped", "good"]

    def nbval(words: list[str], **more: Any) -> Any:
        asked.append(words)
        assert more["env"]["MMEDLITE_PROFILE"] == "tiny"
        told = Path(next(w for w in words if w.startswith("--junitxml=")).removeprefix("--junitxml="))
        told.write_text(f"<testsuites><testsuite>{''.join(XML[kind] for kind in cells)}</testsuite></testsuites>")
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(gpu_notebooks.subprocess, "run", nbval)
    monkeypatch.setattr(gpu_notebooks, "DATA", tmp_path)
    monkeypatch.setattr(gpu_notebooks, "made_from", lambda: {"device": "a card", "date": "today"})
    monkeypatch.setattr("sys.argv", ["gpu_notebooks"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu_notebooks.main()
    assert not asked
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(SystemExit):  # a cell ran too long: what follows it was not run
        gpu_notebooks.main()
    assert not (tmp_path / "gpu_notebooks.json").exists() and "not measured" in _speed.stages(tmp_path)[-1]
    cells.remove("skipped")
    assert gpu_notebooks.main() == 1 and len([w for w in asked[0] if w.endswith(".ipynb")]) == 7 and "--nbval" in asked[0]
    assert json.loads((tmp_path / "gpu_notebooks.json").read_text())["compared"] == 2
    assert "2 cells print what they print on a CPU, 1 do not, in 6 s (a card, today)." in _speed.stages(tmp_path)[-1]
