"""A run: one folder, what it writes, what it falls back on, and that nothing starts on bad input."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmedlite import cli, pipeline, provenance
from mmedlite import run as run_module
from mmedlite.asks import Ask
from mmedlite.cases import CaseTable
from mmedlite.dry_run import dry_run
from mmedlite.local_specialists import LocalSpecialists
from mmedlite.models import Answer
from mmedlite.opinions import MissingOpinion
from mmedlite.profiles import InputError, Stage
from mmedlite.provenance import code_sha256, no_nan
from mmedlite.run import Run, open_run
from mmedlite.run_folder import OtherRun
from mmedlite.store import OpinionStore
from mmedlite.store_tools import export
from tests.small import ENDPOINT, adapter, chance, checkpoint, policy, profile, same, specialists, table
from tests.stored import full_disk


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clinic, a policy and specialists with random weights, and the profile that names them."""
    folder = tmp_path_factory.mktemp("world")
    table(folder / "clinic", train=16)
    changes = [("policy = ", f'policy = "{checkpoint(folder / "policy").as_posix()}" #')]
    profile(folder, *changes, ("specialists = ", f'specialists = "{specialists(folder / "specialists").as_posix()}" #'))
    return folder


def hashed_answers(self: LocalSpecialists, adapter: str, table: CaseTable, asks: Sequence[Ask], seed: int) -> list[Answer]:
    """Specialists that guess by a hash of the request."""
    draws = [zlib.crc32(f"{a.case.case_id} {adapter} {a.sample_index}".encode()) for a in asks]
    return [Answer(f"<answer>{a.case.options[d % len(a.case.options)]}</answer>", True) for a, d in zip(asks, draws, strict=True)]


