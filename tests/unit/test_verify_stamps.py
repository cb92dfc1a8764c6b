"""Stamps of stored files: each of these changes is made with a new manifest, and is found by what lies beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmedlite.cases import CaseTable
from mmedlite.profiles import ROOT
from mmedlite.provenance import locked
from mmedlite.verify import write_manifest
from mmedlite.verify_stamps import wrong_artifacts, wrong_environment, wrong_stamps

ARTIFACTS = ROOT / "artifacts"
FACTS = json.loads((ARTIFACTS / "reference" / "run.json").read_text(encoding="utf-8"))


class Clinic(CaseTable):
    """Stands for the case table of clinic 0, of which only the hash is read here."""

    sha256 = FACTS["cases_sha256"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What verify reads of ``artifacts``, without the opinions."""
    out = Path(shutil.copytree(ARTIFACTS, tmp_path / "artifacts", ignore=shutil.ignore_patterns("opinions")))
    shutil.copytree(ARTIFACTS / "opinions", out / "opinions", copy_function=lambda a, b: Path(b).symlink_to(a))
    return out


def problems(folder: Path) -> list[str]:
    write_manifest(folder, FACTS)
    return [*wrong_stamps(folder / "reference", Clinic(Path("none"), [])), *wrong_artifacts(folder)]


def edited(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return edit


def one_weight(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = sorted((folder / name).rglob("*.safetensors"))[0]
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    return change


RESULTS, RUN, ADAPTER = "reference/results.json", "reference/run.json", "reference/adapters/triage/made_from.json"
CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a section deleted": (edited(RESULTS, lambda r: r.pop("trust")), "results.json, trust: without diverse, paper_like"),
    "triage deleted": (edited(RESULTS, lambda r: r.pop("triage")), "results.json, triage: without"),
    "shifted deleted": (edited(RESULTS, lambda r: r.pop("shifted")), "results.json, shifted: without"),
    "a panel deleted": (edited(RESULTS, lambda r: r["attending"].pop("paper_like")), "results.json, attending: without paper_like"),
    "code deleted": (edited(RESULTS, lambda r: r.pop("code")), "results.json, code: not what run.json says"),
    "code of the run": (edited(RUN, lambda r: r.update(code="0" * 64)), "run.json, code: made by another version"),
    "policy of the run": (edited(RUN, lambda r: r.update(policy="0" * 64)), "run.json, policy: the weights"),
    "seed of the run": (edited(RUN, lambda r: r.update(seed=7)), "results.json, seed: not what run.json says"),
    "cases of the run": (edited(RUN, lambda r: r.update(cases_sha256="0" * 64)), "run.json, cases_sha256: made with another"),
    "facts deleted": (edited(RUN, lambda r: r.pop("policy")), "run.json: without policy"),
    "an adapter's stamp": (edited(ADAPTER, lambda m: m.update(seed=1)), "adapters/triage/made_from.json, seed: not what run.json says"),
    "weights of the policy": (one_weight("policy"), "run.json, policy: the weights"),
    "weights of a specialist": (one_weight("specialists/adapters"), "specialists: the weights"),
    "other specialists asked": (edited(RUN, lambda r: r["specialists"]["models"]["*"].update(revision="0")), "specialists: the reference run"),
    "sources of the models": (edited("recipe.json", lambda r: r.update(sources_sha256="0")), "recipe.json: the models"),
    "a band deleted": (edited("bands.json", lambda b: b.pop("triage_accuracy")), "bands.json, triage_accuracy: missing"),
    "a band invented": (edited("bands.json", lambda b: b.update(mine=b["triage_accuracy"])), "bands.json, mine: no such band"),
    "rollouts deleted": (lambda folder: shutil.rmtree(folder / "reference" / "rollouts"), "reference/rollouts: missing"),
    "timings deleted": (lambda folder: (folder / "timings.json").unlink(), "timings.json: missing"),
}  # fmt: skip


def test_what_is_shipped_is_sound(copy: Path) -> None:
    assert problems(copy) == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_under_a_new_manifest(copy: Path, name: str) -> None:
    change, said = CHANGES[name]
    change(copy)
    assert any(problem.startswith(said) for problem in problems(copy)), problems(copy)


def test_a_manifest_of_another_run_is_found(copy: Path) -> None:
    write_manifest(copy, FACTS | {"code": "0" * 64})
    assert wrong_stamps(copy / "reference", Clinic(Path("none"), [])) == ["manifest.json, code: not what run.json says"]


def test_the_shipped_files_name_the_locked_libraries(tmp_path: Path) -> None:
    """And a run of one's own may name any, but must name some."""
    named = json.loads(write_manifest(tmp_path).read_text())
    assert named["environment"]["torch"] == locked()["torch"] and wrong_environment(named, shipped=True) == []
    named["environment"]["trl"] = "1.15.0"
    assert wrong_environment(named, shipped=True) == [f"manifest.json, environment: trl 1.15.0, and requirements.lock has {locked()['trl']}"]
    assert wrong_environment(named, shipped=False) == []
    del named["environment"]
    assert "which libraries" in wrong_environment(named, shipped=False)[0]
