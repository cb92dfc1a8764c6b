"""Statistics against closed forms and known values; each test names the mutant that it must catch."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmedlite import evaluation as ev
from mmedlite.cases import Case
from mmedlite.ideal_reader import fit_ideal_reader
from mmedlite.profiles import InputError


def case(case_id: str, answer: int = 0, image: str = "i") -> Case:
    return Case(case_id, "toy", "test", ("x.png",), (image,), "Q?", ("a", "b", "c", "d"), answer, "m", None, "choice", "MIT")


def opinions(votes: dict[str, list[int | None]], department: str = "Surgeon") -> pd.DataFrame:
    rows = [
        {"case_id": case_id, "sample_index": i, "option": vote, "department": department}
        for case_id, said in votes.items()
        for i, vote in enumerate(said)
    ]
    return pd.DataFrame(rows[::-1])  # stored in any order


def table(votes: list[int], answers: list[int], chosen: list[int], unanimous: list[bool]) -> pd.DataFrame:
    frame = pd.DataFrame({"panel_vote": votes, "answer": answers, "option": chosen, "unanimous": unanimous})
    return frame.assign(correct=frame.option == frame.answer, case_id=[f"c{i}" for i in range(len(frame))])


def mutant(function: Any, old: str, new: str) -> Any:
    """The same function with one slip in its source."""
    source = inspect.getsource(function)
    assert source.count(old) == 1, f"{old!r} is not in {function.__name__} once"
    module = types.ModuleType("mutant")
    module.__dict__.update(vars(ev))
    exec("from __future__ import annotations\n" + source.replace(old, new), module.__dict__)
    return getattr(module, function.__name__)


# Wilson: Newcombe 1998 (Statistics in Medicine 17), table I, method 3
@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_known_values(k: int, n: int, low: float, high: float) -> None:
    assert ev.wilson(k, n, z=1.959964) == pytest.approx((low, high), abs=6e-5)


def test_wilson_solves_the_score_equation() -> None:
    low, high = ev.wilson(37, 50)
    for bound in (low, high):
        assert abs(0.74 - bound) == pytest.approx(1.96 * np.sqrt(bound * (1 - bound) / 50))


def test_wilson_edges() -> None:
    assert ev.wilson(0, 0) == (0.0, 1.0)
    assert ev.wilson(5, 5)[1] == 1.0 and ev.wilson(0, 5)[0] == 0.0
    assert ev.wilson(8, 10) == pytest.approx((0.490, 0.943), abs=5e-4)
    for k in (-1, 6):
        with pytest.raises(InputError, match="no share"):
            ev.wilson(k, 5)


def test_accuracy() -> None:
    frame = pd.DataFrame({"correct": [True, True, False, True]})
    assert ev.accuracy(frame) == {"mean": 0.75, "ci": list(ev.wilson(3, 4)), "n": 4}
    assert np.isnan(ev.accuracy(frame[:0])["mean"])


def test_align() -> None:
    a = pd.DataFrame({"case_id": ["b", "a"], "correct": [True, False]})
    left, right = ev.align(a, a[::-1])
    assert left.equals(right) and list(left.case_id) == ["a", "b"]
    for bad in (a.assign(case_id=["b", "c"]), pd.concat([a, a]), a[:1]):
        with pytest.raises(InputError, match="table 1"):
            ev.align(a, bad)


# Bootstrap: the standard error of a clustered mean has a closed form
def clustered(seed: int = 1, images: int = 300, each: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = np.repeat(rng.random(images) < 0.7, each)  # all questions of an image share their fate
    b = rng.random(images * each) < 0.5
    return a, b, np.repeat([f"image{i}" for i in range(images)], each)


def clustered_se(difference: np.ndarray, each: int) -> float:
    means = difference.reshape(-1, each).mean(axis=1)
    return float(means.std() / np.sqrt(len(means)))


def holds_clustered(function: Any) -> bool:
    a, b, images = clustered()
    found = function(a, b, images)
    width = 2 * 1.96 * clustered_se(a.astype(float) - b, 5)
    return abs((found["high"] - found["low"]) / width - 1) < 0.08


def test_paired_difference_of_no_case_is_nan() -> None:
    found = ev.paired_difference([], [], [])
    assert found["n"] == 0 and all(np.isnan(found[k]) for k in ("mean", "low", "high"))


def test_paired_difference_matches_the_clustered_closed_form() -> None:
    a, b, images = clustered()
    found = ev.paired_difference(a, b, images)
    assert found["mean"] == pytest.approx(a.mean() - b.mean()) and found["n"] == 1500
    assert found["low"] < found["mean"] < found["high"]
    assert holds_clustered(ev.paired_difference)
    order = np.random.default_rng(0).permutation(len(a))  # the order of the rows does not matter
    assert ev.paired_difference(a[order], b[order], images[order]) == pytest.approx(found)


def test_mutants_of_the_bootstrap() -> None:
    unclustered = mutant(ev.paired_difference, "_resample(clusters,", "_resample(np.arange(len(a)),")
    assert not holds_clustered(unclustered)
    a, b, images = clustered()
    unpaired = a.mean() - b.mean() - 1.96 * np.sqrt(a.var() / 1500 + b.var() / 1500)
    assert ev.paired_difference(a, b, images)["low"] < unpaired  # treating the rows as independent flatters


def test_paired_beats_unpaired_when_both_err_on_the_same_cases() -> None:
    rng = np.random.default_rng(2)
    b = rng.random(3600) < 0.7
    a = b | (rng.random(3600) < 0.1)
    found = ev.paired_difference(a, b, np.arange(3600))
    se = (a.astype(float) - b).std() / 60
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * se, rel=0.1)
    swapped = ev.paired_difference(b, a, np.arange(3600))
    assert swapped["mean"] == -found["mean"] and swapped["high"] == pytest.approx(-found["low"])


def test_unequal_clusters_are_weighted_by_their_cases() -> None:
    found = ev.paired_difference([1, 1, 1, 0], [0, 0, 0, 0], ["p", "p", "p", "q"], n_boot=500)
    assert found["mean"] == 0.75 and (found["low"], found["high"]) == (0.0, 1.0)


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="align"):
        ev.paired_difference([1, 0], [1], ["p", "q"])
    with pytest.raises(InputError, match="one image id"):
        ev.paired_difference([1, 0], [1, 1], ["p"])


def test_gap_closed() -> None:
    assert ev.gap_closed(0.85, 0.80, 0.90) == pytest.approx(0.5)
    assert np.isnan(ev.gap_closed(0.85, 0.90, 0.90))


# Panels
@pytest.mark.parametrize(
    ("options", "vote"),
    [
        ([2, 0, 0], 0),
        ([2, 0, 1], 2),
        ([None, 3, 1], 3),
        ([-1, -1, 1], 1),
        ([], -1),
        ([None, -1], -1),
        ([1, 0, 0, 1], 1),
    ],
)
def test_majority_vote(options: list[int | None], vote: int) -> None:
    assert ev.majority_vote(options) == vote


@pytest.mark.parametrize("slip", ["-o", "o", "given.index(o)"])  # lowest option, highest option, latest sample
def test_mutants_of_the_tie(slip: str) -> None:
    wrong = mutant(ev.majority_vote, "-given.index(o)", slip)
    assert [wrong([2, 0, 1]), wrong([1, 2, 3])] != [ev.majority_vote([2, 0, 1]), ev.majority_vote([1, 2, 3])] == [2, 1]


def test_panel_votes_name_the_case() -> None:
    good = opinions({"p": [1, 2, 0]})
    with pytest.raises(InputError, match="case p.*one panel"):
        ev.panel_votes(pd.concat([good, good]))
    with pytest.raises(InputError, match=r"samples \[0, 1\] where \[0, 1, 2\]"):
        ev.panel_votes(opinions({"p": [1, 2]}))


def test_result_row_is_complete() -> None:
    row = ev.result_row(case("p", 1), [1, 1, 1], None, system="s", seed=3, panel="diverse", department="Surgeon", reason="empty")
    assert list(row) == [
        "system",
        "case_id",
        "image_sha256",
        "seed",
        "split",
        "panel",
        "text",
        "option",
        "reason",
        "n_options",
        "answer",
        "correct",
        "difficulty",
        "unanimous",
        "panel_vote",
        "department",
        "question_type",
    ]
    assert row["option"] == -1 and row["correct"] is False and row["unanimous"] is True and row["difficulty"] == "easy"
    alone = ev.result_row(case("p", 1), [], 1, system="s", seed=3, panel="", department="")
    assert alone["difficulty"] == "" and alone["panel_vote"] == -1 and alone["correct"] and not alone["unanimous"]


def simulated_panel(rho: float, right: float = 0.7, n: int = 6000) -> tuple[pd.DataFrame, dict[str, int]]:
    """With probability rho the three share one draw: the pairwise phi of their errors is rho."""
    rng = np.random.default_rng(3)
    own, shared = rng.random((n, 3)) < right, rng.random((n, 1)) < right
    correct = np.where(rng.random((n, 1)) < rho, shared, own)
    said = {f"c{i}": [0 if ok else 1 for ok in row] for i, row in enumerate(correct)}
    return opinions(said), dict.fromkeys(said, 0)


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_bucket_report_recovers_the_dials(rho: float) -> None:
    report = ev.bucket_report(*simulated_panel(rho))
    assert report["rho"] == pytest.approx(rho, abs=0.03)
    assert report["effective"] == pytest.approx(3 / (1 + 2 * report["rho"]))
    assert report["easy"] == pytest.approx(rho * 0.7 + (1 - rho) * 0.343, abs=0.02)
    assert report["hard"] == pytest.approx(rho * 0.3 + (1 - rho) * 0.027, abs=0.02)
    assert report["easy"] + report["medium"] + report["hard"] == pytest.approx(1) and report["n"] == 6000


def test_effective_doctors_from_the_variance_of_a_mean() -> None:
    """e doctors whose mean varies as that of m independent ones are worth m."""
    rng = np.random.default_rng(4)
    common, own = rng.normal(size=(200_000, 1)), rng.normal(size=(200_000, 3))
    mean = (np.sqrt(0.5) * common + np.sqrt(0.5) * own).mean(axis=1)
    assert ev.effective_doctors(0.5) == pytest.approx(1 / mean.var(), rel=0.02) == 1.5
    assert (ev.effective_doctors(0.0), ev.effective_doctors(1.0), ev.effective_doctors(1.0, 5)) == (3.0, 1.0, 1.0)
    assert np.isnan(ev.effective_doctors(float("nan")))


@pytest.mark.parametrize(("accuracy", "rho"), [(0.7, 0.2), (0.6, 0.5), (0.75, 0.8)])
def test_implied_panel_is_that_of_a_beta_binomial(accuracy: float, rho: float) -> None:
    """Shares drawn from beta-distributed difficulty give back the correlation; so do the paper's, between one and two doctors."""
    spread = 1 / rho - 1
    right = np.random.default_rng(5).beta(accuracy * spread, (1 - accuracy) * spread, 400_000)
    assert ev.implied_panel((right**3).mean(), ((1 - right) ** 3).mean()) == pytest.approx((accuracy, rho), abs=0.01)
    assert 1.1 < ev.effective_doctors(ev.implied_panel(8321 / 12356, 2626 / 12356)[1]) < 1.2


