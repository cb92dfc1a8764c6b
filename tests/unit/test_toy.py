"""The toy attending: its gradient against finite differences, its clinic against counting, its story over 20 seeds, and mutants of all."""

from __future__ import annotations

import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmedlite import evaluation, plots, toy, widgets
from mmedlite.advantages import advantages
from mmedlite.profiles import InputError, load_profile

TRAIN, TEST = toy.draw_cases(), toy.draw_cases(20_000, seed=1)


def test_the_toy_needs_no_torch() -> None:
    code = "import sys, mmedlite.toy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the clinic


def test_the_clinic_is_as_described() -> None:
    evidence, lean, marked_lean = TEST.features.T
    marked = marked_lean != 0
    assert (np.sign(evidence) == TEST.truth).mean() == pytest.approx(0.75, abs=0.01)
    assert ((1 + lean * TEST.truth) / 2).mean() == pytest.approx(0.72, abs=0.01)  # share of doctors that are right
    assert marked.mean() == pytest.approx(0.12, abs=0.01)
    assert ((lean * TEST.truth)[marked] == -1).mean() > 0.75  # all three are wrong
    assert (marked_lean[marked] == -lean[marked]).all()
    right = (1 + lean[~marked] * TEST.truth[~marked]) * 1.5  # doctors that are right, of 3
    shares = [(right.round() == k).mean() for k in (3, 0)]
    assert shares == pytest.approx([0.4 * 0.8 + 0.6 * 0.8**3, 0.4 * 0.2 + 0.6 * 0.2**3], abs=0.01)  # as widgets.bucket_shares has it


@pytest.mark.parametrize(("n", "marked"), [(0, 0.1), (10, -0.1), (10, 1.1)])
def test_no_such_clinic(n: int, marked: float) -> None:
    with pytest.raises(InputError, match=r"share between 0 and 1"):
        toy.draw_cases(n, marked)


def test_coefficients_are_those_of_the_schedule_as_printed() -> None:
    printed = load_profile("tiny").attending.paper_schedule
    assert [replace(stage, steps=0) for stage in toy.recipe()] == list(printed)
    assert sum(stage.steps for stage in toy.recipe()) == sum(stage.steps for stage in toy.recipe("mixed")) == toy.UPDATES
    with pytest.raises(InputError, match="unknown order"):
        toy.recipe("sideways")


def test_the_ideal_reader_is_near_the_bayes_rule() -> None:
    """Posterior odds from the numbers of the clinic: nothing that reads evidence, answers and mark can do better."""
    evidence, lean, marked_lean = TEST.features.T
    marked, yes = marked_lean != 0, ((1 + lean) * 1.5).round().astype(int)  # doctors who say yes, of 3

    def chance(k: np.ndarray, right: np.ndarray) -> np.ndarray:  # of k right answers of 3, up to a factor that cancels
        return (1 - toy.TOGETHER) * right**k * (1 - right) ** (3 - k) + toy.TOGETHER * ((k == 3) * right + (k == 0) * (1 - right))

    doctor = np.where(marked, toy.BLIND, toy.DOCTOR)
    odds = 2 * toy.EVIDENCE * evidence + np.log(chance(yes, doctor) / chance(3 - yes, doctor))
    bayes = ((odds > 0) == (TEST.truth > 0)).mean()
    ideal = toy.places(toy.ideal_reader(TEST), TEST)[2]
    assert bayes - 0.01 < ideal <= bayes + 0.003


# ---- the update


def objective(weights: np.ndarray, old: np.ndarray, start: np.ndarray, batch: Any, answers: np.ndarray, gamma: Any, beta: Any) -> np.ndarray:
    """The three terms of the paper's objective for one seed, written out answer by answer: (3,)."""
    total = np.zeros(3)
    for i in range(len(batch.truth)):
        p, before, ref = ([1 - q, q] for q in (1 / (1 + np.exp(-(batch.features[i] @ w))) for w in (weights, old, start)))
        rewards = [float(a == batch.truth[i]) for a in answers[i]]
        for a, gain in zip(answers[i], advantages(rewards), strict=True):
            k = int(a > 0)
            k3 = ref[k] / p[k] - np.log(ref[k] / p[k]) - 1
            total += np.array([gain * p[k] / before[k], 0, -beta[i] * k3 * p[k] / p[k]]) / len(answers[i])
        total[1] += gamma[i] * -sum(q * np.log(q) for q in p)
    return total / len(batch.truth)


