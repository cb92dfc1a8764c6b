"""Equal gamma is not equal dose: what the entropy term of the objective does, measured every few steps beside the training.

Token-mean entropy counts every word of the reasoning; *decision entropy* asks only how open the answer is. And the same coefficient
is much beside a small policy gradient and nothing beside a large one, so the norms of both gradients are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mmedlite.models import ImageProcessorOnly, option_log_probs

EVERY = 10  # steps: often enough to draw, and a few hundredths of a run's time


def decision_entropy(model: Any, processor: ImageProcessorOnly, rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> torch.Tensor:
    """Entropy of the policy's choice among the options, after the reasoning of each text: (n,) float, in nats; at most ln K.

    Args:
        rows: n rows as :func:`grpo.train` takes them (prompt, image, options). texts: n completions.
    """
    jobs = [(row, text, option) for row, text in zip(rows, texts, strict=True) for option in row["options"]]
    totals = option_log_probs(
        model, processor, [r["image"] for r, _, _ in jobs], [r["prompt"][0]["content"] for r, _, _ in jobs],
        [t for _, t, _ in jobs], [o for _, _, o in jobs],
    )  # fmt: skip
    choices = totals.split([len(row["options"]) for row in rows])  # one (K,) tensor a row
    return torch.stack([torch.distributions.Categorical(logits=c).entropy() for c in choices])


def gradient_norm(term: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Norm of the gradient of one term of the loss on all weights together, a scalar; the graph is kept for the update itself."""
    parts = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return torch.stack([g.float().norm() for g in parts if g is not None]).norm()
