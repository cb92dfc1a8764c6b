"""The plan: what it times, what it makes of it, and what it says."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mmedlite import cli, grpo, plan
from mmedlite.local_specialists import LocalSpecialists
from mmedlite.models import Answer
from mmedlite.plan import Plan, Timing, timed, told
from mmedlite.profiles import InputError
from mmedlite.run import Run
from tests.small import PROFILE, SETTINGS, chance, checkpoint, policy, processor, profile, rows, specialists, table


class Clock:
    """A clock that goes on only when told; the processor works a quarter of the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(plan, "time", made)
    return made


def training(clock: Clock, preparation: float, *steps: float) -> tuple[Callable[..., None], list[float]]:
    """A training of steps that last so long, each asking for its rewards at its beginning; and the steps it has begun."""
    begun: list[float] = []

    def train(rewards: Sequence[Any]) -> None:
        clock.now += preparation
        for seconds in steps:
            begun.append(seconds)
            assert [r.__name__ for r in rewards] == ["format_reward", "accuracy_reward", "clock"]
            assert rewards[-1](completions=["a", "b"]) == [0.0, 0.0]
            clock.now += seconds

    return train, begun


# ---- what is timed


def test_the_first_step_is_not_timed_and_preparation_is_shared(clock: Clock) -> None:
    train, begun = training(clock, 10.0, 0.9, *[0.2] * 60)
    found = timed(train, part=50, whole=70)
    assert found.step == pytest.approx(0.2 + 10 / 50) and found.processor == pytest.approx(found.step / 4) and found.steps == 70
    assert len(begun) == plan.STEPS + 1, "it is broken off as soon as the last step it needs has ended"


def test_slow_steps_are_broken_off_early(clock: Clock) -> None:
    train, begun = training(clock, 0.0, 50.0, 20.0, 30.0, *[99.0] * 60)
    assert timed(train, 60, 60).step == pytest.approx(25) and len(begun) == 4


def test_a_training_that_ends_by_itself(clock: Clock) -> None:
    assert timed(training(clock, 0.0, 5.0, 2.0)[0], 2, 2).step == pytest.approx(2)
    assert timed(training(clock, 0.0, 5.0)[0], 1, 1).step == pytest.approx(5)


def test_other_errors_are_not_kept_back() -> None:
    def train(rewards: Sequence[Any]) -> None:
        raise InputError("no cases")

    with pytest.raises(InputError, match="no cases"):
        timed(train, 1, 1)