@pytest.fixture
def run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of that world, with an empty reference run; its triage sends everyone to the first department it may."""
    monkeypatch.setattr(Run, "reference", tmp_path / "reference")
    monkeypatch.setattr(Run, "opinions", tmp_path / "shipped")
    monkeypatch.setattr(LocalSpecialists, "generate", hashed_answers)
    policy().save_pretrained(tmp_path / "reference" / "adapters" / "triage")
    return Run(tmp_path / "run", str(world / "profile.toml"), world / "clinic")


def again(run: Run, folder: str = "run", **more: Any) -> Run:
    """The same folder opened anew, or another one beside it."""
    return Run(run.folder.with_name(folder), str(Path(run.profile.policy).parent / "profile.toml"), run.table.path, **more)


# ---- what is written


def test_no_nan() -> None:
    nested = {"a": float("nan"), "b": [1.5, float("inf"), {"c": np.float64("nan")}], "d": (np.int64(3), np.bool_(True)), "e": "nan"}
    assert no_nan(nested) == {"a": None, "b": [1.5, None, {"c": None}], "d": [3, True], "e": "nan"}
    json.dumps(no_nan(nested), allow_nan=False)
    assert nested["b"][1] == float("inf")  # the original is left alone


def test_run_json_says_what_the_numbers_come_from(run: Run) -> None:
    told = json.loads((run.folder / "run.json").read_text())
    assert told["profile"] == "small" and told["seed"] == 0 and told["cases_sha256"] == run.table.sha256
    assert told["config_sha256"] == run.profile.sha256() and told["code"] == code_sha256()
    assert told["specialists"] == no_nan(asdict(run.specialists.form)) and told["specialists"]["panels"]["paper_like"] == ["0", "0", "0"]


def test_a_seed_of_its_own(run: Run) -> None:
    assert again(run, "other", seed=5).seed == 5 and again(run).seed == run.profile.seed
    assert json.loads((again(run, "third", seed=7).folder / "run.json").read_text())["seed"] == 7


def test_two_runs_do_not_mix_in_a_folder(run: Run) -> None:
    with pytest.raises(OtherRun, match=r"another run lies here, with other seed .*/run\)\. Fix: name another folder with --out"):
        again(run, seed=5)
    assert json.loads((run.folder / "run.json").read_text())["seed"] == 0
    (run.folder.parent / "file").touch()
    with pytest.raises(InputError, match="cannot use the run folder"):
        again(run, "file")


def test_a_damaged_adapter_is_told_when_a_run_is_taken_up(run: Run) -> None:
    policy().save_pretrained(run.folder / "adapters" / "diverse" / "first")
    assert again(run).folder == run.folder
    file = run.folder / "adapters" / "diverse" / "first" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cannot read the adapter.*diverse/first/adapter_model\.safetensors"):
        again(run)


def test_a_scratch_run_of_other_settings_is_kept_aside(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "ROOT", tmp_path)
    monkeypatch.delenv("MMEDLITE_RUN", raising=False)
    monkeypatch.setenv("MMEDLITE_PROFILE", str(Path(run.profile.policy).parent / "profile.toml"))
    monkeypatch.setenv("MMEDLITE_CASES", str(run.table.path))
    first = open_run()
    first.save_json("run.json", {**first.facts, "seed": 9})
    second = open_run()
    assert second.folder == first.folder and json.loads((second.folder / "run.json").read_text())["seed"] == 0
    (kept,) = (tmp_path / "runs").glob("notebooks-*")
    assert json.loads((kept / "run.json").read_text())["seed"] == 9 and f"kept as runs/{kept.name}" in capsys.readouterr().err


def test_results_are_merged(run: Run) -> None:
    run.update_results(triage={"base": 0.5}, attending={"diverse": {"trained": 0.8}})
    run.update_results(triage={"trained": float("nan")}, attending={"paper_like": {"trained": 0.7}}, asked=3)
    told = json.loads((run.folder / "results.json").read_text())
    assert told["triage"] == {"base": 0.5, "trained": None} and set(told["attending"]) == {"diverse", "paper_like"}
    assert (told["asked"], told["seed"], told["cases_sha256"]) == (3, 0, run.table.sha256)
    assert not list(run.folder.glob("*.part"))


DECIDING = [
    "mmedlite/grpo.py",
    "mmedlite/pipeline.py",
    "mmedlite/ideal_reader.py",
    "mmedlite/prompts.py",
    "mmedlite/answers/__init__.py",
    "data_prep/phantoms.py",
    "data_prep/drawing.py",
]


@pytest.mark.parametrize("name", DECIDING)
def test_code_hash_covers_what_decides_a_number(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for folder in ("mmedlite", "data_prep"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = code_sha256()
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert code_sha256() == before
    (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
    assert code_sha256() != before


# ---- what it falls back on


def frame(value: int) -> pd.DataFrame:
    return pd.DataFrame({"case_id": ["a", "b"], "correct": [True, False], "option": [value, -1]})


@pytest.fixture
def reference(run: Run, tmp_path: Path) -> Path:
    """The folder of a stored reference run that saw the same cases."""
    (tmp_path / "reference" / "results.json").write_text(json.dumps({"cases_sha256": run.table.sha256}))
    return tmp_path / "reference"


def test_rows_of_the_run_come_before_the_reference(run: Run, reference: Path) -> None:
    for name in ("x", "y"):
        (reference / "results" / "diverse" / "test").mkdir(parents=True, exist_ok=True)
        frame(1).to_parquet(reference / "results" / "diverse" / "test" / f"{name}.parquet")
    assert run.keep(frame(2), "diverse/test/x").equals(frame(2))
    assert run.rows("diverse/test/x").equals(frame(2)) and run.rows("diverse/test/y").equals(frame(1))
    assert run.has_rows("diverse/test/x") and run.has_rows("diverse/test/y") and not run.has_rows("diverse/test/z")
    with pytest.raises(InputError, match=r"no stored results 'diverse/test/z'.*Fix: run the earlier notebook"):
        run.rows("diverse/test/z")


def test_rows_of_other_cases_are_none(run: Run, reference: Path) -> None:
    (reference / "results.json").write_text(json.dumps({"cases_sha256": "another table", "triage": {"random_reward": 0.1}}))
    (reference / "results").mkdir()
    frame(1).to_parquet(reference / "results" / "rl_no_panel.parquet")
    assert not run.has_rows("rl_no_panel") and run.reference_results() == {}


def test_logs_fall_back_too(run: Run, reference: Path) -> None:
    (reference / "logs").mkdir()
    (reference / "logs" / "triage.json").write_text('[{"step": 9}]')
    assert run.log("triage") == [{"step": 9}]
    (run.folder / "logs").mkdir()
    (run.folder / "logs" / "triage.json").write_text('[{"step": 1}]')
    assert run.log("triage") == [{"step": 1}]
    with pytest.raises(InputError, match="no training log 'diverse/hard'"):
        run.log("diverse/hard")


def test_adapters_fall_back_too(run: Run) -> None:
    assert same(adapter(run.policy("triage")), adapter(policy()))
    assert not any("lora_" in name for name, _ in run.policy().named_parameters())
    with pytest.raises(InputError, match=r"no adapter 'diverse/hard' of this policy.*Fix: train it first"):
        run.policy("diverse/hard")
    (run.reference / "run.json").write_text(json.dumps({"policy": "of another policy"}))
    with pytest.raises(InputError, match=r"no adapter 'triage' of this policy"):  # another policy's adapter does not fit
        run.policy("triage")


def test_fresh_adapters_follow_the_seed(run: Run) -> None:
    assert same(adapter(run.fresh()), adapter(run.fresh()))
    assert not same(adapter(run.fresh()), adapter(again(run, "other", seed=3).fresh()))


def test_before_its_triage_is_trained_a_policy_of_ones_own_sends_the_cases_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference run's doctor stands on another policy; the dry run needs none at all."""
    (run.reference / "run.json").write_text(json.dumps({"policy": "of another policy"}))
    sent: list[Any] = []
    monkeypatch.setattr(
        run_module.triage, "route", lambda model, tools, table, cases, profile: (sent.append(model), ["Surgeon"] * len(cases))[1]
    )
    monkeypatch.setattr(run_module, "load_policy", lambda *_: "untrained")
    monkeypatch.setattr(run.specialists, "estimate", lambda wanted: None)
    assert dry_run(run) == 0 and sent == []
    assert set(run.routes("test")) == {"Surgeon"} and sent == ["untrained"]


