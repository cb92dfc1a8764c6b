"""The attending with three weights: the whole story in about a second, before the real one. Numpy only, and all of it simulated.

A yes/no case has a hidden truth. The attending sees its own evidence, the lean of three doctors, and whether the picture bears a mark;
where it does, the doctors have a blind spot and mostly agree on the wrong answer. Three weights make

    p(yes) = sigmoid(look * evidence + panel * lean - mark * lean * marked)

and are trained by GRPO: groups of 8 sampled answers, reward 1 or 0, an entropy coefficient and a KL weight by bucket, each stage anchored
where it began. These and the order of the buckets are the paper's. The clinic (the constants below), the start, the learning rate, plain
gradient ascent and the number of updates are ours, set before a result was seen and not changed after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from mmedlite import evaluation
from mmedlite.advantages import advantages
from mmedlite.curriculum import BUCKETS, bucket, visits
from mmedlite.plots import LINES, MARKERS, Drawing, draw, show
from mmedlite.profiles import InputError, Stage
from mmedlite.widgets import explore, show_table

EVIDENCE = 0.674  # mean of the own evidence for the truth, beside noise of sd 1: its sign is right on 75 % of cases
DOCTOR, BLIND = 0.80, 0.10  # chance that a doctor is right, without and with the mark: 72 % over all
TOGETHER = 0.4  # chance that the three doctors share one draw: the correlation of their errors
MARKED = 0.12  # share of cases with the mark
START = np.array([1.0, 1.0, 0.0])  # trust in the own look, trust in the panel, distrust of the panel where the mark is
GROUP, PROMPTS, RATE, UPDATES, SEEDS = 8, 12, 0.1, 450, 20
COEFFICIENTS = {"easy": (1e-4, 1e-3), "medium": (5e-3, 4e-3), "hard": (3e-2, 1e-2)}  # paper, App. F.2: entropy coefficient, KL weight
ORDERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "as printed": (("easy",), ("medium",), ("hard",)),
    "mixed": (BUCKETS,),
    "hard alone": (("hard",),),
    "backwards": (("hard",), ("medium",), ("easy",)),
}


class Cases(NamedTuple):
    """n yes/no cases, or any shape of them."""

    truth: np.ndarray  # (n,) int, 1 yes, -1 no
    features: np.ndarray  # (n, 3) float, what each of the three weights multiplies
    buckets: np.ndarray  # (n,) "easy", "medium" or "hard"


def draw_cases(n: int = 4000, marked: float = MARKED, seed: int = 0) -> Cases:
    """n cases of the toy clinic; ``marked``: share of them with the mark, in [0, 1].

    Raises:
        InputError: no case, or a share outside [0, 1].
    """
    if n < 1 or not 0 <= marked <= 1:
        raise InputError(f"{n} cases, a share of {marked} with the mark", "toy.draw_cases", "give n >= 1 and a share between 0 and 1")
    rng = np.random.default_rng(seed)
    truth, mark = rng.choice([-1, 1], n), rng.random(n) < marked
    draws = np.where(rng.random((n, 1)) < TOGETHER, rng.random((n, 1)), rng.random((n, 3)))
    panel = np.where(draws < np.where(mark, BLIND, DOCTOR)[:, None], 1, -1) * truth[:, None]  # (n, 3)
    evidence, lean = EVIDENCE * truth + rng.standard_normal(n), panel.mean(1)
    return Cases(truth, np.stack([evidence, lean, -lean * mark], 1), bucket(panel, truth))


def logits(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """ln of p(yes) / p(no): weights (..., 3), features (..., b, 3) -> (..., b) float, in nats."""
    return (features @ weights[..., None])[..., 0]


def pulls(
    weights: np.ndarray, start: np.ndarray, cases: Cases, answers: np.ndarray, gamma: np.ndarray, beta: np.ndarray
) -> np.ndarray:  # fmt: skip
    """Gradient of the paper's objective on the three weights, by term (advantages, entropy, KL): (3, s, 3) float, for s seeds.

    Args:
        weights, start: (s, 3), the policy and its reference. cases: fields (s, b, ...). answers: (s, b, G) int, 1 yes, -1 no.
        gamma, beta: (s, b), entropy coefficient and KL weight of each case.
    """
    z, z_start = logits(weights, cases.features), logits(start, cases.features)  # (s, b)
    p = 1 / (1 + np.exp(-z))
    score = (answers > 0) - p[..., None]  # gradient of ln p(answer) on the logit
    ratio = np.exp(np.logaddexp(0, -answers * z[..., None]) - np.logaddexp(0, -answers * z_start[..., None]))  # reference to policy
    on_logit = (
        (advantages(1.0 * (answers == cases.truth[..., None])) * score).mean(-1),
        -gamma * z * p * (1 - p),  # of the entropy over both answers, not of the surprise of the sampled one
        beta * ((ratio - 1) * score).mean(-1),  # of minus k3 = ratio - 1 - ln ratio
    )
    return np.stack([(g[..., None] * cases.features).mean(1) for g in on_logit])


class Way(NamedTuple):
    """Where training led the three weights."""

    ends: dict[str, int]  # "start" and the stages: how many updates lie before the end of each
    weights: np.ndarray  # (updates + 1, seeds, 3) float
    norms: np.ndarray  # (updates, 3) float: norm of the gradient of each term (advantages, entropy, KL), mean of the seeds


def recipe(order: str = "as printed", gamma: float = 1.0, beta: float = 1.0, updates: int = UPDATES) -> list[Stage]:
    """The stages of an order of ``ORDERS``, with the paper's coefficients times ``gamma`` and ``beta``; the updates are shared evenly."""
    if order not in ORDERS:
        raise InputError(f"unknown order '{order}'", "toy.recipe", f"use one of: {', '.join(ORDERS)}")
    steps = updates // len(ORDERS[order])
    scaled = {b: (gamma * g, beta * k) for b, (g, k) in COEFFICIENTS.items()}
    return [Stage("mixed" if len(parts) > 1 else parts[0], parts, steps, *zip(*(scaled[b] for b in parts), strict=True))
            for parts in ORDERS[order]]  # fmt: skip


