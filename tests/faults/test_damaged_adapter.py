"""Damaged models: one clear error that names the file and the mend, before any training starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mmedlite.local_specialists import LocalSpecialists
from mmedlite.models import load_adapter, load_policy
from mmedlite.profiles import InputError
from tests.small import PANELS, base, checkpoint, policy, specialists

NAME = "adapter_model.safetensors"
Damage = Callable[[Path], None]


def gone(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_its_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def text(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1")  # a pointer that was never fetched


def other_shape(file: Path) -> None:
    save_file({name: tensor[:1].contiguous() for name, tensor in load_file(file).items()}, file)


def one_missing(file: Path) -> None:
    tensors = load_file(file)
    tensors.pop(min(tensors))
    save_file(tensors, file)


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(bytes(data))


DAMAGE = [gone, empty, cut, cut_in_its_header, text, other_shape, one_missing]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_adapter(damage: Damage, tmp_path: Path) -> None:
    policy().save_pretrained(tmp_path / "adapter")
    load_adapter(base(), tmp_path / "adapter")
    damage(tmp_path / "adapter" / NAME)
    with pytest.raises(InputError) as caught:
        load_adapter(base(), tmp_path / "adapter")
    assert str(tmp_path / "adapter" / NAME) in str(caught.value) and "Fix: " in str(caught.value)


def test_second_adapter_damaged(tmp_path: Path) -> None:
    policy().save_pretrained(tmp_path / "a")
    model = load_adapter(base(), tmp_path / "a", "a")
    policy().save_pretrained(tmp_path / "b")
    cut(tmp_path / "b" / NAME)
    with pytest.raises(InputError, match=r"b.adapter_model\.safetensors"):
        load_adapter(model, tmp_path / "b", "b")


def test_missing_adapter_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.*Fix: "):
        load_adapter(base(), tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [gone, empty, cut, text])
def test_damaged_checkpoint(damage: Damage, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "policy")
    damage(folder / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_policy(folder)
    assert str(folder) in str(caught.value) and "Fix: restore it" in str(caught.value)


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such model folder .*nowhere.*Fix: run `make artifacts`"):
        load_policy(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [empty, cut, text])
def test_damaged_specialist_is_told_at_once(damage: Damage, tmp_path: Path) -> None:
    """When the folder is opened, which a run does first, and not at the first question, after triage was trained."""
    folder = specialists(tmp_path / "specialists")
    assert len(LocalSpecialists(folder, PANELS).form.models["*"]["revision"]) == 64
    damage(folder / "adapters" / "Radiologist-0" / NAME)
    with pytest.raises(InputError) as caught:
        LocalSpecialists(folder, PANELS)
    assert str(folder / "adapters" / "Radiologist-0" / NAME) in str(caught.value) and "Fix: " in str(caught.value)


@pytest.mark.parametrize("damage", [gone, flipped, other_shape])
def test_changed_specialists_are_told_by_their_hash(damage: Damage, tmp_path: Path) -> None:
    folder = specialists(tmp_path / "specialists")
    damage(folder / "adapters" / "Radiologist-0" / NAME)
    with pytest.raises(InputError, match=r"not those of revision\.json \(.*specialists\)\. Fix: "):
        LocalSpecialists(folder, PANELS)


@pytest.mark.parametrize("content", [None, "", "{", "[]", json.dumps({"rev": 1})])
def test_no_revision(content: str | None, tmp_path: Path) -> None:
    folder = specialists(tmp_path / "specialists")
    (folder / "revision.json").unlink()
    if content is not None:
        (folder / "revision.json").write_text(content)
    with pytest.raises(InputError, match=r"revision\.json.*Fix: "):
        LocalSpecialists(folder, PANELS)
