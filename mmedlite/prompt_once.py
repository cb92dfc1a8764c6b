"""Prompt once: the G rollouts of a group share one forward pass of their prompt, in generation and in scoring.

A medical prompt is mostly image and question, its completion a few words, so most of a GRPO step would be the same prompt again and
again. The rollouts of a prompt are laid behind it in one sequence instead, and an attention mask lets each of them see the prompt and
itself alone:

    prompt . . . . | rollout 0 . . | rollout 1 . . | ...

Each rollout begins with a copy of the prompt's last token, which predicts the rollout's first. No key or value is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig


class Groups(NamedTuple):
    """Which rows bear the same prompt and picture: u groups of at most ``size`` rows."""

    first: torch.Tensor  # (u,) long: the first row of each group
    which: torch.Tensor  # (n,) long: the group of each row
    place: torch.Tensor  # (n,) long: its place in the group
    size: int


def groups(ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor, grid: torch.Tensor) -> Groups:
    """Group rows whose prompt and picture are the same, value for value.

    Args:
        ids, mask: (n, p) prompts, left-padded. pixels: (patches of all rows, channels). grid: (n, 3) long; one picture a row.
    """
    patches = pixels.split([int(k) for k in grid.prod(1)])
    texts = [tuple(row) for row in torch.cat([ids, mask, grid], 1).tolist()]
    members: list[list[int]] = []
    by_text: dict[tuple[int, ...], list[int]] = {}
    which, place = [], []
    for i, text in enumerate(texts):
        alike = by_text.setdefault(text, [])
        group = next((g for g in alike if torch.equal(patches[i], patches[members[g][0]])), None)
        if group is None:
            group = len(members)
            members.append([])
            alike.append(group)
        which.append(group)
        place.append(len(members[group]))
        members[group].append(i)
    first, group_of, place_of = (torch.tensor(column, device=ids.device) for column in ([m[0] for m in members], which, place))
    return Groups(first, group_of, place_of, max(map(len, members)))


def _core(model: Any) -> Any:
    """The part of a Qwen2.5-VL, however wrapped, that knows the positions of text and pictures."""
    return next((part for part in model.modules() if hasattr(part, "rope_deltas")), None)


def _prompts(model: Any, ids: torch.Tensor, mask: torch.Tensor, pixels: torch.Tensor, grid: torch.Tensor, first: torch.Tensor) -> Any:
    """The distinct prompts: ids and mask (u, p), positions (3, u, p), and their pictures as the model takes them."""
    patches, core = pixels.split([int(k) for k in grid.prod(1)]), _core(model)
    ids, mask, grid = ids[first], mask[first], grid[first]
    kinds = (ids == core.config.image_token_id).int()
    positions, _ = core.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=mask)
    return ids, mask, positions, {"pixel_values": torch.cat([patches[int(i)] for i in first]), "image_grid_thw": grid}


def score(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, pixels: torch.Tensor, grid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy (nats) of the last ``keep`` tokens of each row: two (n, keep) float tensors, 0 where masked.

    Args:
        model: with TRL's fused head. ids, mask: (n, p + keep), prompts left-padded, completions right-padded.
    """
    group = groups(ids[:, :-keep], mask[:, :-keep], pixels, grid)
    prompt_ids, prompt_mask, positions, pictures = _prompts(model, ids[:, :-keep], mask[:, :-keep], pixels, grid, group.first)
    u, p = prompt_ids.shape
    tail, real = ids[:, p - 1 :], mask[:, p - 1 :].bool()  # (n, 1 + keep): the prompt's last token, then the rollout
    lengths = ids.new_zeros(u, group.size)
    lengths[group.which, group.place] = real.sum(1)
    begin = p - 1 + (lengths.cumsum(1) - lengths)[group.which, group.place]  # (n,): where each rollout begins in its sequence
    step = torch.arange(keep + 1, device=ids.device).expand_as(tail)
    row, column = group.which[:, None].expand_as(tail)[real], (begin[:, None] + step)[real]  # of each real token
    length = p - 1 + int(lengths.sum(1).max())  # l in the shapes below

    def lay(of_prompts: torch.Tensor, of_rollouts: torch.Tensor, empty: int) -> torch.Tensor:  # (..., u, p - 1), (..., tokens)
        laid = of_prompts.new_full((*of_prompts.shape[:-1], length), empty)
        laid[..., : p - 1] = of_prompts
        laid[..., row, column] = of_rollouts
        return laid

    packed = lay(prompt_ids[:, :-1], tail[real], 0)  # (u, l)
    # Whose token is it? -1 the prompt's, from 0 on a rollout's, -2 padding: the prompt is seen by all, the others by their like.
    part = lay(prompt_mask[:, :-1] - 2, group.place[:, None].expand_as(tail)[real], -2)  # (u, l)
    seen, by = part[:, None], part[:, :, None]
    visible = ((seen == -1) | (seen == by)).tril()  # (u, l, l)
    places = lay(positions[..., :-1], positions[:, row, -1] + step[real], 0)  # (3, u, l)
    labels = lay(torch.full_like(prompt_ids[:, :-1], -100), tail.masked_fill(step == 0, -100)[real], -100)
    out = model(input_ids=packed, attention_mask=visible[:, None], position_ids=places, **pictures, labels=labels, fused_lm_head=True)
    found = []
    for values in (out.log_probs, out.entropy):  # (u, l - 1), each for the token after its own
        back = values.new_zeros(tail.shape).index_put((real,), torch.nn.functional.pad(values, (1, 0))[row, column])
        found.append(back[:, 1:])
    return found[0], found[1]


