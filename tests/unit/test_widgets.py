"""Explorers at the ends of their sliders, and the models behind them against hand calculation and simulation."""

from __future__ import annotations

import base64
import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmedlite import evaluation, widgets
from mmedlite.profiles import InputError

SWEPT = {-2.0: (0.5, 0.8, 9, 9), 0.0: (0.9, 0.2, 9, 9), 2.0: (1.0, 0.0, 9, 9)}
CURVE = evaluation.bias_curve(SWEPT.values())


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The alt text of every figure that was shown."""
    alts: list[str] = []
    monkeypatch.setattr(widgets, "show", lambda fig, alt: alts.append(alt))
    return alts


@pytest.fixture
def interact(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Catch (callback, dials) instead of drawing sliders."""
    import ipywidgets

    caught: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **dials: caught.append((callback, dials)))
    return caught


def paint(contrast: float) -> np.ndarray:
    return np.full((8, 8, 3), int(255 * contrast), np.uint8)


def ends(dial: Any) -> list[Any]:
    """The extreme values of a slider, checkbox or selection."""
    if hasattr(dial, "options"):
        return [dial.options[0], dial.options[-1]]
    return [dial.min, dial.max] if hasattr(dial, "min") else [False, True]


EXPLORERS: dict[str, Any] = {
    "advantage": lambda: widgets.advantage_explorer(),
    "trust": lambda: widgets.trust_explorer(SWEPT, CURVE, {"vote": (1.0, 0.0)}),
    "fade": lambda: widgets.fade_explorer(paint),
    "bucket": lambda: widgets.bucket_explorer(),
}


@pytest.mark.parametrize("name", EXPLORERS)
def test_callbacks_at_the_slider_ends(name: str, shown: list[str], interact: list[tuple[Any, dict[str, Any]]]) -> None:
    EXPLORERS[name]()
    assert len(shown) == 1  # the static default
    [(callback, dials)] = interact
    start = {key: dial.value for key, dial in dials.items()}
    callback(**start)
    assert shown[1] == shown[0]
    for key, dial in dials.items():
        low, high = ends(dial)
        callback(**start | {key: low})
        callback(**start | {key: high})
        assert shown[-1] != shown[-2], f"the dial '{key}' changes nothing"
    for side in (0, 1):
        callback(**{key: ends(dial)[side] for key, dial in dials.items()})
    assert all(alt.endswith(".") and not re.search(r"\bnan\b", alt) for alt in shown)


def test_a_broken_draw_function_is_an_error_of_the_cell(shown: list[str], interact: list[Any]) -> None:
    with pytest.raises(ZeroDivisionError):
        widgets.fade_explorer(lambda contrast: 1 / 0)


def test_real_interact_accepts_the_dials(shown: list[str]) -> None:
    for start in EXPLORERS.values():
        start()
    assert len(shown) >= 2 * len(EXPLORERS)  # the default, then the first call of interact


def test_advantage_figure_says_what_is_learnt() -> None:
    assert "nothing learnt" in widgets.advantage_figure([0.1] * 8)[1]
    assert "from -0.50 to +1.50" in widgets.advantage_figure([1, 0, 0, 0])[1]


def test_toy_rewards() -> None:
    assert widgets.toy_rewards(1, 2, 4).tolist() == [1.5, 0.5, 0.0, 0.0]


def test_bucket_shares_by_hand_and_by_simulation() -> None:
    assert list(widgets.bucket_shares(0.75, 0.0).values()) == pytest.approx([0.421875, 0.5625, 0.015625])
    assert list(widgets.bucket_shares(0.75, 1.0).values()) == pytest.approx([0.75, 0.0, 0.25])
    assert widgets.bucket_shares(0.6, 0.3, e=1) == pytest.approx({"easy": 0.6, "medium": 0.0, "hard": 0.4})
    rng = np.random.default_rng(0)
    n, p, rho = 200_000, 0.7, 0.4
    right = np.where(rng.random((n, 1)) < rho, rng.random((n, 1)) < p, rng.random((n, 3)) < p)
    assert np.corrcoef(right[:, 0], right[:, 1])[0, 1] == pytest.approx(rho, abs=0.01)
    shares = widgets.bucket_shares(p, rho)
    assert shares["easy"] == pytest.approx(right.all(axis=1).mean(), abs=0.005)
    assert shares["hard"] == pytest.approx((~right).all(axis=1).mean(), abs=0.005)


