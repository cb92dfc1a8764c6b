"""Damaged copies of the shared prompt: each must show against a plain forward pass of the same rows."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from trl.trainer.utils import add_fused_lm_head

from data_prep.drawing import draw
from data_prep.phantoms import DIALS, sample
from mmedlite import prompt_once
from mmedlite.prompts import message
from tests.small import base, policy, processor

KEEP, ROWS = 5, 6  # completion tokens, rows

MUTANTS = {
    "pictures are not told apart": ("for i, parts in enumerate(zip(ids, mask, patches, grid, strict=True))",
                                    "for i, parts in enumerate(zip(ids, mask, strict=True))"),
    "texts are not told apart": ("zip(ids, mask, patches, grid, strict=True)", "zip(patches, grid, strict=True)"),
    "the cache of another row": ("batch_select_indices(which)", "batch_select_indices(which.flip(0))"),
    "the whole cache of the first prompt": ("batch_select_indices(which)", "batch_select_indices(which * 0)"),
    "positions without the picture's shift": (" + _positions(model).rope_deltas", ""),
    "positions that count the padding": ("(mask.cumsum(1) - 1)[:, tail]", "torch.arange(mask.shape[1])[tail]"),
    "no gradient through the prompt": ("    return out.past_key_values\n",
                                       "    for layer in out.past_key_values.layers:\n"
                                       "        layer.keys, layer.values = layer.keys.detach(), layer.values.detach()\n"
                                       "    return out.past_key_values\n"),
    "the last token of the prompt twice": ("ids[first, :-1], _positions", "ids[first], _positions"),
}  # fmt: skip


def batch() -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Six rows of three prompts, in mixed order: two texts on one picture, one text on two pictures; completions of unlike length."""
    tools, pictures = processor(), [draw(sample(seed, DIALS)["phantoms"][0]) for seed in (0, 1)]
    prompts = [("What is seen?", 0), ("Is there a nodule in this image, or is there a mass?", 0), ("What is seen?", 1)]
    order = [0, 2, 1, 0, 2, 1]
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
    add_fused_lm_head(model.get_base_model(), temperature=1.0, outputs=("log_probs", "entropy"))
    found = module.score(model, ids, mask, KEEP, given["pixel_values"], given["image_grid_thw"])
    names = ("log-probabilities", "entropies")
    wrong = [n for n, a, b in zip(names, found, expected, strict=True) if not torch.allclose(a, b, atol=1e-4)]
    ours = gradient(found, model)
    if torch.nn.functional.cosine_similarity(ours, expected_gradient, dim=0) < 0.99999:
        wrong.append("direction of the gradient")
    if (ours - expected_gradient).norm() > 1e-4 * expected_gradient.norm():
        wrong.append("size of the gradient")
    return wrong


def generation_faults(module: Any) -> list[str]:
    """What differs between generation from shared prompts and the plain one: words, or the logits behind them."""
    ids, mask, given = batch()
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    model = base(strength=0)
    model.generate = types.MethodType(type(model).generate, model)
    expected = model.generate(**given, **settings)
    module.share_prompts(model)
    found = model.generate(**given, **settings)
    same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found.logits, expected.logits, strict=True))
    return [] if same and torch.equal(found.sequences, expected.sequences) else ["generation"]


def test_shared_passes_are_those_of_a_plain_one() -> None:
    assert faults(prompt_once) == [] and generation_faults(prompt_once) == []


IN_GENERATION = {
    "pictures are not told apart": MUTANTS["pictures are not told apart"],
    "texts are not told apart": MUTANTS["texts are not told apart"],
    "the cache of another row": MUTANTS["the cache of another row"],
    "positions without the picture's shift": ("core.rope_deltas[which]", "core.rope_deltas[which] * 0"),
    "the picture once more": ('("pixel_values", "image_grid_thw", "mm_token_type_ids")', "()"),
}


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