def gradient_faults(module: types.ModuleType) -> list[str]:
    """Terms whose analytic gradient is not that of the objective."""
    rng = np.random.default_rng(3)
    weights, start = rng.normal(size=(2, 2, 3))
    batch = toy.Cases(*(column[:10].reshape(2, 5, *column.shape[1:]) for column in TRAIN))
    answers, gamma, beta = rng.choice([-1, 1], (2, 5, 8)), rng.random((2, 5)), rng.random((2, 5))
    found = module.pulls(weights, start, batch, answers, gamma, beta)
    faults = []
    for s in range(2):
        part = toy.Cases(*(column[s] for column in batch))
        for k in range(3):
            step = 1e-5 * np.eye(3)[k]
            up, down = (objective(weights[s] + d, weights[s], start[s], part, answers[s], gamma[s], beta[s]) for d in (step, -step))
            off = np.abs((up - down) / 2e-5 - found[:, s, k])
            faults += [f"{name}, weight {k}" for name, far in zip(("advantages", "entropy", "KL"), off > 1e-7, strict=True) if far]
    return faults


def test_the_gradient_is_that_of_the_objective() -> None:
    assert gradient_faults(toy) == []


# ---- the story


def story_faults(module: types.ModuleType) -> list[str]:
    """Which statements of the toy do not hold for every one of 20 seeds."""
    cases = module.draw_cases()
    trained = {order: module.train(module.recipe(order), cases) for order in ("as printed", "mixed", "hard alone")}
    end = {order: way.weights[-1] for order, way in trained.items()}  # (seeds, 3): look, panel, mark
    printed = trained["as printed"]
    easy, curve = printed.weights[printed.ends["easy"]], toy.curve_of(TEST)
    height = {order: np.array([evaluation.above_curve(p, curve) for p in toy.places(w, TEST)]) for order, w in end.items()}
    accuracy = {order: toy.places(w, TEST)[:, 2] for order, w in end.items()}
    before = toy.places(toy.START, TEST)
    open_ = module.train(module.recipe("mixed", gamma=100), cases).weights[-1]
    doubt = {name: np.abs(toy.logits(w, TEST.features)).mean(1) for name, w in (("printed size", end["mixed"]), ("times 100", open_))}
    held = module.train(module.recipe(beta=100), cases).weights[-1]
    long = module.train(module.recipe("mixed", updates=10 * toy.UPDATES), cases, seeds=20).weights[-1]
    ideal = toy.places(toy.ideal_reader(TEST), TEST)[2]
    statements = {
        "easy cases teach trust in the panel": easy[:, 1] > toy.START[1] + 1,
        "and the cases where it errs are lost": toy.places(easy, TEST)[:, 1] < 0.1,
        "hard cases alone teach contradiction": end["hard alone"][:, 1] < -1,
        "which stays on the bias curve": np.abs(height["hard alone"]) < 0.03,
        "and loses the easy cases": toy.places(end["hard alone"], TEST)[:, 0] < 0.1,
        "as printed ends below its start": accuracy["as printed"] < before[2],
        "mixed cases raise the look and the mark": (end["mixed"][:, [0, 2]] > toy.START[[0, 2]] + 0.5).all(1),
        "and lift the policy above the curve": height["mixed"] > 0.05,
        "and above its start and the rest": accuracy["mixed"] > np.maximum(before[2], accuracy["as printed"]) + 0.005,
        "ten times as long comes near the ideal reader": toy.places(long, TEST)[:, 2] > ideal - 0.015,
        "entropy and KL are small at the printed size": np.array([way.norms[:, 1:].mean(0) < 0.1 * way.norms[:, 0].mean()
                                                                  for way in trained.values()]).all(1),
        "a bonus times 100 keeps the policy open": doubt["times 100"] < 0.8 * doubt["printed size"],
        "a KL weight times 100 keeps the trust that the stage began with": held[:, 1] > 1.5,
        "seeds agree": end["mixed"].std(0) < 0.15,
    }  # fmt: skip
    return [name for name, holds in statements.items() if not holds.all()]


def test_the_story_over_twenty_seeds() -> None:
    assert story_faults(toy) == []