@pytest.mark.parametrize("dials", [(a, r, e) for a in (0.0, 0.5, 1.0) for r in (0.0, 1.0) for e in (1, 3, 7)])
def test_bucket_shares_are_shares(dials: tuple[float, float, int]) -> None:
    shares = widgets.bucket_shares(*dials)
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0


def test_trust_figure_moves_the_untrained_dot_along_its_curve() -> None:
    for bias, (x, y, *_) in SWEPT.items():
        fig, alt = widgets.trust_figure(bias, SWEPT, CURVE, {"vote": (1.0, 0.0)})
        assert fig.numbers.loc[f"untrained, bias {bias:+g}", ["x", "y"]].tolist() == [x, y]
        assert f"untrained, bias {bias:+g} ({x:.2f}, {y:.2f}), +0.00" in alt
    with pytest.raises(InputError, match="was not measured"):
        widgets.trust_figure(1.0, SWEPT, CURVE, {})


def case(options: int, answer: int) -> Any:
    return SimpleNamespace(options=tuple("abcd"[:options]), answer=answer)


def test_four_cases_are_the_first_of_their_kind_with_four_options(capsys: pytest.CaptureFixture[str]) -> None:
    cases = [case(2, 0), case(4, 1), case(4, 1), case(4, 0), case(4, 2), case(4, 3), case(4, 0)]
    said = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1], [1, 2, 3], [-1, -1, -1], [1, 1, 1], [0, 0, 0]])
    assert widgets.four_cases(cases, said) == {"easy": 2, "split": 1, "unanimous and wrong": 5, "mislabelled": 6}
    assert capsys.readouterr().out == ""
    assert widgets.four_cases(cases[:5], said[:5]) == {"easy": 0, "split": 1, "mislabelled": 2}
    assert capsys.readouterr().out == "Of the four cases these hold none that is unanimous and wrong.\n"
    closed = [case(2, 0) for _ in cases]  # as VQA-RAD's
    assert widgets.four_cases(closed, np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 0]])) == {
        "easy": 0, "split": 1, "unanimous and wrong": 2, "mislabelled": 3}  # fmt: skip


def test_cards_hold_their_pictures_and_escape_their_text() -> None:
    picture = Image.new("RGB", (8, 8), (200, 10, 10))
    fig, alt = widgets.case_cards([picture], ["case <1>"], [["A nodule & B mass"]])
    data = base64.b64decode(re.findall(r"base64,([^\"]+)", fig)[0])
    assert Image.open(io.BytesIO(data)).size == (8, 8)
    assert 'alt="picture, case &lt;1&gt;"' in fig and "A nodule &amp; B mass" in fig
    assert alt == "1 cases. case <1>: A nodule & B mass."


def test_tables_show_long_text_whole_under_their_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str]] = []
    monkeypatch.setattr(widgets, "show", lambda fig, alt: sent.append((fig, alt)))
    widgets.says_did_saw([("p" * 200, "d", "<s>")])
    assert evaluation.with_interval(0.8, [0.49, 0.943]) == "0.800 [0.490, 0.943]"
    widgets.reveal(None, 0.123, "share")
    widgets.reveal(0.5, 0.25, "share")
    assert "p" * 200 in sent[0][0] and "&lt;s&gt;" in sent[0][0] and "<caption>" in sent[0][0]
    assert "no number" in sent[1][0] and "0.123" in sent[1][0]
    assert "You said 0.5, that is off by 0.25." in sent[2][0]
    widgets.reveal(0.5, float("nan"), "share of <none>")
    assert sent[3][0] == "<p>These cases hold nothing to count it by: share of &lt;none&gt;.</p>"


def test_words_stand_flush_left_and_numbers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(widgets, "show", lambda fig, alt: sent.append(fig))
    row = {"a": "no word of it", "b": 0.25, "c": "0.800 [0.490, 0.943]", "d": 7, "e": 1e-4, "f": 3200.0, "g": 1.0}
    widgets.show_table(pd.DataFrame([row]), "caption", index=False)
    words, *numbers = re.findall(r"<td.*?</td>", sent[0])
    assert words == '<td style="text-align: left">no word of it</td>'
    told = ["0.250", "0.800 [0.490, 0.943]", "7", "0.0001", "3,200", "1.000"]
    assert numbers == [f"<td>{number}</td>" for number in told]


def test_cases_split_by_the_marker_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    def seen(**meta: bool) -> Any:
        return SimpleNamespace(case_id=f"c{len(meta)}{meta.get('marked')}", meta=meta)

    cases = [seen(marked=True), seen(marked=False), seen()]
    assert list(widgets.by_marker(cases).values()) == ["marked", "not marked", "not marked"]
    assert capsys.readouterr().out == ""
    assert widgets.by_marker(cases[1:]) == {}
    assert capsys.readouterr().out == "These cases bear no marker: there is nothing to split by.\n"


def test_systems_by_difficulty_with_intervals() -> None:
    rows = pd.DataFrame({
        "difficulty": ["easy", "easy", "medium", "hard"], "correct": [True, True, False, False], "option": [0, 0, -1, 1],
        "answer": [0, 0, 0, 0], "unanimous": [True, True, False, True], "panel_vote": [0, 0, 0, 1],
    })  # fmt: skip
    (line,) = widgets.by_difficulty({"trained": rows}).to_dict("records")
    assert line["all"] == evaluation.with_interval(0.5, evaluation.wilson(2, 4)) and line["easy"].startswith("1.000 [0.342, 1.000]")
    assert line["hard"].startswith("0.000") and line["flips, panel wrong"] == line["hard"]
    assert line["no answer"] == 0.25
    assert evaluation.signed({"mean": 0.05, "low": -0.01, "high": 0.1}) == "+0.050 [-0.010, +0.100]"


def test_groups_keep_the_order_of_the_buckets_and_pair_the_first_two_systems() -> None:
    cases = [f"c{i}" for i in range(6)]
    rows = pd.DataFrame({"case_id": cases, "image_sha256": cases, "difficulty": ["hard", "hard", "easy", "easy", "medium", "medium"]})
    trained = rows.assign(correct=[True, True, True, True, True, False])
    table = widgets.by_group({"trained": trained, "untrained": rows.assign(correct=[False, False, True, True, True, False])}, "difficulty")
    assert list(table.index) == ["easy", "medium", "hard"] and table["n"].tolist() == [2, 2, 2]
    assert table["gain"].tolist() == ["+0.000 [+0.000, +0.000]", "+0.000 [+0.000, +0.000]", "+1.000 [+1.000, +1.000]"]
    assert table.loc["medium", "trained"] == evaluation.share_right(trained[4:])


def test_logs_of_stages_are_joined() -> None:
    step = {"step": 1, "format": 0.5, "accuracy": 0.25}
    log, starts = widgets.whole_log({"easy": [step] * 2, "hard": [step] * 3})
    assert log["step"].tolist() == [1, 2, 3, 4, 5] and set(log["reward"]) == {0.75} and starts == {"easy": 1, "hard": 3}


def test_order_strip_counts_the_changes_of_bucket() -> None:
    fig, alt = widgets.order_strip({"staged": ["easy", "easy", "medium", "hard"], "mixed": ["hard", "easy", "hard", "easy"]})
    assert "staged: the bucket changes 2 times; mixed: the bucket changes 3 times" in alt
    assert fig.numbers.loc["staged"].tolist() == [2, 1, 1]


def test_each_band_has_an_axis_that_it_fills_and_its_controls_are_named() -> None:
    bands = {
        "narrow": {"low": 0.999, "high": 1.0, "sd": 0.0, "seeds": {"0": 1.0, "1": 0.9995}, "control": {"untrained": 0.5}},
        "wide": {"low": 0.8, "high": 0.9, "sd": 0.02, "seeds": {"0": 0.85}, "control": {"vote": 0.7, "coin": 0.1}},
    }
    fig, alt = widgets.bands_figure(bands, {"narrow": 1.0, "wide": 0.93})
    assert [axes.get_title(loc="right") for axes in fig.axes] == ["controls: untrained 0.500", "controls: vote 0.700, coin 0.100"]
    for axes, (low, high) in zip(fig.axes, [(0.999, 1.0), (0.8, 0.93)], strict=True):
        left, right = axes.get_xlim()
        assert left < low < high < right and right - left < 1.4 * (high - low)
    assert "wide [0.800, 0.900], this run 0.930, controls vote 0.700, coin 0.100." in alt
    fig, alt = widgets.bands_figure(bands, {})  # a run of other cases
    assert "this run" not in alt and "wide [0.800, 0.900], controls vote" in alt and fig.numbers["this_run"].isna().all()
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["band", "seeds"]
