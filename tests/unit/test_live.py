"""The training view: its numbers are the log's, at any step of any log; in place in a notebook, and nowhere else."""

from __future__ import annotations

import json
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import IPython
import IPython.display
import ipywidgets
import nbformat
import pytest
from nbclient import NotebookClient

from mmedlite import grpo, live, plots
from mmedlite.demo import PatientKernelManager
from mmedlite.profiles import ROOT, InputError
from mmedlite.run_folder import RunFolder, read_rows
from tests.small import SETTINGS, chance, policy, processor, rows

GAMMA = {"easy": 1e-4, "hard": 3e-2}


def row(stage: str, step: int, at: int) -> dict[str, Any]:
    """A log row whose every number tells which one it is."""
    return {
        "stage": stage, "step": step, "format": 0.4 + at / 1000, "accuracy": 0.5 + at / 100, "truncated": 0.0, "equal_groups": at / 100,
        "sample": f"<think>text of {stage} {step}</think>", "loss": 0.0, "entropy": 0.1 + at / 1000, "kl": (step - 1) / 1000,
        "gamma": GAMMA[stage], "beta": GAMMA[stage] / 2,
    }  # fmt: skip


LOG = [row(stage, step, 10 * i + step) for i, (stage, n) in enumerate([("easy", 3), ("hard", 4)]) for step in range(1, n + 1)]


def rollout(stage: str, step: int, group: int, sample: int) -> dict[str, Any]:
    """A rollout of the log's step; rollouts.jsonl counts steps from 0."""
    return {
        "stage": stage, "step": step - 1, "case_id": f"case-{stage}-{step}-{group}", "sample_index": sample, "format": 0.5,
        "text": f"<think>text of {stage} {step}</think>" if (group, sample) == (1, 0) else f"{stage} {step} {group} {sample}",
        "accuracy": float(sample == 0), "advantage": 1.25 if sample == 0 else -1.25, "gamma": GAMMA[stage], "beta": GAMMA[stage] / 2,
        "logp": -0.25, "logp_reference": -0.5,
    }  # fmt: skip


ROLLOUTS = [rollout(r["stage"], r["step"], group, sample) for r in LOG for group in (1, 2) for sample in (0, 1)]


def wrong(module: Any, step: int) -> list[str]:
    """What the view of a module says of a step of LOG that the log does not."""
    now, (fig, alt) = LOG[step - 1], module.view(LOG, step, ROLLOUTS)
    said = {
        "place": f"Stage {now['stage']}, step {now['step']} of {sum(r['stage'] == now['stage'] for r in LOG)}.",
        "reward": f"Reward {now['format'] + now['accuracy']:.3f} = format {now['format']:.3f} + accuracy {now['accuracy']:.3f};",
        "entropy": f"entropy {now['entropy']:.4f} nats at gamma {now['gamma']:g};",
        "kl": f"KL {now['kl']:.4f} nats at beta {now['beta']:g};",
        "equal groups": f"equal groups {now['equal_groups']:.0%}.",
        "rollout": f"Sampled: {now['sample']} earned format 0.5, accuracy 1, advantage +1.25.",
    }
    found = [name for name, text in said.items() if text not in alt]
    columns = {"reward": [r["format"] + r["accuracy"] for r in LOG], **{k: [r[k] for r in LOG] for k in LOG[0]}}
    drawn = {line.get_label(): line for axes in fig.axes for line in axes.lines}
    for name in ("reward", "format", "accuracy", "entropy", "kl", "equal_groups"):
        if drawn[name].get_ydata().tolist() != pytest.approx(columns[name][:step]) or drawn[name].get_xdata()[-1] != step:
            found.append(f"curve of {name}")
    for title, name, axes in (("entropy", "gamma", fig.axes[4]), ("KL", "beta", fig.axes[5])):  # on the second axis
        pane = next(pane for pane in fig.axes if pane.get_title("left") == title)
        line = axes.lines[0].get_ydata().tolist()
        if line != pytest.approx(columns[name][:step]) or name not in axes.get_title("right") or pane.bbox.bounds != axes.bbox.bounds:
            found.append(f"line of {name}")
    if fig.numbers.iloc[-1]["accuracy"] != now["accuracy"] or fig.numbers.index[-1] != step:
        found.append("numbers")
    shown = "\n".join(text.get_text() for text in fig.texts).replace("\n", " ")
    return [*found, *(["text in the figure"] if shown != alt else [])]