MUTANTS = {
    "entropy sign": ("-gamma * z * p", "gamma * z * p"),
    "entropy of the sampled answer": ("-gamma * z * p * (1 - p)", "-gamma * (np.where(answers > 0, 1, -1) * score).mean(-1)"),
    "advantage without the mean": ("(advantages(", "((lambda r: r / (r.std(-1, ddof=1, keepdims=True) + 1e-4))("),
    "mean over all cases": ("(advantages(", "((lambda r: (r - r.mean()) / (r.std(-1, ddof=1, keepdims=True) + 1e-4))("),
    "mark ignored": ("[evidence, lean, -lean * mark]", "[evidence, lean, 0 * lean]"),
    "KL sign": ("beta * ((ratio - 1)", "-beta * ((ratio - 1)"),
    "anchored before the first stage": ("start = weights[-1]", "start = weights[0]"),
    "reward for being wrong": ("answers == cases.truth[", "answers != cases.truth["),
}


def mutant(old: str, new: str) -> types.ModuleType:
    """A copy of the toy with some of its text replaced."""
    source = Path(toy.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"the toy has no '{old}' any more: mend the mutant"
    module = types.ModuleType("mutant_toy")
    sys.modules[module.__name__] = module
    exec(compile(source.replace(old, new), "mutant_toy", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str) -> None:
    with np.errstate(all="ignore"):
        found = gradient_faults(module := mutant(*MUTANTS[name])), story_faults(module)
    print(*found)
    assert any(found)


def test_two_runs_are_alike() -> None:
    first, again = (toy.train(toy.recipe(updates=30), TRAIN, seeds=2) for _ in range(2))
    assert (first.weights == again.weights).all() and (first.weights[-1, 0] != first.weights[-1, 1]).all()


# ---- what is shown


def test_tables() -> None:
    ways = {order: toy.train(toy.recipe(order, updates=30), TRAIN, seeds=5) for order in ("as printed", "mixed")}
    table = toy.outcome(ways, TEST)
    assert list(table.index) == ["as printed, start", "as printed, easy", "as printed, medium", "as printed, hard", "mixed, start",
                                 "mixed, mixed"]  # fmt: skip
    assert table.loc["mixed, start", "above the curve"] == "0.000 [0.000, 0.000]"
    mean = toy.places(ways["mixed"].weights[-1], TEST)[:, 2].mean()
    assert table.loc["mixed, mixed", "accuracy"].startswith(f"{mean:.3f} [")


def test_doses_grow_with_the_factor() -> None:
    table = toy.doses(TRAIN, TEST)
    assert len(table) == 12 and (table[["x", "y", "accuracy"]].stack().between(0, 1)).all()
    for rows in np.split(table["gradient / advantages'"].to_numpy(), 4):
        assert rows[0] < 0.05 and (np.diff(rows) > 0).all()


def test_the_figure_and_its_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    shown: list[str] = []
    dials: dict[str, Any] = {}
    monkeypatch.setattr(widgets, "show", lambda fig, alt: shown.append(alt) or plots.png(fig, alt))
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **given: dials.update(given, callback=callback))
    toy.order_explorer()
    callback = dials.pop("callback")
    start = {name: dial.value for name, dial in dials.items()}
    ends = {"order": list(toy.ORDERS)[1:], "gamma": [0, 100], "marked": [dials["marked"].min, dials["marked"].max]}
    for name, values in ends.items():
        for value in values:
            callback(**start | {name: value})
    assert len(shown) == 8 and len(set(shown)) == 7  # without the bonus (gamma 0) two places say the same as with the printed one
    assert all("the vote (1, 0)." in alt and "nan" not in alt for alt in shown)


def test_the_figure_is_small() -> None:
    ways = {order: toy.train(toy.recipe(order), TRAIN) for order in ("as printed", "mixed", "hard alone")}
    fig, alt = toy.figure(ways, TEST)
    assert len(plots.png(fig, alt)) < 25_000 and list(fig.numbers.index)[0] == "start"


def test_the_whole_story_is_trained_in_a_second() -> None:
    """Of processor time, the best of three: another program may slow one down."""
    took = []
    for _ in range(3):
        began, cases = time.process_time(), toy.draw_cases()
        for order in ("as printed", "mixed", "hard alone"):
            toy.train(toy.recipe(order), cases)
        took.append(time.process_time() - began)
    assert min(took) <= 1
