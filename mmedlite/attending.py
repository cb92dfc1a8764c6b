"""The attending physician: trained easy -> medium -> hard to weigh panel against picture (paper section 3.3, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmedlite import sft
from mmedlite.cases import Case, CaseTable
from mmedlite.curriculum import Visits, bucket, visits
from mmedlite.grpo import Reward, picture_rows
from mmedlite.models import Processor, generate, option_log_probs
from mmedlite.processes import train
from mmedlite.profiles import Profile, Stage
from mmedlite.prompts import attending_prompt
from mmedlite.rewards import accuracy_reward, format_reward


def prompt_of(case: Case, department: str | None, options: Sequence[int] | None) -> str:
    """The attending's prompt with the panel's options (-1: no answer), or alone."""
    said = [] if options is None else [None if o < 0 else int(o) for o in options]
    return attending_prompt(case, department, said)


def train_stage(
    model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], departments: Sequence[str],
    panel: np.ndarray, stage: Stage, profile: Profile, out: Path, seed: int, with_panel: bool = True,
    rewards: Sequence[Reward] = (format_reward, accuracy_reward), learning_rate: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train one curriculum stage on the adapter of ``model``, which goes on from where the stage before left it.

    Args:
        cases: n training cases. departments: n consulted departments. panel: (n, 3) int, the specialists' options, -1 for none.
        with_panel: False hides the panel from the prompt (the no-panel baseline at the same budget); buckets stay the same.
    """
    visited = visits(stage, bucket(panel, np.array([c.answer for c in cases])), profile.grpo.prompts_per_step, seed)
    rows = visited_rows(table, cases, departments, panel if with_panel else None, visited)
    return train(model, processor, rows, profile.grpo, out, {"stage": stage.name}, seed, rewards, learning_rate)


def visited_rows(
    table: CaseTable, cases: Sequence[Case], departments: Sequence[str], panel: np.ndarray | None, visited: Visits
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows on which the attending trains, one a visit; ``panel`` (n, 3) int, None hides it from the prompt."""
    order = visited.cases.tolist()
    chosen = [cases[i] for i in order]
    prompts = [prompt_of(cases[i], departments[i], None if panel is None else panel[i]) for i in order]
    return picture_rows(
        [partial(table.open_image, c) for c in chosen], prompts, [c.options for c in chosen], [c.answer for c in chosen],
        [c.case_id for c in chosen], visited.gamma.tolist(), visited.beta.tolist(),
    )  # fmt: skip


def answer(
    model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], departments: Sequence[str],
    panel: np.ndarray | None, profile: Profile, label: str = "answering", temperature: float = 0.0, seed: int = 0,
) -> list[str]:  # fmt: skip
    """The policy's answers as texts, greedy at temperature 0; ``panel`` (n, 3) is shown in the prompt, None hides it."""
    texts: list[str] = []
    size = profile.eval_batch
    for start in tqdm(range(0, len(cases), size), desc=label, mininterval=2):
        part = range(start, min(start + size, len(cases)))
        prompts = [prompt_of(cases[i], departments[i], None if panel is None else panel[i]) for i in part]
        pictures = [table.open_image(cases[i]) for i in part]
        answers = generate(model, processor, pictures, prompts, profile.grpo.max_new_tokens, temperature, seed + start)
        texts += [a.text for a in answers]
    return texts


def option_scores(
    model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], departments: Sequence[str],
    panel: np.ndarray | None, texts: Sequence[str], profile: Profile,
) -> list[np.ndarray]:  # fmt: skip
    """Log-probability of each option as the answer, after the reasoning of ``texts``: one (n_options,) float array a case."""
    jobs = [(i, option) for i, case in enumerate(cases) for option in case.options]
    scores: list[list[float]] = [[] for _ in cases]
    size = profile.eval_batch
    for start in tqdm(range(0, len(jobs), size), desc="scoring options", mininterval=2):
        part = jobs[start : start + size]
        prompts = [prompt_of(cases[i], departments[i], None if panel is None else panel[i]) for i, _ in part]
        pictures = [table.open_image(cases[i]) for i, _ in part]
        totals = option_log_probs(model, processor, pictures, prompts, [texts[i] for i, _ in part], [o for _, o in part])
        for (i, _), total in zip(part, totals.tolist(), strict=True):
            scores[i].append(total)
    return [np.array(s) for s in scores]


def lean(scores: Sequence[np.ndarray], panel: np.ndarray, bias: float) -> np.ndarray:
    """The option each case gets when ``bias`` (nats) times the panel's share of votes is added to its option scores: (n,) int."""
    return np.array([
        int((s + bias * np.array([(p == o).mean() for o in range(len(s))])).argmax()) for s, p in zip(scores, panel, strict=True)
    ])  # fmt: skip


def train_sft(
    model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], departments: Sequence[str],
    panel: np.ndarray, profile: Profile, steps: int, seed: int, learning_rate: float,
) -> list[float]:  # fmt: skip
    """SFT baseline on the right option, without reasoning: the same prompts and cases (paper Table 5); returns the losses."""
    prompts = [prompt_of(c, d, p) for c, d, p in zip(cases, departments, panel, strict=True)]
    gold = [f"<think></think><answer>{c.answer_text}</answer>" for c in cases]
    batch = profile.grpo.prompts_per_step * profile.grpo.generations // 2
    return sft.train(model, processor, lambda i: table.open_image(cases[i]), prompts, gold, steps, batch, seed, learning_rate)


@torch.no_grad()
def image_features(model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], profile: Profile) -> np.ndarray:
    """Features of the frozen tower for the attending's picture of each case, mean over its tokens: (n, hidden)."""
    found: list[np.ndarray] = []
    size = profile.eval_batch
    for start in tqdm(range(0, len(cases), size), desc="encoding", mininterval=2):
        pictures = [table.open_image(c) for c in cases[start : start + size]]
        batch = processor.image_processor(images=pictures, return_tensors="pt").to(model.device)
        tokens = model.model.get_image_features(**batch, return_dict=True).pooler_output
        found += [t.float().mean(0).cpu().numpy() for t in tokens]
    return np.stack(found)
