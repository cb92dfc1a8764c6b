"""Numbers on the pages: filled ones are those of the stored files, and a typed one must be listed here with where it comes from."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nbformat
import pytest

from figures import _evidence_page, readme
from mmedlite.profiles import ROOT
from mmedlite.rewards import format_reward

DECIMAL = re.compile(r"(?<![\w/.-])\d*\.\d+")
# Of notebooks' prose and README outside its block: number -> what it is. A measured number does not belong here: let a script fill it.
TYPED = {
    "00": {"2506.00555": "arXiv", "0.9": "a recap's example", "0.3": "a recap's example"},
    "01": {"1.8": "3 / (1 + 2/3)"},
    "02": {"0.5": "reward of the form", ".3": "bound of a probe", "1.95": "ln 7", "0.0000": "as a log prints it"},
    "04": {"3.1": "equation", "1.75": "entropy in bits", "1.213": "entropy in nats", "1.5": "largest reward", "0.5": "reward of the form"},
    "05": {"0.490": "Wilson", "0.943": "Wilson", "0.8": "8 of 10", "0.248": "textbook half-width", "1.96": "normal quantile"},
    "06": {"26.5": "the paper", "23.0": "the paper"},
    "README": {"2506.00555": "arXiv", "1.2": "parameters", "3.11": "Python"},
}


def prose() -> dict[str, str]:
    """What people typed: README without its block, and the notebooks' text without the line that `figures.readme` fills."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    texts = {"README": re.sub(re.escape(readme.START) + ".*?" + re.escape(readme.END), "", page, flags=re.S)}
    for file in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        cells = nbformat.read(file, 4).cells
        texts[file.stem[:2]] = re.sub(r"^Time: .*$", "", "\n".join(c.source for c in cells if c.cell_type == "markdown"), flags=re.M)
    return texts


@pytest.mark.parametrize("name", [*TYPED, "03"])
def test_a_typed_number_is_a_listed_one(name: str) -> None:
    assert {*DECIMAL.findall(prose()[name])} == {*TYPED.get(name, {})}


def test_listed_numbers_are_right() -> None:
    assert round(math.log(7), 2) == 1.95 and round(3 / (1 + 2 / 3), 9) == 1.8
    assert format_reward(["<think>a</think><answer>b</answer>"]) == [0.5]
    assert round(1.75 * math.log(2), 3) == 1.213 and round(1.96 * math.sqrt(0.8 * 0.2 / 10), 3) == 0.248
    header = (ROOT / "artifacts" / "policy" / "model.safetensors").read_bytes()
    tensors = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    assert round(sum(math.prod(t["shape"]) for name, t in tensors.items() if name != "__metadata__") / 1e6, 1) == 1.2


def test_filled_pages_are_those_of_the_stored_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_evidence_page, "PAGE", tmp_path / "evidence.md")
    _evidence_page.main()
    again, stored = (file.read_text(encoding="utf-8") for file in (tmp_path / "evidence.md", ROOT / "figures" / "evidence.md"))
    assert again == stored, "run `make figures`"
    assert readme.MEASURED.read_text(encoding="utf-8").endswith(readme.measured()), "run `make figures`"
    assert readme.START + readme.block() + readme.END in (ROOT / "README.md").read_text(encoding="utf-8"), "run `make figures`"
