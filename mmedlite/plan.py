"""Plan: time some real GRPO steps on this machine, and say which profile fits the minutes and the memory at hand.

Each training is begun as a run begins it, on the same rows and beside the same neighbours, and broken off after a few steps.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mmedlite.curriculum import bucket, stage_order
from mmedlite.demo import GIB, PeakMemory
from mmedlite.grpo import Reward
from mmedlite.profiles import InputError
from mmedlite.rewards import accuracy_reward, format_reward
from mmedlite.run import Run
from mmedlite.side_by_side import cores, side_by_side

STEPS = 10  # of a training before it is broken off; the first is not timed, since libraries warm up in it
PATIENCE = 15.0  # seconds after which three of them are enough


class Timing(NamedTuple):
    """One training as it was timed; a step bears its share of the preparation (policy loaded, pictures read, trainer made)."""

    step: float  # seconds a step by the clock, mean of those timed
    processor: float  # seconds a step of this process's processor time: by the clock, if nothing else ran
    steps: int  # of the whole training


class Plan(NamedTuple):
    """What a profile's training takes here."""

    triage: Timing
    panels: dict[str, Timing]
    together: bool  # do the panels train side by side?
    gib: float  # peak memory: the GPU's where there is one, else of all processes together

    def attending_step(self) -> float:
        """Seconds in which every panel takes a step."""
        steps = [t.step for t in self.panels.values()]
        return max(steps) if self.together else sum(steps)

    def minutes(self) -> float:
        """Minutes of triage and attending together."""
        attending = [t.step * t.steps for t in self.panels.values()]
        return (self.triage.step * self.triage.steps + (max(attending) if self.together else sum(attending))) / 60

    def undisturbed(self) -> Plan:
        """The same on this machine with nothing else at work."""
        panels = {name: t._replace(step=t.processor) for name, t in self.panels.items()}
        return self._replace(triage=self.triage._replace(step=self.triage.processor), panels=panels)


class Enough(Exception):
    """Breaks a training off."""


def timed(train: Callable[[Sequence[Reward]], Any], part: int, whole: int) -> Timing:
    """Time the first steps of a training.

    Args:
        train: trains on the rewards it is given; called once. part: steps it would take. whole: steps the timing stands for.
    """
    ticks = [(time.perf_counter(), time.process_time())]

    def clock(completions: Sequence[Any], **_: Any) -> list[float]:
        """A reward that is worth nothing and notes the time: it is asked once a step."""
        ticks.append((time.perf_counter(), time.process_time()))
        if len(ticks) > STEPS + 1 or (len(ticks) > 4 and ticks[-1][0] - ticks[1][0] > PATIENCE):
            raise Enough
        return [0.0] * len(completions)

    with contextlib.suppress(Enough):
        train((format_reward, accuracy_reward, clock))
        ticks.append((time.perf_counter(), time.process_time()))  # it was shorter than that
    preparation, *each = np.diff(np.array(ticks), axis=0)  # (2,) each: seconds by the clock, seconds of the processor
    step, processor = np.mean(each[1:] or each, axis=0) + preparation / part
    return Timing(float(step), float(processor), whole)


def time_triage(run: Run) -> Timing:
    """Time the triage training."""
    steps = run.profile.triage.steps
    return timed(lambda rewards: run.train_triage("timed", rewards), steps, steps)


def time_panel(run: Run, panel: str) -> Timing:
    """Time the longest stage of the recipe, which stands for all of them, from the untrained policy."""
    per_step = run.profile.grpo.prompts_per_step
    buckets = bucket(run.panel("train", panel), np.array([c.answer for c in run.cases("train")]))
    stages = {s: len(stage_order(s, buckets, per_step, run.seed)) // per_step for s in run.profile.attending.recipe}
    longest = max(stages, key=lambda s: stages[s])
    return timed(
        lambda rewards: run.train_attending(panel, [longest], panel, rewards=rewards), stages[longest], sum(stages.values())
    )  # fmt: skip


def measure(profile: str) -> Plan:
    """Time triage and attending of one profile; a minute or so.

    Raises:
        InputError: it cannot run here.
    """
    with tempfile.TemporaryDirectory() as folder, PeakMemory() as peak:
        run = Run(Path(folder) / "run", profile)
        panels, on_gpu = run.profile.panels, torch.cuda.is_available()
        triage = time_triage(run)
        attending = dict(zip(panels, side_by_side(run, [(time_panel, p) for p in panels]), strict=True))
    together = not on_gpu and len(panels) <= cores()
    return Plan(triage, attending, together, torch.cuda.max_memory_reserved() / GIB if on_gpu else peak.gib)


def told(name: str, plan: Plan, minutes: float, memory: float) -> tuple[bool, list[str]]:
    """Does it fit ``minutes`` and ``memory`` (GiB)? And that in words."""
    trainings = {"triage": plan.triage, **{f"attending, {panel} panel": t for panel, t in plan.panels.items()}}
    lines = [f"{name}: {what}: {t.steps} steps of {t.step:.2f} s, {t.steps * t.step / 60:.1f} min" for what, t in trainings.items()]
    order = "side by side" if plan.together else "one after the other"
    needs = f"training takes about {plan.minutes():.1f} min (panels {order}) and {plan.gib:.1f} GiB"
    in_time, in_memory = plan.minutes() <= minutes, plan.gib <= memory
    fits = "fits" if in_time and in_memory else "does NOT fit"
    lines.append(f"{name}: {needs}: {fits} {minutes:g} min and {memory:g} GiB")
    if not in_time:
        left = minutes * 60 - plan.triage.step * plan.triage.steps
        whole = max(t.steps for t in plan.panels.values())
        would = f"{int(left / plan.attending_step())} of the {whole} attending steps fit after triage" if left > 0 else "not even triage fits"
        fix = f"shorten the stages in a profile of your own, or give {math.ceil(plan.minutes())} min"
        lines.append(f"{name}: in {minutes:g} min {would}; {fix}")
    if not in_memory:
        fix = "raise grpo.gradient_accumulation or lower grpo.prompts_per_step in a profile of your own"
        lines.append(f"{name}: for {memory:g} GiB {fix}")
    alone = plan.undisturbed().minutes()
    if alone < 0.75 * plan.minutes() and not torch.cuda.is_available():
        lines.append(f"{name}: other programs are at work here; without them training would take about {alone:.1f} min")
    return in_time and in_memory, lines


def main(profile: str | None, minutes: float, memory: float) -> int:
    """Print the plan of one profile, or of each that the kit ships; 0 if one fits.

    Raises:
        InputError: minutes or memory (GiB) not above 0, an unknown profile, or one named that cannot run here.
    """
    for name, value in {"--minutes": minutes, "--memory": memory}.items():
        if not value > 0:
            raise InputError(f"{value:g} is not above 0", name, "write a number above 0")
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as a run does
    known = sorted(p.stem for p in (Path(__file__).parent / "profiles").glob("*.toml"))
    found = []
    for name in [profile] if profile else known:
        print(f"{name}: timing some steps of each training, about a minute ...", file=sys.stderr)
        try:
            fits, lines = told(name, measure(name), minutes, memory)
        except InputError as error:
            if profile:
                raise
            fits, lines = False, [f"{name}: cannot be timed here: {error}"]
        found.append(fits)
        print(*lines, sep="\n")
    return int(not any(found))