def _all_ended(model: Any, done: torch.Tensor) -> bool:
    """Have all rollouts ended? Where FSDP has spread the weights over processes, those of all: each pass needs every process."""
    running = (~done).sum()
    if any(isinstance(part, FSDPModule) for part in model.modules()):
        distributed.all_reduce(running)
    return not running


def _generate(model: Any, config: GenerationConfig, group: Groups, prompts: Any) -> torch.Tensor:
    """Completions of all rows, each prompt run once: (n, t) long, padded after the end token."""
    prompt_ids, prompt_mask, positions, pictures = prompts
    device = prompt_ids.device
    ends = torch.tensor(config.eos_token_id, device=device).view(-1)
    u, rows, chosen = len(prompt_ids), (group.which, group.place), []
    out = model(input_ids=prompt_ids, attention_mask=prompt_mask, position_ids=positions, **pictures, use_cache=True, logits_to_keep=1)
    logits, cache = out.logits[group.which, -1], out.past_key_values  # (n, vocabulary)
    own = torch.eye(group.size, dtype=torch.bool, device=device).expand(u, 1, -1, -1)  # a rollout sees none of its neighbours
    visible = prompt_mask.bool()[:, None, None].expand(-1, -1, group.size, -1)  # (u, 1, size, p)
    done = torch.zeros(len(group.which), dtype=torch.bool, device=device)
    for step in range(config.max_new_tokens):
        logits = logits.float()
        logits[:, config.suppress_tokens or []] = -torch.inf
        greedy = not config.do_sample
        token = logits.argmax(-1) if greedy else torch.multinomial((logits / config.temperature).softmax(-1), 1)[:, 0]  # (n,)
        token = token.masked_fill(done, config.pad_token_id)
        chosen.append(token)
        done = done | torch.isin(token, ends)
        if step + 1 == config.max_new_tokens or _all_ended(model, done):
            break
        last = prompt_ids.new_full((u, group.size), config.pad_token_id)
        last[rows] = token
        visible = torch.cat([visible, own], 3)  # (u, 1, size, p + size * (step + 1))
        place = (positions[:, :, -1:] + 1 + step).expand(-1, -1, group.size)  # (3, u, size)
        out = model(input_ids=last, attention_mask=visible, position_ids=place, past_key_values=cache, use_cache=True)
        logits = out.logits[rows]
    return torch.stack(chosen, 1)


# What _generate heeds, and what asks for nothing: greedy, or sampled from the full vocabulary. Any other wish is left to the plain method.
HEEDED = {"do_sample", "temperature", "max_new_tokens", "suppress_tokens", "eos_token_id", "pad_token_id", "bos_token_id"}
HEEDED |= {"disable_compile", "use_cache", "transformers_version"}  # of no effect on what is written
NOTHING: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "num_beams": 1, "num_return_sequences": 1}


def can_share(model: Any, ids: torch.Tensor, grid: torch.Tensor | None) -> bool:
    """Is it a Qwen2.5-VL with one picture a row, and attention that takes a mask of this kind?"""
    config = getattr(_core(model), "config", None) if grid is not None and len(grid) == len(ids) else None
    return config is not None and config.model_type == "qwen2_5_vl" and config.text_config._attn_implementation == "sdpa"


def share_prompts(model: Any) -> None:
    """Let ``model.generate`` run each distinct prompt of a batch once; greedy, or sampled from the full vocabulary."""
    plain: Callable[..., Any] = model.generate

    @torch.no_grad()
    def generate(generation_config: GenerationConfig, **inputs: Any) -> Any:
        wishes = {k: v for k, v in generation_config.to_diff_dict().items() if v is not None and k not in HEEDED and k[0] != "_"}
        simple = all(k in NOTHING and v == NOTHING[k] for k, v in wishes.items())
        if not (simple and can_share(model, inputs["input_ids"], inputs.get("image_grid_thw"))):
            return plain(generation_config=generation_config, **inputs)
        ids, mask, pixels, grid = (inputs[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_grid_thw"))
        group = groups(ids, mask, pixels, grid)
        completions = _generate(model, generation_config, group, _prompts(model, ids, mask, pixels, grid, group.first))
        return torch.cat([ids, completions], 1)

    model.generate = generate
