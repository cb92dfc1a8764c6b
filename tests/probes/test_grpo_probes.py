"""The probes of the trainer: all five hold for the right one, and each damaged one is found by the probe that should find it."""

from __future__ import annotations

import pytest
from PIL import Image

from data_prep.drawing import draw
from data_prep.phantoms import DIALS, sample
from data_prep.tiny_examples import as_case
from mmedlite import probes
from mmedlite.cases import Case
from mmedlite.profiles import InputError
from tests.watch import mutant

KEPT = ("        return rewards\n\n    def _texts", "        self.earned = rewards.sum(1)\n        return rewards\n\n    def _texts")
DEVICE = '        device = out["completion_ids"].device\n'
LOSS = "loss = super()._compute_loss(model, inputs)"
UNMASKED = '{**inputs, "completion_mask": torch.ones_like(inputs["completion_mask"])}'
GIVEN = "reward_funcs=list(rewards)"


def gains(expression: str) -> list[tuple[str, str]]:
    """The advantages replaced by an expression."""
    return [KEPT, (DEVICE, f'        out["advantages"] = {expression}\n{DEVICE}')]


MUTANTS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "advantage not centred": ("constant_reward", gains("self.earned")),
    "mean over the batch, not the group": ("constant_reward", gains("self.earned - self.earned.mean()")),
    "entropy sign": ("constant_reward", [("(penalty - bonus)", "(penalty + bonus)")]),
    "entropy on where it should be off": ("constant_reward", [('inputs["gamma"] * entropy', '(inputs["gamma"] + 1e-4) * entropy')]),
    "sign of the advantage": ("two_arms", gains('-out["advantages"]')),
    "advantage of the next group": ("opposite_prompts", gains('out["advantages"].roll(self.num_generations)')),
    "reward of the form lost": ("format_only", [(GIVEN, "reward_funcs=[accuracy_reward]")]),
    "another reward got in": ("format_only", [(GIVEN, "reward_funcs=[format_reward, accuracy_reward]")]),
    "mask ignored in the entropy": ("masked_tokens", [("(entropies * mask).sum(1) / length", "entropies.mean(1)")]),
    "mask ignored in the KL": ("masked_tokens", [("- delta - 1) * mask).sum(1) / length", "- delta - 1)).mean(1)")]),
    "mask ignored in the policy term": ("masked_tokens", [(LOSS, LOSS.replace("inputs", UNMASKED))]),
}


def asked(options: int) -> tuple[Case, Image.Image]:
    """The first phantom case with so many options, and its picture."""
    facts = next(f for f in (sample(seed, DIALS) for seed in range(100)) if len(f["options"]) == options)
    return as_case(facts), draw(facts["phantoms"][0])


def test_the_trainer_holds(capsys: pytest.CaptureFixture[str]) -> None:
    table = probes.probe(*asked(2))
    lines = [line for line in capsys.readouterr().out.splitlines() if " probe_" in line]
    assert lines == [f"PASS probe_{name} holds" for name in probes.PROBES], table.to_string()
    assert list(table["probe"]) == [name.replace("_", " ") for name in probes.PROBES] and table["measured"].str.len().min() > 20


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    which, swaps = MUTANTS[name]
    monkeypatch.setattr(probes, "grpo", mutant(*swaps))
    found = probes.PROBES[which][0](*asked(2))
    assert not found.holds, found.measured


def test_every_probe_finds_a_mutant() -> None:
    assert {which for which, _ in MUTANTS.values()} == set(probes.PROBES)


def test_a_case_with_more_options_is_refused() -> None:
    with pytest.raises(InputError, match=r"4 options.*two options"):
        probes.probe(*asked(4))