def train(stages: Sequence[Stage], cases: Cases, seeds: int = SEEDS) -> Way:
    """Algorithm 1 of the paper on three weights, all seeds side by side; each has its own order of cases and its own answers."""
    rng, ends, norms = np.random.default_rng(seeds), {"start": 0}, []
    weights = [np.tile(START, (seeds, 1))]  # (s, 3) after each update
    for stage in stages:
        start = weights[-1]
        visited = [visits(stage, cases.buckets, PROMPTS, seed) for seed in range(seeds)]
        order, gamma, beta = (np.stack(column).reshape(seeds, -1, PROMPTS) for column in zip(*visited, strict=True))
        for step in range(order.shape[1]):
            batch = Cases(*(column[order[:, step]] for column in cases))
            p = 1 / (1 + np.exp(-logits(weights[-1], batch.features)))
            answers = np.where(rng.random((*p.shape, GROUP)) < p[..., None], 1, -1)
            terms = pulls(weights[-1], start, batch, answers, gamma[:, step], beta[:, step])
            weights.append(weights[-1] + RATE * terms.sum(0))
            norms.append(np.linalg.norm(terms, axis=-1).mean(-1))
        ends[stage.name] = len(norms)
    return Way(ends, np.stack(weights), np.array(norms))


def places(weights: np.ndarray, cases: Cases) -> np.ndarray:
    """Greedy accuracy where the panel is unanimous and right (x), unanimous and wrong (y), and over all: weights (..., 3) -> (..., 3)."""
    right = (cases.features @ np.reshape(weights, (-1, 3)).T > 0) == (cases.truth > 0)[:, None]  # (n, policies)
    parts = [right[cases.buckets == level].mean(0) for level in ("easy", "hard")]  # of yes/no cases these are the unanimous ones
    return np.stack([*parts, right.mean(0)], -1).reshape(np.shape(weights))


def ideal_reader(cases: Cases) -> np.ndarray:
    """The three weights (3,) that a logistic regression finds when it is told the truth of all cases: what could be learnt."""
    found: np.ndarray = minimize(lambda w: np.logaddexp(0, -cases.truth * logits(w, cases.features)).mean(), START).x
    return found


def curve_of(cases: Cases) -> np.ndarray:
    """The bias curve (m, 2): the start with every trust in the panel, from full contradiction to full copying."""
    swept = np.array([(START[0], bias, START[2]) for bias in np.linspace(-8, 8, 161)])
    return evaluation.bias_curve(places(swept, cases))


def outcome(ways: Mapping[str, Way], cases: Cases) -> pd.DataFrame:
    """One line a stage of each way: weights (means), then x, y, accuracy and height above the bias curve with the span of 95 % of seeds."""
    curve, lines = curve_of(cases), {}
    for name, way in ways.items():
        for stage, end in way.ends.items():
            weights, at = way.weights[end], places(way.weights[end], cases)  # (seeds, 3) each
            heights = [evaluation.above_curve(point, curve) for point in at]
            columns = zip(("x", "y", "accuracy", "above the curve"), (*at.T, heights), strict=True)
            means = dict(zip(("look", "panel", "mark"), weights.mean(0), strict=True))
            spans = {key: evaluation.with_interval(np.mean(v), np.quantile(v, [0.025, 0.975])) for key, v in columns}
            lines[f"{name}, {stage}"] = {**means, **spans}
    return pd.DataFrame(lines).T


