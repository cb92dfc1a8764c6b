"""The exercises of the notebooks: checks that name the mistake, and references that stand in for empty stubs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mmedlite.checks import assist, check
from mmedlite.exercises import counting, grpo, judging
from mmedlite.exercises.exercise import Exercise
from mmedlite.profiles import InputError

EXERCISES: dict[str, Exercise] = {**judging.EXERCISES, **grpo.EXERCISES, **counting.EXERCISES}


def grade(name: str, learned: Callable[..., Any]) -> Callable[..., Any]:
    """Check a learner's function and name its mistake; gives the function that goes on: the learner's if it is right, else the reference.

    An empty stub is no fault: the reference stands in, and the run is marked as assisted. Where nbgrader grades, whatever is not right raises.

    Raises:
        InputError: there is no exercise of that name.
        AssertionError: nbgrader grades, and the function is not right.
    """
    if name not in EXERCISES:
        raise InputError(f"there is no exercise '{name}'", "exercises.grade", f"use one of: {', '.join(EXERCISES)}")
    task = EXERCISES[name]
    print(f"{task.level}, about {task.minutes} minutes; the check knows {len(task.mistakes)} mistakes by name "
          f"and refuses {len(task.mistakes) + len(task.mutants)} wrong functions")  # fmt: skip
    try:
        fault = task.fault(learned)
    except NotImplementedError:
        fault = "the stub is still empty"
        assist(f"exercise_{name}")
    else:
        check(f"exercise_{name}", fault is None, fault or "")
    if fault and os.environ.get("NBGRADER_EXECUTION"):
        raise AssertionError(f"{name}: {fault}")
    return task.reference if fault else task.goes_on(learned)
