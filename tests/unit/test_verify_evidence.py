"""Stored evidence and bands: what was changed is found, also under a new manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_prep import phantoms
from mmedlite import evidence, gain_map, verify, verify_evidence
from mmedlite.cases import CaseTable
from mmedlite.profiles import ROOT
from mmedlite.run_folder import RunFolder
from mmedlite.verify_stamps import wrong_bands
from tests.small import cases_again

NAMES = (*evidence.UNTRAINED, *("_".join(arm) for arm in evidence.ARMS))
NO_CASES = CaseTable(Path("none"), [])
REFERENCE = RunFolder(RunFolder.reference, json.loads((RunFolder.reference / "run.json").read_text(encoding="utf-8")))


def wide(names: tuple[str, ...], seed: int, n: int = 40) -> pd.DataFrame:
    """Invented answers of these systems: texts, and options of the vote."""
    rng = np.random.default_rng(seed)
    parts = []
    for panel in ("diverse", "paper_like"):
        texts = {name: [f"<think>a</think><answer>{o}</answer>" for o in rng.choice(["yes", "no"], n)] for name in names}
        texts["majority_vote"] = rng.choice(["0", "1", "-1"], n).tolist()
        parts.append(pd.DataFrame({
            "panel": panel, "case_id": [f"phantom-{seed}-test-{i:05d}" for i in range(n)],
            "question_type": np.where(np.arange(n) % 2, "yes_no", "choice"),
            "answer": rng.integers(0, 2, n), "difficulty": np.array(["easy", "medium", "hard"])[np.arange(n) % 3],
            "unanimous": np.arange(n) % 3 != 1, "panel_vote": rng.integers(0, 2, n), "options": json.dumps(["yes", "no"]), **texts,
        }))  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs = {"plan": evidence.recipe_sha256(), "seed": seed, "cases_sha256": f"cases of {seed}"}
    return frame


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "worlds").mkdir()
    for seed in evidence.world_seeds()[:3]:
        wide(NAMES, seed).to_parquet(folder / "worlds" / f"{seed}.parquet")
    wide((*evidence.UNTRAINED, "trained", "specialist_1", "specialist_2", "specialist_3"), 1).to_parquet(folder / "rivals.parquet")
    (folder / "map").mkdir()
    wide((*evidence.UNTRAINED, evidence.RECOMMENDED), 2).to_parquet(folder / "map" / f"{gain_map.CELLS[0]}.parquet")
    for name, count in verify_evidence.COUNTED.items():
        (folder / f"{name}.json").write_text(json.dumps(count(folder)))
    verify.write_manifest(folder)
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy; the invented cases have no pictures, so what needs the clinic is tested by itself below."""
    monkeypatch.setattr(verify_evidence, "wrong_facts", lambda *_: [])
    monkeypatch.setattr(verify_evidence, "wrong_marker", lambda *_: [])
    monkeypatch.setattr(verify_evidence, "WIDE", {"rivals": None})
    monkeypatch.setattr(evidence, "WORLD_TESTED", 40)
    monkeypatch.setattr(gain_map, "CELLS", gain_map.CELLS[:1])
    monkeypatch.setattr(verify_evidence, "wrong_seeds", lambda frame: [])
    return Path(shutil.copytree(made, tmp_path / "data"))


def test_untouched_evidence_is_green(data: Path) -> None:
    assert verify.verify(data, NO_CASES) == []


def first_world(data: Path) -> Path:
    return data / "worlds" / f"{evidence.world_seeds()[0]}.parquet"


def another_text(data: Path) -> None:
    frame = pd.read_parquet(first_world(data))
    text = frame.loc[0, "printed_as_is"]
    frame.loc[0, "printed_as_is"] = text.replace("yes", "no") if "yes" in text else text.replace("no", "yes")
    frame.to_parquet(first_world(data))


def another_answer(data: Path) -> None:
    frame = pd.read_parquet(data / "rivals.parquet")
    frame["answer"] = 1 - frame["answer"]
    frame.to_parquet(data / "rivals.parquet")


