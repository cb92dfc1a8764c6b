"""What normal training looks like: each signal is normal, watch or broken, with its reason and the next step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from mmedlite.curriculum import BUCKETS

REFERENCE_KL = 1e-4  # nats a token: more at step 1, and the reference is another model
STILL_KL, STILL_STEPS = 1e-5, 20  # a policy that is no further from its reference after so many steps does not move
KL_WATCH, KL_BROKEN = 0.3, 0.5  # nats a token; the stored runs end below 0.25, the long one on a coin at 0.7
NOTHING = 0.01  # an entropy term whose gradient is a smaller share of the policy term's does nothing
MOVED, FELL = 0.02, 0.15  # accuracy: a smaller change is none; a larger fall is no luck of a few steps


@dataclass(frozen=True)
class Verdict:
    """What one signal says: state is "normal", "watch" or "broken"."""

    signal: str
    state: str
    reason: str
    next_step: str = ""


def _loss(log: Sequence[Mapping[str, Any]]) -> Verdict:
    values = [row["loss"] for row in log]
    if not all(map(math.isfinite, values)):
        return Verdict("loss", "broken", "not a number", "lower the learning rate; look for a reward that is not a number")
    largest = max(map(abs, values))
    if largest > 1:
        return Verdict("loss", "watch", f"as large as {largest:.2g}", "look at KL and the coefficients: advantages alone keep it near 0")
    return Verdict("loss", "normal", "near 0 by design: the advantages of a group sum to 0; watch accuracy and KL instead")


def _anchor(log: Sequence[Mapping[str, Any]]) -> Verdict:
    kl = log[0]["kl"]
    if abs(kl) < REFERENCE_KL:
        return Verdict("kl at step 1", "normal", "0: the reference is the policy at the start of the stage")
    return Verdict("kl at step 1", "broken", f"{kl:.3g}, not 0: the reference is another model", "rebuild it from the stage's start")


def _distance(log: Sequence[Mapping[str, Any]]) -> Verdict:
    kl = _late(log, "kl")
    if len(log) >= STILL_STEPS and kl < STILL_KL:
        return Verdict(
            "kl", "broken", f"{kl:.2g} after {len(log)} steps: the weights do not move", "raise the learning rate; is the adapter trainable?"
        )
    if kl > KL_WATCH:
        state = "broken" if kl > KL_BROKEN else "watch"
        return Verdict("kl", state, f"{kl:.2f} nats a token: the policy runs away from its reference", "lower the learning rate or raise beta")
    return Verdict("kl", "normal", f"{kl:.2g} nats a token from the start of the stage")


def _accuracy(log: Sequence[Mapping[str, Any]]) -> Verdict:
    accuracy, form = (_late(log, name) - _early(log, name) for name in ("accuracy", "format"))
    if form > 0.1 and accuracy < MOVED:
        return Verdict("accuracy", "watch", f"format rose by {form:.2f}, accuracy by {accuracy:+.2f}: only the form is learned",
                       "check that the accuracy reward reads <answer>; warm the policy up on the form")  # fmt: skip
    if accuracy <= -MOVED:
        state = "broken" if accuracy < -FELL else "watch"
        return Verdict("accuracy", state, f"falls: {accuracy:+.2f} within the stage", "look at the reward, then at KL; lower the learning rate")
    if accuracy < MOVED:
        return Verdict(
            "accuracy", "watch", f"flat: {accuracy:+.2f} within the stage", "normal on easy cases and in few steps; else see equal groups"
        )
    return Verdict("accuracy", "normal", f"rose by {accuracy:+.2f} within the stage")


def _groups(log: Sequence[Mapping[str, Any]]) -> Verdict:
    equal = _late(log, "equal_groups")
    if equal > 0.99:
        return Verdict("equal groups", "broken", "no group carries an advantage: only entropy and KL act", "mix in harder cases")
    if equal > 0.85:
        return Verdict(
            "equal groups", "watch", f"{equal:.0%} of groups carry no advantage, there only entropy and KL act", "mix in harder cases"
        )
    return Verdict("equal groups", "normal", f"{equal:.0%} of groups carry no advantage")


def _entropy(log: Sequence[Mapping[str, Any]]) -> Verdict:
    first, last = _early(log, "entropy"), _late(log, "entropy")
    told = f"{first:.3f} -> {last:.3f} nats a token"
    if last < 0.1 * first or last < 0.005:
        return Verdict("entropy", "broken", f"collapsed: {told}, all rollouts alike", "raise gamma, lower the learning rate")
    if last < 0.35 * first:
        return Verdict("entropy", "watch", f"falling fast: {told}", "raise gamma, lower the learning rate")
    if last > 4 * first and last > 0.5:
        return Verdict("entropy", "broken", f"exploded: {told}, the answers are noise", "lower gamma")
    return Verdict("entropy", "normal", told)


def _dose(log: Sequence[Mapping[str, Any]]) -> Verdict:
    measured = [row for row in log if "entropy_gradient" in row]
    if not measured:
        return Verdict("entropy term", "normal", "not measured (FSDP gives no gradient of its own to a term)")
    policy, entropy = (sum(row[f"{name}_gradient"] for row in measured) for name in ("policy", "entropy"))
    if not policy:
        return Verdict("entropy term", "watch", "acts alone: there is no policy gradient beside it", "mix in cases with an advantage")
    share = entropy / policy
    if share < NOTHING:
        return Verdict(
            "entropy term",
            "watch",
            f"did nothing: its gradient is {share:.2%} of the policy term's",
            "raise gamma, or call it GRPO without a bonus",
        )
    if share > 1:
        return Verdict(
            "entropy term",
            "watch",
            f"outweighs the policy term: {share:.1f} times its gradient",
            "lower gamma, or mix in cases with an advantage",
        )
    return Verdict("entropy term", "normal", f"its gradient is {share:.1%} of the policy term's")


def _length(log: Sequence[Mapping[str, Any]]) -> Verdict:
    cut = _late(log, "truncated")
    if cut > 0.1:
        return Verdict("truncation", "broken", f"{cut:.0%} of completions are cut off", "raise max_new_tokens")
    if cut > 0.02:
        return Verdict("truncation", "watch", f"{cut:.0%} of completions are cut off", "raise max_new_tokens if it grows")
    return Verdict("truncation", "normal", f"{cut:.1%} of completions are cut off")


def _early(log: Sequence[Mapping[str, Any]], name: str) -> float:
    return fmean(row[name] for row in log[: max(1, len(log) // 5)])


def _late(log: Sequence[Mapping[str, Any]], name: str) -> float:
    return fmean(row[name] for row in log[-max(1, len(log) // 5) :])


def verdicts(log: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Judge the log of one stage (rows of :func:`grpo.train`); early and late are the first and the last fifth of it."""
    if not log:
        return [Verdict("steps", "broken", "no step was trained", "the stage is smaller than one update: see the profile")]
    return [judge(log) for judge in (_loss, _anchor, _distance, _accuracy, _groups, _entropy, _dose, _length)]


