"""What the worlds of ``analysis_plan.md`` say: the primary contrasts with their tests, and what is exploratory.

``python -m figures.evidence`` reads ``figures/data/worlds/*.parquet`` and writes ``figures/data/evidence.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from figures.worlds import ARMS, OUT, UNTRAINED, WORLDS, recipe_sha256, world_seeds
from mmedlite.answers import parse_strict
from mmedlite.inference import holm, over_worlds, sign_flip, smallest_detectable
from mmedlite.profiles import ROOT

EVIDENCE = ROOT / "figures" / "data" / "evidence.json"
# contrast: (arm, the arm it is compared with, sign of the paper's direction)
PRIMARY = {
    "order at equal data": ("printed_as_is", "printed_shuffled", 1), "hard cases in": ("printed_as_is", "printed_hard_out", 1),
    "hard cases rehearsed": ("printed_hard_rehearsed", "printed_as_is", 0), "entropy term": ("printed_as_is", "printed_entropy_off", 1),
    "KL term": ("printed_as_is", "printed_kl_off", 1),
}  # fmt: skip
RECOMMENDED = "recommended_as_is"
SUBSETS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "yes/no questions": lambda f: f["question_type"] == "yes_no", "four options": lambda f: f["question_type"] == "choice",
    "unanimous panels": lambda f: f["unanimous"], "unanimous and wrong": lambda f: f["unanimous"] & (f["panel_vote"] != f["answer"]),
    "easy": lambda f: f["difficulty"] == "easy", "medium": lambda f: f["difficulty"] == "medium", "hard": lambda f: f["difficulty"] == "hard",
}  # fmt: skip


def read_world(seed: int) -> pd.DataFrame:
    """The rows of a world with, a column a system, whether it was right: texts are parsed again, strictly."""
    frame = pd.read_parquet(OUT / f"{seed}.parquet")
    options = [json.loads(o) for o in frame["options"]]
    for name in frame.columns[frame.columns.get_loc("options") + 1 :]:
        said = frame[name].tolist()
        chosen = [int(s) if s.lstrip("-").isdigit() else parse_strict(s, o).option for s, o in zip(said, options, strict=True)]
        frame[name] = np.array([-1 if c is None else c for c in chosen]) == frame["answer"]
    return frame


def compare(worlds: Mapping[int, pd.DataFrame], arm: str, rival: str) -> dict[str, Any]:
    """Difference of two systems over the worlds that have both."""
    both = {seed: f for seed, f in worlds.items() if arm in f and rival in f}
    found = over_worlds([f[arm].to_numpy(float) - f[rival].to_numpy(float) for f in both.values()])
    return {**found, "accuracy": float(np.mean([f[arm].mean() for f in both.values()])),
            "rival": float(np.mean([f[rival].mean() for f in both.values()])), "seeds": list(both)}  # fmt: skip


def primary(worlds: Mapping[int, pd.DataFrame], panels: list[str]) -> dict[str, dict[str, Any]]:
    """Every primary contrast on every panel, with the exact p, Holm's over all of them, and the verdict of the plan."""
    found = {}
    for panel in panels:
        of_panel = {seed: f[f["panel"] == panel] for seed, f in worlds.items()}
        for name, (arm, rival, _) in PRIMARY.items():
            found[f"{name}, {panel}"] = compare(of_panel, arm, rival)
    for row in found.values():
        row["p"] = sign_flip(row["worlds"])
    for (name, row), p in zip(found.items(), holm([row["p"] for row in found.values()]), strict=True):
        sign = PRIMARY[name.rsplit(", ", 1)[0]][2]
        row |= {"p_holm": float(p), "detectable": smallest_detectable(row["sd"], len(row["worlds"])), "verdict": "not seen"}
        if p < 0.05:
            row["verdict"] = "seen" if sign == 0 or sign * row["mean"] > 0 else "opposite seen"
    return found


def main() -> None:
    """Count and store."""
    seeds = [s for s in world_seeds() if (OUT / f"{s}.parquet").exists()]
    worlds = {seed: read_world(seed) for seed in seeds}
    panels = sorted(worlds[seeds[0]]["panel"].unique())
    trained = sorted({c for f in worlds.values() for c in f.columns if c.startswith(("printed_", "recommended_"))})
    split = {f"{name}, {panel}": {seed: f[(f["panel"] == panel) & keep(f)] for seed, f in worlds.items()}
             for panel in panels for name, keep in {"all": lambda f: f["answer"] >= 0, **SUBSETS}.items()}  # fmt: skip
    content: dict[str, Any] = {
        "worlds": seeds, "planned": WORLDS, "plan": recipe_sha256(), "primary": primary(worlds, panels),
        "accuracy": {name: {a: float(np.mean([f[a].mean() for f in parts.values() if a in f])) for a in (*UNTRAINED, *trained)}
                     for name, parts in split.items()},
        "by kind": {f"{contrast}, {name}": compare(parts, arm, rival)
                    for name, parts in split.items() if not name.startswith("all") for contrast, (arm, rival, _) in PRIMARY.items()},
        "recommended": {f"against {rival}, {panel}": compare(split[f"all, {panel}"], RECOMMENDED, rival)
                        for panel in panels for rival in (*UNTRAINED, "printed_as_is")},
        "exploratory": {f"{a} against {a.split('_')[0]}_as_is, {panel}": compare(split[f"all, {panel}"], a, f"{a.split('_')[0]}_as_is")
                        for panel in panels for a in trained if tuple(a.split("_", 1)) not in ARMS},
    }  # fmt: skip
    EVIDENCE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, row in content["primary"].items():
        interval = f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        print(f"{name}: {interval}, p {row['p']:.4f}, Holm {row['p_holm']:.3f}: {row['verdict']}")


if __name__ == "__main__":
    main()