@pytest.mark.parametrize("step", range(1, len(LOG) + 1))
def test_the_numbers_are_the_logs(step: int) -> None:
    assert wrong(live, step) == []


MUTANTS = {
    "one step late": [("log[:step]", "log[: step + 1]")],
    "one step early": [("log[:step]", "log[: max(1, step - 1)]")],
    "words of the step before": [("now = log[step - 1]", "now = log[step - 2]")],
    "gamma of the first stage": [("last['gamma']", "log[0]['gamma']")],
    "beta for gamma": [("last['gamma']", "last['beta']")],
    "line of gamma over all stages": [('seen.groupby("stage")[["gamma", "beta"]]', "seen[[\"gamma\", \"beta\"]].groupby(lambda _: 0)")],
    "gamma and beta exchanged": [('("entropy",), "gamma"', '("entropy",), "beta"'), ('("kl",), "beta"', '("kl",), "gamma"')],
    "rollout of the step before": [('rollout["step"] + 1', 'rollout["step"] + 2')],
    "rollout of the step behind": [('rollout["step"] + 1', 'rollout["step"]')],
    "rollout of another stage": [('rollout["stage"], rollout', 'row["stage"], rollout')],
    "steps of the whole log": [('sum(row["stage"] == now["stage"] for row in log)', "len(log)")],
}  # fmt: skip


def refused(module: Any, step: int) -> bool:
    try:
        return bool(wrong(module, step))
    except (ValueError, LookupError):  # columns of unequal length, or none
        return True


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str) -> None:
    source = given = (ROOT / "mmedlite" / "live.py").read_text(encoding="utf-8")
    for right, damaged in MUTANTS[name]:
        source = source.replace(right, damaged)
    assert source != given, "the mutant finds nothing to damage"
    module = types.ModuleType("damaged")
    exec(source, module.__dict__)
    assert any(refused(module, step) for step in range(1, len(LOG) + 1))


def test_an_empty_log() -> None:
    assert live.view([], 0)[1] == live.NOTHING


@pytest.mark.parametrize("step", [0, len(LOG) + 1, -1])
def test_a_step_that_is_not_there(step: int) -> None:
    with pytest.raises(InputError, match="name a step from 1 to 7"):
        live.view(LOG, step)


def test_without_rollouts_the_log_has_a_sample() -> None:
    assert "Sampled: <think>text of hard 4</think>." in live.view(LOG, 7)[1]


@pytest.mark.parametrize("hole", [float("nan"), None])  # None is how a run's JSON writes it
def test_a_nan_leaves_a_gap_and_is_told(hole: float | None) -> None:
    log = [*LOG[:5], {**LOG[5], "loss": hole, "entropy": hole, "kl": hole}, LOG[6]]
    fig, alt = live.view(log, 6)
    assert "entropy nan nats" in alt and "Broken, loss: not a number." in alt
    assert len(plots.png(fig, alt)) > 1000
    assert "entropy 0.1140 nats" in live.view(log, 7)[1]
    assert "Broken, loss" not in live.view(log, 3)[1], "a verdict speaks of its own stage, up to the step"


def test_verdicts_that_are_not_normal() -> None:
    frozen = [{**r, "equal_groups": 1.0} for r in LOG]
    assert "Broken, equal groups: no group carries an advantage" in live.view(frozen, 7)[1]
    assert "equal groups: no" not in live.view(LOG, 7)[1] and "Normal" not in live.view(LOG, 7)[1]


def test_any_text_of_a_policy_can_be_drawn() -> None:
    text = "costs $5 \\frac{1 <b>\n" + "very " * 400
    fig, alt = live.view([{**LOG[0], "sample": text}], 1)
    assert len(plots.png(fig, alt)) > 1000 and "costs $5 \\frac{1 <b>" in alt and len(alt) < 900


def test_time_left_is_the_median_step_times_the_steps_to_go() -> None:
    timed = [{**LOG[3], "step": n, "steps": 34, "time": 100.0 + 2 * n + 5000 * (n > 3)} for n in range(1, 5)]  # stopped for a while
    assert "step 4 of 34, 1 min 00 s left in it." in live.view(timed, 4)[1]
    assert "step 1 of 34." in live.view(timed, 1)[1]  # one time says nothing of the pace
    assert live.view([{**r, "steps": 4} for r in timed], 4)[1].startswith("Stage hard, step 4 of 4. ")


