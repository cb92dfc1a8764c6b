"""The plotted arrays, the second cue, and alt texts that say what the data say."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from figures.draw_contrasts import contrasts
from mmedlite import plots
from mmedlite.profiles import InputError
from tests.unit.test_second_cue import contrast

CURVE = np.array([[0.5, 0.8], [0.9, 0.2], [1.0, 0.0]])
POINTS = {"vote": (1.0, 0.0, 9, 9), "trained": (0.9, 0.5, 9, 9), "far left": (0.2, 0.9, 9, 9)}
LOG = pd.DataFrame({"step": range(30), "reward": np.linspace(0.5, 1.4, 30), "kl": np.nan, "entropy": 0.3})
CONTRASTS = {f"{name}, {panel}": {"mean": m, "low": m - 0.01, "high": m + 0.02, "worlds": [m - 0.01, m, m + 0.01], "p_holm": 0.04}
             for name, m in (("order", 0.03), ("KL term", -0.02)) for panel in ("diverse", "paper_like")}  # fmt: skip
DRAWINGS: dict[str, Any] = {
    "contrasts": lambda: contrasts(CONTRASTS, 3, 10),
    "trust_plane": lambda: plots.trust_plane(POINTS, CURVE),
    "trust_plane_bare": lambda: plots.trust_plane(POINTS),
    "policy_path": lambda: plots.policy_path(POINTS, CURVE),
    "effective_doctors": lambda: plots.effective_doctors({"diverse": 0.2, "same": 1.0}, [0.0, 0.5], {"A": 0.7, "B": 0.8}),
    "consultation_matrix": lambda: plots.consultation_matrix(np.eye(7) * 0.2 + 0.6, [0, 1, 2, 3, 4, 5, 5]),
    "buckets": lambda: plots.buckets_vs_redraw([[80, 20, 0], [10, 30, 10], [0, 15, 5]]),
    "forest": lambda: plots.paired_differences(
        {
            "vote": {"mean": 0.1, "low": 0.08, "high": 0.12, "n": 3000},
            "SFT": {"mean": 0.0, "low": -0.01, "high": 0.01, "n": 3000},
        }
    ),
    "training_curves": lambda: plots.training_curves(LOG, {"easy": 0, "hard": 20}),
    "contact_sheet": lambda: plots.contact_sheet([np.zeros((8, 8, 3), np.uint8)] * 3, ["a", "b", "c"]),
}


def texts(fig: plots.Drawing) -> list[str]:
    return [text.get_text() for axes in fig.axes for text in axes.texts]


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_drawing_has_alt_text_numbers_and_fits_a_notebook(name: str) -> None:
    fig, alt = DRAWINGS[name]()
    assert alt.endswith(".") and len(alt) > 30 and not re.search(r"\bnan\b", alt)
    assert len(fig.numbers)
    data = plots.png(fig, alt)
    assert len(data) < 120_000  # seven notebooks of at most 400 KB
    assert Image.open(io.BytesIO(data)).info["Description"] == alt


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_no_alt_text_no_figure(alt: str) -> None:
    fig, _ = plots.trust_plane(POINTS)
    with pytest.raises(ValueError, match="without alt text"):
        plots.show(fig, alt)
    with pytest.raises(ValueError, match="without alt text"):
        plots.show("<table></table>", alt)


def test_show_sends_png_with_alt_and_folded_numbers_and_nothing_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda thing, **kwargs: sent.append(thing))
    fig, alt = plots.trust_plane(POINTS, CURVE)
    plots.show(fig, alt)
    picture, table = sent
    assert picture.alt == alt and picture.data[:4] == b"\x89PNG"
    assert list(table) == ["text/html"] and "trained" in table["text/html"] and "<details>" in table["text/html"]
    assert capsys.readouterr().out == ""


def test_what_a_figure_is_of_stands_above_it_and_in_its_alt_text(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr("IPython.display.display", lambda thing, **kwargs: sent.append(thing))
    fig, alt = plots.trust_plane(POINTS, CURVE)
    plots.show(fig, alt, "diverse panel")
    assert fig.get_suptitle() == "diverse panel" and sent[0].alt == f"diverse panel. {alt}"
    title, legend = (part.get_window_extent() for part in (fig._suptitle, fig.legends[0]))  # type: ignore[attr-defined]
    assert not title.overlaps(legend)


def test_alt_texts_follow_the_data() -> None:
    assert "trained (0.90, 0.50), +0.30 from the bias curve" in DRAWINGS["trust_plane"]()[1]
    assert "far left (0.20, 0.90)." in DRAWINGS["trust_plane"]()[1]  # no height where the curve does not reach
    assert "vote" in DRAWINGS["policy_path"]()[1].split("trained")[0]
    assert all(s in DRAWINGS["effective_doctors"]()[1] for s in ("diverse: correlation 0.20, worth 2.14", "2 simulated as circles"))
    matrix = DRAWINGS["consultation_matrix"]()[1]
    assert "0.80 on the diagonal, 0.60 off" in matrix and "+0.20" in matrix and "6 of 7" in matrix
    assert "of 20 hard cases 25% stay hard" in DRAWINGS["buckets"]()[1]
    assert "vote +0.100 [+0.080, +0.120], n = 3000" in DRAWINGS["forest"]()[1]
    curves = DRAWINGS["training_curves"]()[1]
    assert "entropy from 0.300 to 0.300" in curves and "kl" not in curves and "hard 20" in curves


def test_trust_plane_draws_the_numbers_with_a_second_cue_and_a_name() -> None:
    fig, _ = plots.trust_plane(POINTS, CURVE)
    curve, *dots = fig.axes[0].lines
    assert np.array_equal(curve.get_xydata(), CURVE) and curve.get_linestyle() == "--"
    drawn = {tuple(dot.get_xydata()[0]): dot for dot in dots}
    assert set(drawn) == {point[:2] for point in POINTS.values()}
    assert len({dot.get_marker() for dot in dots}) == len({dot.get_color() for dot in dots}) == 3
    assert set(POINTS) <= set(texts(fig))


def test_labels_do_not_hide_each_other() -> None:
    fig, _ = plots.trust_plane({f"policy {i}": (0.99, 0.5 + i / 1000) for i in range(5)})
    heights = sorted(text.get_position()[1] for text in fig.axes[0].texts)
    assert min(np.diff(heights)) > 0.05


def test_a_dot_under_another_is_a_ring_around_it() -> None:
    fig, _ = plots.trust_plane({"you": (1.0, 0.0), "vote": (1.0, 0.0), "oracle": (1.0, 1.0)})
    look = {line.get_marker(): (line.get_markerfacecolor(), line.get_markersize()) for line in fig.axes[0].lines}
    assert look["o"][0] == "none" != look["s"][0] and look["o"][1] > look["s"][1] == look["D"][1]


def test_a_path_is_drawn_close_up() -> None:
    """Steps of a few hundredths fill the figure; the curve beside them stays whole."""
    steps = {"untrained": (0.995, 0.2), "easy": (0.99, 0.21), "hard": (0.97, 0.6)}
    axes = plots.policy_path(steps, CURVE)[0].axes[0]
    assert axes.get_xlim()[0] > 0.96 and 1.01 > axes.get_xlim()[1] > 0.995 and axes.get_ylim()[0] > 0.1
    assert not any(text.get_bbox_patch() for text in axes.texts if text.get_text())
    assert plots.trust_plane(steps, CURVE)[0].axes[0].get_xlim()[0] < 0


def test_forest_numbers_stand_in_a_column_of_their_own() -> None:
    fig, _ = DRAWINGS["forest"]()
    assert texts(fig) == []
    assert [label.get_text() for label in fig.axes[1].get_yticklabels()] == ["+0.100 [+0.080, +0.120]", "+0.000 [-0.010, +0.010]"]


def test_policy_path_joins_the_stages_in_order() -> None:
    fig, _ = plots.policy_path(POINTS)
    arrows = [t for t in fig.axes[0].texts if getattr(t, "arrow_patch", None)]
    xy = [point[:2] for point in POINTS.values()]
    assert [(tuple(a.xyann), tuple(a.xy)) for a in arrows] == list(zip(xy[:-1], xy[1:], strict=True))


def test_matrix_frames_the_route() -> None:
    fig, _ = DRAWINGS["consultation_matrix"]()
    frames = [line.get_xydata().mean(axis=0) for line in fig.axes[0].lines]
    assert [round(float(np.mean(line.get_xdata()[:2]))) for line in fig.axes[0].lines] == [0, 1, 2, 3, 4, 5, 5]
    assert len(frames) == 7 and "0.80" in texts(fig)


def test_buckets_differ_by_hatch_and_rows_sum_to_one() -> None:
    fig, _ = DRAWINGS["buckets"]()
    bars = fig.axes[0].containers
    assert len({bar[0].get_hatch() for bar in bars}) == 3
    assert np.allclose(sum(np.array([patch.get_width() for patch in bar]) for bar in bars), 1)


def test_forest_marks_the_interval_that_holds_zero() -> None:
    fig, _ = DRAWINGS["forest"]()
    markers = [line.get_marker() for line in fig.axes[0].lines if len(line.get_xdata()) == 1]
    assert markers == ["o", "s"]


def test_training_curves_show_raw_and_smooth_and_every_stage() -> None:
    fig, _ = DRAWINGS["training_curves"]()
    reward, entropy = fig.axes[:2]
    assert [axes.get_ylabel() for axes in (reward, entropy)] == ["reward", "entropy"]
    raw, smooth, *stages = reward.lines
    assert np.array_equal(raw.get_ydata(), LOG.reward) and np.allclose(smooth.get_ydata(), LOG.reward.rolling(2, min_periods=1).mean())
    assert [line.get_xdata()[0] for line in stages] == [0, 20]
    assert entropy.lines[1].get_linestyle() != smooth.get_linestyle()


def test_a_curve_that_is_measured_now_and_then_shows_its_points() -> None:
    log = pd.DataFrame({"step": range(1, 41), "kl": 0.1, "decision_entropy": [0.5 if i % 10 == 0 else np.nan for i in range(40)]})
    fig, _ = plots.training_curves(log)
    points, line = fig.axes[0].lines
    assert fig.axes[0].get_ylabel() == "decision_entropy" and points.get_marker() == "o" and points.get_linestyle() == "None"
    assert list(points.get_xdata()) == list(line.get_xdata()) == [1, 11, 21, 31]


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="step"):
        plots.training_curves(pd.DataFrame({"step": [1], "kl": [np.nan]}))
    with pytest.raises(InputError, match="one title a picture"):
        plots.contact_sheet([], [])


# Machado 2009, severity 1: what a colour-blind reader sees of an RGB colour
SEEN_WITH = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def cycle() -> np.ndarray:
    """The seven colours, RGB from 0 to 1."""
    from matplotlib.style import context

    with context(plots.STYLE):
        from matplotlib import rcParams

        return np.array([to_rgb(c) for c in rcParams["axes.prop_cycle"].by_key()["color"]])


@pytest.mark.parametrize("sight", SEEN_WITH)
def test_colours_are_told_apart(sight: str) -> None:
    seen = (cycle() @ np.array(SEEN_WITH[sight]).T).clip(0, 1)
    assert np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(7, 1)].min() > 0.2


def test_colours_stand_out_from_white() -> None:
    """3:1 at least, as WCAG 2.1 asks of parts of a figure (1.4.11)."""
    assert min(map(contrast, cycle())) >= 3


@pytest.mark.parametrize("name", DRAWINGS)
def test_lines_and_points_of_one_axis_differ_in_more_than_colour(name: str) -> None:
    for axes in DRAWINGS[name]()[0].axes:
        named = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
        cues = [(line.get_linestyle(), line.get_marker()) for line in named]
        assert len({*cues}) == len(cues), [line.get_label() for line in named]


def test_contrasts_draw_every_world() -> None:
    fig, alt = DRAWINGS["contrasts"]()
    lines = [line.get_xdata() for line in fig.axes[0].lines]
    for row in CONTRASTS.values():
        assert any(list(x) == row["worlds"] for x in lines) and any(list(x) == [row["low"], row["mean"], row["high"]] for x in lines)
    assert "3 of 10 worlds" in alt and "KL term, paper_like -0.020 [-0.030, +0.000], Holm p 0.040" in alt
    assert fig.numbers["mean"].tolist() == [row["mean"] for row in CONTRASTS.values()]


def test_departments_without_a_case_stay_empty() -> None:
    accuracy = np.full((7, 7), np.nan)
    accuracy[1] = [0.5] * 7
    accuracy[1, 1] = 0.8
    fig, alt = plots.consultation_matrix(accuracy, [-1, 1, -1, -1, -1, -1, -1])
    assert "0.80 on the diagonal, 0.50 off; a right referral is worth +0.30" in alt and "in 1 of 1 rows" in alt
    assert sorted(filter(None, texts(fig))) == ["0.50"] * 6 + ["0.80"] and len(fig.axes[0].lines) == 1
    assert fig.numbers["route"].tolist() == ["", "Radiologist", "", "", "", "", ""]


@pytest.mark.parametrize("plane", [plots.trust_plane, plots.policy_path])
def test_without_wrong_panels_there_is_no_plane(plane: Any) -> None:
    fig, alt = plane({"vote": (1.0, float("nan"), 9, 0)}, np.empty((0, 2)))
    assert alt.endswith(f"{plots.NO_PLANE}.") and plots.NO_PLANE in fig.texts[0].get_text()
    assert len(plots.png(fig, alt)) > 0
