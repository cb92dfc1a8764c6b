"""Equal gamma is not equal dose: what the entropy term of the objective does, measured every few steps beside the training.

Token-mean entropy counts every word of the reasoning; *decision entropy* asks only how open the answer is. And the same coefficient
is much beside a small policy gradient and nothing beside a large one, so the norms of both gradients are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator

from mmedlite.models import Processor, option_log_probs

EVERY = 10  # steps: often enough to draw, and a few hundredths of a run's time


def decision_entropy(model: Any, processor: Processor, rows: Sequence[dict[str, Any]], texts: Sequence[str]) -> torch.Tensor:
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


def decisions(
    accelerator: Accelerator, model: Any, processor: Processor, rows: Sequence[dict[str, Any]], texts: Sequence[str], group: int
) -> dict[str, float]:
    """Mean decision entropy after the first rollout of each ``group``, and its maximum ln K; over all processes.

    Args:
        rows, texts: those of this process, which hold a part of the update in the order of the processes.
    """
    before = accelerator.process_index * len(rows)  # a group may begin in the process before
    firsts = [i for i in range(len(rows)) if (before + i) % group == 0]
    some = firsts or [0]  # a process without one runs the pass all the same, as FSDP needs it, and counts for nothing
    entropy = decision_entropy(accelerator.unwrap_model(model), processor, [rows[i] for i in some], [texts[i] for i in some])
    most = torch.tensor([len(rows[i]["options"]) for i in some], device=entropy.device).float().log()
    sums = {"decision_entropy": entropy.sum() * bool(firsts), "decision_entropy_max": most.sum() * bool(firsts)}
    sums = accelerator.reduce({**sums, "n": entropy.new_tensor(float(len(firsts)))}, "sum")
    n = sums.pop("n")
    return {name: float(value / n) for name, value in sums.items()}


def gradient(term: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Gradient of one term of the loss on each weight, 0 where the term does not reach; the graph is kept for the update itself."""
    return list(torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True, materialize_grads=True))


def norm(gradient: Sequence[torch.Tensor]) -> float:
    """Norm of a gradient over all weights together."""
    return float(torch.stack([g.float().norm() for g in gradient]).norm())
