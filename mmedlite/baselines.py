"""Readers of the same stored answers that need no training of a policy: votes, one specialist, an oracle, three weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def unanimous(votes: np.ndarray) -> np.ndarray:
    """Where all specialists gave the same answer: (n,) bool; votes (n, e) int, -1 for none."""
    return (votes == votes[:, :1]).all(1) & (votes[:, 0] >= 0)


def reliability_weights(votes: np.ndarray, answers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weight of each specialist, (e,) float: the log-odds that his answer is right against any one wrong option, on training cases.

    Args:
        votes: (n, e) int, -1 for no answer. answers: (n,) int. counts: (n,) int, options of each case.
    """
    right = np.clip((votes == answers[:, None]).mean(0), 0.01, 0.99)  # (e,)
    return np.log(right / (1 - right) * (counts.mean() - 1))


def weighted_vote(votes: np.ndarray, weights: np.ndarray, slots: int) -> np.ndarray:
    """The option with the largest sum of weights, (n,) int; ties go to the option that the lowest sample index among them named; -1 where
    nobody answered. With equal weights it is the majority vote."""
    said = votes[:, :, None] == np.arange(slots)  # (n, e, slots)
    total = (said * weights[:, None]).sum(1)  # (n, slots)
    named = said.any(1)
    first = np.where(named, said.argmax(1), votes.shape[1])  # (n, slots): who named it first
    best = np.where(named & np.isclose(total, np.where(named, total, -np.inf).max(1, keepdims=True)), first, votes.shape[1]).argmin(1)
    return np.where(named.any(1), best, -1)


def any_correct(votes: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The oracle that picks the right answer where any specialist gave it, else the first one's: (n,) int."""
    return np.where((votes == answers[:, None]).any(1), answers, votes[:, 0])


def _three_inputs(log_probs: Sequence[np.ndarray], votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, slots, 3) float inputs of the three-weight reader, and (n, slots) bool: the option is offered."""
    slots = max(len(row) for row in log_probs)
    offered = np.array([[o < len(row) for o in range(slots)] for row in log_probs])
    own = np.zeros(offered.shape)
    for i, row in enumerate(log_probs):
        own[i, : len(row)] = row - np.logaddexp.reduce(row)
    named = (votes[:, :, None] == np.arange(slots)).mean(1)  # (n, slots): share of the panel
    all_agree = unanimous(votes)[:, None]
    return np.stack([own, named * all_agree, named * ~all_agree], 2), offered


def fit_three_weights(log_probs: Sequence[np.ndarray], votes: np.ndarray, answers: np.ndarray, steps: int = 50) -> np.ndarray:
    """Weights of the three-weight reader, (3,) float, by maximum likelihood on validation cases (Newton's method, a penalty of 1e-3).

    It scores an option by w1 * log-probability under the untrained policy without the panel + w2 * (a unanimous panel names it)
    + w3 * (share of a split panel that names it), and takes the softmax over the options.

    Args:
        log_probs: n float arrays, one log-probability an option. votes: (n, e) int, -1 for no answer. answers: (n,) int.
    """
    x, offered = _three_inputs(log_probs, votes)
    w = np.zeros(3)
    for _ in range(steps):
        score = np.where(offered, x @ w, -np.inf)
        p = np.exp(score - np.logaddexp.reduce(score, axis=1)[:, None])  # (n, slots)
        mean = np.einsum("ns,nsk->nk", p, x)
        gradient = (x[np.arange(len(x)), answers] - mean).sum(0) - 1e-3 * w
        spread = np.einsum("ns,nsk,nsl->kl", p, x, x) - mean.T @ mean
        w = w + np.linalg.solve(spread + 1e-3 * np.eye(3), gradient)
    return w


def three_weights(weights: np.ndarray, log_probs: Sequence[np.ndarray], votes: np.ndarray) -> np.ndarray:
    """The option of the three-weight reader for each case: (n,) int; ties go to the lowest option."""
    x, offered = _three_inputs(log_probs, votes)
    return np.where(offered, x @ weights, -np.inf).argmax(1)
