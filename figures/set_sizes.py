"""How many questions each rule finds in the paper's sets, beside the paper's numbers: from the cards of tables that were built here.

``python -m figures.set_sizes --tables DIR``: DIR holds a table of each source that is at hand, as ``data_prep SOURCE --out DIR/SOURCE``
writes it.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from mmedlite.evidence import DATA

SETS = {"vqa_rad": "VQA-RAD", "slake": "SLAKE", "path_vqa": "PathVQA", "omnimedvqa": "OmniMedVQA", "mmmu": "MMMU Health & Medicine"}


def main() -> None:
    """Store the counts; null for a set of which no copy is at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    tables, out = parser.parse_args().tables, DATA / "set_sizes.json"
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}  # what was counted before stays
    for name, title in SETS.items():
        card = tables / name / "card.json"
        told = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        paper = importlib.import_module(f"data_prep.{name}").PAPER
        if told or title not in found:
            found[title] = {"source": name, "paper": paper, "rules": told.get("sizes"), "files": told.get("files")}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
