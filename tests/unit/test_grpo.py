"""GRPO as the paper has it: every update against a plain reference, the anchor of the KL, the order of cases, stop and go on.

What each part of the loss must be is in tests/watch.py; that a wrong loss is caught, in tests/mutants.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from mmedlite import grpo
from mmedlite.models import VISION_TOKENS, new_adapter
from mmedlite.profiles import InputError
from mmedlite.prompts import message
from mmedlite.rewards import reward_parts
from tests import watch
from tests.small import LORA, SETTINGS, adapter, base, chance, policy, processor, rows, same

PAIRS = replace(SETTINGS, generations=2)


def train(model: Any, out: Path, batch: Sequence[dict[str, Any]], reward: Any = chance, seed: int = 0, **changes: Any) -> list[Any]:
    return grpo.train(model, processor(), batch, replace(PAIRS, **changes), out, {"stage": "s"}, seed, [reward])


def rollouts(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]


def equal(completions: Sequence[Any], **_: Any) -> list[float]:
    """The same reward for all."""
    return [1.0] * len(completions)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[watch.Training, watch.Training, Any]:
    """Two stages, one after the other, on mixed coefficients."""
    folder, model = tmp_path_factory.mktemp("grpo"), policy()
    batch = rows(10, gamma=[watch.GAMMA[i % 3] for i in range(10)], kl_weight=[watch.KL[i % 3] for i in range(10)])
    return watch.train(model, folder / "one", batch[:6]), watch.train(model, folder / "two", batch[6:]), model


def test_every_update_is_the_papers(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    """Value and gradient to 1e-5, gamma and beta of each sample, lengths masked, advantages of the group, cases in order."""
    assert watch.faults(stage[0]) == [] and watch.faults(stage[1]) == []
    assert len({n for s in stage[0].seen for n in s.lengths}) > 1, "completions of one length would not show a wrong mask"
    assert len(stage[0].seen) == 3 and len(stage[1].seen) == 2


def test_the_anchor_is_the_start_of_the_stage(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    one, two, _ = stage
    assert one.log[0]["kl"] == pytest.approx(0, abs=1e-6) and two.log[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert min(row["kl"] for row in one.log[1:] + two.log[1:]) > 1e-5


def test_gradient_checkpointing_gives_the_same_update(tmp_path: Path) -> None:
    """Prompts are shared under it too: the one pass needs no cache."""
    found = watch.train(policy(), tmp_path / "one", rows(2), replace(SETTINGS, gradient_checkpointing=True))
    assert watch.faults(found) == [] and len(found.seen) == 1


def test_rollouts_hold_the_coefficients_of_their_case(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    for row in stage[0].rollouts + stage[1].rollouts:
        i = int(row["case_id"].removeprefix("case-")) % 3
        assert (row["gamma"], row["beta"]) == (watch.GAMMA[i], watch.KL[i])


def test_rollouts_tell_what_was_seen(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    one = stage[0]
    assert [r["step"] for r in one.rollouts] == [s for s in range(3) for _ in range(8)]
    assert [r["sample_index"] for r in one.rollouts] == list(range(4)) * 6
    assert all(1 <= r["tokens"] <= SETTINGS.max_new_tokens and r["stage"] == "one" for r in one.rollouts)
    batch = {f"case-{i}": row for i, row in enumerate(rows(6))}
    for r in one.rollouts:
        parts = reward_parts(r["text"], batch[r["case_id"]]["options"], batch[r["case_id"]]["answer"])
        assert (r["format"], r["accuracy"]) == (parts["format"], parts["accuracy"])


def test_log_has_a_row_a_step(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    one = stage[0]
    assert [row["step"] for row in one.log] == [1, 2, 3]
    wanted = {"stage", "step", "format", "accuracy", "entropy", "kl", "gamma", "beta", "equal_groups", "truncated"}
    assert all(wanted <= row.keys() for row in one.log)
    assert one.log[0]["gamma"] == pytest.approx(sum(watch.GAMMA[:2]) / 2)
    assert 1 < one.log[0]["entropy"] < 7  # nats, below ln 523


def test_a_log_row_is_of_the_whole_update(tmp_path: Path) -> None:
    """Whether it is scored at once or in parts."""
    cut = {n: replace(SETTINGS, gradient_accumulation=n) for n in (1, 4)}
    whole, parts = (grpo.train(policy(), processor(), rows(2), s, tmp_path / str(n), {"stage": "s"}, 0, [chance])[0] for n, s in cut.items())
    for name in ("loss", "entropy", "gamma", "beta", "accuracy", "decision_entropy", "policy_gradient", "entropy_gradient"):
        assert parts[name] == pytest.approx(whole[name], abs=1e-5), name


def test_the_adapter_learns_and_nothing_else_does(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    model, before = stage[2], policy()
    moved = adapter(model)
    assert not any(torch.equal(moved[name], value) for name, value in adapter(before).items())
    frozen = {n: p for n, p in before.named_parameters() if "lora_" not in n}
    after = dict(model.named_parameters())
    assert frozen and all(torch.equal(after[n], p) for n, p in frozen.items())
    assert model.active_adapter == "default" and not model.training


def test_training_and_evaluation_ask_in_the_same_words(stage: tuple[watch.Training, watch.Training, Any]) -> None:
    """The token ids that the trainer makes of a prompt and a picture are those of generate()."""
    tools = processor()
    expected = []
    for row in rows(6):
        text = tools.apply_chat_template(message(row["prompt"]), add_generation_prompt=True, tokenize=False)
        expected.append(tools(text=[text], images=[row["image"]], return_tensors="pt")["input_ids"][0].tolist())
    seen = [ids for call in stage[0].seen for ids in call.prompt_ids]
    assert all(ids in expected for ids in seen) and all(ids in seen for ids in expected)


def test_equal_coefficients_give_stock_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one gamma and one beta for all, and answers of one length (TRL averages entropy over tokens), TRL's own terms agree
    on the same batch: value and gradient to 1e-5."""
    pairs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = []

    class Both(grpo.CurriculumTrainer):
        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
            ours = super()._compute_loss(model, inputs)
            with monkeypatch.context() as stock:
                for name, value in {"beta": 0.2, "entropy_coef": 0.05, "_entropy_bonus_enabled": True}.items():
                    stock.setattr(self, name, value)
                theirs = GRPOTrainer._compute_loss(self, model, inputs)
            pairs.append((ours, theirs, watch.flat(ours, model), watch.flat(theirs, model)))
            assert inputs["completion_mask"].all()
            return ours

    with monkeypatch.context() as patch:
        patch.setattr(grpo, "VISION_TOKENS", (*VISION_TOKENS, "<|im_end|>"))  # no answer ends early
        patch.setattr(grpo, "CurriculumTrainer", Both)
        log = train(policy(), tmp_path, rows(6, gamma=0.05, kl_weight=0.2), generations=4)
    assert len(pairs) == 3 and log[2]["kl"] > 1e-4  # the KL term was at work
    for ours, theirs, our_gradient, their_gradient in pairs:
        assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
        assert (our_gradient - their_gradient).abs().max() <= 1e-5 * max(1.0, float(their_gradient.abs().max()))


