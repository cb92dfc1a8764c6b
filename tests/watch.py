"""What a right GRPO update is, written out plainly, and held against every update of a real training run.

The reference here shares no code with the trainer: plain forward passes, a copy of the policy made at the start of the stage,
advantages from the rewards themselves. Tests run it on the trainer; mutants run it on damaged copies of the trainer.
"""

from __future__ import annotations

import json
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmedlite import grpo
from mmedlite.profiles import Grpo
from tests.small import SETTINGS, adapter, chance, policy, processor, rows, same

TOLERANCE = 1e-5


@dataclass
class Seen:
    """One call of the trainer's loss: its value and gradients beside those of the reference."""

    loss: float
    expected: float
    gradient: torch.Tensor
    expected_gradient: torch.Tensor
    lengths: list[int]
    prompt_ids: list[list[int]]
    told: list[list[float]]  # a row a completion: advantage, log-probability a token under policy and reference


@dataclass
class Training:
    """One stage as it was trained."""

    log: list[dict[str, Any]]
    seen: list[Seen]
    rollouts: list[dict[str, Any]]
    planned: list[str]
    rewards: list[float] = field(default_factory=list)


def score(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each completion token and entropy at its place, from plain logits: (B, T) each."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    extra = {k: inputs[k] for k in ("pixel_values", "image_grid_thw", "mm_token_type_ids") if k in inputs}
    logits = model(input_ids=ids, attention_mask=mask, **extra).logits
    log_p = logits[:, -inputs["completion_ids"].shape[1] - 1 : -1].log_softmax(-1)  # (B, T, vocabulary), temperature 1
    return log_p.gather(2, inputs["completion_ids"][..., None])[..., 0], -(log_p.exp() * log_p).sum(-1)


def reference_loss(model: Any, start: Any, inputs: dict[str, Any], parts: int) -> torch.Tensor:
    """The paper's objective as a loss: mean over completions of -A r + beta k3 - gamma H, each a mean over the tokens."""
    log_p, entropy = score(model, inputs)
    with torch.no_grad():
        log_ref, _ = score(start, inputs)
    total = torch.zeros(())
    for i, n in enumerate(inputs["completion_mask"].sum(1).tolist()):
        own, ref = log_p[i, :n], log_ref[i, :n]
        ratio = (own - own.detach()).exp()
        k3 = (ref - own).exp() - (ref - own) - 1
        policy_part = -(inputs["advantages"][i] * ratio).mean()
        total = total + policy_part + inputs["kl_weight"][i] * k3.mean() - inputs["gamma"][i] * entropy[i, :n].mean()
    return total / len(log_p) / parts


def flat(loss: torch.Tensor, model: Any) -> torch.Tensor:
    """The gradient on every trainable weight, in one row."""
    weights = [p for n, p in model.named_parameters() if ".default." in n]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, retain_graph=True)])


def train(
    model: Any, out: Path, batch: Sequence[dict[str, Any]], settings: Grpo = SETTINGS, module: Any = grpo, reward: Any = chance
) -> Training:
    """Train a stage with ``module.train`` and note every call of the loss."""
    start, seen, given = policy(), [], []  # not a copy of the model: the trainer has put its own forward pass on it
    start.load_state_dict(adapter(model), strict=False)
    assert same(adapter(start), adapter(model))

    class Watched(module.CurriculumTrainer):  # type: ignore[misc]
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
            loss: torch.Tensor = super()._compute_loss(model, inputs)
            expected = reference_loss(model, start, inputs, settings.gradient_accumulation)
            ids = [i[m.bool()].tolist() for i, m in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True)]
            lengths, mask = inputs["completion_mask"].sum(1), inputs["completion_mask"]
            with torch.no_grad():
                means = [(score(policy, inputs)[0] * mask).sum(1) / lengths for policy in (model, start)]
            told = torch.stack([inputs["advantages"], *means], 1).tolist()
            gradients = flat(loss, model), flat(expected, model)
            seen.append(Seen(float(loss.detach()), float(expected.detach()), *gradients, lengths.tolist(), ids, told))
            return loss

    def noted(completions: Any, **columns: Any) -> list[float]:
        found: list[float] = reward(completions, **columns)
        given.extend(found)
        return found

    real, module.CurriculumTrainer = module.CurriculumTrainer, Watched
    try:
        log = module.train(model, processor(), batch, settings, out, {"stage": out.name}, 0, [noted])
    finally:
        module.CurriculumTrainer = real
    rollouts = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    planned = [r["case_id"] for r in batch for _ in range(settings.generations)]
    return Training(log, seen, rollouts, planned, given)


def faults(training: Training, generations: int = SETTINGS.generations) -> list[str]:
    """What is wrong with a stage, in words; nothing for a right one."""
    found = []
    for i, s in enumerate(training.seen):
        if abs(s.loss - s.expected) > TOLERANCE:
            found.append(f"loss of call {i}: {s.loss:.6f}, not {s.expected:.6f}")
        if (s.gradient - s.expected_gradient).abs().max() > TOLERANCE * max(1.0, float(s.expected_gradient.abs().max())):
            found.append(f"gradient of call {i}")
    if [r["case_id"] for r in training.rollouts] != training.planned:
        found.append("cases were not seen in the planned order")
    rewards = torch.tensor(training.rewards).view(-1, generations)
    advantages = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    told = torch.tensor([r["advantage"] for r in training.rollouts]).view(-1, generations)
    if told.shape != advantages.shape or (told - advantages).abs().max() > 1e-3:
        found.append("advantages are not those of their group")
    steps = torch.tensor([[r["step"], r["advantage"], r["logp"], r["logp_reference"]] for r in training.rollouts])
    calls = len(training.seen) // len(training.log)
    scored = torch.tensor([[i // calls, *row] for i, s in enumerate(training.seen) for row in s.told])
    ordered = [t[sorted(range(len(t)), key=lambda i: (t[i, 0], *t[i, 1:].round(decimals=2)))] for t in (steps, scored)]
    if ordered[0].shape != ordered[1].shape or (ordered[0] - ordered[1]).abs().max() > 2e-2:
        found.append("log-probabilities are not those of their answer")
    if abs(training.log[0]["kl"]) > 1e-6:
        found.append(f"KL at step 1 is {training.log[0]['kl']:.2g}, not 0")
    return found


GAMMA, KL = [1e-4, 5e-3, 3e-1], [1e-3, 4e-2, 1.0]  # spread wider than the paper's, so that a swap shows


def two_stages(module: Any, folder: Path, settings: Grpo = SETTINGS) -> list[str]:
    """Train two short stages on mixed coefficients and name what is wrong with them."""
    model = policy()
    batch = rows(10, gamma=[GAMMA[i % 3] for i in range(10)], kl_weight=[KL[(i + 1) % 3] for i in range(10)])
    first = train(model, folder / "first", batch[:6], settings, module)
    second = train(model, folder / "second", batch[6:], settings, module)
    return faults(first, settings.generations) + [f"stage 2: {f}" for f in faults(second, settings.generations)]


def mutant(*swaps: tuple[str, str]) -> types.ModuleType:
    """A copy of the trainer's module with some of its text replaced."""
    source = Path(grpo.__file__).read_text(encoding="utf-8")
    for old, new in swaps:
        assert old in source, f"the trainer has no '{old}' any more: mend the mutant"
        source = source.replace(old, new)
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant", "exec"), module.__dict__)
    return module
