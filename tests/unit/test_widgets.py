"""Explorers at the ends of their sliders, and the models behind them against hand calculation and simulation."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

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


def test_advantages_by_hand() -> None:
    assert widgets.advantages([1, 0, 0, 0]) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-3)
    assert widgets.advantages([1, 0, 0, 0], scale=False) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    for same in ([0.5] * 8, [1.5] * 8, [0.1] * 8):
        assert np.allclose(widgets.advantages(same), 0)
    assert "nothing learnt" in widgets.advantage_figure([0.1] * 8)[1]
    assert "from -0.50 to +1.50" in widgets.advantage_figure([1, 0, 0, 0])[1]


def test_advantages_are_those_of_the_trainer() -> None:
    """sd over n - 1 with 1e-4 added, as TRL's GRPOTrainer divides; a sd over n is the mutant."""
    torch = pytest.importorskip("torch")
    rewards = torch.tensor([1.5, 0.5, 0.0, 1.0, 1.5, 0.0, 0.5, 0.5], dtype=torch.float64)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert widgets.advantages(rewards.numpy()) == pytest.approx(expected.numpy())
    assert widgets.advantages(rewards.numpy()) != pytest.approx(
        ((rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-4)).numpy()
    )


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
