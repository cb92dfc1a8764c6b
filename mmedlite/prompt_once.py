"""Prompt once: the G rollouts of a group share one forward pass of their prompt, in generation and in scoring.

A medical prompt is mostly image and question, its completion a few words, so most of a GRPO step would be the same prompt again and
again. Keys and values of each distinct (prompt, picture) are computed once and indexed by its rollouts; gradients flow through them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch


def distinct(ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first row of each distinct prompt, and which of them each row bears: (u,) and (n,) long.

    Args:
        ids, mask: (n, p) prompts, left-padded. pixels: (patches of all rows, channels). grid: (n, 3) long; one picture a row.
    """
    seen: dict[bytes, int] = {}
    first: list[int] = []
    which: list[int] = []
    patches = pixels.split([int(k) for k in grid.prod(1)])
    for i, parts in enumerate(zip(ids, mask, patches, grid, strict=True)):
        key = b"".join(hashlib.blake2b(p.detach().cpu().float().numpy().tobytes(), digest_size=16).digest() for p in parts)
        if key not in seen:
            seen[key] = len(first)
            first.append(i)
        which.append(seen[key])
    return torch.tensor(first, device=ids.device), torch.tensor(which, device=ids.device)


def _positions(model: Any) -> Any:
    """The part of a Qwen2.5-VL, however wrapped, that remembers how far pictures shift the positions of the text after them."""
    return next(part for part in model.modules() if hasattr(part, "rope_deltas"))


def prefill(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor, grid: torch.Tensor, first: torch.Tensor, which: torch.Tensor
) -> Any:
    """Keys and values of all but the last token of each row's prompt, computed once for the rows ``first``: a cache of n rows."""
    patches = pixels.split([int(k) for k in grid.prod(1)])
    head, core = ids[first, :-1], _positions(model)
    out = model(
        input_ids=head, attention_mask=mask[first, :-1], mm_token_type_ids=(head == core.config.image_token_id).int(),
        pixel_values=torch.cat([patches[int(i)] for i in first]), image_grid_thw=grid[first], use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    out.past_key_values.batch_select_indices(which)
    core.rope_deltas = core.rope_deltas[which]  # (n, 1)
    return out.past_key_values


def score(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, pixels: torch.Tensor, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy (nats) of the last ``keep`` tokens of each row: two (n, keep) float tensors, 0 where masked.

    Args:
        model: with TRL's fused head. ids, mask: (n, p + keep), prompts left-padded, completions right-padded.
    """
    prompts = ids[:, :-keep], mask[:, :-keep], pixels, grid
    cache = prefill(model, *prompts, *distinct(*prompts))
    tail = slice(-keep - 1, None)  # from the last token of the prompt on
    positions = (mask.cumsum(1) - 1)[:, tail] + _positions(model).rope_deltas  # (n, keep + 1)
    out = model(
        input_ids=ids[:, tail], attention_mask=mask, position_ids=positions.expand(3, -1, -1), past_key_values=cache,
        labels=ids[:, tail].masked_fill(mask[:, tail] == 0, -100), fused_lm_head=True,
    )  # fmt: skip
    return out.log_probs, out.entropy


def share_prompts(model: Any) -> None:
    """Let ``model.generate`` run each distinct prompt of a batch once."""
    plain: Callable[..., Any] = model.generate

    @torch.no_grad()
    def generate(**inputs: Any) -> Any:
        ids, mask, pixels, grid = (inputs[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"))
        if len(grid) != len(ids):  # not one picture a row
            return plain(**inputs)
        first, which = distinct(ids, mask, pixels, grid)
        if len(first) == len(which):
            return plain(**inputs)
        cache = prefill(model, ids, mask, pixels, grid, first, which)
        text = {k: v for k, v in inputs.items() if k not in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
        return plain(**text, past_key_values=cache)

    model.generate = generate