def test_bucket_report_without_variation_and_redraw() -> None:
    said = opinions({"p": [0, 0, 0, 1, 1, 1], "q": [0, 0, 0, 0, 1, 0]})
    assert np.isnan(ev.bucket_report(said, {"p": 0, "q": 0})["rho"])
    redraw = ev.bucket_report(said, {"p": 0, "q": 0}, samples=(3, 4, 5))
    assert (redraw["easy"], redraw["medium"], redraw["hard"]) == (0.0, 0.5, 0.5)


# Trust plane
def test_trust_plane_and_flips() -> None:
    #            united+right   united+wrong      split
    frame = table(
        [0, 0, 0, 0, 1, 1, 1, 2],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 2, 0, 1, 3, 0],
        [True, True, True, True, True, True, True, False],
    )
    assert ev.trust_plane(frame) == (0.75, pytest.approx(1 / 3), 4, 3)
    flips = ev.flip_rate(frame)
    assert (flips["panel_right"], flips["panel_wrong"]) == (0.25, pytest.approx(2 / 3))
    assert (flips["panel_right_ci"], flips["panel_wrong_ci"]) == (list(ev.wilson(1, 4)), list(ev.wilson(2, 3)))
    silent = frame.assign(option=-1, correct=False)
    assert ev.flip_rate(silent)["panel_right"] == ev.flip_rate(silent)["panel_wrong"] == 0.0  # no answer contradicts nobody
    assert np.isnan(ev.trust_plane(frame[:4])[1]) and np.isnan(ev.flip_rate(frame[:4])["panel_wrong"])


CURVE = ev.bias_curve([(1.0, 0.0, 9, 9), (0.5, 0.8, 9, 9), (0.9, 0.2, 9, 9), (0.9, 0.1, 9, 9)])


def test_bias_curve() -> None:
    assert CURVE.tolist() == [[0.5, 0.8], [0.9, 0.2], [1.0, 0.0]]
    with pytest.raises(InputError, match="nan"):
        ev.bias_curve([(1.0, float("nan")), (0.5, 0.2)])
    with pytest.raises(InputError):
        ev.bias_curve([])
    nan = float("nan")
    for nothing in ([(0.5, nan), (1.0, nan)], [(nan, 0.5), (nan, 0.2)]):  # no panel is wrong, or none is right
        assert ev.bias_curve(nothing).shape == (0, 2)


@pytest.mark.parametrize(("point", "above"), [((0.7, 0.6), 0.1), ((0.7, 0.4), -0.1), ((1.0, 0.3), 0.3), ((0.5, 0.8), 0.0)])
def test_above_curve(point: tuple[float, float], above: float) -> None:
    assert ev.above_curve(point, CURVE) == pytest.approx(above)


def test_above_curve_mutants_and_range() -> None:
    flipped = mutant(
        ev.above_curve,
        "point[1] - np.interp(point[0], curve[:, 0], curve[:, 1])",
        "np.interp(point[0], *curve.T) - point[1]",
    )
    horizontal = mutant(ev.above_curve, "np.interp(point[0], curve[:, 0], curve[:, 1])", "np.interp(point[1], *curve[::-1, ::-1].T)")
    for wrong in (flipped, horizontal):
        assert wrong((0.7, 0.6), CURVE) != pytest.approx(0.1)
    with pytest.raises(InputError, match="left of the bias curve"):
        ev.above_curve((0.4, 0.9), CURVE)


