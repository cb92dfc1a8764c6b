"""Five tasks so easy that a right trainer cannot fail them, run before the real training; each failure points at its mistake.

They run ``grpo.train`` itself, with the shipped tiny policy and a fresh LoRA adapter, on one yes/no case under two split panels, so that
the untrained policy draws both answers. Learning rate and number of updates are the probes' own, set so that the right trainer passes with
room: a probe asks which way the trainer goes, not how well it ends.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pandas as pd
import torch
from PIL import Image

from mmedlite import grpo
from mmedlite.cases import Case
from mmedlite.checkpoints import resolve
from mmedlite.checks import check
from mmedlite.grpo import Reward, picture_rows
from mmedlite.models import load_policy, load_processor, new_adapter
from mmedlite.profiles import InputError, load_profile
from mmedlite.prompts import attending_prompt
from mmedlite.rewards import accuracy_reward, format_reward

PANELS = ([0, 0, 1], [1, 1, 0])  # two split panels, the second the other way round: all in which the two prompts differ
PROMPTS = 4  # an update, the two prompts in turn
RATE = 2e-3
FALSE_START = "Surgeon"  # a word made as likely as "<think>" where a probe needs answers of broken form: about half of them are then


class Finding(NamedTuple):
    """What a probe measured, in words, and whether it is as it must be."""

    measured: str
    holds: bool


class Trained(NamedTuple):
    """A short training."""

    log: list[dict[str, Any]]  # a row an update
    answers: pd.DataFrame  # a row an answer, as in rollouts.jsonl
    before: torch.Tensor  # (k,) the adapter's weights
    after: torch.Tensor  # (k,)


def _weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for name, p in model.named_parameters() if ".default." in name]).cpu()


def _train(
    case: Case, picture: Image.Image, name: str, rewards: Sequence[Reward], rewarded: Sequence[int], updates: int,
    gamma: float = 0.0, beta: float = 0.0, rate: float = RATE, temperature: float = 1.0, broken: bool = False,
) -> Trained:  # fmt: skip
    """Train a fresh adapter, the same each time; ``rewarded``: the option that counts as right under each panel."""
    profile = load_profile("tiny")
    processor, policy = load_processor(resolve(profile.policy)), load_policy(profile.policy)
    if broken:
        with torch.no_grad():
            think, other = processor.tokenizer.convert_tokens_to_ids(["<think>", FALSE_START])
            words = policy.get_output_embeddings().weight  # (vocabulary, hidden)
            words[other] += words[think]
    torch.manual_seed(0)
    model = new_adapter(policy, profile.lora)
    pairs = PROMPTS * updates // 2
    prompts = [attending_prompt(case, case.specialty, panel) for panel in PANELS]
    rows = picture_rows([picture] * 2 * pairs, prompts * pairs, [case.options] * 2 * pairs, list(rewarded) * pairs,
                        ["first", "second"] * pairs, [gamma] * 2 * pairs, [beta] * 2 * pairs)  # fmt: skip
    before, settings = _weights(model), replace(profile.grpo, prompts_per_step=PROMPTS, learning_rate=rate, temperature=temperature)
    with tempfile.TemporaryDirectory() as folder:
        log = grpo.train(model, processor, rows, settings, Path(folder), {"stage": f"probe, {name}"}, 0, rewards)
        answers = pd.read_json(Path(folder) / "rollouts.jsonl", lines=True)
    return Trained(log, answers, before, _weights(model))


def _ends(answers: pd.DataFrame, column: str = "accuracy") -> tuple[float, float]:
    """Mean of a column in the first update and in the last two."""
    last = answers["step"].max()
    return float(answers.loc[answers["step"] == 0, column].mean()), float(answers.loc[answers["step"] > last - 2, column].mean())


def constant_reward(case: Case, picture: Image.Image) -> Finding:
    """Every answer to the first prompt earns 1, to the second 0: no group has a spread, so nothing moves; with the bonus on, entropy rises."""

    def equal(completions: Sequence[Any], case_id: Sequence[str], **_: Any) -> list[float]:
        return [float(name == "first") for name in case_id]

    still = _train(case, picture, "constant reward", [equal], (0, 0), 2)
    opened = _train(case, picture, "constant reward, bonus on", [equal], (0, 0), 8, gamma=0.1, rate=4e-3)
    moved, gain = float((still.after - still.before).abs().max()), still.answers["advantage"].abs().max()
    first, *_, before, last = (row["entropy"] for row in opened.log)
    last = (before + last) / 2
    said = f"largest advantage {gain:g}, largest change of a weight {moved:g}; bonus on: entropy {first:.2f} -> {last:.2f} nats"
    return Finding(said, gain == 0 and moved == 0 and last > first + 0.03)


def two_arms(case: Case, picture: Image.Image) -> Finding:
    """The wrong option is rewarded, under both panels: its share rises."""
    first, last = _ends(_train(case, picture, "two arms", [accuracy_reward], [1 - case.answer] * 2, 8).answers)
    return Finding(f"share of the rewarded answer {first:.2f} -> {last:.2f}", last > min(first + 0.2, 0.9))


def opposite_prompts(case: Case, picture: Image.Image) -> Finding:
    """Under each panel the option of its majority is rewarded: both shares rise, which no liking for one answer can do."""
    answers = _train(case, picture, "opposite prompts", [accuracy_reward], (0, 1), 14).answers
    shares = [_ends(part) for _, part in answers.groupby("case_id")]
    said = ", ".join(f"{first:.2f} -> {last:.2f}" for first, last in shares)
    return Finding(f"share of the rewarded answer to each prompt {said}", all(last > max(min(first + 0.2, 0.9), 0.7) for first, last in shares))


def format_only(case: Case, picture: Image.Image) -> Finding:
    """Only the form is rewarded, in a policy that breaks it half of the time: the form rises, the share of right answers drifts by less
    than .3."""
    answers = _train(case, picture, "format only", [format_reward], [case.answer] * 2, 8, rate=1e-3, broken=True).answers
    form, right = _ends(answers, "format"), _ends(answers[answers["format"] > 0])
    said = f"format reward {form[0]:.2f} -> {form[1]:.2f} of 0.50; right among the well-formed {right[0]:.2f} -> {right[1]:.2f}"
    return Finding(said, form[1] > form[0] + 0.1 and abs(right[1] - right[0]) < 0.3)


def masked_tokens(case: Case, picture: Image.Image) -> Finding:
    """Twice the same training, the second time with five more words behind each answer, under a mask of 0: nothing changes.

    Temperature 2 makes answers of different length, so that there is padding in the first one too.
    """

    class Longer(grpo.CurriculumTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
            word = self._tokenizer.convert_tokens_to_ids(FALSE_START)
            fill = {"completion_ids": word, "completion_mask": 0, "ref_per_token_logps": 0.0}
            more = {name: torch.nn.functional.pad(inputs[name], (0, 5), value=value) for name, value in fill.items()}  # (B, T + 5)
            return super()._compute_loss(model, {**inputs, **more})

    def run(name: str) -> Trained:
        rewards: list[Reward] = [format_reward, accuracy_reward]
        return _train(case, picture, f"masked tokens, {name}", rewards, [case.answer] * 2, 2, gamma=0.05, beta=0.1, temperature=2.0)

    one = run("as they are")
    with patch.object(grpo, "CurriculumTrainer", Longer):
        two = run("longer")
    terms = ("loss", "policy_gradient", "entropy_gradient")
    apart = max(abs(one.log[0][name] - two.log[0][name]) for name in terms)  # of one update, before rounding can grow
    later, lengths = abs(one.log[1]["loss"] - two.log[1]["loss"]), one.answers["tokens"].nunique()
    said = f"answers of {lengths} lengths; loss and gradients differ by {apart:.1g}, the loss after the update by {later:.1g}"
    return Finding(said, lengths > 1 and apart <= 1e-6 and later <= 1e-5)


PROBES: dict[str, tuple[Callable[[Case, Image.Image], Finding], str]] = {
    "constant_reward": (constant_reward, "weights moved: the advantage is not centred on its own group; entropy fell: its sign is wrong"),
    "two_arms": (two_arms, "the rewarded answer does not gain: the sign of the update is wrong, or the adapter is not trained"),
    "opposite_prompts": (opposite_prompts, "one gains, the other loses: advantages reach another group, or the prompt is not read"),
    "format_only": (format_only, "the form stays: its reward is lost on the way; the right answers move: another reward got in"),
    "masked_tokens": (masked_tokens, "what stands behind the end of an answer counts: a mask is missing in a term of the loss"),
}


def probe(case: Case, picture: Image.Image) -> pd.DataFrame:
    """Run the five probes, print a line each by ``checks.check``, and give a table: probe, measured, seconds.

    Args:
        case: any yes/no case. picture: what the attending sees of it.

    Raises:
        InputError: the case has not two options.
    """
    if len(case.options) != 2:
        raise InputError(f"case '{case.case_id}' has {len(case.options)} options", "probes.probe", "give a case with two options")
    rows = []
    for name, (run, hint) in PROBES.items():
        began = time.monotonic()
        found = run(case, picture)
        check(f"probe_{name}", found.holds, hint)
        rows.append({"probe": name.replace("_", " "), "measured": found.measured, "seconds": round(time.monotonic() - began, 1)})
    return pd.DataFrame(rows)