# ---- what drives the policy


def test_equal_rewards_move_nothing(tmp_path: Path) -> None:
    model = policy()
    log = train(model, tmp_path, rows(4, gamma=0.0, kl_weight=0.0), equal)
    assert same(adapter(model), adapter(policy()))
    assert [row["equal_groups"] for row in log] == [1.0, 1.0]


@pytest.mark.parametrize(("gamma", "sign"), [(1.0, 1), (-1.0, -1)])
def test_entropy_acts_alone(tmp_path: Path, gamma: float, sign: int) -> None:
    """Equal rewards, the same case again and again: only the bonus moves the policy, and entropy goes where it is pushed."""
    model = policy()
    log = train(model, tmp_path, rows(1, gamma=gamma, kl_weight=0.0) * 16, equal)
    assert not same(adapter(model), adapter(policy()))
    assert sign * (log[-1]["entropy"] - log[0]["entropy"]) > 0.05


def test_a_reward_is_learnt(tmp_path: Path) -> None:
    """Short answers are rewarded, and answers grow short."""

    def short(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [-float(len(ids)) for ids in completion_ids]

    train(policy(), tmp_path, rows(1, gamma=0.0, kl_weight=0.0) * 24, short, generations=4)
    tokens = [r["tokens"] for r in rollouts(tmp_path)]
    assert sum(tokens[-32:]) < sum(tokens[:32])


def test_learning_rate_of_its_own(tmp_path: Path) -> None:
    model = policy()
    grpo.train(model, processor(), rows(2), PAIRS, tmp_path, {"stage": "s"}, 0, [chance], learning_rate=1e-12)
    change = [(a - b).abs().max() for a, b in zip(adapter(model).values(), adapter(policy()).values(), strict=True)]
    assert 0 < max(change) < 1e-9


@pytest.mark.parametrize("token", VISION_TOKENS)
def test_no_vision_token_is_written(tmp_path: Path, token: str) -> None:
    """A policy that would love to: the next forward pass would look for pictures that are not there."""
    torch.manual_seed(0)
    model = new_adapter(base(likely=token, strength=12), LORA)
    train(model, tmp_path, rows(2))
    assert len(rollouts(tmp_path)) == 4


# ---- one run, the same run, an interrupted run


def test_two_runs_are_alike_to_the_bit(tmp_path: Path) -> None:
    first, again, other = policy(), policy(), policy()
    logs = [train(m, tmp_path / str(i), rows(4), seed=seed) for i, (m, seed) in enumerate([(first, 0), (again, 0), (other, 1)])]
    assert same(adapter(first), adapter(again)) and logs[0] == logs[1]
    assert (tmp_path / "0" / "rollouts.jsonl").read_bytes() == (tmp_path / "1" / "rollouts.jsonl").read_bytes()
    assert not same(adapter(first), adapter(other))


def test_fewer_cases_than_one_update(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 rows are fewer than one update of 2\. Fix: lower grpo"):
        train(policy(), tmp_path / "out", rows(1))
    assert not (tmp_path / "out").exists()


def test_a_last_partial_update_is_left_out(tmp_path: Path) -> None:
    assert len(train(policy(), tmp_path, rows(5))) == 2
    assert [r["case_id"] for r in rollouts(tmp_path)] == [f"case-{i}" for i in (0, 0, 1, 1, 2, 2, 3, 3)]


def stops_at(call: int) -> Callable[..., list[float]]:
    """A reward that is interrupted, as by Ctrl-C, at its n-th call."""
    calls = [0]

    def reward(completions: Sequence[Any], **columns: Any) -> list[float]:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return chance(completions, **columns)

    return reward


def test_an_interrupted_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped in step 12 of 14, taken up from the checkpoint of step 10: weights, log and rollouts as if never stopped."""
    batch, whole = rows(28), policy()
    expected = train(whole, tmp_path / "whole", batch)
    with pytest.raises(KeyboardInterrupt):
        train(policy(), tmp_path / "out", batch, stops_at(12))
    said = capsys.readouterr().out
    (kept,) = (tmp_path / "out").glob("checkpoints-*/checkpoint-*")
    assert kept.name == "checkpoint-10" and str(kept) in said and "step 11 of 14" in said and "Run the same command" in said
    calls: list[int] = []

    def counted(completions: Sequence[Any], **columns: Any) -> list[float]:
        calls.append(len(completions))
        return chance(completions, **columns)

    again = policy()
    log = train(again, tmp_path / "out", batch, counted)
    assert len(calls) == 4  # steps 11 to 14
    assert same(adapter(again), adapter(whole)) and log == expected
    assert rollouts(tmp_path / "out") == rollouts(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("checkpoints-*"))


def test_stopped_before_the_first_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(policy(), tmp_path, rows(4), stops_at(2))
    assert "step 1 of 2" in capsys.readouterr().out
    again, whole = policy(), policy()
    assert train(again, tmp_path, rows(4)) == train(whole, tmp_path / "whole", rows(4))
    assert same(adapter(again), adapter(whole)) and rollouts(tmp_path) == rollouts(tmp_path / "whole")


def test_a_checkpoint_of_another_recipe_is_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(policy(), tmp_path, rows(24), stops_at(12))
    assert len(train(policy(), tmp_path, rows(4, gamma=0.5))) == 2  # from its own start
    assert {r["gamma"] for r in rollouts(tmp_path)} == {0.5} and len(rollouts(tmp_path)) == 8


def test_the_stages_of_a_run_lie_in_one_file_in_the_order_seen(tmp_path: Path) -> None:
    """A stage that is trained again, from its start or from a checkpoint, takes the place of what stood there of it and behind it."""

    def stage(name: str, batch: Sequence[dict[str, Any]], reward: Any = chance) -> None:
        grpo.train(policy(), processor(), batch, PAIRS, tmp_path, {"stage": name}, 0, [reward])

    def visits() -> list[tuple[str, int]]:
        return [(r["stage"], r["step"]) for r in rollouts(tmp_path) if r["sample_index"] == 0][::2]

    stage("one", rows(4))
    stage("two", rows(28))
    whole = rollouts(tmp_path)
    assert visits() == [("one", 0), ("one", 1), *(("two", i) for i in range(14))]
    with pytest.raises(KeyboardInterrupt):
        stage("two", rows(28), stops_at(12))
    stage("two", rows(28))
    assert rollouts(tmp_path) == whole
    stage("one", rows(4))
    assert visits() == [("one", 0), ("one", 1)]


def test_a_half_written_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(policy(), tmp_path, rows(24), stops_at(12))
    (kept,) = tmp_path.glob("checkpoints-*/checkpoint-*")
    (kept / "steps.json").unlink()  # written last
    log = train(policy(), tmp_path, rows(24))
    assert [row["step"] for row in log] == list(range(1, 13)) and len(rollouts(tmp_path)) == 48
