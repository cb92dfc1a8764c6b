"""What the entropy term does: measured right, and without a trace in the training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmedlite import dose, grpo
from mmedlite.prompts import message
from tests.small import SETTINGS, adapter, base, chance, policy, processor, rows, same

TEXTS = ["<think>nodule</think><answer>yes</answer>", "no tag at all"]


def test_decision_entropy_is_that_of_the_options_after_the_reasoning() -> None:
    """Against plain logits, option by option, one row at a time."""
    model, batch = policy(), [r | {"prompt": [{"role": "user", "content": r["prompt"]}]} for r in rows(2)]
    found = dose.decision_entropy(model, processor(), batch, TEXTS)
    plain, tools = base(shared=False), processor()
    for row, reasoning, entropy in zip(batch, ("<think>nodule</think>", "<think></think>"), found.tolist(), strict=True):
        totals = []
        for option in row["options"]:
            begin = tools.apply_chat_template(message(row["prompt"][0]["content"]), add_generation_prompt=True, tokenize=False)
            inputs = tools(text=[f"{begin}{reasoning}<answer>"], images=[row["image"]], return_tensors="pt")
            end = torch.tensor([tools.tokenizer.encode(f"{option}</answer>", add_special_tokens=False)])
            ids = torch.cat([inputs["input_ids"], end], 1)
            more = {k: inputs[k] for k in ("pixel_values", "image_grid_thw")}
            kinds = (ids == tools.image_token_id).int()
            logits = plain(input_ids=ids, mm_token_type_ids=kinds, **more).logits[0, -end.shape[1] - 1 : -1].log_softmax(-1)
            totals.append(float(logits.gather(1, end[0][:, None]).sum()))
        shares = torch.tensor(totals).softmax(0)
        assert entropy == pytest.approx(float(-(shares * shares.log()).sum()), abs=1e-4)
        assert 0 < entropy <= math.log(len(row["options"]))


def test_gradient_norm() -> None:
    a, b, unused = (torch.tensor(v, requires_grad=True) for v in ([1.0, 2.0], [3.0], [4.0]))
    term = (3 * a).sum() + 4 * b.sum()
    assert dose.norm(dose.gradient(term, [a, b, unused])) == pytest.approx(math.sqrt(9 + 9 + 16))
    term.backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None and a.grad.tolist() == [3.0, 3.0]


def trained(out: Path, **changes: Any) -> tuple[list[dict[str, Any]], Any]:
    model, settings = policy(), replace(SETTINGS, generations=2, learning_rate=1e-3)
    batch = rows(4, **changes)
    return grpo.train(model, processor(), batch, settings, out, {"stage": "s"}, 0, [chance]), model


def test_measured_every_few_steps_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dose, "EVERY", 10**9)
    _, untouched = trained(tmp_path / "never")  # but for the first step
    monkeypatch.setattr(dose, "EVERY", 1)
    log, model = trained(tmp_path / "always")
    assert same(adapter(model), adapter(untouched))
    assert all({"decision_entropy", "decision_entropy_max", "policy_gradient", "entropy_gradient"} <= row.keys() for row in log)
    assert all(0 < row["decision_entropy"] <= row["decision_entropy_max"] + 1e-6 for row in log)


def test_the_entropy_gradient_grows_with_gamma(tmp_path: Path) -> None:
    norms = {gamma: trained(tmp_path / str(gamma), gamma=gamma)[0][0] for gamma in (0.0, 0.01, 0.02)}
    assert norms[0.0]["entropy_gradient"] == 0 and norms[0.01]["entropy_gradient"] > 0
    assert norms[0.02]["entropy_gradient"] == pytest.approx(2 * norms[0.01]["entropy_gradient"], rel=1e-3)
    assert norms[0.02]["policy_gradient"] == pytest.approx(norms[0.0]["policy_gradient"], rel=1e-3)
