"""The drawn figures are those of the stored numbers, with their alt text beside them."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from figures import _save, draw_chair, draw_contrasts, draw_gain_map, draw_rivals, draw_trust
from mmedlite.evidence import DATA


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_save, "DRAWN", folder)
        for script in (draw_chair, draw_rivals, draw_contrasts, draw_gain_map, draw_trust):
            script.main()
    return folder


def numbers(file: Path) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(file.read_text().split("```csv\n")[1].split("```")[0]), index_col=0)


def test_stored_figures_are_drawn_from_the_stored_numbers(drawn: Path) -> None:
    """Words and numbers byte for byte; pixels depend on the fonts of the machine."""
    names = sorted(file.name for file in drawn.glob("*.md"))
    assert names and names == sorted(file.name for file in _save.DRAWN.glob("*.md"))
    for name in names:
        assert (drawn / name).read_bytes() == (_save.DRAWN / name).read_bytes(), f"{name}: run `make figures`"


def test_plotted_numbers_are_the_stored_ones(drawn: Path) -> None:
    for panel, rows in json.loads((DATA / "rivals.json").read_text()).items():
        table = numbers(drawn / f"rivals_{panel}.md")
        assert len(table) == len(rows) - 1
        for name, row in table.iterrows():
            stored = rows[str(name).replace(" ", "_")]["difference"]
            assert row.to_dict() == pytest.approx({k: stored[k] for k in ("mean", "low", "high", "n")}, abs=6e-5)


def test_every_picture_bears_its_words(drawn: Path) -> None:
    for file in drawn.glob("*.svg"):
        alt = file.with_suffix(".md").read_text().split("\n\n")[1]
        assert len(alt) > 100 and alt in {text.strip() for text in ET.parse(file).getroot().itertext()}
        assert file.with_suffix(".png").stat().st_size > 1000


def test_drawing_again_gives_the_same_bytes(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_save, "DRAWN", tmp_path)
    draw_rivals.main()
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (drawn / file.name).read_bytes()