def doses(cases: Cases, judged: Cases, factors: Sequence[float] = (1, 10, 100)) -> pd.DataFrame:
    """What entropy coefficients and KL weights do at the printed size and at multiples of it, one line each.

    Columns: norm of the term's gradient over that of the advantages, in the last stage; then x, y and accuracy on ``judged`` at the end.
    """
    lines = {}
    for order in ("as printed", "mixed"):
        for term, name in ((1, "gamma"), (2, "beta")):
            for factor in factors:
                gamma, beta = (factor, 1) if term == 1 else (1, factor)
                way = train(recipe(order, gamma, beta), cases)
                *_, before, end = way.ends.values()
                pull = way.norms[before:end].mean(0)
                lines[f"{order}, {name} x {factor:g}"] = [pull[term] / pull[0], *places(way.weights[end], judged).mean(0)]
    return pd.DataFrame(lines, ["gradient / advantages'", "x", "y", "accuracy"]).T


def figure(ways: Mapping[str, Way], cases: Cases) -> tuple[Drawing, str]:
    """The paths of several trainings over the trust plane (mean of the seeds), with the vote, the ideal reader and the bias curve."""
    paths = {name: places(way.weights[:: max(1, len(way.norms) // 30)], cases).mean(1) for name, way in ways.items()}  # (30, 3) of each
    stops = {name: places(way.weights[[*way.ends.values()]], cases).mean(1) for name, way in ways.items()}  # (stages, 3)
    curve, ideal, start = curve_of(cases), places(ideal_reader(cases), cases), places(START, cases)
    told = {f"{name}, {stage}": at for name, way in ways.items() for stage, at in zip(way.ends, stops[name], strict=True) if way.ends[stage]}
    table = pd.DataFrame({"start": start, **told, "ideal reader": ideal}, ["x", "y", "accuracy"]).T

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        axes.plot(*curve.T, "--", color="0.35", label="start, trust in the panel varied")
        for i, (name, path) in enumerate(paths.items()):
            axes.plot(*path[:, :2].T, LINES[i % 4], color=f"C{i}", clip_on=False)
            axes.plot(*stops[name][1:, :2].T, MARKERS[i], color=f"C{i}", label=name, clip_on=False, zorder=3)
        for name, point in (("vote", [1, 0]), ("ideal reader", ideal), ("start", start)):
            x, y = point[:2]
            axes.plot(x, y, "x", color="black", clip_on=False, zorder=4)
            axes.annotate(name, (x, y), (-6, 6), textcoords="offset points", ha="right")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set(xlabel="right where the panel is unanimous and right", ylabel="right where the panel is unanimous and wrong")
        fig.legend(loc="outside upper center", ncols=2)

    said = "; ".join(f"{name} ({x:.2f}, {y:.2f}), accuracy {a:.2f}" for name, x, y, a in table.itertuples())
    return draw(paint, table, (5.2, 5.2)), f"Three weights on the trust plane, each point (x, y): {said}; the vote (1, 0)."


def story() -> dict[str, float]:
    """Show three orders, trained and judged on other cases, as paths and a table; gives the accuracy at the end of each, mean of the seeds."""
    ways, judged = {order: train(recipe(order), draw_cases()) for order in ("as printed", "mixed", "hard alone")}, draw_cases(20_000, seed=1)
    show(*figure(ways, judged))
    show_table(outcome(ways, judged), f"Three weights, {SEEDS} seeds; brackets: 95 % of the seeds.")
    return {order: float(places(way.weights[-1], judged)[:, 2].mean()) for order, way in ways.items()}


def order_figure(order: str, gamma: float, marked: float) -> tuple[Drawing, str]:
    """One order, with the entropy coefficients times ``gamma``, in a clinic with this share of marked cases."""
    return figure({order: train(recipe(order, gamma), draw_cases(marked=marked))}, draw_cases(20_000, marked, seed=1))


def order_explorer() -> None:
    """Dials: order of the buckets, factor on the entropy coefficients, share of marked cases."""
    import ipywidgets

    factor = ipywidgets.SelectionSlider(options=[0, 1, 10, 100], value=1)
    share = ipywidgets.FloatSlider(value=MARKED, min=0.0, max=0.3, step=0.06, continuous_update=False)
    order = ipywidgets.SelectionSlider(options=list(ORDERS))  # a Dropdown's arrow keys are JupyterLab's own
    explore(order_figure, order=order, gamma=factor, marked=share)