def routing_verdict(correct: Sequence[bool], departments: int) -> Verdict:
    """Judge where a triage doctor sends cases whose department is known: as good as a toss among ``departments``, or better?"""
    share, chance = sum(correct) / len(correct), 1 / departments
    told = f"{share:.1%} of {len(correct)} cases go to their department, a toss sends {chance:.1%}"
    if share < chance + 3 * math.sqrt(chance * (1 - chance) / len(correct)):
        return Verdict("routing", "broken", f"collapsed: {told}", "look at the reward and at KL; start again from the untrained adapter")
    if share < 2 * chance:
        return Verdict("routing", "watch", f"near random: {told}", "train longer; look at equal groups")
    return Verdict("routing", "normal", told)


def panel_verdicts(stages: Sequence[pd.DataFrame]) -> list[Verdict]:
    """Judge what a policy makes of its panel: Result rows of the same cases before training and after each stage, in order."""
    first, last = stages[0], stages[-1]
    share = {b: float(last.loc[last["difficulty"] == b, "correct"].mean()) for b in BUCKETS}
    told = ", ".join(f"{b} {v:.2f}" for b, v in share.items())
    flips = [float(1 - f.loc[f["difficulty"] == "easy", "correct"].mean()) for f in (first, last)]
    moved = f"easy cases answered against three right specialists: {flips[0]:.1%} -> {flips[1]:.1%}"
    return [
        Verdict("reliance", "broken", f"copies the panel: {told}", "more hard cases, with a higher gamma")
        if share["easy"] > 0.9 and share["hard"] < 0.05
        else Verdict("reliance", "normal", told),
        Verdict("flips on easy cases", "normal", moved)
        if flips[1] <= flips[0] + 0.03
        else Verdict("flips on easy cases", "watch" if flips[1] < 0.15 else "broken", f"rising: {moved}", "mix easy cases in"),
    ]