def policies(look: float, seed: int = 5, n: int = 2000) -> tuple[np.ndarray, dict[float, np.ndarray], np.ndarray, np.ndarray]:
    """Four options: an untrained policy that follows the panel at a rate set by its bias, and one that also looks."""
    rng = np.random.default_rng(seed)
    right = np.repeat(rng.random(n // 2) < 0.8, 2)
    dice = rng.random(n)
    guess = rng.random(n) < 0.25

    def correct(follow: float) -> np.ndarray:
        return np.where(dice < follow, right, guess)

    untrained = {bias: correct(1 / (1 + np.exp(-bias))) for bias in (-3.0, -1.0, 0.0, 1.0, 3.0)}
    trained = correct(0.8) | (rng.random(n) < look)
    return trained, untrained, right, np.repeat(np.arange(n // 2), 2)


def test_above_curve_interval() -> None:
    looks = ev.above_curve_interval(*policies(0.4), n_boot=400)
    assert looks["low"] > 0.2 and looks["low"] < looks["mean"] < looks["high"]
    trained, untrained, right, images = policies(0.4)
    curve = ev.bias_curve([(o[right].mean(), o[~right].mean()) for o in untrained.values()])
    point = (trained[right].mean(), trained[~right].mean())
    assert looks["mean"] == pytest.approx(ev.above_curve(point, curve)) and (looks["x"], looks["y"]) == pytest.approx(point)
    nothing = ev.above_curve_interval(trained[right], {0.0: trained[right]}, right[right], images[right])
    assert np.isnan(nothing["mean"]) and nothing["n"] == right.sum()
    contrary = ev.above_curve_interval(~right, untrained, right, images, n_boot=10)  # further left than the largest bias reaches
    assert contrary["x"] == 0 and contrary["y"] == 1 and np.isnan([contrary[k] for k in ("mean", "low", "high")]).all()


def test_shares_and_differences_of_no_case_say_so() -> None:
    nan = float("nan")
    assert ev.with_interval(nan, (0, 1)) == "no case" and ev.signed({"mean": nan, "low": nan, "high": nan}) == "not measured"


def test_a_policy_that_only_leans_is_not_found_above_the_curve() -> None:
    leans = [ev.above_curve_interval(*policies(0.0, seed), n_boot=100) for seed in range(40)]
    assert np.mean([found["low"] > 0 for found in leans]) <= 0.1  # nominal 0.025
    assert abs(np.mean([found["mean"] for found in leans])) < 0.01


def test_above_curve_interval_is_paired() -> None:
    """A policy compared with itself lies on the curve in every draw; unpaired draws would not."""
    _, untrained, right, images = policies(0.0)
    itself = ev.above_curve_interval(untrained[0.0], untrained, right, images, n_boot=200)
    assert itself["mean"] == 0.0 and itself["low"] == pytest.approx(0.0) and itself["high"] == pytest.approx(0.0)


# Classifiers
def test_macro_recall_leaves_small_classes_out() -> None:
    true = ["a"] * 20 + ["b"] * 40 + ["c"] * 3
    pred = ["a"] * 10 + ["b"] * 10 + ["b"] * 40 + ["a"] * 3
    assert ev.macro_recall(true, pred) == pytest.approx(0.75)
    assert ev.macro_recall(true, pred, min_count=3) == pytest.approx(0.5)
    with pytest.raises(InputError, match="no class"):
        ev.macro_recall(["a"], ["a"])


def test_colour_histogram_classifier_learns_colour_and_nothing_else() -> None:
    rng = np.random.default_rng(6)
    tint = {"red": (90, 0, 0), "green": (0, 90, 0), "grey": (30, 30, 30)}

    def picture(name: str) -> np.ndarray:
        return (rng.integers(0, 160, (8, 8, 3)) + tint[name]).astype(np.uint8)

    labels = list(tint) * 40
    predict = ev.fit_colour_histogram([picture(name) for name in labels], labels)
    assert np.mean([p == name for p, name in zip(predict(map(picture, labels)), labels, strict=True)]) > 0.95
    grey = [picture("grey") for _ in range(120)]
    assert np.mean([p == n for p, n in zip(ev.fit_colour_histogram(grey[:60], labels[:60])(grey[60:]), labels[60:], strict=True)]) < 0.6


def blind_spot_world(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Shuffled option texts; where a visible mark is, the whole panel says the next finding; weak own evidence."""
    rng = np.random.default_rng(seed)
    finding, mark = rng.integers(0, 4, n), rng.random(n) < 0.3
    order = np.argsort(rng.random((n, 4)), axis=1)  # order[i, slot] = finding that the slot names
    slot = np.argsort(order, axis=1)
    seen = np.where(mark, (finding + 1) % 4, finding)
    noisy = np.where(rng.random((n, 3)) < 0.8, seen[:, None], rng.integers(0, 4, (n, 3)))
    features = np.hstack([np.eye(4)[finding] + rng.normal(0, 1.0, (n, 4)), mark[:, None] + rng.normal(0, 0.1, (n, 1))])
    return features, np.take_along_axis(slot, noisy, 1), slot[np.arange(n), finding], np.full(n, 4), np.eye(4)[order]


def test_ideal_reader_beats_vote_and_image_alone() -> None:
    pytest.importorskip("torch")
    x, panel, answers, count, options = blind_spot_world(3000, 0)
    x2, panel2, answers2, count2, options2 = blind_spot_world(1500, 1)
    vote = np.mean([ev.majority_vote(row) == a for row, a in zip(panel2.tolist(), answers2, strict=True)])
    ideal = fit_ideal_reader(x, panel, answers, count, 0, options)(x2, panel2, count2, options2).argmax(1)
    alone = fit_ideal_reader(x, None, answers, count, 0, options)(x2, None, count2, options2).argmax(1)
    reached, looked = np.mean(ideal == answers2), np.mean(alone == answers2)
    assert 0.55 < vote < 0.75 and 0.45 < looked < 0.75
    assert reached > max(vote, looked) + 0.15
    again = fit_ideal_reader(x, panel, answers, count, 0, options)(x2, panel2, count2, options2).argmax(1)
    assert (again == ideal).all()


def test_ideal_reader_keeps_to_the_options_and_leaves_the_seed_alone() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    count = np.where(np.arange(400) % 2, 2, 4)
    answers = (rng.random(400) * count).astype(int)
    x, panel = rng.normal(size=(400, 3)), np.where(rng.random((400, 3)) < 0.1, -1, answers[:, None])
    before = torch.random.get_rng_state()
    chosen = fit_ideal_reader(x, panel, answers, count)(x, panel, count).argmax(1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (chosen < count).all() and np.mean(chosen == answers) > 0.95


def test_import_needs_no_torch() -> None:
    code = "import sys, mmedlite.evaluation, mmedlite.checks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
