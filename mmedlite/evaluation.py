"""Better than what, and how sure: intervals, paired differences, the trust plane, panels and the baselines beside them.

Tables are Result rows (one row = one system's answer to one case) and Opinion rows; arrays are numpy. Options are
indices, -1 is no answer. Intervals are 95 %. A share of no cases is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmedlite.curriculum import BUCKETS, bucket, majority_vote
from mmedlite.profiles import InputError

if TYPE_CHECKING:
    from mmedlite.cases import Case

PANEL = (0, 1, 2)  # sample indices of the panel; 3, 4, 5 are the redraw


def wilson(k: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval (1927) of the share k / n; (0, 1) where n = 0. wilson(8, 10) -> (0.490, 0.943)."""
    if not 0 <= k <= n:
        raise InputError(f"{k} successes of {n} is no share", "evaluation.wilson", "give 0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    p, zn = k / n, z * z / n
    half = z * np.sqrt(p * (1 - p) / n + zn / (4 * n))
    return max(0.0, float((p + zn / 2 - half) / (1 + zn))), min(1.0, float((p + zn / 2 + half) / (1 + zn)))


def accuracy(df: pd.DataFrame) -> dict[str, Any]:
    """{"mean", "ci": [low, high] (Wilson), "n"} of the column ``correct``."""
    n, k = len(df), int(df["correct"].sum())
    return {"mean": k / n if n else float("nan"), "ci": list(wilson(k, n)), "n": n}


def shares(rows: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Accuracy of each named table and, as ``<name>_ci``, its 95 % interval."""
    found = {name: accuracy(frame) for name, frame in rows.items()}
    return {key: value for name, f in found.items() for key, value in ((name, f["mean"]), (f"{name}_ci", f["ci"]))}


def align(*frames: pd.DataFrame) -> list[pd.DataFrame]:
    """The same cases in the same order in every table, as paired statistics need; InputError where they differ."""
    ordered = [frame.sort_values("case_id").reset_index(drop=True) for frame in frames]
    for number, frame in enumerate(ordered):
        if frame["case_id"].duplicated().any() or not frame["case_id"].equals(ordered[0]["case_id"]):
            raise InputError("cases repeat or differ", f"table {number}", "keep one system, one seed, one panel each")
    return ordered


def _resample(clusters: Any, columns: Any, n_boot: int, seed: int) -> np.ndarray:
    """Bootstrap sums of ``columns`` (n, k) when whole clusters (n,) are drawn with replacement: (n_boot, k)."""
    columns = np.asarray(columns, float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(index) != len(columns) or len(index) == 0:
        raise InputError(f"{len(columns)} outcomes for {len(index)} images", "bootstrap", "give one image id a case")
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, index, columns)
    rng, m = np.random.default_rng(seed), len(names)
    return np.stack([np.bincount(rng.integers(0, m, m), minlength=m) @ sums for _ in range(n_boot)])


def paired_difference(a: Any, b: Any, clusters: Any, n_boot: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Mean of a - b over the same cases, with a percentile interval from a bootstrap that draws whole images.

    a, b: outcomes (n,), bool or float, case by case; clusters: image id of each case (n,). Gives mean, low, high, n; nan for no case.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise InputError(f"{a.shape} outcomes against {b.shape}", "paired_difference", "pair them with align()")
    if len(a) == 0:  # no panel of that kind, as on real pictures that the specialists cannot read
        return {**dict.fromkeys(("mean", "low", "high"), float("nan")), "n": 0}
    totals = _resample(clusters, np.stack([a - b, np.ones_like(a)], axis=1), n_boot, seed)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return {"mean": float((a - b).mean()), "low": float(low), "high": float(high), "n": len(a)}


def with_interval(mean: float, interval: Sequence[float]) -> str:
    """A share and its 95 % interval: with_interval(0.8, (0.49, 0.943)) -> "0.800 [0.490, 0.943]"; of no case: "no case"."""
    return "no case" if np.isnan(mean) else f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def share_right(rows: pd.DataFrame) -> str:
    """Accuracy of Result rows with its interval, as ``with_interval`` writes it."""
    found = accuracy(rows)
    return with_interval(found["mean"], found["ci"])


def signed(found: Mapping[str, Any]) -> str:
    """A difference {mean, low, high} with its interval: "+0.048 [+0.036, +0.060]"; "not measured" for nan."""
    return "not measured" if np.isnan(found["mean"]) else f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def gap_closed(trained: float, best_baseline: float, ideal: float) -> float:
    """Share of the way from the best baseline to the ideal reader; nan where there is no headroom."""
    return (trained - best_baseline) / (ideal - best_baseline) if ideal > best_baseline else float("nan")


# Panels
def panel_votes(opinions: pd.DataFrame, samples: Sequence[int] = PANEL) -> pd.DataFrame:
    """Opinion rows -> one row a case (index case_id), one column a sample index, int options."""
    part = opinions[opinions["sample_index"].isin(samples)]
    for case_id, said in part.groupby("case_id")["sample_index"]:
        if sorted(said) != sorted(samples):
            what = f"samples {sorted(said)} where {sorted(samples)} are needed"
            raise InputError(what, f"opinions, case {case_id}", "keep one panel and one department a case, store all")
    part = part.assign(option=pd.to_numeric(part["option"]).fillna(-1).astype(int))
    return part.pivot(index="case_id", columns="sample_index", values="option")[list(samples)]


def bucket_report(opinions: pd.DataFrame, answers: Mapping[str, int], samples: Sequence[int] = PANEL) -> dict[str, Any]:
    """Shares easy / medium / hard, error correlation and effective doctors; answers: case_id -> right option.

    rho: mean phi of the errors of two specialists, over the pairs in which both vary; effective: ``effective_doctors``.
    """
    votes = panel_votes(opinions, samples)
    truth = np.array([answers[case_id] for case_id in votes.index])
    wrong = votes.to_numpy() != truth[:, None]
    n, e = wrong.shape
    buckets = bucket(votes.to_numpy(), truth)
    pairs = [(i, j) for i in range(e) for j in range(i) if wrong[:, i].std() > 0 and wrong[:, j].std() > 0]
    rho = float(np.mean([np.corrcoef(wrong[:, i], wrong[:, j])[0, 1] for i, j in pairs])) if pairs else float("nan")
    shares = {name: float(np.mean(buckets == name)) for name in BUCKETS}
    return {**shares, "rho": rho, "effective": effective_doctors(rho, e), "n": n}


def effective_doctors(rho: float, e: int = 3) -> float:
    """How many independent doctors e correlated ones are worth: e / (1 + (e - 1) rho). rho 0 -> e, rho 1 -> 1."""
    return e / max(1 + (e - 1) * rho, 1e-12)


def implied_panel(easy: float, hard: float) -> tuple[float, float]:
    """(accuracy of one, correlation of the errors of two) of three specialists that the shares of easy and hard cases imply.

    Assumption: how hard a case is follows a beta distribution, and given that the three err independently (beta-binomial).
    """
    accuracy, rho = np.linspace(0.5, 0.99, 491)[:, None], np.linspace(0.001, 0.999, 999)  # a grid of both
    spread = 1 / rho - 1
    a, b, all_three = accuracy * spread, (1 - accuracy) * spread, spread * (spread + 1) * (spread + 2)
    off = (a * (a + 1) * (a + 2) / all_three - easy) ** 2 + (b * (b + 1) * (b + 2) / all_three - hard) ** 2
    row, column = np.unravel_index(off.argmin(), off.shape)
    return float(accuracy[row, 0]), float(rho[column])


def panel_columns(votes: Sequence[int], answer: int) -> dict[str, Any]:
    """What a Result row says of its case's panel ([] where none was asked): difficulty, unanimous, panel_vote."""
    return {
        "difficulty": str(bucket(np.array([votes]), np.array([answer]))[0]) if len(votes) else "",
        "unanimous": len(set(votes)) == 1 and bool(votes[0] >= 0), "panel_vote": majority_vote(votes),
    }  # fmt: skip


def result_row(
    case: Case, votes: Sequence[int], option: int | None, *, system: str, seed: int, panel: str, department: str,
    text: str = "", reason: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One Result row: what ``system`` said about ``case`` whose panel said ``votes`` ([] where no panel was asked)."""
    chosen = -1 if option is None else int(option)
    return {
        "system": system, "case_id": case.case_id, "image_sha256": case.image_sha256s[0], "seed": seed,
        "split": case.split, "panel": panel, "text": text, "option": chosen, "reason": reason or "",
        "n_options": len(case.options), "answer": case.answer, "correct": chosen == case.answer,
        **panel_columns(votes, case.answer), "department": department, "question_type": case.question_type,
    }  # fmt: skip


# Trust plane
def trust_plane(df: pd.DataFrame) -> tuple[float, float, int, int]:
    """(x, y, n_x, n_y): accuracy where the panel is unanimous and right, and where it is unanimous and wrong."""
    united, right = df["unanimous"].astype(bool), df["panel_vote"] == df["answer"]
    over, under = accuracy(df[united & right]), accuracy(df[united & ~right])
    return over["mean"], under["mean"], over["n"], under["n"]


def flip_rate(df: pd.DataFrame) -> dict[str, Any]:
    """How often a system answers something else than a unanimous panel: "panel_right", "panel_wrong" and their intervals."""
    united, right = df["unanimous"].astype(bool), df["panel_vote"] == df["answer"]
    flips = df.assign(correct=(df["option"] >= 0) & (df["option"] != df["panel_vote"]))  # no answer is no contradiction
    return shares({"panel_right": flips[united & right], "panel_wrong": flips[united & ~right]})


def bias_curve(points: Iterable[Sequence[float]]) -> np.ndarray:
    """(x, y) of the untrained policy at each bias to the panel -> curve (m, 2) by x; the best y where x repeats.

    Empty, (0, 2), where one coordinate is of no case: no panel is unanimous and right, or none is unanimous and wrong.
    """
    best: dict[float, float] = {}
    for x, y, *_ in points:
        best[x] = max(y, best.get(x, y))
    curve = np.array(sorted(best.items()), float).reshape(-1, 2)
    if len(curve) and np.isnan(curve).all(axis=0).any():
        return curve[:0]
    if not best or np.isnan(curve).any():
        raise InputError("no point, or a point that is nan", "bias_curve", "add cases")
    return curve


def above_curve(point: Sequence[float], curve: np.ndarray) -> float:
    """Signed vertical distance of (x, y) from the curve (straight between its points, level right of them)."""
    if point[0] < curve[0, 0]:
        raise InputError(f"x = {point[0]:.3f} is left of the bias curve", "", "add biases against the panel")
    return float(point[1] - np.interp(point[0], curve[:, 0], curve[:, 1]))


def above_curve_interval(
    trained: Any, untrained: Mapping[float, Any], panel_right: Any, clusters: Any, n_boot: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """``above_curve`` of the trained policy with a paired bootstrap interval: both policies see the same drawn images.

    All arrays (n,) over the same cases, all with a unanimous panel: trained, untrained[bias]: correct or not;
    panel_right: is the unanimous answer right; clusters: image ids. Gives x, y, mean, low, high, n; no height (nan) left of the curve.
    """
    right = np.asarray(panel_right, bool)
    policies = [np.asarray(outcome, float) for outcome in (trained, *untrained.values())]
    if any(outcome.shape != right.shape for outcome in policies):
        raise InputError("outcomes of different length", "evaluation.above_curve_interval", "pair them with align()")
    if right.all() or not right.any():
        return {**dict.fromkeys(("x", "y", "mean", "low", "high"), float("nan")), "n": len(right)}
    columns = np.stack([part for o in (np.ones(len(right)), *policies) for part in (o * right, o * ~right)], axis=1)

    def planes(sums: np.ndarray) -> np.ndarray:  # (..., 2 + 2p) sums -> (..., p, 2) points
        return (sums[..., 2:] / np.tile(sums[..., :2], len(policies))).reshape(*sums.shape[:-1], -1, 2)

    (x, y), *swept = planes(columns.sum(axis=0))
    if x < (curve := bias_curve(swept))[0, 0]:
        return {"x": float(x), "y": float(y), **dict.fromkeys(("mean", "low", "high"), float("nan")), "n": len(right)}
    mean = above_curve((x, y), curve)
    sums = _resample(clusters, columns, n_boot, seed)
    sums = sums[(sums[:, :2] > 0).all(axis=1)]  # a draw without one of the two kinds of case has no point
    heights = [p[0, 1] - np.interp(p[0, 0], *bias_curve(p[1:]).T) for p in planes(sums)]
    low, high = np.quantile(heights, [0.025, 0.975])
    return {"x": float(x), "y": float(y), "mean": mean, "low": float(low), "high": float(high), "n": len(right)}


# Classifiers to compare with
def macro_recall(y_true: Sequence[Any], y_pred: Sequence[Any], min_count: int = 20) -> float:
    """Mean recall over the classes with at least ``min_count`` true cases."""
    true, pred = np.asarray(y_true), np.asarray(y_pred)
    names, counts = np.unique(true, return_counts=True)
    kept = names[counts >= min_count]
    if len(kept) == 0:
        raise InputError(f"no class has {min_count} cases", "macro_recall", "lower min_count")
    return float(np.mean([np.mean(pred[true == name] == name) for name in kept]))


def fit_colour_histogram(images: Iterable[Any], labels: Sequence[Any]) -> Callable[[Iterable[Any]], list[Any]]:
    """The cheap baseline of triage: multinomial logistic regression on colour histograms; gives predict(images)."""

    def inputs(pictures: Iterable[Any]) -> np.ndarray:  # (n, 25): root shares of 8 brightness bins in R, G, B, and 1
        pixels = (np.asarray(picture)[..., :3].reshape(-1, 3) >> 5 for picture in pictures)  # one picture in memory at a time
        shares = [[np.bincount(p[:, c], minlength=8) / len(p) for c in range(3)] for p in pixels]
        return np.hstack([np.sqrt(shares).reshape(len(shares), 24), np.ones((len(shares), 1))])

    names, target = np.unique(np.asarray(labels), return_inverse=True)
    z, gold, w = inputs(images), np.eye(len(names))[target], np.zeros((25, len(names)))
    for _ in range(1000):  # gradient descent at rate 1, with a little weight decay
        p = np.exp(z @ w)
        w -= z.T @ (p / p.sum(axis=1, keepdims=True) - gold) / len(z) + 1e-5 * w
    return lambda pictures: names[(inputs(pictures) @ w).argmax(axis=1)].tolist()
