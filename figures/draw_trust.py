"""Calibration of the trust decision before and after training, on both panels, from ``trust.json``."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from figures._save import save
from mmedlite import plots
from mmedlite.evidence import DATA


def trust(found: dict[str, Any]) -> tuple[plots.Drawing, str]:
    """Groups of cases by the probability that the majority is followed, against the share in which it is right; one panel an axis."""
    parts = [pd.DataFrame(r["groups"]).assign(panel=p, policy=policy) for p, policies in found.items() for policy, r in policies.items()]
    table = pd.concat(parts, ignore_index=True)

    def paint(fig: plots.Drawing) -> None:
        axes = fig.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for ax, (panel, part) in zip(axes, table.groupby("panel"), strict=True):
            ax.plot([0, 1], [0, 1], ":", color="0.6")
            for i, (policy, group) in enumerate(part.groupby("policy", sort=False)):
                ax.plot(group["probability"], group["right"], plots.LINES[i], marker=plots.MARKERS[i], color=f"C{i}", label=policy)
            ax.legend(loc="upper left")
            ax.set(title=str(panel).replace("_", "-"), xlabel="probability of the majority's option", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes[0].set(ylabel="share in which the majority is right")

    told = "; ".join(
        f"{panel}, {policy}: "
        + ", ".join(f"{p:.2f} and {s:.2f}" for p, s in zip(r["groups"]["probability"], r["groups"]["right"], strict=True))
        for panel, policies in found.items() for policy, r in policies.items()
    )  # fmt: skip
    n = ", ".join(f"{panel} {r['trained']['n']:,}" for panel, r in found.items())
    alt = (
        "Probability that a policy gives the majority's option against the share of cases in which the majority is right, ten groups of equal "
        f"size each, by panel (n: {n}); dotted: perfect calibration. Probability and share, from the least probable group: {told}."
    )
    return plots.draw(paint, table, (8.4, 4.2)), alt


def main() -> None:
    """Draw what is there."""
    if found := json.loads((DATA / "trust.json").read_text(encoding="utf-8")):
        save("trust", *trust(found))


if __name__ == "__main__":
    main()