def another_plan(data: Path) -> None:
    frame = pd.read_parquet(first_world(data))
    frame.attrs |= {"plan": "0" * 64}
    frame.to_parquet(first_world(data))


def other_world(data: Path) -> Path:
    return data / "worlds" / f"{evidence.world_seeds()[1]}.parquet"


def kept(file: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a table and leave what stands beside it."""
    frame = pd.read_parquet(file)
    changed = change(frame)
    changed.attrs = frame.attrs
    changed.to_parquet(file)


def same_cases(data: Path) -> None:
    frame = pd.read_parquet(other_world(data))
    frame.attrs |= {"cases_sha256": pd.read_parquet(first_world(data)).attrs["cases_sha256"]}
    frame.to_parquet(other_world(data))


def in_json(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def forge(data: Path) -> None:
        content = json.loads((data / name).read_text())
        change(content)
        (data / name).write_text(json.dumps(content))

    return forge


FORGERIES = {
    "text": (another_text, "evidence.json, primary"), "answer": (another_answer, "rivals.json, diverse"),
    "plan": (another_plan, "worlds/"), "world gone": (lambda data: first_world(data).unlink(), "evidence.json, "),
    "verdict": (in_json("evidence.json", lambda e: e["primary"]["KL term, diverse"].update(verdict="seen")), "evidence.json, primary.KL term"),
    "p": (in_json("rivals.json", lambda r: r["diverse"]["no_panel"].update(p=0.5001)), "rivals.json, diverse.no_panel.p"),
    "under another's name": (lambda data: shutil.copy(first_world(data), other_world(data)), "worlds/"),
    "the same cases twice": (same_cases, "worlds/"), "counted file gone": (lambda data: (data / "evidence.json").unlink(), "evidence.json: "),
    "cell gone": (lambda data: (data / "map" / f"{gain_map.CELLS[0]}.parquet").unlink(), "0.45-0.00.parquet: missing"),
    "gain": (in_json("map.json", lambda m: m["cells"]["0.45-0.00"]["gain"].update(mean=0.2)), "map.json, cells.0.45-0.00.gain.mean"),
    "row of a world gone": (lambda data: kept(first_world(data), lambda f: f.drop(index=7)), "worlds/"),
    "no JSON": (lambda data: (data / "evidence.json").write_text("{"), "evidence.json: cannot be counted again"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_under_a_new_manifest(data: Path, name: str) -> None:
    forge, said = FORGERIES[name]
    forge(data)
    assert verify.verify(data, NO_CASES)  # by its hash
    verify.write_manifest(data)
    assert any(problem.startswith(said) for problem in verify.verify(data, NO_CASES))


@pytest.mark.parametrize("change", [
    lambda band: band.update(low=band["low"] - 0.05), lambda band: band["seeds"].update({"1": band["seeds"]["1"] + 0.003}),
    lambda band: band.update(mean=0.9), lambda band: band["control"].update(untrained_panel=0.99), lambda band: band["control"].clear(),
    lambda band: band.update(code="0" * 64), lambda band: band.update(config="0" * 64), lambda band: band.update(direction="within"),
    lambda band: band.update(source="figures/worlds.py"), lambda band: band.clear(),
])  # fmt: skip
def test_a_widened_band_is_found(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    bands = json.loads((ROOT / "artifacts" / "bands.json").read_text())
    (tmp_path / "bands.json").write_text(json.dumps(bands))
    assert wrong_bands(tmp_path / "bands.json", REFERENCE) == []
    change(bands["attending_diverse_trained"])
    (tmp_path / "bands.json").write_text(json.dumps(bands))
    assert wrong_bands(tmp_path / "bands.json", REFERENCE)[0].startswith("bands.json, attending_diverse_trained")


@pytest.mark.parametrize("change", [
    lambda band: band["seeds"].update({first: band["seeds"][first] + 0.001 for first in [*band["seeds"]][:1]}),
    lambda band: band["control"].update({name: value + 0.001 for name, value in band["control"].items()}),
])  # fmt: skip
def test_a_changed_band_over_worlds_is_found(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    bands = json.loads((ROOT / "artifacts" / "bands.json").read_text())
    change(bands["hard_diverse"])
    (tmp_path / "bands.json").write_text(json.dumps(bands))
    problems = wrong_bands(tmp_path / "bands.json", REFERENCE)
    assert {problem.partition(": ")[2].partition(" is")[0] for problem in problems} <= {"seeds", "control"}
    assert problems[0].startswith("bands.json, hard_diverse")


STORED = pd.read_parquet(evidence.DATA / "rivals.parquet").iloc[::40]


@pytest.fixture(scope="module")
def clinic() -> CaseTable:
    """The cases of some stored rows, drawn again for the hashes of their pictures."""
    return cases_again(STORED["case_id"])


FACTS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "answer": lambda f: f.assign(answer=(f["answer"] + 1) % f["n_options"]), "vote": lambda f: f.assign(panel_vote=0),
    "options": lambda f: f.assign(options=f["options"].str.replace("yes", "no")), "bucket": lambda f: f.assign(difficulty="easy"),
    "trained": lambda f: f.assign(trained=f["untrained_panel"]), "specialist": lambda f: f.assign(specialist_1=f["specialist_2"]),
    "majority": lambda f: f.assign(majority_vote="0"), "oracle": lambda f: f.assign(any_correct=f["answer"].astype(str)),
    "kind": lambda f: f.assign(question_type="choice"),
    "row gone": lambda f: f.iloc[1:], "row twice": lambda f: pd.concat([f.iloc[:1], f.iloc[:1], f.iloc[2:]]),
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_the_stored_tables_are_those_of_the_clinic(name: str, clinic: CaseTable, tmp_path: Path) -> None:
    """The reviewer's forgery: another fact, everything counted again and sealed anew."""
    stored = STORED.copy()
    stored.attrs = {"cases_sha256": clinic.sha256}
    stored.to_parquet(file := tmp_path / "rivals.parquet")
    run = RunFolder(RunFolder.reference, {"cases_sha256": clinic.sha256})
    said = verify_evidence.panels_of_run(run, clinic)
    assert verify_evidence.wrong_facts(file, clinic, run, said) == []
    forged = FACTS[name](stored)
    forged.attrs = stored.attrs
    forged.to_parquet(file)
    assert verify_evidence.wrong_facts(file, clinic, run, said)


def test_where_the_gain_lies_is_counted_from_the_reference_run(tmp_path: Path) -> None:
    rows = pd.read_parquet(evidence.DATA / "rivals.parquet").drop_duplicates("case_id")
    cases = [SimpleNamespace(case_id=c, meta={"marked": m}) for c, m in zip(rows["case_id"], rows["marked"], strict=True)]
    clinic: Any = SimpleNamespace(split=lambda name: cases)
    stored = json.loads((evidence.DATA / "by_marker.json").read_text())
    run = RunFolder(RunFolder.reference, {"cases_sha256": stored["cases_sha256"]})
    assert verify_evidence.wrong_marker(evidence.DATA / "by_marker.json", clinic, run) == []
    stored["gain"]["diverse"]["clear"]["mean"] += 0.2
    (tmp_path / "by_marker.json").write_text(json.dumps(stored))
    (told,) = verify_evidence.wrong_marker(tmp_path / "by_marker.json", clinic, run)
    assert told.startswith("by_marker.json, diverse.clear.mean")


def test_the_shipped_manifests_are_the_sealed_ones(tmp_path: Path) -> None:
    """A forger must write the seal too, which lies elsewhere; a run of one's own has none."""
    for folder in (ROOT / "artifacts", evidence.DATA):
        assert verify.broken_seal(folder) == [], "run `make figures`"
    for name in ("manifest.json", "paper_tables.json"):
        shutil.copy(evidence.DATA / name, tmp_path / name)
    assert verify.broken_seal(tmp_path) == []
    verify.write_manifest(tmp_path)
    assert verify.broken_seal(tmp_path) == ["manifest.json: not the one that figures/seals.json names"]
    (tmp_path / "paper_tables.json").unlink()
    assert verify.broken_seal(tmp_path) == []


def test_worlds_hold_the_cases_of_their_seeds() -> None:
    facts = [phantoms.sample(71 * 10_000_000 + 2_000_000 + i, phantoms.DIALS) for i in range(30)]
    answer = np.array([f["options"].index(f["text"]) for f in facts])
    frame = pd.DataFrame({
        "case_id": [f"phantom-71-test-{i:05d}" for i in range(30)], "options": [json.dumps(f["options"]) for f in facts],
        "answer": answer, "question_type": ["yes_no" if f["kind"] in ("present", "side") else "choice" for f in facts],
        "difficulty": "easy", "unanimous": True, "panel_vote": answer, "majority_vote": [str(a) for a in answer],
        "n_options": [len(f["options"]) for f in facts], "marked": [f["marked"] for f in facts],
    })  # fmt: skip
    assert verify_evidence.wrong_seeds(frame) == []
    forged = frame.copy()
    forged.loc[7, "answer"] = 1 - min(1, frame.loc[7, "answer"])
    forged.loc[8, "question_type"] = {"yes_no": "choice", "choice": "yes_no"}[frame.loc[8, "question_type"]]
    forged.loc[9, "difficulty"], forged.loc[10, "unanimous"], forged.loc[11, "panel_vote"] = "hard", False, -1
    forged.loc[12, "n_options"], forged.loc[13, "marked"], forged.loc[14, "majority_vote"] = 9, not frame.loc[13, "marked"], "-1"
    assert verify_evidence.wrong_seeds(forged) == [*range(7, 15)]


def test_a_world_without_an_arm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_evidence, "wrong_seeds", lambda frame: [])
    monkeypatch.setattr(evidence, "WORLD_TESTED", 40)
    wide(NAMES, 1).to_parquet(tmp_path / "1.parquet")
    assert verify_evidence.wrong_worlds(tmp_path) == []
    wide(tuple(n for n in NAMES if n != "printed_kl_off"), 1).to_parquet(tmp_path / "1.parquet")
    assert [p for p in verify_evidence.wrong_worlds(tmp_path) if "1.parquet: without printed_kl_off" in p]


