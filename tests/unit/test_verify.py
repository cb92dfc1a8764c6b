"""Verification bites: one changed byte, a missing file, a row or a number that does not follow from what is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmedlite import cli, rescore
from mmedlite import verify as v
from mmedlite.answers import parse_strict
from mmedlite.asks import Ask, Form
from mmedlite.cases import Case, CaseTable, TableWriter, read_table
from mmedlite.evaluation import result_row
from mmedlite.opinions import COLUMNS, from_line, request_key, to_line
from mmedlite.profiles import load_profile
from mmedlite.provenance import code_sha256
from mmedlite.rescore import PICKERS
from mmedlite.run_folder import RunFolder
from mmedlite.store import OpinionStore
from mmedlite.summary import LIVE, attending_numbers, flip_numbers, shifted_numbers, triage_numbers, trust_numbers
from mmedlite.verify_evidence import panels_of_run
from tests.small import PANELS

ROWS = "results/diverse/test/trained.parquet"


LABELS = {"source": "toy", "modality": "X-ray", "specialty": "Radiologist", "question_type": "yes_no", "licence": "CC0"}


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(RunFolder, "reference", tmp_path / "nothing")
    monkeypatch.setattr(RunFolder, "opinions", tmp_path / "nothing")


@pytest.fixture
def table(tmp_path: Path) -> CaseTable:
    with TableWriter(tmp_path / "table") as out:
        for i in range(10):
            path, sha = out.add_image(Image.fromarray(np.full((8, 8, 3), 20 * min(i, 8), np.uint8)))  # c9 asks about the picture of c8
            split = "test" if i < 6 else "shifted" if i < 8 else "train"
            fields = {"split": split, "images": (path,), "image_sha256s": (sha,), "question": "Q?", "options": ("yes", "no"), "answer": i % 2}
            out.add(Case(case_id=f"c{i}", **LABELS, **fields))  # type: ignore[arg-type]
    return read_table(tmp_path / "table")


def votes_on(case: Case) -> list[int]:
    """The panel on a case: unanimous on the first four and the last three, split on the others."""
    i = int(case.case_id[1:])
    return [0, 0, 0 if i < 4 or i > 6 else 1]


def form(revision: str) -> Form:
    return Form("local", PANELS, {"*": {"revision": revision, "sampling": {"temperature": 1.0}}})


def opinions_on(table: CaseTable, revision: str) -> list[dict[str, Any]]:
    """What the Radiologist's three specialists said; c9 asks what c8 asks, so the answers to c8 are its own."""
    asks = [(Ask(case, "Radiologist", "diverse", i), o) for case in list(table)[:-1] for i, o in enumerate(votes_on(case))]
    return [
        {**dict.fromkeys(COLUMNS), "key": request_key(request := form(revision).request(ask)), "request": request, "case_id": ask.case.case_id,
         "department": ask.department, "panel": ask.panel, "response": f"<answer>{ask.case.options[o]}</answer>", "option": o}
        for ask, o in asks
    ]  # fmt: skip


def rows_of(cases: list[Case], system: str) -> pd.DataFrame:
    """Result rows: the first case is missed, the sixth gets no answer; a vote and a classifier write no text."""
    rows = []
    for i, case in enumerate(cases):
        fixed: dict[str, Any] = {"system": system, "seed": 0, "panel": "diverse", "department": "Radiologist"}
        votes = votes_on(case)
        if system in PICKERS:
            rows.append(result_row(case, votes, case.answer if system == "ideal_reader" else 0, **fixed))
        else:
            text = "no mark" if i == 5 else f"<think>look</think><answer>{case.options[int(i == 0)]}</answer>"
            said = parse_strict(text, case.options)
            rows.append(result_row(case, votes, said.option, text=text, reason=said.reason, **fixed))
    return pd.DataFrame(rows)


