"""The reward: format and accuracy apart from each other, and nothing to be earned by a trick."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from mmedlite.rewards import accuracy_reward, format_ok, format_reward, random_reward, reward_parts

YN = ["yes", "no"]
FORMS = [
    ("<think>seen</think><answer>yes</answer>", True),
    ("\n<think>\nseen\ntwice\n</think>\n\n<answer>\nyes\n</answer>\n", True),
    ("<think>seen</think>yes", False),
    ("<answer>yes</answer>", False),
    ("<answer>yes</answer><think>seen</think>", False),
    ("<think>seen</think> so <answer>yes</answer>", False),
    ("<think>seen</think><answer>yes</answer> done", False),
    ("Well: <think>seen</think><answer>yes</answer>", False),
    ("<think>seen<answer>yes</answer>", False),
    ("<think>seen</think><answer>yes", False),
    ("<think></think><answer>yes</answer>", False),
    ("<think>seen</think><answer> </answer>", False),
    ("<think>seen</think><answer>yes</answer><answer>no</answer>", False),
    ("<think>a</think><think>b</think><answer>yes</answer>", False),
    ("<think>a</think><answer>yes<answer>no</answer></answer>", False),
    ("", False),
]


@pytest.mark.parametrize(("text", "good"), FORMS)
def test_format(text: str, good: bool) -> None:
    assert format_ok(text) is good
    assert format_reward([text]) == [0.5 * good]


@pytest.mark.parametrize(
    "pattern",
    [
        re.compile("\\s*<think>.+</think>\\s*<answer>.+</answer>\\s*"),  # no DOTALL: newlines fail
        re.compile("<think>.*?</think>.*?<answer>.*?</answer>", re.S),  # match, not fullmatch; repeated tags pass
        re.compile("\\s*<think>.*</think>\\s*<answer>.*</answer>\\s*", re.S),  # empty and repeated tags pass
    ],
)
def test_the_forms_reject_a_faulty_pattern(pattern: re.Pattern[str]) -> None:
    match = pattern.match if ".*?" in pattern.pattern else pattern.fullmatch
    assert any((match(text) is not None) is not good for text, good in FORMS)


def test_accuracy_is_independent_of_format() -> None:
    parts = reward_parts("no reasoning <answer>no</answer> and a tail", YN, 1)
    assert (parts["format"], parts["accuracy"], parts["parsed"].option) == (0.0, 1.0, 1)
    parts = reward_parts("<think>seen</think><answer>no</answer>", YN, 0)
    assert (parts["format"], parts["accuracy"]) == (0.5, 0.0)


@pytest.mark.parametrize("answer", [0, 1])
@pytest.mark.parametrize(
    "text",
    [
        "<think>yes or no <answer>yes</answer>",
        "<think>x</think><answer>yes, no</answer>",
        "<think>x</think><answer>A B</answer>",
        "<think>x</think><answer>(A) (B)</answer>",
        "<think>x</think><answer>A. no</answer>",
        "<think>x</think><answer>yes/no</answer>",
        "<think>x</think>yes",
        "<think>x</think><answer>normal</answer>",
        "<think>x</think><answer></answer>",
        "<answer>yes</answer><think>",
    ],
)
def test_a_trick_earns_no_accuracy(text: str, answer: int) -> None:
    assert reward_parts(text, YN, answer)["accuracy"] == 0.0


def test_trl_columns_texts_and_messages() -> None:
    good = "<think>seen</think><answer>B</answer>"
    completions = [
        good,
        [{"role": "assistant", "content": good}],
        [{"role": "assistant", "content": [{"type": "text", "text": good}]}],
    ]
    options, answer = [YN, YN, YN], [1, 1, 0]
    assert accuracy_reward(completions, options, answer, prompts=["p"] * 3) == [1.0, 1.0, 0.0]
    assert format_reward(completions, options=options, answer=answer) == [0.5, 0.5, 0.5]


def test_the_random_reward_is_a_coin_tossed_anew() -> None:
    """The same in a repeated run, another in each update, blind to what was written, and fair."""
    tosses = [random_reward(["same words"] * 64, SimpleNamespace(global_step=step)) for step in range(50)]
    assert tosses[3] == random_reward(["other words"] * 64, SimpleNamespace(global_step=3))
    assert tosses[0] != tosses[1] and {t for row in tosses for t in row} == {0.0, 1.0}
    assert sum(map(sum, tosses)) / (50 * 64) == pytest.approx(0.5, abs=0.03)
