"""Bands over worlds: what notebooks 00 to 04 measure of panels and policy, in clinics, opinions and trainings that are other ones."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from mmedlite.checks import make_band
from mmedlite.evidence import DATA, read_worlds, world_seeds

SOURCE = "figures/worlds.py"
ASKED = ["majority_vote", "untrained_panel", "recommended_as_is"]  # systems of the worlds with a band, or the control of one


def world_bands(made: Mapping[str, Any]) -> dict[str, Any]:
    """The bands ``vote_<panel>``, ``easy_<panel>``, ``hard_<panel>``, ``last_stage_<panel>``: shares of the test cases of a stored world.

    Args:
        made: code, config and cases_sha256 of the runs that are held to them.
    """
    worlds = read_worlds(DATA / "worlds", sorted(world_seeds()))
    shares: dict[str, dict[str, dict[str, float]]] = {}  # quantity: panel: world: share
    for seed, frame in worlds.items():
        frame = frame.assign(easy=frame["difficulty"] == "easy", hard=frame["difficulty"] == "hard", guess=1 / frame["n_options"])
        for panel, row in frame.groupby("panel")[["easy", "hard", "guess", *ASKED]].mean().iterrows():
            for quantity, share in row.items():
                shares.setdefault(str(quantity), {}).setdefault(str(panel), {})[str(seed)] = float(share)
    n = min(int((frame["panel"] == frame["panel"].iloc[0]).sum()) for frame in worlds.values())

    def control(quantity: str, panel: str) -> dict[str, float]:
        return {f"{quantity}, {panel}": mean(shares[quantity][panel].values())}

    found = {}
    for panel, other in zip(panels := [*shares["easy"]], reversed(panels), strict=True):
        controls = {"vote": control("guess", panel), "easy": control("easy", other), "hard": control("hard", other),
                    "last_stage": control("untrained_panel", panel)}  # fmt: skip
        for name, quantity in (("vote", "majority_vote"), ("easy", "easy"), ("hard", "hard"), ("last_stage", "recommended_as_is")):
            found[f"{name}_{panel}"] = make_band(shares[quantity][panel], n, controls[name], "within", **{**made, "source": SOURCE})
    return found
