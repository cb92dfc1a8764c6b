"""Damaged copies of the shared prompt: each must show against a plain forward pass of the same rows."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GenerationConfig

from data_prep.drawing import draw
from data_prep.phantoms import DIALS, sample
from mmedlite import prompt_once
from mmedlite.prompts import message
from tests.small import base, policy, processor

KEEP, ROWS = 5, 6  # completion tokens, rows

ALIKE = {
    "pictures are not told apart": ("torch.equal(patches[i], patches[members[g][0]])", "True"),
    "texts are not told apart": ("by_text.setdefault(text, [])", "by_text.setdefault((), [])"),
    "no rollout has a place of its own": ("place.append(len(members[group]))", "place.append(0)"),
    "the picture of another prompt": ("patches[int(i)] for i in first]", "patches[int(i)] for i in first.roll(1)]"),
    "positions without the picture's shift": (
        "    return ids, mask, positions, {",
        "    positions = (mask.cumsum(1) - 1).expand(3, -1, -1)\n    return ids, mask, positions, {",
    ),
}
MUTANTS = {
    **ALIKE,
    "rollouts see one another": ("((seen == -1) | (seen == by)).tril()", "(seen >= -1).tril() | torch.eye(seen.shape[-1]).bool()"),
    "rollouts do not see the prompt": ("((seen == -1) | (seen == by)).tril()", "(seen == by).tril()"),
    "rollouts see the words to come": (".tril()", ""),
    "padding of the prompt is seen": ("prompt_mask[:, :-1] - 2", "prompt_mask[:, :-1] * 0 - 1"),
    "positions go on from rollout to rollout": ("positions[:, row, -1] + step[real]", "positions[:, row, -1] + column - column.min()"),
    "positions one too far": ("positions[:, row, -1] + step[real]", "positions[:, row, -1] + step[real] + 1"),
    "rollouts laid over one another": ("lengths[group.which, group.place] = real.sum(1)",
                                       "lengths[group.which, group.place] = real.sum(1) - 1"),
    "log-probabilities one token late": ("(values, (1, 0))[row, column]", "(values, (0, 1))[row, column]"),
    "the rollout of a neighbour": ("lengths[group.which, group.place] = real.sum(1)",
                                   "lengths[group.which, group.place] = real.sum(1)\n    group = group._replace(which=group.which.flip(0))"),
}  # fmt: skip
IN_GENERATION = {
    **ALIKE,
    "rollouts see one another": ("own = torch.eye(group.size, dtype=torch.bool, device=device)",
                                 "own = torch.ones(group.size, group.size, dtype=torch.bool, device=device)"),
    "rollouts forget their own words": ("own = torch.eye(group.size, dtype=torch.bool, device=device)",
                                        "own = torch.zeros(group.size, group.size, dtype=torch.bool, device=device)"),
    "padding of the prompt is seen": ("prompt_mask.bool()[:, None, None]", "(prompt_mask >= 0)[:, None, None]"),
    "positions one too far": ("positions[:, :, -1:] + 1 + step", "positions[:, :, -1:] + 2 + step"),
    "positions stand still": ("positions[:, :, -1:] + 1 + step", "positions[:, :, -1:] + 1"),
    "the first words of another prompt": ("out.logits[group.which, -1]", "out.logits[group.which.flip(0), -1]"),
    "the words of a neighbour": ("last[rows] = token", "last[rows] = token.flip(0)"),
    "another temperature": ("logits / config.temperature", "logits"),
    "a suppressed word": ("logits[:, config.suppress_tokens or []] = -torch.inf", "pass"),
    "words after the end": ("token.masked_fill(done, config.pad_token_id)", "token"),
}  # fmt: skip


def batch() -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Six rows of three prompts, mixed, of unlike number: two texts on one picture, one text on two; completions of unlike length."""
    tools, pictures = processor(), [draw(sample(seed, DIALS)["phantoms"][0]) for seed in (0, 1)]
    prompts = [("What is seen?", 0), ("Is there a nodule in this image, or is there a mass?", 0), ("What is seen?", 1)]
    order = [0, 2, 1, 0, 2, 0]
    texts = [tools.apply_chat_template(message(prompts[k][0]), add_generation_prompt=True, tokenize=False) for k in order]
    given = tools(text=texts, images=[pictures[prompts[k][1]] for k in order], return_tensors="pt", padding=True)
    torch.manual_seed(1)
    completions = torch.randint(20, 200, (ROWS, KEEP))
    lengths = torch.tensor([5, 3, 4, 1, 5, 2])
    mask = (torch.arange(KEEP) < lengths[:, None]).long()
    return torch.cat([given["input_ids"], completions], 1), torch.cat([given["attention_mask"], mask], 1), given


