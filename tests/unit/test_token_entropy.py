"""Real rollouts token by token: scored again, the stored group has the log-probabilities that the trainer wrote beside it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from trl.trainer.utils import entropy_from_logits

from mmedlite import live, plots, token_entropy, widgets
from mmedlite.exercises import EXERCISES
from mmedlite.profiles import ROOT
from mmedlite.run import Run
from mmedlite.token_entropy import Scored, entropies, entropy_explorer, entropy_figure, last_group

STAGES = ("easy", "medium", "hard")
ENDS = {"before": "diverse/medium", "after": "diverse/hard"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def group(run: Run) -> pd.DataFrame:
    return last_group(live.recorded(run, "diverse", STAGES)[1], 523)


@pytest.fixture(scope="module")
def looked(run: Run, group: pd.DataFrame) -> dict[str, Scored]:
    return token_entropy.look(run, "diverse", group, ENDS)


def faults(looked: dict[str, Scored], group: pd.DataFrame) -> list[str]:
    """Where the policies do not give what the trainer stored of the group."""
    before, after = looked.values()
    found = []
    if np.abs(before.means(before.sampled) - group["logp_reference"]).max() > 0.0015:  # stored with three places
        found.append("reference")
    if np.abs(after.means(after.sampled) - group["logp"]).max() > 0.01:  # the adapter is one last, small update further
        found.append("policy")
    if [len(tokens) for tokens in after.tokens] != group["tokens"].tolist():
        found.append("tokens")
    return found


def test_scored_again_the_group_is_the_trainers(looked: dict[str, Scored], group: pd.DataFrame) -> None:
    assert len(group) == 8 and group["case_id"].nunique() == 1 and group["step"].nunique() == 1
    assert faults(looked, group) == []
    for scored in looked.values():
        assert np.allclose(np.exp(scored.log_probs).sum(-1), 1, atol=1e-4)
        assert [tokens[-1] for tokens in scored.tokens] == ["<|im_end|>"] * 8


MUTANTS = {
    "the token after": ("-keep - 1 : -1", "-keep:"),
    "without the end token": ("tokenizer.eos_token * end", "''"),
    "another prompt": ("seen.panel.tolist()", "None"),
    "padding counted": ("* self.mask).sum(1) / self.mask.sum(1)", ").mean(1)"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_found(run: Run, group: pd.DataFrame, name: str) -> None:
    source = (ROOT / "mmedlite" / "token_entropy.py").read_text(encoding="utf-8")
    right, damaged = MUTANTS[name]
    assert right in source
    module: Any = types.ModuleType("damaged")
    exec(source.replace(right, damaged), module.__dict__)
    assert faults(module.look(run, "diverse", group, ENDS), group)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0])
def test_entropy_is_that_of_the_trainers_function(temperature: float) -> None:
    logits = torch.randn(2, 3, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = entropy_from_logits(logits / temperature)
    assert entropies(logits.log_softmax(-1).numpy(), temperature) == pytest.approx(expected.numpy(), abs=1e-9)
    assert entropies(np.full(8, -np.log(8)), temperature) == pytest.approx(np.log(8))


def rollout(step: int, sample: int, advantage: float) -> dict[str, Any]:
    return {"stage": "hard", "step": step, "sample_index": sample, "advantage": advantage, "tokens": 10}


def test_the_last_group_with_a_lesson() -> None:
    rows = [rollout(s, i, a) for s, gains in ((0, (1, 0)), (1, (0, 2)), (1, (0, 3))) for a in gains for i in (0, 1)]
    assert last_group(rows, 100)["advantage"].tolist() == [2, 2]  # of step 1 the second; of step 0 none
    assert last_group([rollout(3, i, 0) for i in (0, 1, 2, 0, 1, 2)], 100)["sample_index"].tolist() == [0, 1, 2]
    assert len(last_group(rows, token_entropy.ROOM // 15)) == 1  # more than that would not fit into memory


def test_an_answer_that_was_cut_off_has_no_end_token(run: Run, group: pd.DataFrame) -> None:
    cut = group.assign(text=group["text"].str.removesuffix("</answer>"), tokens=group["tokens"] - 2)
    assert {tokens[-1] for tokens in token_entropy.look(run, "diverse", cut, ENDS)["after"].tokens} <= {"yes", "no", "nodule", "mass", "cyst"}


def test_only_answers_whose_text_gives_their_tokens_are_compared(looked: dict[str, Scored], group: pd.DataFrame) -> None:
    assert token_entropy.apart(group, looked["after"]) < 0.01 < token_entropy.apart(group, looked["before"])
    odd = group.assign(tokens=group["tokens"] + (np.arange(8) < 7), logp=group["logp"] + (np.arange(8) < 7))
    assert token_entropy.apart(odd, looked["after"]) < 0.01
    assert np.isnan(token_entropy.apart(group.assign(tokens=1), looked["after"]))


def test_the_terms_make_the_objective(looked: dict[str, Scored], group: pd.DataFrame) -> None:
    functions = (EXERCISES[name].reference for name in ("entropy", "kl", "objective"))
    found = token_entropy.terms(group, *looked.values(), *functions)["nats"].astype(float)
    parts = found["gain at ratio 1"] + found["gamma x entropy"] - found["beta x KL"]
    assert found["objective"] == pytest.approx(parts, abs=2e-5) and abs(found["gain at ratio 1"]) < 1e-4
    assert found["gamma x entropy"] == pytest.approx(group["gamma"].iloc[0] * found["entropy of the policy"], abs=1e-5)
    assert found["KL from the reference"] > 0 < found["beta x KL"]


def test_bars_are_the_entropies(looked: dict[str, Scored]) -> None:
    for number, temperature in ((1, 1.0), (8, 0.25)):
        fig, alt = entropy_figure(looked, number, temperature)
        for bars, (title, scored) in zip(fig.axes[0].containers, looked.items(), strict=True):
            own = entropies(scored.log_probs[number - 1, : len(scored.tokens[number - 1])], temperature)
            assert [bar.get_height() for bar in bars] == fig.numbers[title].tolist() == pytest.approx(own.tolist())
            assert f"{title}: mean {own.mean():.3f} nats" in alt
        assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == looked["after"].tokens[number - 1] == list(fig.numbers.index)
        assert len(plots.png(fig, alt)) > 1000


def test_long_answers_are_cut_in_the_figure_alone(looked: dict[str, Scored]) -> None:
    long = {title: Scored([["word"] * 100], np.ones((1, 100), bool), np.zeros((1, 100)), np.zeros((1, 100, 4))) for title in looked}
    fig, _ = entropy_figure(long, 1, 1.0)
    assert len(fig.axes[0].containers[0]) == token_entropy.SHOWN and len(fig.numbers) == 100


def test_dials(looked: dict[str, Scored], monkeypatch: pytest.MonkeyPatch) -> None:
    import ipywidgets

    caught, shown = list[tuple[Callable[..., Any], dict[str, Any]]](), list[str]()
    monkeypatch.setattr(ipywidgets, "interact", lambda callback, **dials: caught.append((callback, dials)))
    monkeypatch.setattr(widgets, "show", lambda fig, alt: shown.append(alt))
    entropy_explorer(looked)
    [(callback, dials)] = caught
    callback(rollout=dials["rollout"].max, temperature=dials["temperature"].min)
    callback(rollout=dials["rollout"].min, temperature=dials["temperature"].max)
    assert [alt.split(".")[0] for alt in shown] == [
        "Entropy of each token of rollout 1, at temperature 1", "Entropy of each token of rollout 8, at temperature 0",
        "Entropy of each token of rollout 1, at temperature 2",
    ]  # fmt: skip