def test_what_is_foreseen_is_what_happens(tmp_path: Path) -> None:
    """Within 30 % of a whole training of the small policy, in processor time, which other programs change little."""
    torch.set_num_threads(1)
    batch = rows(30 * SETTINGS.prompts_per_step)

    def train(out: Path, more: Sequence[Any] = ()) -> None:
        grpo.train(policy(), processor(), batch, SETTINGS, out, {"stage": "s"}, 0, [chance, *more])

    train(tmp_path / "warm")
    foreseen = timed(lambda rewards: train(tmp_path / "timed", rewards[2:]), 30, 30)
    began = time.process_time()
    train(tmp_path / "whole")
    assert foreseen.processor * 30 == pytest.approx(time.process_time() - began, rel=0.3)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small profile, its clinic and models; panels in this process, so that no other has to be started."""
    table(tmp_path / "clinic", train=16)
    models = [("policy = ", f'policy = "{checkpoint(tmp_path / "policy").as_posix()}" #'),
              ("specialists = ", f'specialists = "{specialists(tmp_path / "specialists").as_posix()}" #')]  # fmt: skip
    policy().save_pretrained(tmp_path / "reference" / "adapters" / "triage")

    def answers(self: Any, adapter: str, table: Any, asks: Sequence[Any], seed: int) -> list[Answer]:
        draws = [zlib.crc32(f"{a.case.case_id} {adapter} {a.sample_index}".encode()) for a in asks]
        return [Answer(f"<answer>{a.case.options[d % len(a.case.options)]}</answer>", True) for a, d in zip(asks, draws, strict=True)]

    monkeypatch.setattr(Run, "reference", tmp_path / "reference")
    monkeypatch.setattr(Run, "opinions", tmp_path / "shipped")
    monkeypatch.setattr(LocalSpecialists, "generate", answers)
    monkeypatch.setattr(plan, "Run", lambda folder, name: Run(folder, name, tmp_path / "clinic"))
    monkeypatch.setattr(plan, "side_by_side", lambda run, steps: [step(run, name) for step, name in steps])
    return profile(tmp_path, *models)


def test_a_profile_is_timed_on_its_longest_stage(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, real = [], Run.train_attending

    def spy(self: Run, panel: str, stages: Any, *args: Any, **kwargs: Any) -> Any:
        begun.append((panel, [s.name for s in stages], self.folder))
        return real(self, panel, stages, *args, **kwargs)

    monkeypatch.setattr(Run, "train_attending", spy)
    found = plan.measure(str(world))
    assert [(panel, stages) for panel, stages, _ in begun] == [("diverse", ["last"]), ("paper_like", ["last"])]
    assert not begun[0][2].exists(), "nothing is left behind"
    assert found.triage.steps == 2 and {name: t.steps for name, t in found.panels.items()} == {"diverse": 3, "paper_like": 3}
    for t in (found.triage, *found.panels.values()):
        assert t.step > 0 and t.processor > 0
    assert 0.1 < found.gib < 64


def test_a_stage_of_one_epoch_is_counted(world: Path) -> None:
    text = world.read_text(encoding="utf-8")
    assert PROFILE.count("\nsteps = 1\n") == 1
    world.write_text(text.replace("\nsteps = 1\n", "\nsteps = 0\n"), encoding="utf-8")
    found = plan.measure(str(world))
    assert found.panels["diverse"].steps > 2 + 1, "the whole of the medium bucket, two cases a step"


# ---- what is made of it

EVEN = Plan(Timing(0.5, 0.5, 60), {"diverse": Timing(1.0, 0.9, 300), "paper_like": Timing(1.2, 1.1, 300)}, True, 3.0)


def test_minutes_of_panels_side_by_side_and_one_after_the_other() -> None:
    assert EVEN.minutes() == pytest.approx((30 + 360) / 60)
    assert EVEN._replace(together=False).minutes() == pytest.approx((30 + 660) / 60)
    assert EVEN.undisturbed().minutes() == pytest.approx((30 + 330) / 60)


def test_it_fits() -> None:
    fits, lines = told("tiny", EVEN, 20, 16)
    assert fits and lines[-1] == "tiny: training takes about 6.5 min (panels side by side) and 3.0 GiB: fits 20 min and 16 GiB"
    assert lines[0] == "tiny: triage: 60 steps of 0.50 s, 0.5 min" and len(lines) == 4
    assert told("tiny", EVEN, 6.5, 3.0)[0], "exactly as much as there is fits"


@pytest.mark.parametrize(
    ("together", "minutes", "would"),
    [(True, 2.55, " 102 of the 300"), (False, 2.75, " 61 of the 300"), (True, 0.4, "not even triage fits")],
)
def test_too_few_minutes_and_what_would_fit(together: bool, minutes: float, would: str) -> None:
    fits, lines = told("tiny", EVEN._replace(together=together), minutes, 16)
    assert not fits and "does NOT fit" in lines[3] and would in lines[4] and len(lines) == 5


def test_too_little_memory() -> None:
    fits, lines = told("tiny", EVEN, 20, 2.5)
    assert not fits and "does NOT fit 20 min and 2.5 GiB" in lines[3] and "grpo.gradient_accumulation" in lines[4] and len(lines) == 5


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    busy = EVEN._replace(panels={name: t._replace(processor=0.4) for name, t in EVEN.panels.items()})
    assert told("tiny", busy, 20, 16)[1][-1].endswith("without them training would take about 2.5 min")


# ---- the command


def foreseen(monkeypatch: pytest.MonkeyPatch, **plans: Plan | InputError) -> None:
    """What `measure` is to find for each profile."""

    def measure(name: str) -> Plan:
        if isinstance(found := plans.get(name, InputError("no GPU", name, "use one")), InputError):
            raise found
        return found

    monkeypatch.setattr(plan, "measure", measure)


def test_the_shipped_profiles_are_planned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    foreseen(monkeypatch, tiny=EVEN)
    assert cli.main(["plan"]) == 0
    out = capsys.readouterr()
    assert "fits 20 min and 16 GiB" in out.out and "timing" in out.err
    assert cli.main(["plan", "--minutes", "2"]) == 1 and cli.main(["plan", "--memory", "2"]) == 1
    assert cli.main(["plan", "--profile", "tiny", "--minutes", "7"]) == 0


def test_a_profile_that_cannot_run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    foreseen(monkeypatch, tiny=InputError("no such model folder", "policy", "restore it"))
    assert cli.main(["plan"]) == 1
    assert "tiny: cannot be timed here: no such model folder (policy). Fix: restore it\n" in capsys.readouterr().out
    assert cli.main(["plan", "--profile", "tiny"]) == 1
    assert "error: no such model folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--minutes", "0"], "error: 0 is not above 0 (--minutes)"),
        (["--minutes", "-3"], "error: -3 is not above 0 (--minutes)"),
        (["--minutes", "nan"], "error: nan is not above 0 (--minutes)"),
        (["--memory", "0"], "error: 0 is not above 0 (--memory)"),
        (["--profile", "no-such-world"], "error: no profile 'no-such-world'"),
    ],
)
def test_bad_input_is_one_error(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", *given]) == 1
    out = capsys.readouterr()
    assert out.out == "" and out.err.count("error:") == 1 and said in out.err and "Fix: " in out.err


def test_limits_without_end_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    foreseen(monkeypatch, tiny=EVEN)
    assert plan.main("tiny", math.inf, math.inf) == 0
