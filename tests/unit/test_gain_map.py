"""The map: dialled panels as the trainings saw them, gains counted by hand, the paper's sets where its shares put them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from figures import draw_gain_map
from figures import gain_map as trainings
from mmedlite import gain_map
from mmedlite.cases import Case, CaseTable
from mmedlite.evaluation import bucket_report
from mmedlite.profiles import load_profile
from mmedlite.simulated import SimulatedSpecialists
from mmedlite.specialists import panel_options
from mmedlite.store import OpinionStore

CASES = [
    Case(f"case-{i}", "made", "test", (f"{i}",), (f"{i}",), f"Which {i}?", ["a", "b", "c", "d"], i % 4, "CT", "Surgeon", "choice", "MIT", {})
    for i in range(600)
]
TABLE = CaseTable(Path("made"), CASES)


def test_a_cell_names_its_dials_and_its_profile_bears_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All else is the tiny profile, with half of the test cases."""
    monkeypatch.setattr(trainings, "WORK", tmp_path)
    monkeypatch.setattr(trainings, "Run", lambda folder, profile, seed: load_profile(profile))
    for cell in gain_map.CELLS:
        made, tiny = trainings.open_cell(cell), load_profile("tiny")
        assert (made.simulated.accuracy, made.simulated.correlation) == gain_map.dials_of(cell) and not made.simulated.corrupted
        assert list(made.panels) == ["dialled"] and made.eval_cases == gain_map.CASES
        assert (made.attending, made.grpo, made.triage, made.lora, made.policy) == (
            tiny.attending, tiny.grpo, tiny.triage, tiny.lora, tiny.policy)  # fmt: skip


def test_the_dialled_panel_of_verify_is_that_of_the_training(tmp_path: Path) -> None:
    """Asked through the store, as a run does; accuracy and correlation are those of the cell."""
    cell = "0.60-0.80"
    asked, _ = panel_options(CASES, ["Surgeon"] * 600, "dialled", TABLE, OpinionStore(tmp_path),
                             SimulatedSpecialists(["dialled"], *gain_map.dials_of(cell)))  # fmt: skip
    panels = gain_map.dialled(cell, TABLE)
    said = [panels("dialled", c.case_id, "Surgeon") for c in CASES]
    assert said == asked.tolist()
    rows = [{"case_id": c.case_id, "sample_index": i, "option": o} for c, v in zip(CASES, asked, strict=True) for i, o in enumerate(v)]
    truth = {c.case_id: c.answer for c in CASES}
    assert bucket_report(pd.DataFrame(rows), truth)["rho"] == pytest.approx(0.8, abs=0.06)
    assert (asked == np.array([*truth.values()])[:, None]).mean() == pytest.approx(0.6, abs=0.06)


def wide(n: int, right: dict[str, float], panel: str) -> pd.DataFrame:
    """Systems that are right on that share of the cases, the first ones."""
    facts = {"panel": panel, "case_id": [f"c{i}" for i in range(n)], "answer": np.arange(n) % 4, "options": json.dumps(list("abcd"))}
    said = {name: np.where(np.arange(n) < share * n, np.arange(n) % 4, (np.arange(n) + 1) % 4).astype(str) for name, share in right.items()}
    return pd.DataFrame({**facts, **said})


@pytest.fixture
def found(tmp_path: Path) -> dict:  # type: ignore[type-arg]
    (tmp_path / "map").mkdir()
    wide(100, {"majority_vote": 0.6, "three_weights": 0.7, gain_map.GAINED: 0.75}, "dialled").to_parquet(tmp_path / "map" / "0.60-0.40.parquet")
    doctors = {f"specialist_{i}": 0.5 for i in (1, 2, 3)}
    both = [wide(100, {**doctors, "majority_vote": 0.5, "three_weights": 0.6, "trained": 0.5}, p) for p in ("diverse", "paper_like")]
    pd.concat(both, ignore_index=True).to_parquet(tmp_path / "rivals.parquet")
    return gain_map.count(tmp_path)


def test_gains_are_counted_by_hand(found: dict) -> None:  # type: ignore[type-arg]
    cell = found["cells"]["0.60-0.40"]
    assert list(found["cells"]) == ["0.60-0.40"] and (cell["accuracy"], cell["correlation"]) == (0.6, 0.4)
    assert cell["gain"]["mean"] == pytest.approx(0.05) and cell["gain"]["n"] == 100 and cell["three_weights"] == 0.7
    clinic = found["clinic"]["diverse"]
    assert (clinic["accuracy"], clinic["correlation"]) == pytest.approx((0.5, 1.0)) and clinic["gain"]["mean"] == pytest.approx(-0.1)
    assert found["clinic"].keys() == {"diverse", "paper_like"}


def test_the_papers_sets_lie_where_table_3_puts_them(found: dict) -> None:  # type: ignore[type-arg]
    """With that accuracy and correlation a beta-binomial gives back the shares of easy and hard cases."""
    shares = {"VQA-RAD": (498, 160, 281), "SLAKE": (1284, 114, 275), "PathVQA": (6539, 1135, 2070)}
    rng = np.random.default_rng(0)
    for name, counts in shares.items():
        a, rho = found["paper"][name]["accuracy"], found["paper"][name]["correlation"]
        p = rng.beta(a * (1 / rho - 1), (1 - a) * (1 / rho - 1), 400_000)
        assert ((p**3).mean(), ((1 - p) ** 3).mean()) == pytest.approx((counts[0] / sum(counts), counts[2] / sum(counts)), abs=0.01)


def test_no_cell_no_map(tmp_path: Path) -> None:
    assert gain_map.count(tmp_path) == {}


def test_the_figure_draws_what_was_counted(found: dict) -> None:  # type: ignore[type-arg]
    """A square for each trained cell and no other; everything else lies under the hatching."""
    fig, alt = draw_gain_map.gain_map(found)
    squares = [p for p in fig.axes[0].patches if isinstance(p, Rectangle)]
    hatched = [p for p in squares if p.get_hatch()]
    assert len(squares) - len(hatched) == len(found["cells"]) and len(hatched) == 1
    assert "+5.0" in {t.get_text().rstrip("*") for t in fig.axes[0].texts}
    assert fig.numbers.loc["0.60-0.40", "mean"] == pytest.approx(0.05) and np.isnan(fig.numbers.loc["SLAKE", "mean"])
    assert "no data here" in alt and "0.60, correlation 0.40: +0.050" in alt