def test_the_figure_is_small() -> None:
    """As the notebooks store it: PNG below 25 kB for the last step of the stored trainings."""
    run = RunFolder(ROOT / "none", {"cases_sha256": json.loads((ROOT / "artifacts/reference/results.json").read_text())["cases_sha256"]})
    for name, stages in (("diverse", ("easy", "medium", "hard")), ("triage", ())):
        log, rollouts = live.recorded(run, name, stages)
        assert len(log) >= 60 and len(rollouts) >= 96
        assert len(plots.png(*live.view(log, len(log), rollouts))) < 25_000


# ---- the files that the trainer writes


def train(out: Path, n: int, stage: str, reward: Any = chance) -> list[Any]:
    return grpo.train(policy(), processor(), rows(n), SETTINGS, out, {"stage": stage}, 0, [reward])


def stops_at(call: int) -> Callable[..., list[float]]:
    calls: list[int] = []

    def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return chance(completions, **columns)

    return reward


def bare(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k not in ("steps", "time")} for r in log]


def test_what_is_recorded_is_the_log_also_of_a_stopped_training(tmp_path: Path) -> None:
    run, out = RunFolder(tmp_path, {"cases_sha256": ""}), tmp_path / "rollouts" / "panel"
    first = train(out, 4, "one")
    with pytest.raises(KeyboardInterrupt):
        train(out, 26, "two", stops_at(13))  # two steps behind its checkpoint
    assert len(live.recorded(run, "panel")[0]) == 2 + 12
    whole = first + train(out, 26, "two")
    log, rollouts = live.recorded(run, "panel")
    assert bare(log) == whole and {r["steps"] for r in log} == {2, 13} and log[0]["time"] <= log[-1]["time"]
    assert len((out / "steps.jsonl").read_text().splitlines()) == 2 + 12 + 3  # steps 11 and 12 stand there twice
    for step in (1, 2, 3, 15):
        assert len(found := live.group_at(rollouts, log[step - 1], 2)) == SETTINGS.generations
        assert live.group_at(rollouts, log[step - 1], 1).iloc[0]["text"] == log[step - 1]["sample"] != found.iloc[0]["case_id"]
        assert abs(found["advantage"].sum()) < 0.01
    again = train(out, 4, "one")
    assert bare(live.recorded(run, "panel")[0]) == again  # what stood behind it is of another training


def test_a_stage_that_begins_again_drops_what_stood_behind_it() -> None:
    assert live.steps_of([*LOG, LOG[0], LOG[1]]) == LOG[:2]
    assert live.steps_of([*LOG[:6], *LOG[4:]]) == LOG
    longer = [row("easy", n, n) for n in range(1, 6)]
    assert live.steps_of([*LOG, *longer, *LOG[3:]]) == longer + LOG[3:]
    assert live.steps_of([]) == []


def test_a_line_cut_off_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    assert read_rows(file) == []
    file.write_text("".join(json.dumps(r) + "\n" for r in LOG) + '{"stage": "ha')
    assert read_rows(file) == LOG
    assert read_rows(file, 700)[-1] == LOG[-1] and 0 < len(read_rows(file, 700)) < len(LOG)
    assert read_rows(file, 10**6) == LOG
    file.write_text("")
    assert read_rows(file, 10) == []


def test_nothing_recorded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training log 'triage'"):
        live.recorded(RunFolder(tmp_path, {"cases_sha256": ""}), "triage")


# ---- the slider


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The alt text or the caption of everything that was shown."""
    alts: list[str] = []
    monkeypatch.setattr(live, "show", lambda fig, alt: alts.append(alt))
    monkeypatch.setattr(live, "show_table", lambda frame, caption, index: alts.append(f"{caption} {frame.to_dict('list')}"))
    return alts


def test_the_slider_at_its_ends(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **dials: caught.append((callback, dials)))
    live.replay(LOG, ROLLOUTS)
    [(callback, dials)] = caught
    assert shown[0] == live.view(LOG, len(LOG), ROLLOUTS)[1] and "case case-hard-4-1, gamma 0.03, beta 0.015." in shown[1]
    assert [(dial.min, dial.max, dial.continuous_update) for dial in dials.values()] == [(1, 7, False), (1, 2, False)]
    for step, group in ((1, 1), (1, 2), (7, 1), (7, 2)):
        shown.clear()
        callback(step=step, group=group)
        now = LOG[step - 1]
        assert shown[0] == live.view(LOG, step, ROLLOUTS)[1] and f"case-{now['stage']}-{now['step']}-{group}," in shown[1]
        assert "'advantage': [1.25, -1.25]" in shown[1] and "'accuracy': [1.0, 0.0]" in shown[1]


def test_no_dial_for_groups_that_are_not_stored(shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **dials: caught.append(ipywidgets.interactive(callback, **dials)))
    live.replay(LOG)
    assert [dial.description for dial in caught[0].kwargs_widgets] == ["step"]


@pytest.mark.parametrize(("log", "rollouts"), [(LOG, []), (LOG[:1], ROLLOUTS), ([], []), (LOG, ROLLOUTS[:8])])
def test_real_interact_takes_any_log(log: Any, rollouts: Any, shown: list[str]) -> None:
    live.replay(log, rollouts)
    assert shown[0] == live.view(log, len(log), rollouts)[1]
    assert any("Group 1" in said for said in shown) == (len(log) == 1)


# ---- while it trains


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What each place of the cell came to show, in a kernel that there is not."""
    places: list[list[Any]] = []

    def display(content: Any, display_id: bool) -> Any:
        places.append([content])
        return SimpleNamespace(update=places[-1].append)

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=True))
    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(live, "FIRST", 0.01)
    monkeypatch.setattr(live, "LEAST", 0.01)
    return places