def test_routes_are_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def routes(model: Any, tools: Any, table: CaseTable, cases: Sequence[Any], profile: Any) -> list[str | None]:
        return ["Surgeon", *[None] * (len(cases) - 1)]

    monkeypatch.setattr(run_module.triage, "route", routes)
    first = run.routes("test")
    assert first[0] == "Surgeon" and set(first[1:]) == {"Radiologist"}  # who is sent nowhere is sent here
    monkeypatch.setattr(run_module.triage, "route", lambda *_: pytest.fail("routed twice"))
    assert run.routes("test") == first and again(run).routes("test") == first


def test_panels_are_asked_once_and_shared(run: Run) -> None:
    first = run.panel("train", "diverse")
    assert first.shape == (16, 3) and run.asked == 48
    assert np.array_equal(run.panel("train", "diverse"), first) and run.asked == 48
    other = again(run)
    assert np.array_equal(other.panel("train", "diverse"), first) and other.asked == 0
    assert run.panel("train", "diverse", redraw=True).shape == (16, 3) and run.asked == 96


def test_shipped_opinions_are_found(run: Run, tmp_path: Path) -> None:
    first = run.panel("test", "diverse")
    export(run.store, tmp_path / "shipped")
    shutil.rmtree(run.folder / "opinions")
    other = again(run, replay=True)
    assert np.array_equal(other.panel("test", "diverse"), first) and other.asked == 0
    assert not (run.folder / "opinions").exists()


def test_a_panel_is_read_from_the_store_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the routes stay; and what a caller writes into his array is his own."""
    first, reads = run.panel("test", "diverse"), list[str]()
    real = run.panel_for
    monkeypatch.setattr(run, "panel_for", lambda *args: reads.append(args[2]) or real(*args))
    run.panel("test", "diverse")[:] = 9
    assert np.array_equal(run.panel("test", "diverse"), first) and reads == []
    run.panel("test", "diverse", redraw=True)
    run.panel("test", "paper_like")
    monkeypatch.setattr(run, "routes", lambda split: ["Surgeon"] * len(run.cases(split)))
    run.panel("test", "diverse")
    assert reads == ["diverse", "paper_like", "diverse"]


def test_a_dry_run_asks_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Five questions on each of 29 cases, since sample 0 of both panels is one; and the redraw of the 16 training cases."""
    run.panel("test", "diverse")
    profile = str(Path(run.profile.policy).parent / "profile.toml")
    words = ["run", "--profile", profile, "--cases", str(run.table.path.parent), "--out", str(run.folder), "--dry-run"]
    assert cli.main(words) == 0
    assert "225 different questions, 207 not answered yet; asking is free" in capsys.readouterr().out
    assert len(OpinionStore(run.folder / "opinions")) == 18 and "triage" not in run.results()


