"""Headroom before training: what an ideal reader gains over vote, picture alone and untrained policy, on validation cases.

The design's gate for the diverse panel: >= 6 points over the best of them, >= 5 over the vote on unanimous panels, easy >= .95.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile

from mmedlite.pipeline import headroom, panel_report, read_alone
from mmedlite.profiles import ROOT
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side

OUT = ROOT / "figures" / "data" / "headroom.json"


def main() -> int:
    """Measure both panels and store the numbers with their provenance; 1 where the gate is not passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        splits = ("train", "validation")
        alone = dict(zip(splits, side_by_side(run, [(read_alone, s) for s in splits]), strict=True))
        found = {p: {**panel_report(run, "validation", p), **headroom(run, p, alone)} for p in run.profile.panels}
    diverse = found["diverse"]
    gate = diverse["headroom"] >= 0.06 and diverse["unanimous_headroom"] >= 0.05 and diverse["ideal_reader_easy"] >= 0.95
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({"gate_passed": gate, **found, "made_from": run.facts}, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps({"gate_passed": gate, **found}))
    else:
        for panel, numbers in found.items():
            print(panel, {k: round(v, 3) for k, v in numbers.items()})
        print("gate passed" if gate else "gate NOT passed")
    return int(not gate)


if __name__ == "__main__":
    sys.exit(main())