@pytest.fixture
def run(tmp_path: Path, table: CaseTable) -> Path:
    """A run folder with rows, opinions and checks, the numbers counted from them, and a manifest."""
    facts = {"profile": "none of the kit's", "seed": 0, "code": code_sha256(), "cases_sha256": table.sha256, "specialists": asdict(form("r1"))}
    this = RunFolder(tmp_path / "run", {**facts, "config_sha256": "0" * 64, "policy": "0" * 64})
    this.save_json("run.json", this.facts)
    test = table.split("test")
    for system in LIVE:
        this.keep(rows_of(test, system), f"diverse/test/{system}")
        this.keep(rows_of(table.split("shifted"), system), f"diverse/shifted/{system}")
    united = this.rows("diverse/test/untrained_panel").query("unanimous")
    sweep = pd.DataFrame({"case_id": united["case_id"], "image_sha256": united["image_sha256"], "panel_right": united["answer"] == 0})
    swept = [sweep.assign(bias=b, correct=sweep["panel_right"] == (b > 0)) for b in (-1.0, 1.0)]
    this.keep(pd.concat(swept, ignore_index=True), "diverse/test/bias_sweep")
    sent = [{"system": s, "case_id": c.case_id, "department": d, "correct": d == c.specialty}
            for s, d in (("base", "Surgeon"), ("trained", "Radiologist")) for c in test]  # fmt: skip
    this.keep(pd.DataFrame(sent), "triage")
    this.save_json("routes/train.json", {c.case_id: "Radiologist" for c in table.split("train")})
    OpinionStore(this.folder / "opinions").add(opinions_on(table, "r1"))
    (this.folder / "adapter.safetensors").write_bytes(bytes(range(200)))
    (this.folder / "checks.jsonl").write_text('{"name": "a", "status": "pass"}\n{"name": "b", "status": "watch"}\n')
    this.update_results(
        triage=triage_numbers(this), attending={"diverse": attending_numbers(this, "diverse")},
        flip={"diverse": flip_numbers(this, "diverse")}, trust={"diverse": trust_numbers(this, "diverse")},
        shifted=shifted_numbers(this, "diverse"), checks={"passed": 2, "failed": 0, "skipped": 0, "assisted": 0}, minutes=3.5,
        panel={"diverse": {"easy": 0.5, "medium": 0.0, "hard": 0.5, "rho": 1.0, "effective": 1.0, "n": 2}},
    )  # fmt: skip
    v.write_manifest(this.folder, this.facts)
    return this.folder


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
    assert content["made_from"]["code"] == code_sha256()
    assert {"adapter.safetensors", "opinions/answers-000.jsonl", ROWS, "routes/train.json"} <= content["files"].keys()
    assert not {"results.json", "checks.jsonl", "manifest.json"} & content["files"].keys()  # counted again, or still growing
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


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [leaf for k, part in value.items() for leaf in leaves(part, (*path, k))] if isinstance(value, dict) else [path]


COUNTED = ("triage", "attending", "flip", "trust", "shifted", "panel", "checks")


