"""The triage doctor: a policy trained with GRPO to send a picture to one of seven departments (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmedlite.answers import parse_strict
from mmedlite.cases import Case, CaseTable
from mmedlite.grpo import Reward, picture_rows
from mmedlite.models import Processor, generate
from mmedlite.processes import train
from mmedlite.profiles import DEPARTMENTS, Profile
from mmedlite.prompts import triage_prompt
from mmedlite.rewards import accuracy_reward, format_reward


def train_triage(
    model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], profile: Profile, out: Path, seed: int,
    rewards: Sequence[Reward] = (format_reward, accuracy_reward),
) -> list[dict[str, Any]]:  # fmt: skip
    """Train the adapter of ``model`` on the cases with a known department; returns the step log (see :func:`grpo.train`)."""
    known = [c for c in cases if c.specialty is not None]
    wanted = profile.triage.steps * profile.grpo.prompts_per_step
    rng = np.random.default_rng([seed, 2])
    order = np.concatenate([rng.permutation(len(known)) for _ in range(-(-wanted // max(1, len(known))))])[:wanted]
    chosen = [known[int(i)] for i in order]
    n = len(chosen)
    rows = picture_rows(
        [partial(table.open_image, c) for c in chosen], [triage_prompt()] * n, [DEPARTMENTS] * n,
        [DEPARTMENTS.index(c.specialty or "") for c in chosen], [c.case_id for c in chosen],
        [profile.triage.gamma] * n, [profile.triage.beta] * n,
    )  # fmt: skip
    return train(model, processor, rows, profile.grpo, out, {"stage": "triage"}, seed, rewards, profile.triage.learning_rate)


def route(model: Any, processor: Processor, table: CaseTable, cases: Sequence[Case], profile: Profile) -> list[str | None]:
    """Greedy department of each case; None where the policy names none."""
    found: list[str | None] = []
    size = profile.eval_batch
    for start in tqdm(range(0, len(cases), size), desc="routing", mininterval=2):
        part = cases[start : start + size]
        pictures = [table.open_image(c) for c in part]
        answers = generate(model, processor, pictures, [triage_prompt()] * len(part), profile.grpo.max_new_tokens)
        options = [parse_strict(a.text, DEPARTMENTS).option for a in answers]
        found += [None if o is None else DEPARTMENTS[o] for o in options]
    return found