def test_a_dry_run_tells_the_budget(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(run.profile.policy).parent / "profile.toml").read_text()
    for old, new in {"[lora]": ENDPOINT.strip(), '["0", "1", "2"]': '["a", "a", "a"]', '["0", "0", "0"]': '["a", "a", "a"]'}.items():
        text = text.replace(old, new)
    (tmp_path / "hosted.toml").write_text(text)
    words = ["run", "--profile", str(tmp_path / "hosted.toml"), "--cases", str(run.table.path.parent), "--out", str(tmp_path / "dry")]
    absent = (tmp_path / "hosted.toml").read_text().replace(f'policy = "{run.profile.policy}"', f'policy = "owner/model@{"0" * 40}"')
    (tmp_path / "hosted.toml").write_text(absent)  # gigabytes that are not on this machine are not fetched to count questions
    assert "owner/model" in absent and cli.main([*words, "--dry-run"]) == 0 and not (tmp_path / "dry").exists()
    told = capsys.readouterr().out
    assert "135 different questions, 135 not answered yet; 135 requests, at most" in told and "'max_dollars': 5.0" in told


def test_paid_answers_wait_for_room_on_the_disk(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command does not end with answers that exist in memory alone."""
    waits = list[float]()

    def step(this: Run) -> None:
        with monkeypatch.context() as full:
            full_disk(full, 0)
            this.panel("test", "diverse")

    monkeypatch.setattr(pipeline, "triage_step", step)
    monkeypatch.setattr("time.sleep", waits.append)
    profile = str(Path(run.profile.policy).parent / "profile.toml")
    assert cli.main(["run", "--profile", profile, "--cases", str(run.table.path.parent), "--out", str(run.folder)]) == 1
    assert waits == [cli.WAIT_S] and "Waiting for room on the disk" in capsys.readouterr().err
    assert len(OpinionStore(run.folder / "opinions")) == 6  # the first specialist's; the others were not asked


def test_replay_raises_on_a_miss(run: Run) -> None:
    with pytest.raises(MissingOpinion, match="opinions are not stored"):
        again(run, replay=True).panel("test", "paper_like")
    assert len(OpinionStore(run.folder / "opinions")) == 0


# ---- training and answers


def test_stages_follow_one_another_and_are_taken_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = run.profile.attending.recipe
    monkeypatch.setattr(run, "panel", lambda *_: mixed(run))
    last = run.train_attending("diverse", stages, "diverse", rewards=[chance])
    assert [len(run.log(f"diverse/{s.name}")) for s in stages] == [1, 2]
    assert run.log("diverse/last")[0]["kl"] == pytest.approx(0, abs=1e-6)
    first, second = (adapter(run.policy(f"diverse/{s.name}")) for s in stages)
    assert same(second, adapter(last)) and not same(first, second)
    assert (run.folder / "adapters" / "diverse" / "last" / "adapter_model.safetensors").exists()
    assert not list(run.folder.rglob("checkpoint*")) and not list(run.folder.rglob("ref"))
    # as after a stop between the stages: the first is read, the second trained from it, with the same end
    shutil.rmtree(run.folder / "adapters" / "diverse" / "last")
    monkeypatch.setattr(run_module.attending, "train_stage", only(stages[1], run_module.attending.train_stage))
    assert same(adapter(run.train_attending("diverse", stages, "diverse", rewards=[chance])), second)


def mixed(run: Run) -> np.ndarray:
    """A panel with easy, medium and hard cases."""
    answers = np.array([c.answer for c in run.cases("train")])
    right = np.arange(len(answers)) % 4
    return np.stack([np.where(i < right, answers, 1 - np.minimum(answers, 1)) for i in range(3)], axis=1)


def only(stage: Stage, train_stage: Any) -> Any:
    def watched(*args: Any) -> Any:
        assert any(a is stage for a in args), "a finished stage was trained again"
        return train_stage(*args)

    return watched


def test_an_adapter_of_another_plan_is_trained_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "panel", lambda *_: mixed(run))
    stage = run.profile.attending.recipe[1]
    first = adapter(run.train_attending("diverse", [stage], "diverse", rewards=[chance]))
    other = run.train_attending("diverse", [replace(stage, gamma=tuple(0.5 for _ in stage.gamma))], "diverse", rewards=[chance])
    assert not same(first, adapter(other))
    run.facts["code"] = "another"
    monkeypatch.setattr(run_module.attending, "train_stage", lambda *_: [{"trained": True}])
    run.train_attending("diverse", [stage], "diverse", rewards=[chance])
    assert run.log(f"diverse/{stage.name}") == [{"trained": True}]


def test_a_stage_without_cases_is_left_out_and_named(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    answers = np.array([c.answer for c in run.cases("train")])
    monkeypatch.setattr(run, "panel", lambda *_: np.stack([answers] * 3, axis=1))  # all easy
    hard = Stage("end", ("hard",), 1, (0.0,), (0.0,))
    last = run.profile.attending.recipe[-1]  # all buckets
    assert run.stages_that_fit("diverse", [last, hard]) == [last]
    with pytest.raises(InputError, match=r"stage 'end' has 0 cases.*Fix: "):
        run.stages_that_fit("diverse", [hard])
    monkeypatch.setattr(pipeline, "side_by_side", lambda *_: [])
    run.profile = replace(run.profile, attending=replace(run.profile.attending, recipe=(last, hard)))
    pipeline.attending_step(run)
    assert "diverse panel: too few training cases for one update, left out: end" in capsys.readouterr().err
    run.own_cases = True  # a profile that does not fit its own cases is a mistake
    assert run.stages_that_fit("diverse", [last, hard]) == [last, hard]


@pytest.mark.parametrize("redraw", [False, True])
def test_a_stage_that_cannot_fit_is_told_before_any_training(run: Run, monkeypatch: pytest.MonkeyPatch, redraw: bool) -> None:
    all_easy = np.stack([np.array([c.answer for c in run.cases("train")])] * 3, axis=1)
    monkeypatch.setattr(run, "panel", lambda _split, _name, again=False: all_easy if again == redraw else mixed(run))
    last = run.profile.attending.recipe[-1]  # all buckets
    with pytest.raises(InputError, match=r"stage 'end' has 0 cases.*Fix: "):
        run.train_attending("diverse", [last, Stage("end", ("hard",), 1, (0.0,), (0.0,))], "diverse", rewards=[chance], redraw=redraw)
    assert not (run.folder / "adapters").exists() and not (run.folder / "rollouts").exists()


def nothing(completions: Sequence[Any], **_: Any) -> list[float]:
    """Another reward."""
    return [0.0] * len(completions)


def test_triage_is_trained_and_stored(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.train_triage(rewards=[chance])
    assert same(adapter(run.policy("triage")), adapter(model)) and not same(adapter(model), adapter(policy()))
    assert len(run.log("triage")) == 2 and (run.folder / "rollouts" / "triage" / "rollouts.jsonl").exists()
    calls: list[Any] = []
    monkeypatch.setattr(run_module.triage, "train_triage", lambda *given: calls.append(given) or [])
    assert same(adapter(run.train_triage(rewards=[chance])), adapter(model)) and not calls  # taken up, as after a stop
    run.train_triage(rewards=[nothing])
    assert len(calls) == 1


def test_result_rows(run: Run) -> None:
    rows = run.answer(run.policy(), "untrained_panel", "test", "diverse")
    cases = run.cases("test")
    assert rows["case_id"].tolist() == [c.case_id for c in cases]
    assert set(rows["system"]) == {"untrained_panel"} and set(rows["panel"]) == {"diverse"} and set(rows["seed"]) == {0}
    assert (rows["correct"] == (rows["option"] == rows["answer"])).all()
    texts = [f"<think>x</think><answer>{c.answer_text}</answer>" for c in cases[:-1]] + ["I do not know"]
    scored = run.score("s", "test", "diverse", texts)
    assert scored["correct"].tolist() == [True] * 5 + [False]
    assert scored["option"].iloc[-1] == -1 and scored["reason"].iloc[-1] and scored["text"].tolist() == texts
    votes = run.choices("majority_vote", "test", "diverse", [c.answer for c in cases])
    assert votes["correct"].all() and votes["difficulty"].equals(scored["difficulty"])


def test_what_the_policy_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def answer(model: Any, tools: Any, table: Any, cases: Sequence[Any], departments: Any, panel: Any, *_: Any) -> list[str]:
        shown.append(panel)
        return [""] * len(cases)

    monkeypatch.setattr(run_module.attending, "answer", answer)
    panel = run.panel("test", "diverse")
    run.answer(None, "a", "test", "diverse")
    run.answer(None, "b", "test", "diverse", alone=True)
    swapped = run.answer(None, "c", "test", "diverse", shown=panel[:, ::-1])
    assert np.array_equal(shown[0], panel) and shown[1] is None and np.array_equal(shown[2], panel[:, ::-1])
    assert swapped["panel_vote"].tolist() == run.answer(None, "d", "test", "diverse")["panel_vote"].tolist()  # the case's own


# ---- bad input


def test_unknown_case_table(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no case table .*nowhere.*Fix: build one: python -m data_prep"):
        Run(tmp_path / "other", str(Path(run.profile.policy).parent / "profile.toml"), tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_table_without_a_split_is_told_at_once(run: Run, split: str) -> None:
    run.table = CaseTable(run.table.path, [c for c in run.table if c.split != split])
    with pytest.raises(InputError, match=rf"no case of the split '{split}' .*cases.parquet, field split.*Fix: "):
        run._check_cases()


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_table_without_departments_is_told_at_once(run: Run, split: str) -> None:
    run.table = CaseTable(run.table.path, [replace(c, specialty=None) if c.split == split else c for c in run.table])
    with pytest.raises(InputError, match=rf"no {split} case names a specialty.*cases.parquet, field specialty.*Fix: "):
        run._check_cases()


def test_a_stage_smaller_than_an_update_is_told_at_once(run: Run, reference: Path) -> None:
    run._check_cases()
    shares = {name: {"easy": 0.5, "medium": 0.1, "hard": 0.4} for name in run.profile.panels}  # 1.6 of 16 cases are medium
    (reference / "results.json").write_text(json.dumps({"cases_sha256": run.table.sha256, "panel": shares}))
    with pytest.raises(InputError, match=r"stage 'first' has about 1.6 cases on the diverse panel, fewer than one update .*prompts_per_step"):
        run._check_cases()
    run.profile = replace(run.profile, grpo=replace(run.profile.grpo, prompts_per_step=17))
    (reference / "results.json").unlink()
    with pytest.raises(InputError, match="stage 'first' has about 16 cases"):
        run._check_cases()


def test_seeds_and_sources_that_cannot_be_are_told(run: Run, world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"seed -1 .*--seed.*Fix: "):
        again(run, seed=-1)
    for source in ("slake", "image_folder", "../phantoms"):
        text = (world / "profile.toml").read_text().replace('source = "phantoms"', f'source = "{source}"')
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(InputError, match=r"cannot draw the cases of source .*field source.*--cases"):
            Run(tmp_path / "other", str(tmp_path / "bad.toml"))


def test_a_damaged_tokenizer_is_told_at_once(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "policy", tmp_path / "policy")
    (tmp_path / "policy" / "tokenizer.json").write_text("{")
    text = (world / "profile.toml").read_text().replace((world / "policy").as_posix(), (tmp_path / "policy").as_posix())
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InputError, match=r"cannot read tokenizer or image processor.*policy.*Fix: "):
        Run(tmp_path / "run", str(tmp_path / "bad.toml"), world / "clinic")
    assert not (tmp_path / "run").exists()


def test_unknown_split(run: Run) -> None:
    with pytest.raises(InputError, match="unknown split 'dev'"):
        run.cases("dev")


@pytest.mark.parametrize("key", ["policy", "specialists"])
def test_missing_models_are_told_at_once(world: Path, tmp_path: Path, key: str) -> None:
    lines = (world / "profile.toml").read_text().splitlines()
    bad = tmp_path / "bad.toml"
    bad.write_text("\n".join(f'{key} = "nowhere"' if line.startswith(f"{key} = ") else line for line in lines))
    with pytest.raises(InputError, match=r"no such model folder .*nowhere.*Fix: "):
        Run(tmp_path / "run", str(bad), world / "clinic")
    assert not (tmp_path / "run").exists()


def test_notebooks_open_the_run_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEDLITE_RUN", str(run.folder))
    monkeypatch.setenv("MMEDLITE_PROFILE", str(Path(run.profile.policy).parent / "profile.toml"))
    monkeypatch.setenv("MMEDLITE_CASES", str(run.table.path))
    opened = open_run()
    assert opened.folder == run.folder and opened.profile == run.profile and opened.table.sha256 == run.table.sha256