def test_every_number_is_counted_again(run: Path, table: CaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number is changed or taken out, its name is told."""
    sound = json.loads((run / "results.json").read_text())
    folder = RunFolder(run, {"cases_sha256": table.sha256})
    sections = v._sections(folder, sound, table, lambda: panels_of_run(folder, table))
    counted = {name: cache(count) for name, count in sections.items()}
    monkeypatch.setattr(v, "_sections", lambda *_: counted)  # the rows stay as they are: counting them once is enough
    paths = [path for path in leaves(sound) if path[0] in COUNTED]
    assert len(paths) > 100
    for place, path in enumerate(paths):
        results = json.loads(json.dumps(sound))
        part = results
        for key in path[:-1]:
            part = part[key]
        if place % 2:
            del part[path[-1]]
        else:
            part[path[-1]] = [0.123, 0.456] if isinstance(part[path[-1]], list) else 0.123
        (run / "results.json").write_text(json.dumps(results))
        problems = v.wrong_numbers(folder, table, dict)
        assert problems and problems[0].startswith(f"results.json, {'.'.join(path)}: "), path


def test_shifted_numbers_of_every_panel_are_counted(run: Path, table: CaseTable) -> None:
    folder = RunFolder(run, {"cases_sha256": table.sha256})
    alone = shifted_numbers(folder, "diverse")
    for system in LIVE:
        folder.keep(folder.rows(f"diverse/shifted/{system}"), f"paper_like/shifted/{system}")
    assert shifted_numbers(folder, "diverse") == alone | {"paper_like": alone}
    assert any(p.startswith("results.json, shifted.paper_like.gain.mean: absent, counted again") for p in v.wrong_numbers(folder, table, dict))


def test_another_case_table_is_told(run: Path, table: CaseTable) -> None:
    change_number(run, lambda r: r.update(cases_sha256="f" * 64))
    problems = v.verify(run, table)
    counted = f"results.json, cases_sha256: {'f' * 64}, counted again {table.sha256}"
    assert problems == ["results.json, cases_sha256: not what run.json says", counted]


@pytest.mark.parametrize("name", ["checks.jsonl", "results/triage.parquet", ROWS, "opinions/answers-000.jsonl"])
def test_numbers_whose_rows_are_gone_are_not_believed(run: Path, table: CaseTable, name: str) -> None:
    (run / name).unlink()
    v.write_manifest(run)
    assert any(p.startswith("results.json") for p in v.verify(run, table))


def forge_opinions(run: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the first two opinions and seal them anew, as only a forger would."""
    file = run / "opinions" / "answers-000.jsonl"
    rows = [from_line(line) for line in file.read_bytes().splitlines()]
    change(rows[0], rows[1])
    file.write_bytes(b"".join(map(to_line, rows)))
    v.write_manifest(run)


def test_an_opinion_edited_by_hand_is_found(run: Path, table: CaseTable) -> None:
    file = run / "opinions" / "answers-000.jsonl"
    file.write_text(file.read_text().replace("<answer>yes", "<answer>no", 1))
    v.write_manifest(run)
    assert any("the line was changed after it was written" in p and "line 1" in p for p in v.verify(run, table))


def test_an_opinion_that_says_something_else_is_found(run: Path, table: CaseTable) -> None:
    forge_opinions(run, lambda first, second: first.update(response="<answer>no</answer>"))
    assert v.verify(run, table) == ["opinions, opinion 1 (c0, Radiologist-0): the response says option 1, the row says 0"]


def test_a_false_verdict_of_triage_is_found(run: Path, table: CaseTable) -> None:
    rows = pd.read_parquet(run / "results" / "triage.parquet")
    rows.loc[0, "correct"] = True
    rows.to_parquet(run / "results" / "triage.parquet")
    assert "results/triage.parquet, row 1 (c0): marked right, sent to 'Surgeon'" in v.verify(run, table)


CHANGES: dict[str, dict[str, Any]] = {
    "the text says option 0, the row says 1": {"option": 1, "correct": False},
    "marked wrong, option 0, answer 0": {"correct": False},
    "answer is 1, by the table it is 0": {"answer": 1, "correct": False},
    "n_options is 3, by the table it is 2": {"n_options": 3},
    "image_sha256 is 'x', by the table": {"image_sha256": "x"},
    "unanimous is False, by the panel it is True": {"unanimous": False},
    "difficulty is 'hard', by the panel it is 'easy'": {"difficulty": "hard"},
    "panel_vote is 1, by the panel it is 0": {"panel_vote": 1},
    "no opinions of the diverse panel of the Surgeon": {"department": "Surgeon"},
    "the text says option -1": {"text": "<answer>yes</answer><think>"},
}


@pytest.mark.parametrize("said", CHANGES)
def test_changed_row_is_found_though_hash_and_number_agree(run: Path, table: CaseTable, said: str) -> None:
    rows = pd.read_parquet(run / ROWS)
    for column, value in CHANGES[said].items():
        rows.loc[2, column] = value
    forge(run, rows)
    (run / "results.json").unlink()
    problems = v.verify(run, table)
    assert len(problems) == 1 and problems[0].startswith(f"{ROWS}, row 3 (") and said in problems[0]


def forge(run: Path, rows: pd.DataFrame, name: str = ROWS) -> None:
    rows.to_parquet(run / name, index=False)
    v.write_manifest(run)


def all_right_without_texts(rows: pd.DataFrame, _: Path) -> pd.DataFrame:
    return rows.assign(text="", reason="", option=rows["answer"], correct=True)


def rows_of_another_system(_: pd.DataFrame, run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "results" / "diverse" / "test" / "ideal_reader.parquet")


def only_what_was_right(rows: pd.DataFrame, _: Path) -> pd.DataFrame:
    return rows[rows["correct"]]


def a_case_twice(rows: pd.DataFrame, _: Path) -> pd.DataFrame:
    return pd.concat([rows[:5], rows[4:5]])


@pytest.mark.parametrize("liar", [all_right_without_texts, rows_of_another_system, only_what_was_right, a_case_twice])
def test_a_liar_who_writes_manifest_and_numbers_anew_is_found(run: Path, table: CaseTable, liar: Any) -> None:
    forge(run, liar(pd.read_parquet(run / ROWS), run))
    (run / "results.json").unlink()  # whatever it said
    assert any(p.startswith(ROWS) for p in v.verify(run, table))


def test_a_vote_that_is_not_the_panels_is_found(run: Path, table: CaseTable) -> None:
    name = "results/diverse/test/majority_vote.parquet"
    rows = pd.read_parquet(run / name)
    forge(run, rows.assign(option=-1, correct=False), name)
    assert f"{name}, row 1 (c0): the vote is -1, by the panel it is 0" in v.verify(run, table)


def test_a_sweep_of_other_cases_is_found(run: Path, table: CaseTable) -> None:
    name = "results/diverse/test/bias_sweep.parquet"
    sweep = pd.read_parquet(run / name)
    forge(run, sweep[sweep["case_id"] != "c1"], name)
    assert f"{name}: its cases or panels are not those of untrained_panel" in v.verify(run, table)


def test_cases_left_out_of_triage_are_found(run: Path, table: CaseTable) -> None:
    name = "results/triage.parquet"
    rows = pd.read_parquet(run / name)
    forge(run, rows[(rows["system"] == "trained") | (rows["case_id"] != "c1")], name)
    assert any("the cases of 'base' are not the test cases" in p for p in v.verify(run, table))


def test_what_a_run_measured_is_not_taken_from_the_reference(run: Path, table: CaseTable, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(RunFolder, "reference", run)
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("results.json", "run.json"):
        (empty / name).write_text((run / name).read_text())
    v.write_manifest(empty)
    problems = v.verify(empty, table)
    assert {p.split(":")[0] for p in problems} >= {"results.json, attending", "results.json, triage", "results.json, trust"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(headline=0.99), "results.json, headline: a number that the kit does not know"),
        (lambda r: r.update(code="an older one"), "results.json, code: made by another version of the kit (an older)"),
        (lambda r: r.update(seed=7), "results.json, seed: 7, counted again 0"),
        (lambda r: r.update(panel=3), "results.json, panel: cannot be counted again"),
        (lambda r: r["triage"].update(base_ci="wide"), "results.json, triage.base_ci: wide, counted again"),
        (lambda r: r.pop("attending"), "results.json, shifted: cannot be counted again"),
    ],
)
def test_odd_results_are_told_not_raised(run: Path, table: CaseTable, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    results = json.loads((run / "results.json").read_text())
    change(results)
    (run / "results.json").write_text(json.dumps(results))
    assert any(p.startswith(said) for p in v.verify(run, table))


@pytest.mark.parametrize("content", ['{"attending": ', "[]"])
def test_results_that_cannot_be_read_are_told(run: Path, table: CaseTable, content: str) -> None:
    (run / "results.json").write_text(content)
    assert any(p.startswith("results.json: cannot be read") for p in v.verify(run, table))


def test_opinions_of_other_specialists_are_no_panel(run: Path, table: CaseTable) -> None:
    OpinionStore(run / "opinions").add({**row, "option": 1, "response": "<answer>no</answer>"} for row in opinions_on(table, "r0"))
    v.write_manifest(run)
    assert v.verify(run, table) == []
    (run / "run.json").write_text(json.dumps({"specialists": asdict(form("r0"))}))
    assert any("by the panel it is" in p for p in v.verify(run, table))


def test_an_opinion_under_the_key_of_another_is_found(run: Path, table: CaseTable) -> None:
    forge_opinions(run, lambda first, second: first.update(key=second["key"]) or second.update(key="0" * 64))
    assert "opinions, opinion 1 (c0, Radiologist-0): the key is not the hash of the request" in v.verify(run, table)


def test_empty_text_of_a_policy_is_no_answer(run: Path, table: CaseTable) -> None:
    rows = pd.read_parquet(run / ROWS)
    rows.loc[5, "text"] = ""
    forge(run, rows)
    assert v.verify(run, table) == []


def test_damaged_rows_are_named_not_raised(run: Path, table: CaseTable) -> None:
    (run / "results" / "diverse" / "test" / "extra.parquet").write_bytes(b"PAR1 no")
    (problem,) = v.verify(run, table)
    assert problem.startswith("results/diverse/test/extra.parquet: cannot be checked (ArrowInvalid")


def test_exit_code(run: Path, table: CaseTable, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ["--cases", str(table.path)]
    assert cli.main(["verify", str(run), *cases]) == 0
    assert capsys.readouterr().out.startswith("0 problems in")
    change_number(run, lambda r: r["triage"].update(trained=0.97))
    assert cli.main(["verify", str(run), *cases]) == 1
    assert "triage.trained" in capsys.readouterr().out
    assert cli.main(["verify", str(run / "nowhere"), *cases]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_best_single_that_is_no_specialist_is_found(run: Path, table: CaseTable) -> None:
    """Each row is one that some specialist gave, but no one of them gave them all."""
    name = "results/diverse/test/best_single.parquet"
    rows = pd.read_parquet(run / name)
    rows.loc[rows["case_id"] == "c4", "option"] = 1  # the third specialist's, who says 0 everywhere else but c5
    forge(run, rows.assign(correct=rows["option"] == rows["answer"]), name)
    assert any("those of no single specialist" in p for p in v.verify(run, table))


@pytest.mark.parametrize(("kept", "limit", "fine"), [(6, 0, True), (4, 0, False), (4, 4, True), (3, 4, False), (3, None, True)])
def test_cases_cut_off_the_end_are_found_where_the_profile_is_known(table: CaseTable, kept: int, limit: int | None, fine: bool) -> None:
    rows = rows_of(table.split("test")[:kept], "trained")
    assert (rescore.wrong_place(rows, table, "results/diverse/test/trained.parquet", limit) == []) is fine


@pytest.mark.parametrize(("kept", "limit", "fine"), [(2, 0, True), (1, 0, False), (1, 1, True), (2, 1, False), (2, 4, True)])
def test_out_of_domain_cases_are_cut_as_the_run_cuts_them(table: CaseTable, kept: int, limit: int, fine: bool) -> None:
    rows = rows_of(table.split("shifted")[:kept], "trained")
    assert (rescore.wrong_place(rows, table, "results/diverse/shifted/trained.parquet", limit) == []) is fine


def test_an_edited_copy_of_a_profile_is_not_held_against_the_kits_own(tmp_path: Path) -> None:
    """Its name is that of the kit's profile, its settings are not: how many test cases it answers is not known."""
    run = RunFolder(tmp_path, {})
    assert v._eval_cases(run) is None
    for settings, known in ((load_profile("tiny").sha256(), load_profile("tiny").eval_cases), ("0" * 64, None)):
        (tmp_path / "run.json").write_text(json.dumps({"profile": "tiny", "config_sha256": settings}))
        assert v._eval_cases(run) == known


def test_retrain_trains_what_the_run_trained(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[Any] = []
    monkeypatch.setattr(cli, "run", lambda args: trained.append((args.profile, args.seed, args.cases)) or 0)
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "profile": "tiny", "seed": 3}))
    assert cli.main(["verify", str(run), "--cases", str(run.parent / "table"), "--retrain"]) == 1 and not trained  # other settings of that name
    own = load_profile("real-small").sha256()
    (run / "run.json").write_text(json.dumps({**facts, "profile": "real-small", "config_sha256": own, "seed": 3}))
    cli.main(["verify", str(run), "--cases", str(run.parent / "table"), "--retrain"])
    assert trained == [("real-small", 3, str(run.parent / "table"))]
