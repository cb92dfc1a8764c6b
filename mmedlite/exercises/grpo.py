"""Exercises of notebooks 02 and 04: form, advantage, price of a referral, KL, entropy, objective."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from mmedlite.advantages import advantages
from mmedlite.exercises.exercise import Exercise
from mmedlite.rewards import FORMAT, format_ok

_RNG = np.random.default_rng(0)
GOOD = "<think>seen</think><answer>yes</answer>"
TEXTS = (
    GOOD, "<think>seen\ntwice</think>\n<answer>yes</answer>", f"Well: {GOOD}", f"{GOOD} So yes.", "<think> </think><answer>yes</answer>",
    "<think>seen</think><answer></answer>", "<answer>yes</answer>", "<answer>yes</answer><think>seen</think>", f"{GOOD}{GOOD}", "yes",
)  # fmt: skip


def format_reward(text: str) -> float:
    """0.5 for ``<think>...</think><answer>...</answer>``, both filled and nothing around them, else 0."""
    return FORMAT * format_ok(text)


def _form(pattern: str, flags: int = re.DOTALL, how: Callable[..., Any] = re.fullmatch) -> Callable[[str], float]:
    return lambda text: 0.5 * (how(pattern, text, flags) is not None)


def _standard(r: np.ndarray, axis: int | None = 1, ddof: int = 1, small: float = 1e-4) -> np.ndarray:
    return np.asarray((r - r.mean(axis, keepdims=True)) / (r.std(axis, ddof=ddof, keepdims=True) + small))


def price(worth: np.ndarray, homes: np.ndarray, routes: np.ndarray) -> float:
    """Accuracy that a triage loses against one that sends every case home.

    Args:
        worth: (7, 7) accuracy of the specialists of a column's department on the cases of a row's. homes, routes: (n,) int departments.
    """
    return float((worth[homes, homes] - worth[homes, routes]).mean())


def _price_of_misrouted(worth: np.ndarray, homes: np.ndarray, routes: np.ndarray) -> float:
    lost = worth[homes, homes] - worth[homes, routes]
    return float(lost[homes != routes].mean())


def kl(log_p: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
    """Estimate of KL(policy, reference) of each sampled token: exp(d) - d - 1 with d = log_ref - log_p; any shape (paper Eq. 2.1)."""
    d = log_ref - log_p
    return np.asarray(np.exp(d) - d - 1)


def entropy(log_probs: np.ndarray, mask: np.ndarray) -> float:
    """Mean entropy, nats: over the tokens of each completion, then over the completions.

    Args:
        log_probs: (B, T, V) float. mask: (B, T) 1 for a token of the completion, 0 for padding.
    """
    return float(((_per_token(log_probs) * mask).sum(1) / mask.sum(1)).mean())


def _per_token(log_probs: np.ndarray) -> np.ndarray:
    """Entropy of each token, (B, T)."""
    return np.asarray(-(np.exp(log_probs) * log_probs).sum(-1))


def objective(
    ratio: np.ndarray, advantage: np.ndarray, entropy: np.ndarray, kl: np.ndarray, gamma: float, beta: float, clip: float = 0.2,
    *, gain: Callable[..., Any] = np.minimum,
) -> float:  # fmt: skip
    """The objective of a batch (paper Eq. 2.1 and 3.1): the clipped gain, plus gamma times entropy, minus beta times KL; arrays (B,).

    ``gain`` takes the gain and the clipped gain; another than the smaller of the two is a mistake.
    """
    raw, clipped = ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage
    return float((gain(raw, clipped) + gamma * entropy - beta * kl).mean())


def _signed(gamma_sign: int, beta_sign: int) -> Callable[..., float]:
    """``objective`` with the entropy and KL terms times a sign, or 0."""
    return lambda ratio, advantage, entropy, kl, gamma, beta: objective(ratio, advantage, entropy, kl, gamma_sign * gamma, beta_sign * beta)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    return np.asarray(scores - np.log(np.exp(scores).sum(-1, keepdims=True)))


REWARDS = np.array([[1.5, 0.5, 0.5, 0.5], [1.5, 1.5, 1.5, 0.0], [0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
LOG_PROBS = _log_softmax(_RNG.normal(0, 2, (3, 4, 5)))
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])
LOG_P, LOG_REF = np.log(_RNG.uniform(0.05, 0.95, (2, 6)))
RATIO, ADVANTAGE = np.array([0.5, 1.0, 1.5, 0.5, 1.5, 1.0]), np.array([1.0, 1.0, 2.0, -1.0, -1.5, -2.0])
ENTROPY, KL = _RNG.uniform(0.1, 2.0, (2, 6))
WORTH = _RNG.uniform(0.3, 0.8, (7, 7)) + 0.2 * np.eye(7)
HOMES, ROUTES = np.array([0, 1, 2, 3, 4, 5, 6, 0, 0, 1]), np.array([0, 1, 2, 3, 5, 5, 0, 3, 0, 2])
PAIR = r"\s*<think>(.*\S.*)</think>\s*<answer>(.*\S.*)</answer>\s*"


EXERCISES = {
    "format_reward": Exercise(
        "start", 5, format_reward, [(text,) for text in TEXTS],
        {
            "the form is worth 0.5, not 1": lambda t: 1.0 * format_ok(t),
            "something stands before or after the two tags: match the whole text": _form(PAIR, how=re.search),
            "a newline in the reasoning broke the match: `.` stops at newlines without re.DOTALL": _form(PAIR, 0),
            "an empty reasoning or answer is no form: both must be filled":
                lambda t: t.count("<think>") % 2 * _form(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*")(t),
        },
        [lambda t: 0.5 * ("<answer>" in t), lambda t: 0.5 * t.startswith("<think>"), lambda t: 0.0, lambda t: 0.5 * (not format_ok(t))],
    ),
    "advantage": Exercise(
        "core", 8, advantages, [(REWARDS,), (REWARDS[:1],), (REWARDS[2:3],)],
        {
            "you did not divide by the group's standard deviation": lambda r: r - r.mean(1, keepdims=True),
            "the standard deviation is over n; TRL takes n - 1 (ddof=1)": lambda r: _standard(r, ddof=0),
            "mean and sd are over the whole batch; take them over each group (axis 1)": lambda r: _standard(r, None),
            "you went down the columns; a group is a row (axis 1)": lambda r: _standard(r, 0),
            "a group of equal rewards has sd 0: add 1e-4 before you divide": lambda r: _standard(r, small=0.0),
            "you divided by the variance; take its root": lambda r: (r - r.mean(1, keepdims=True)) / (r.var(1, ddof=1, keepdims=True) + 1e-4),
        },
        [lambda r: -advantages(r), lambda r: r, lambda r: r / (r.std(1, ddof=1, keepdims=True) + 1e-4), lambda r: np.abs(advantages(r))],
    ),
    "price": Exercise(
        "stretch", 8, price, [(WORTH, HOMES, ROUTES), (WORTH, HOMES, HOMES), (WORTH, ROUTES, HOMES)],
        {
            "rows and columns are swapped: the row is where the case belongs": lambda w, h, r: price(w.T, h, r),
            "you divided by the cases sent astray; divide by all": _price_of_misrouted,
            "the sign is turned: what home is worth, minus what the route is worth": lambda w, h, r: -price(w, h, r),
        },
        [lambda w, h, r: float((h != r).mean()), lambda w, h, r: float(w[h, r].mean()), lambda w, h, r: float((w[h, h] - w[r, r]).mean())],
    ),
    "kl": Exercise(
        "start", 5, kl, [(LOG_P, LOG_REF), (LOG_P, LOG_P), (LOG_P[0], LOG_REF[0])],
        {
            "the two are swapped: d is log_ref - log_p": lambda p, ref: kl(ref, p),
            "this estimate can be negative: it lacks exp(d) - 1": lambda p, ref: p - ref,
            "where the two agree it must be 0: subtract 1": lambda p, ref: np.exp(ref - p) - (ref - p),
            "half the square comes near for small d only": lambda p, ref: (ref - p) ** 2 / 2,
        },
        [lambda p, ref: -kl(p, ref), lambda p, ref: np.abs(p - ref), lambda p, ref: np.exp(ref - p) + (ref - p) - 1],
    ),
    "entropy": Exercise(
        "core", 8, entropy, [(LOG_PROBS, MASK), (LOG_PROBS, np.ones((3, 4))), (LOG_PROBS[:1], MASK[:1])],
        {
            "the sign is turned: entropy is never negative": lambda q, m: -entropy(q, m),
            "padding was counted: only tokens with mask 1 belong to the completion": lambda q, m: float(_per_token(q).mean()),
            "you took the mean over all tokens at once: first over each completion, then over the completions":
                lambda q, m: float((_per_token(q) * m).sum() / m.sum()),
            "you summed over the tokens: a long completion would get a larger bonus": lambda q, m: float((_per_token(q) * m).sum(1).mean()),
            "padding became 0 but was still divided by: divide by the number of real tokens": lambda q, m: float((_per_token(q) * m).mean()),
            "these are bits: use the natural logarithm": lambda q, m: entropy(q, m) / float(np.log(2)),
        },
        [lambda q, m: float(-q.mean()), lambda q, m: float((-q.max(-1) * m).sum() / m.sum()), lambda q, m: float(np.exp(entropy(q, m)))],
    ),
    "objective": Exercise(
        "stretch", 12, objective,
        [(RATIO, ADVANTAGE, ENTROPY, KL, 0.03, 0.01), (RATIO, ADVANTAGE, ENTROPY, KL, 0.0, 0.0), (RATIO, ADVANTAGE, ENTROPY, KL, 0.5, 0.1)],
        {
            "take the smaller of the two gains: the clip must never make a step more tempting": partial(objective, gain=np.maximum),
            "the ratio is not clipped": partial(objective, gain=lambda raw, clipped: raw),
            "only the clipped gain is left: a bad answer that became likelier must still count in full":
                partial(objective, gain=lambda raw, clipped: clipped),
            "entropy has the wrong sign: it is a bonus": _signed(-1, 1),
            "KL has the wrong sign: it is a price": _signed(1, -1),
        },
        [_signed(0, 1), _signed(1, 0), lambda *g: -objective(*g), lambda *g: objective(*g) * len(g[0])],
    ),
}  # fmt: skip