def plain(model: Any, ids: torch.Tensor, mask: torch.Tensor, given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies from the logits of every row's whole sequence."""
    kinds = torch.cat([given["mm_token_type_ids"], torch.zeros(ROWS, KEEP, dtype=torch.long)], 1)
    extra = {"pixel_values": given["pixel_values"], "image_grid_thw": given["image_grid_thw"], "mm_token_type_ids": kinds}
    log_p = model(input_ids=ids, attention_mask=mask, **extra).logits[:, -KEEP - 1 : -1].log_softmax(-1)
    shown = mask[:, -KEEP:]
    return log_p.gather(2, ids[:, -KEEP:, None])[..., 0] * shown, -(log_p.exp() * log_p).sum(-1) * shown


def gradient(values: Sequence[torch.Tensor], model: Any) -> torch.Tensor:
    total = sum((v * torch.linspace(-1, 1, v.numel()).view(v.shape)).sum() for v in values)
    weights = [p for n, p in model.named_parameters() if ".default." in n]
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, weights)])


def faults(module: Any) -> list[str]:
    """What differs between ``module.score`` and the plain forward pass."""
    model = policy()
    assert isinstance(model, PeftModel)
    with torch.no_grad():  # a fresh adapter has B = 0, and no gradient on A
        for name, p in model.named_parameters():
            if ".default." in name:
                p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)))
    ids, mask, given = batch()
    expected = plain(model, ids, mask, given)
    expected_gradient = gradient(expected, model)
    found = module.score(model, ids, mask, KEEP, given["pixel_values"], given["image_grid_thw"])
    names = ("log-probabilities", "entropies")
    wrong = [n for n, a, b in zip(names, found, expected, strict=True) if not torch.allclose(a, b, atol=1e-4)]
    ours = gradient(found, model)
    if torch.nn.functional.cosine_similarity(ours, expected_gradient, dim=0) < 0.99999:
        wrong.append("direction of the gradient")
    if (ours - expected_gradient).norm() > 1e-4 * expected_gradient.norm():
        wrong.append("size of the gradient")
    return wrong


def sampled(model: Any, given: Any, config: GenerationConfig, chosen: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The ids that ``model.generate`` gives, and the probabilities (n, vocabulary) from which it drew each step; ``chosen`` draws."""
    seen: list[torch.Tensor] = []
    real = torch.multinomial

    def draw(p: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(p)
        return chosen(p)[:, None]

    torch.multinomial = draw
    try:
        return model.generate(**given, generation_config=config), seen
    finally:
        torch.multinomial = real


def generation_faults(module: Any) -> list[str]:
    """What differs between generation from shared prompts and the plain one: words, or the probabilities behind them."""
    _, _, given = batch()
    ends = processor().tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = GenerationConfig(
        max_new_tokens=4, do_sample=True, temperature=0.7, top_k=0, top_p=1.0, eos_token_id=ends, pad_token_id=0, suppress_tokens=[40]
    )  # fmt: skip

    def chosen(p: torch.Tensor) -> torch.Tensor:  # unlike words, and one row ends early
        words = p.topk(ROWS).indices[range(ROWS), range(ROWS)]
        words[-1] = ends
        return words

    model = base(shared=False, strength=0)
    expected, wanted = sampled(model, given, config, chosen)
    module.share_prompts(model)
    found, seen = sampled(model, given, config, chosen)
    wrong = [] if torch.equal(found, expected) else ["words"]
    for step, (a, b) in enumerate(zip(seen, wanted, strict=False)):
        live = slice(None, -1 if step else None)  # the last row has ended after one word
        if not torch.allclose(a[live].log(), b[live].log(), atol=1e-4):
            wrong.append(f"probabilities of step {step}")
    return wrong


def test_shared_passes_are_those_of_a_plain_one() -> None:
    assert faults(prompt_once) == [] and generation_faults(prompt_once) == []


def test_other_wishes_are_left_to_the_plain_method() -> None:
    """A penalty on repetition, of which the shared way knows nothing, is heard all the same."""
    _, _, given = batch()
    config = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=2, pad_token_id=0, repetition_penalty=5.0)
    plain_model, shared = base(shared=False, strength=0), base(strength=0)
    expected = plain_model.generate(**given, generation_config=config)
    assert torch.equal(shared.generate(**given, generation_config=config), expected)
    config.repetition_penalty = 1.0
    assert not torch.equal(shared.generate(**given, generation_config=config), expected)  # the penalty was at work
    config.sequence_bias = {(40,): 1e4}  # a wish that no list of ours names
    width = given["input_ids"].shape[1]
    assert (shared.generate(**given, generation_config=config)[:, width:] == 40).all()


@pytest.mark.parametrize(("watch", "name"), [*((faults, n) for n in MUTANTS), *((generation_faults, n) for n in IN_GENERATION)])
def test_mutant_is_rejected(watch: Callable[[Any], list[str]], name: str) -> None:
    old, new = (MUTANTS if watch is faults else IN_GENERATION)[name]
    source = Path(prompt_once.__file__).read_text(encoding="utf-8")
    assert old in source, f"the module has no '{old}' any more: mend the mutant"
    module = types.ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant", "exec"), module.__dict__)
    try:
        wrong = watch(module)
    except (RuntimeError, ValueError, IndexError) as refusal:  # shapes that do not fit
        wrong = [str(refusal)]
    assert wrong
