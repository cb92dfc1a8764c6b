"""The primary contrasts of the analysis plan, a dot a world, on both panels: from ``evidence.json``."""

from __future__ import annotations

import json

from figures._save import save
from mmedlite import plots
from mmedlite.evidence import DATA


def main() -> None:
    """Draw the contrasts of the worlds that are there."""
    evidence = json.loads((DATA / "evidence.json").read_text(encoding="utf-8"))
    if evidence:
        save("contrasts", *plots.contrasts(evidence["primary"], len(evidence["worlds"]), evidence["planned"]))


if __name__ == "__main__":
    main()
