"""The doctor finds each fault and names the next step."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from mmedlite import doctor
from mmedlite.profiles import Attending, Grpo, Lora, Profile, Triage


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A sound float32 profile whose weights are here; `doctor.main` gets it under any name."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    made = Profile(
        name="small",
        seed=0,
        policy=str(tmp_path),
        specialists="",
        source="phantoms",
        max_pixels=0,
        panels=("diverse",),
        eval_batch=1,
        eval_cases=0,
        dtype="float32",
        lora=Lora(r=1, alpha=1),
        grpo=Grpo(1e-3, 1, 8, 1.0, 8, 1, False, False),
        triage=Triage(1, 1e-3, 0.0, 0.0, 0),
        attending=Attending((), (), (), 1e-3),
    )
    monkeypatch.setattr(doctor, "load_profile", lambda name: made)
    monkeypatch.setattr(doctor, "MEMORY_GIB", 0.0)
    monkeypatch.setattr(doctor, "DISK_GIB", 0.0)
    return made


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Check name -> its line."""
    return {line.split("] ")[1].split(":")[0]: line for line in capsys.readouterr().out.splitlines()}


def test_sound_machine(profile: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main("small") == 0
    lines = verdicts(capsys)
    assert list(lines) == ["python", "packages", "memory", "gpu", "dtype", "disk", "offline"]
    assert all(line.startswith("[OK]") for line in lines.values())


def break_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))


def break_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.15.0" if name == "trl" else real(name))


def break_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEMORY_GIB", 6.0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("M", "available")(2 * doctor.GIB))


def break_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_GIB", 2.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("D", "free")(doctor.GIB))


FAULTS = {
    "python": (break_python, "3.10.2"),
    "packages": (break_packages, "trl is 1.15.0 (wanted <1.17,>=1.16)"),
    "memory": (break_memory, "2.0 GiB free (wanted 6.0)"),
    "disk": (break_disk, "1 GiB free (wanted 2)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_alone(name: str, profile: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = FAULTS[name]
    spoil(monkeypatch)
    assert doctor.main("small") == 1
    failed = {key: line for key, line in verdicts(capsys).items() if line.startswith("[FAIL]")}
    assert list(failed) == [name]
    assert said in failed[name]
    assert "Next: " in failed[name]


def test_missing_package(profile: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def version(name: str) -> str:
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.main("small") == 1
    assert "peft is missing" in verdicts(capsys)["packages"]


def test_half_precision_profile_without_gpu(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    half = dataclasses.replace(profile, dtype="bfloat16")
    assert doctor.gpu(profile)[0]
    assert not doctor.gpu(half)[0]
    assert not doctor.dtype(half)[0]
    assert doctor.dtype(profile)[0]


def test_gpu_without_bfloat16(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    fine, found, _ = doctor.dtype(dataclasses.replace(profile, dtype="bfloat16"))
    assert fine and "float16 in its place" in found
    assert "in its place" not in doctor.dtype(dataclasses.replace(profile, dtype="float16"))[1]


def test_missing_weights(profile: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.safetensors").unlink()
    assert doctor.main("small") == 1
    assert verdicts(capsys)["offline"].startswith("[FAIL]")


def test_weights_on_the_hub_are_downloaded_unless_that_is_forbidden(
    profile: Profile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"Qwen/Qwen2.5-VL-3B-Instruct@{'a' * 40}"
    monkeypatch.setattr(doctor, "load_profile", lambda _: replace(profile, policy=name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert doctor.main("small") == 0 and f"the first run downloads {name}" in verdicts(capsys)["offline"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.main("small") == 1 and f"no weights in {name}" in verdicts(capsys)["offline"]


def test_unknown_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main("no-such-world") == 1
    out = capsys.readouterr().out
    assert out.startswith("[FAIL] profile: no profile 'no-such-world'")
    assert "Fix: " in out


def test_import_is_light() -> None:
    code = "import sys, mmedlite.doctor; assert not {'torch', 'numpy', 'psutil'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_memory_it_wants_is_what_the_notebooks_took() -> None:
    took = json.loads((doctor.ROOT / "artifacts" / "timings.json").read_text(encoding="utf-8"))["tiny"]
    assert max(book["peak_memory_gib"] for book in took.values()) + 0.5 < doctor.MEMORY_GIB < 8
