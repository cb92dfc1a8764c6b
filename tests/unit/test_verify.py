"""Verification bites: one changed byte, a missing file, a row or a number that does not follow from what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmedlite import verify as v
from mmedlite.answers import parse_strict
from mmedlite.cases import Case, CaseTable, TableWriter, read_table
from mmedlite.curriculum import BUCKETS
from mmedlite.evaluation import accuracy, flip_rate, result_row
from mmedlite.profiles import InputError

FACTS = dict.fromkeys(("code", "config", "cases"), "0" * 64)
ROWS = "results/diverse/test/trained.parquet"


@pytest.fixture(autouse=True)
def no_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(v, "REFERENCE", tmp_path / "nothing")


@pytest.fixture
def table(tmp_path: Path) -> CaseTable:
    with TableWriter(tmp_path / "table") as out:
        for i in range(6):
            path, sha = out.add_image(Image.fromarray(np.full((4, 4, 3), 40 * i, np.uint8)))
            out.add(Case(f"c{i}", "toy", "test", (path,), (sha,), "Q?", ("yes", "no"), i % 2, "X-ray", "Radiologist", "yes_no", "CC0"))
    return read_table(tmp_path / "table")


@pytest.fixture
def run(tmp_path: Path, table: CaseTable) -> Path:
    """A run folder with one policy, one vote, results.json, routes and a manifest."""
    folder = tmp_path / "run"
    (folder / "results" / "diverse" / "test").mkdir(parents=True)
    (folder / "routes").mkdir()
    (folder / "adapter.safetensors").write_bytes(bytes(range(200)))
    (folder / "routes" / "test.json").write_text(json.dumps({c.case_id: "Radiologist" for c in table}))
    fixed: dict[str, Any] = {"seed": 0, "panel": "diverse", "department": "Radiologist"}
    trained, vote = [], []
    for i, case in enumerate(table):
        text = "no mark" if i == 5 else f"<think>look</think><answer>{case.options[int(i == 0)]}</answer>"
        said = parse_strict(text, case.options)
        votes = [0, 0, i % 2]
        trained.append(result_row(case, votes, said.option, system="trained", text=text, reason=said.reason, **fixed))
        vote.append(result_row(case, votes, 0, system="majority_vote", **fixed))
    frames = {"trained": pd.DataFrame(trained), "majority_vote": pd.DataFrame(vote)}
    numbers: dict[str, Any] = {"n": 6, "best_single": 0.5, "best_single_ci": [0.2, 0.8]}
    for name, frame in frames.items():
        frame.to_parquet(folder / "results" / "diverse" / "test" / f"{name}.parquet")
        numbers |= {name: accuracy(frame)["mean"], f"{name}_ci": accuracy(frame)["ci"]}
    numbers["by_difficulty"] = {
        level: {name: none_for_nan(accuracy(f[f["difficulty"] == level])["mean"]) for name, f in frames.items()} for level in BUCKETS
    }
    write_results(
        folder,
        attending={"diverse": numbers},
        flip={"diverse": {k: none_for_nan(x) for k, x in flip_rate(frames["trained"]).items()}},
        triage={"trained": 1.0},
        cases_sha256=table.sha256,
    )
    v.write_manifest(folder, FACTS)
    return folder


def none_for_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


def write_results(folder: Path, **changes: Any) -> None:
    file = folder / "results.json"
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**old, **changes}))


def change_number(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    results = json.loads((folder / "results.json").read_text())
    change(results)
    write_results(folder, **results)


def test_sound_run_has_no_problem(run: Path, table: CaseTable) -> None:
    assert v.verify(run, table) == []


def test_manifest_holds_hashes_and_origin(run: Path) -> None:
    content = json.loads((run / "manifest.json").read_text())
    assert content["made_from"] == FACTS
    assert sorted(content["files"]) == [
        "adapter.safetensors",
        "results/diverse/test/majority_vote.parquet",
        ROWS,
        "routes/test.json",
    ]
    assert content["files"]["adapter.safetensors"] == v.sha256(run / "adapter.safetensors")
    assert len(v.sha256(run / "adapter.safetensors")) == 64


@pytest.mark.parametrize("place", [0, 100, 199])
def test_one_changed_byte_is_found(run: Path, table: CaseTable, place: int) -> None:
    content = bytearray((run / "adapter.safetensors").read_bytes())
    content[place] ^= 1
    (run / "adapter.safetensors").write_bytes(content)
    assert v.verify(run, table) == ["adapter.safetensors: changed since the manifest was written"]


def test_missing_file_is_found(run: Path, table: CaseTable) -> None:
    (run / "adapter.safetensors").unlink()
    assert v.verify(run, table) == ["adapter.safetensors: missing"]
    (run / "manifest.json").unlink()
    assert "manifest.json: missing" in v.verify(run, table)[0]


NUMBERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "attending.diverse.trained and": lambda r: r["attending"]["diverse"].update(trained=0.99),
    "attending.diverse.majority_vote and": lambda r: r["attending"]["diverse"]["majority_vote_ci"].__setitem__(0, 0.0),
    "attending.diverse.trained by": lambda r: r["attending"]["diverse"]["by_difficulty"]["easy"].update(trained=0.0),
    "flip.diverse": lambda r: r["flip"]["diverse"].update(panel_right=0.123),
    "triage.trained": lambda r: r["triage"].update(trained=0.97),
    "cases_sha256": lambda r: r.update(cases_sha256="f" * 64),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_changed_number_is_found(run: Path, table: CaseTable, name: str) -> None:
    change_number(run, NUMBERS[name])
    problems = v.verify(run, table)
    assert len(problems) == 1 and problems[0].startswith(f"results.json, {name}")


CHANGES: dict[str, dict[str, Any]] = {
    "the text says option 0, the row says 1": {"option": 1, "correct": False},
    "marked wrong, option 0, answer 0": {"correct": False},
    "answer 1 of 2, the table says 0 of 2": {"answer": 1, "correct": False},
    "answer 0 of 3, the table says 0 of 2": {"n_options": 3},
    "no such case": {"case_id": "c99"},
    "the text says option -1": {"text": "<answer>yes</answer><think>"},
}


@pytest.mark.parametrize("said", CHANGES)
def test_changed_row_is_found_though_hash_and_number_agree(run: Path, table: CaseTable, said: str) -> None:
    rows = pd.read_parquet(run / ROWS)
    for column, value in CHANGES[said].items():
        rows.loc[2, column] = value
    rows.to_parquet(run / ROWS)
    (run / "results.json").unlink()
    v.write_manifest(run)
    problems = v.verify(run, table)
    assert len(problems) == 1 and problems[0].startswith(f"{ROWS}, row 3 (") and said in problems[0]


def test_empty_text_of_a_policy_is_no_answer(run: Path, table: CaseTable) -> None:
    rows = pd.read_parquet(run / ROWS)
    rows.loc[5, "text"] = ""
    rows.to_parquet(run / ROWS)
    v.write_manifest(run)
    assert v.verify(run, table) == []


def test_damaged_rows_are_named_not_raised(run: Path, table: CaseTable) -> None:
    (run / "results" / "diverse" / "test" / "extra.parquet").write_bytes(b"PAR1 no")
    assert v.verify(run, table) == ["results/diverse/test/extra.parquet: cannot be read (ArrowInvalid)"]


def test_bias_sweep_has_no_options_to_score(run: Path, table: CaseTable) -> None:
    sweep = pd.DataFrame({"case_id": ["c0"], "bias": [1.0], "correct": [True]})
    sweep.to_parquet(run / "results" / "diverse" / "test" / "bias_sweep.parquet")
    assert v.verify(run, table) == []


def test_exit_code(run: Path, table: CaseTable, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ["--cases", str(table.path)]
    assert v.main([str(run), *cases]) == 0
    assert capsys.readouterr().out.startswith("0 problems in")
    change_number(run, NUMBERS["triage.trained"])
    assert v.main([str(run), *cases]) == 1
    assert "triage.trained" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such folder"):
        v.main([str(run / "nowhere"), *cases])
