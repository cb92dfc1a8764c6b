"""The trained policy against every stored rival, paired on the test cases of clinic 0, a figure a panel: from ``rivals.json``."""

from __future__ import annotations

import json

from figures._save import save
from mmedlite import plots
from mmedlite.evidence import DATA


def main() -> None:
    """Draw a forest of differences for each panel."""
    for panel, rows in json.loads((DATA / "rivals.json").read_text(encoding="utf-8")).items():
        differences = {name.replace("_", " "): row["difference"] for name, row in rows.items() if name != "trained"}
        ordered = dict(sorted(differences.items(), key=lambda item: -item[1]["mean"]))
        save(f"rivals_{panel}", *plots.paired_differences(ordered, f"trained policy, {panel.replace('_', '-')} panel,"))


if __name__ == "__main__":
    main()
