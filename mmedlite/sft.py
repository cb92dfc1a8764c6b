"""Supervised fine-tuning on given completions: the baseline of paper Table 5, and the warm start of a policy on new pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from mmedlite.models import Processor, completion_log_probs


def train(
    model: Any, processor: Processor, picture: Callable[[int], Image.Image], prompts: Sequence[str], gold: Sequence[str],
    steps: int, batch: int, seed: int, learning_rate: float,
) -> list[float]:  # fmt: skip
    """Fit the trainable weights of ``model`` to ``gold`` completions; returns the loss (nats a token) of each update.

    Args:
        picture: picture of example i. prompts, gold: n texts each, the completion without its end token.
        steps: updates of ``batch`` examples drawn with replacement. seed: of the draw. learning_rate: of AdamW, constant.
    """
    rng = np.random.default_rng([seed, 5])
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate)
    losses = []
    for _ in tqdm(range(steps), desc="sft", mininterval=2):
        index = [int(i) for i in rng.integers(0, len(prompts), batch)]
        wanted = [f"{gold[i]}<|im_end|>" for i in index]
        logps, mask = completion_log_probs(
            model, processor, [picture(i) for i in index], [prompts[i] for i in index], [""] * batch, wanted
        )  # (b, t) each
        loss = -(logps * mask).sum() / mask.sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses
