"""Every exercise names the mistakes that it knows and refuses its mutants; what a learner sees whose stub is empty, wrong or right."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedlite.checks import count, tally, told
from mmedlite.exercises import EXERCISES, grade
from mmedlite.exercises.exercise import LEVELS, agree
from mmedlite.profiles import InputError


def empty(*given: Any) -> Any:
    raise NotImplementedError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMEDLITE_RUN", str(tmp_path))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", EXERCISES)
def test_each_mistake_is_named_and_each_mutant_refused(name: str) -> None:
    task, began = EXERCISES[name], time.process_time()
    assert task.fault(task.reference) is None
    assert {words: task.fault(wrong) for words, wrong in task.mistakes.items()} == {words: words for words in task.mistakes}
    found = [task.fault(wrong) for wrong in task.mutants]
    assert None not in found and not set(found) & set(task.mistakes)
    assert len(task.mistakes) >= 3 and len(task.mistakes) + len(task.mutants) >= 5
    assert time.process_time() - began < 2  # all of them; a learner waits for one


def test_levels_and_minutes() -> None:
    core = [task.minutes for task in EXERCISES.values() if task.level == "core"]
    assert len(core) == 6 and sum(core) == 45
    assert {task.level for task in EXERCISES.values()} == set(LEVELS)


def test_right_function_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def mine(rewards: np.ndarray) -> np.ndarray:
        return np.stack([(r - r.mean()) / (r.std(ddof=1) + 1e-8) for r in rewards])  # another small number is no mistake

    goes_on = grade("advantage", mine)
    assert goes_on.__wrapped__ is mine  # type: ignore[attr-defined]
    assert capsys.readouterr().out == (
        "core, about 8 minutes; the check knows 6 mistakes by name and refuses 10 wrong functions\nPASS exercise_advantage holds\n"
    )
    assert count(tally(run)) == {"passed": 1, "failed": 0, "skipped": 0, "assisted": 0}


def test_empty_stub_is_assisted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grade("advantage", empty) is EXERCISES["advantage"].reference
    assert capsys.readouterr().out.endswith("ASSISTED exercise_advantage the stub is still empty, so the reference stands in\n")
    assert told(count(tally(run))) == "0 checks passed, 0 failed, 1 assisted"
    assert json.loads((run / "checks.jsonl").read_text())["status"] == "assisted"


def test_wrong_function_is_told_and_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grade("advantage", lambda r: r - r.mean(1, keepdims=True)) is EXERCISES["advantage"].reference
    assert "FAIL exercise_advantage does not hold. Next: you did not divide by the group's standard deviation" in capsys.readouterr().out
    assert count(tally(run))["failed"] == 1


@pytest.mark.parametrize(
    ("learned", "words"),
    [
        (lambda r: 1 / 0, "your function raised ZeroDivisionError: division by zero; it was given [[1.5"),
        (lambda r: None, "it gives None, not [[ 1.5"),
        (lambda r: r.tolist(), "it gives [[1.5, 0.5"),
        (lambda r: "0", "it gives 0, not"),
        (lambda: 0, "your function raised TypeError"),
    ],
)
def test_whatever_a_function_does_the_notebook_goes_on(learned: Any, words: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grade("advantage", learned)
    assert words in capsys.readouterr().out


def test_inputs_cannot_be_changed_for_the_next() -> None:
    def spoils(rewards: np.ndarray) -> Any:
        found = EXERCISES["advantage"].reference(rewards)
        rewards[:] = 0
        return found

    assert EXERCISES["advantage"].fault(spoils) is None
    assert EXERCISES["advantage"].fault(EXERCISES["advantage"].reference) is None


@pytest.mark.parametrize("learned", [empty, lambda r: r])
def test_nbgrader_sees_an_error(learned: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(AssertionError, match="advantage: "):
        grade("advantage", learned)


def test_unknown_exercise() -> None:
    with pytest.raises(InputError, match="there is no exercise 'advantages'"):
        grade("advantages", empty)


def test_agreement() -> None:
    assert agree([0.1, float("nan")], np.array([0.1, np.nan])) and agree("a", "a") and agree(["a"], np.array(["a"]))
    assert (
        not agree([0.1], [[0.1]]) and not agree(0.1, 0.2) and not agree(["b"], ["a"]) and not agree(None, 0.1) and not agree(["a"], ["a", "b"])
    )


def test_what_goes_on_gives_arrays_and_changes_nothing(run: Path) -> None:
    """Lists pass the check; the notebook behind it takes arrays."""

    def mine(rewards: np.ndarray) -> Any:
        wanted = EXERCISES["advantage"].reference(rewards).tolist()
        rewards[:] = 0
        return wanted

    rewards = np.array([[1.0, 0.0, 0.5, 0.5]])
    found = grade("advantage", mine)(rewards)
    assert isinstance(found, np.ndarray) and found.shape == (1, 4) and rewards.sum() == 2
    assert grade("vote", EXERCISES["vote"].reference)([2, 0, 0]) == 0


def test_a_key_must_be_one_that_a_store_can_use() -> None:
    fault = EXERCISES["key"].fault(lambda request: sorted((k, str(v)) for k, v in request.items() if k != "time"))
    assert fault and fault.startswith("your function raised TypeError: unhashable type: 'list'")
    assert "KeyError" in str(EXERCISES["key"].fault(lambda request: (request["picture"], request["sample_index"], request["options"][0])))