def test_worlds_with_models_of_their_own_have_other_policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_evidence, "wrong_seeds", lambda frame: [])
    monkeypatch.setattr(evidence, "WORLD_TESTED", 40)
    shipped = json.loads((RunFolder.reference / "run.json").read_text())["policy"]
    for policies, fine in ((("a", "b"), True), (("a", "a"), False), (("a", shipped), False), (("a", None), False)):
        for seed, policy in zip((1, 2), policies, strict=True):
            frame = wide(NAMES, seed)
            frame.attrs |= {"policy": policy}
            frame.to_parquet(tmp_path / f"{seed}.parquet")
        assert (verify_evidence.wrong_worlds(tmp_path) == []) == fine, policies


@pytest.mark.parametrize("forge", [
    lambda f: f.assign(p_trained=(f["panel_vote"] == f["answer"]).astype(float)), lambda f: f.assign(p_trained=1.5),
    lambda f: f.assign(p_untrained=0.5), lambda f: f.assign(p_trained=f["p_trained"].where(f.index != 3)),
])  # fmt: skip
def test_stored_probabilities_go_with_the_stored_answers(forge: Callable[[pd.DataFrame], pd.DataFrame], tmp_path: Path) -> None:
    stored = pd.read_parquet(evidence.DATA / "trust.parquet")
    run = RunFolder(RunFolder.reference, {"cases_sha256": stored.attrs["cases_sha256"]})
    assert verify_evidence.wrong_trust(evidence.DATA / "trust.parquet", run) == []
    forge(stored).to_parquet(file := tmp_path / "trust.parquet")
    assert verify_evidence.wrong_trust(file, run)