def write(folder: Path, log: Sequence[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps.jsonl").write_text("".join(json.dumps(r) + "\n" for r in log))
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROLLOUTS))


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    assert done()


def test_two_panels_in_place(boards: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SHARE", 1.0)
    run = RunFolder(tmp_path, {})
    with live.watch(run, "diverse", "paper_like"):
        write(tmp_path / "rollouts" / "diverse", LOG[:2])
        until(lambda: len(boards[0]) == 2)
        write(tmp_path / "rollouts" / "diverse", LOG[:5])
        until(lambda: len(boards[0]) == 3)
    first, second = boards
    assert [live.NOTHING in place[0].data for place in boards] == [True, True]
    assert [image.alt for image in first[1:3]] == [live.view(LOG[:n], n, ROLLOUTS)[1] for n in (2, 5)]
    assert first[-1].data.startswith("<p>diverse: Stage hard, step 2 of 2.<br>Reward") and "&lt;think&gt;text of hard 2" in first[-1].data
    assert len(second) == 2 and second[-1].data == f"<p>paper_like: {live.NOTHING}</p>"


def test_it_keeps_to_its_share_of_the_time(boards: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SHARE", 0.5)
    began = time.monotonic()
    with live.watch(RunFolder(tmp_path, {}), "diverse") as spent:
        for n in range(1, 8):  # a step each time one was drawn
            write(tmp_path / "rollouts" / "diverse", LOG[:n])
            until(lambda n=n: len(boards[0]) > n)
            time.sleep(0.05)
    assert len(spent) >= 7 and sum(spent[:-1]) < 0.5 * (time.monotonic() - began)


def test_an_error_ends_it_and_goes_on(boards: list[list[Any]], tmp_path: Path) -> None:
    write(tmp_path / "rollouts" / "diverse", LOG)
    with pytest.raises(KeyboardInterrupt), live.watch(RunFolder(tmp_path, {}), "diverse"):
        raise KeyboardInterrupt
    assert "step 4 of 4" in boards[0][-1].data


def test_outside_a_notebook_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with live.watch(RunFolder(tmp_path, {}), "diverse") as spent:
        write(tmp_path / "rollouts" / "diverse", LOG)
    assert not spent and capsys.readouterr() == ("", "")


CELL = """
import json, time
from pathlib import Path
from mmedlite import live
from mmedlite.run_folder import RunFolder

live.FIRST, live.LEAST, live.SHARE = 0.1, 0.1, 1.0
with live.watch(RunFolder(Path("."), {}), "diverse"):
    time.sleep(5)
"""


def test_in_a_kernel_only_the_last_state_is_stored(tmp_path: Path) -> None:
    """Drawn in the cell from another thread; what nbval would compare, stdout, stays empty."""
    write(tmp_path / "rollouts" / "diverse", LOG)
    seen: list[Any] = []

    class Client(NotebookClient):
        def process_message(self, msg: Any, *rest: Any) -> Any:
            seen.append((msg["msg_type"], set(msg["content"].get("data", {}))))
            return super().process_message(msg, *rest)

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    Client(book, resources={"metadata": {"path": str(tmp_path)}}, kernel_manager_class=PatientKernelManager).execute()
    (out,) = book.cells[0].outputs
    assert out.output_type == "display_data" and "step 4 of 4" in out.data["text/html"] and "image/png" not in out.data
    assert ("update_display_data", {"image/png", "text/plain"}) in seen
