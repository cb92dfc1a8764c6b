"""Damaged copies of the trainer: each must be told apart from the right one by tests/watch.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmedlite import grpo
from tests.small import SETTINGS
from tests.watch import mutant, two_stages

ENTROPY = "entropy = (entropies * mask).sum(1) / length"
K3 = "kl = ((torch.exp(delta) - delta - 1) * mask).sum(1) / length"
DELTA = 'delta = inputs["ref_per_token_logps"] - logps'
AFTER_SETUP = "    trainer.remove_callback("
ZERO_REFERENCE = '    [p.data.zero_() for n, p in model.named_parameters() if ".ref." in n]\n'
DROP_REFERENCE = 'if "ref" in model.peft_config:'

MUTANTS: dict[str, list[tuple[str, str]]] = {
    "entropy sign": [("(penalty - bonus)", "(penalty + bonus)")],
    "entropy left out": [("(penalty - bonus)", "penalty")],
    "entropy without gradient": [(ENTROPY, "entropy = (entropies.detach() * mask).sum(1) / length")],
    "entropy mean over padding": [(ENTROPY, "entropy = entropies.mean(1)")],
    "entropy divided by length twice": [(ENTROPY, "entropy = (entropies * mask).sum(1) / length / length")],
    "entropy not divided by length": [(ENTROPY, "entropy = (entropies * mask).sum(1)")],
    "entropy averaged over tokens": [(ENTROPY, "entropy = (entropies * mask).sum().expand(len(mask)) / mask.sum()")],
    "sampled surprise for entropy": [(ENTROPY, "entropy = (-logps * mask).sum(1) / length")],
    "one gamma for the batch": [('(inputs["gamma"] * entropy).mean()', 'inputs["gamma"].mean() * entropy.mean()')],
    "gamma of another row": [('(inputs["gamma"] * entropy)', '(inputs["gamma"].flip(0) * entropy)')],
    "one KL weight for the batch": [('((inputs["kl_weight"] - self.beta) * kl)', '(inputs["kl_weight"].mean() * kl)')],
    "KL left out": [("(penalty - bonus)", "(0 * penalty - bonus)")],
    "KL divided by length twice": [(K3, K3 + " / length")],
    "KL of the other direction": [(DELTA, 'delta = logps - inputs["ref_per_token_logps"]')],
    "reference from before the first stage": [(DROP_REFERENCE, "if False:")],
    "reference from the base weights": [(AFTER_SETUP, ZERO_REFERENCE + AFTER_SETUP)],
    "shuffled cases": [("shuffle_dataset=False", "shuffle_dataset=True")],
    "loss over all tokens of the batch": [('loss_type="grpo"', 'loss_type="dapo"')],
    "advantages scaled by the batch": [('scale_rewards="group"', 'scale_rewards="batch"')],
    "advantages not scaled": [('scale_rewards="group"', 'scale_rewards="none"')],
    "sampled at another temperature than scored": [("temperature=settings.temperature", "temperature=0.7")],
    "log-probabilities of other answers": [('self._logps[inputs["row"]]', 'self._logps[inputs["row"].flip(0)]')],
    "log-probabilities of the whole answer": [(".sum(1) / length[:, None]", ".sum(1)")],
}  # fmt: skip


def test_the_trainer_itself_passes(tmp_path: Path) -> None:
    assert two_stages(grpo, tmp_path) == []


def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    assert two_stages(mutant(), tmp_path) == []


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_rejected(name: str, tmp_path: Path) -> None:
    try:
        found = two_stages(mutant(*MUTANTS[name]), tmp_path)
    except (ValueError, RuntimeError) as refusal:  # PEFT refuses a second reference, PyTorch the gradient of a term without one
        found = [str(refusal)]
    assert found


def test_terms_not_shared_between_the_parts_of_an_update(tmp_path: Path) -> None:
    """With gradient accumulation each part carries its share: a whole gamma a part would double the bonus."""
    halves = replace(SETTINGS, gradient_accumulation=2)
    assert two_stages(grpo, tmp_path / "right", halves) == []
    assert two_stages(mutant(("(penalty - bonus) / share", "(penalty - bonus)")), tmp_path / "wrong", halves) != []
