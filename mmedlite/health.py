"""What normal training looks like: each verdict with its reason and next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What one signal of a training log says: state is "normal", "watch" or "broken"."""

    signal: str
    state: str
    reason: str
    next_step: str


def verdicts(log: list[dict[str, Any]]) -> list[Verdict]:
    """Judge a training log (one row a step with reward, accuracy, entropy, kl, equal_groups, truncated)."""
    if not log:
        return [Verdict("steps", "broken", "no step was trained", "the stage is smaller than one update: see the profile")]
    first, last = log[0], log[-max(1, len(log) // 5) :]

    def mean(name: str) -> float:
        return sum(row[name] for row in last) / len(last)

    found = [Verdict("loss", "normal", "near 0 by design: advantages of a group sum to 0", "watch reward and accuracy instead")]
    kl0 = first["kl"]
    found.append(
        Verdict("kl at step 1", "normal", "0: the reference is the policy at the start of the stage", "")
        if abs(kl0) < 1e-4
        else Verdict(
            "kl at step 1",
            "broken",
            f"{kl0:.3g}, not 0: the reference is another model",
            "rebuild it from the stage's start",
        )
    )
    flat = mean("accuracy") - first["accuracy"]
    found.append(
        Verdict("accuracy", "normal", f"moved by {flat:+.2f} within the stage", "")
        if abs(flat) >= 0.02
        else Verdict("accuracy", "watch", "flat within the stage", "normal on easy cases; else look at equal groups")
    )
    equal = mean("equal_groups")
    found.append(
        Verdict("equal groups", "normal", f"{equal:.0%} of groups carry no advantage", "")
        if equal < 0.8
        else Verdict(
            "equal groups",
            "watch",
            f"{equal:.0%} of groups carry no advantage, only entropy and KL act",
            "harder cases",
        )
    )
    cut = mean("truncated")
    if cut > 0.1:
        found.append(Verdict("truncation", "broken", f"{cut:.0%} of completions are cut off", "raise max_new_tokens"))
    return found
