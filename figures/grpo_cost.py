"""What does a GRPO step cost, and where does the time go? One thing is varied at a time around the tiny attending step.

``python -m figures.grpo_cost [--quick] [--json]``: rollouts a prompt (G), image tokens, completion length, prompts a step. Each setting
trains some steps in a process of its own, on a GPU where there is one. Cases are drawn, panels made up at random, as for the warm start.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from data_prep.drawing import draw
from data_prep.phantoms import DIALS, sample
from data_prep.tiny_examples import as_case
from figures._clock import made_from, now
from mmedlite import grpo
from mmedlite.checkpoints import resolve
from mmedlite.demo import GIB
from mmedlite.models import ImageProcessorOnly, load_policy, load_processor, new_adapter
from mmedlite.profiles import ROOT, load_profile
from mmedlite.prompts import attending_prompt

OUT = ROOT / "figures" / "data" / "grpo_cost.json"
GAMMA, BETA = 5e-3, 4e-3  # of the medium bucket
FIRST = 50_000_000  # seeds of cases that nothing else uses
PHASES = ("preprocess", "encode", "prefill", "decode", "reference", "loss", "optimiser", "rest")


class Setting(NamedTuple):
    """One step to be measured; the defaults are the tiny attending step."""

    generations: int = 8  # G
    side: int = 64  # of the picture, pixels: (side / 16)^2 image tokens
    tokens: int = 20  # longest completion
    full: bool = False  # every completion has that length, since none may end
    prompts: int = 12  # a step


VARIED = {
    "G": [Setting(generations=g) for g in (2, 4, 8, 16)],
    "image tokens": [Setting(side=s) for s in (64, 96, 128, 192)],
    "completion length": [Setting(tokens=t, full=True) for t in (10, 20, 40, 80)],
    "prompts": [Setting(prompts=p) for p in (6, 12, 24)],
}
QUICK = {"G": [Setting(), Setting(generations=2)], "completion length": [Setting(tokens=40, full=True)]}


class Stopwatch:
    """Credits each moment to the innermost phase that is going on, so that the phases of a step add up to its time."""

    def __init__(self) -> None:
        self.open, self.steps = ["rest"], list[dict[str, float]]()
        self.spent: dict[str, float] = defaultdict(float)
        self.last, self.processor = now(), time.process_time()

    def credit(self) -> None:
        """What has passed since the last call belongs to the phase that was going on."""
        moment = now()
        self.spent[self.open[-1]] += moment - self.last
        self.last = moment

    def begin(self, phase: str) -> None:
        """A phase begins within the one that is going on."""
        self.credit()
        self.open.append(phase)

    def end(self) -> None:
        """It ends."""
        self.credit()
        self.open.pop()

    def around(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, credited to a phase."""

        @functools.wraps(function)
        def credited(*args: Any, **kwargs: Any) -> Any:
            self.begin(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return credited

    def step(self, tokens: int) -> None:
        """A step of so many completion tokens ends, and the next begins."""
        self.credit()
        processor = time.process_time()
        self.steps.append({**self.spent, "processor": processor - self.processor, "tokens": tokens})
        self.spent, self.processor = defaultdict(float), processor


class Watched(grpo.CurriculumTrainer):
    """The kit's trainer under a stopwatch."""

    watch: Stopwatch
    tokens: int  # of the completions of this step

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The rows of a step, with their pictures."""
        return self.watch.around("preprocess", super().get_batch_samples)(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        out = super()._generate_and_score_completions(inputs)
        self.tokens = int(out["completion_mask"].sum())
        return out

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        phase = "loss" if torch.is_grad_enabled() else "reference"
        return self.watch.around(phase, super()._get_per_token_logps_and_entropies)(*args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The forward half of the loss."""
        return self.watch.around("loss", super().compute_loss)(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> Any:
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self.state.global_step > len(self.watch.steps):  # at the end of an epoch it is called once more
            self.watch.step(self.tokens)


def watch_model(model: Any, watch: Stopwatch) -> None:
    """Credit what the policy does: encode its pictures; in generation, run the prompt, then token after token."""
    base = model.get_base_model()
    base.model.get_image_features = watch.around("encode", base.model.get_image_features)
    base.generate = watch.around("decode", base.generate)

    def before(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        phase = watch.open[-1]
        watch.begin("prefill" if phase == "decode" and inputs.get("past_key_values") is None else phase)

    base.register_forward_pre_hook(before, with_kwargs=True)
    base.register_forward_hook(lambda *_: watch.end())


def rows_of(setting: Setting, n: int) -> list[dict[str, Any]]:
    """n training rows: drawn cases, each with three opinions at random."""
    rng = np.random.default_rng(0)
    facts = [sample(FIRST + i, DIALS) for i in range(n)]
    cases = [as_case(f) for f in facts]
    prompts = [attending_prompt(c, c.specialty, rng.integers(0, len(c.options), 3).tolist()) for c in cases]
    pictures = [draw(f["phantoms"][0]).resize((setting.side, setting.side)) for f in facts]
    ids = [f"case-{i}" for i in range(n)]
    return grpo.picture_rows(pictures, prompts, [c.options for c in cases], [c.answer for c in cases], ids, [GAMMA] * n, [BETA] * n)


def peak_gib() -> float:
    """Peak memory so far: of the GPU where there is one, else resident memory of this process (Linux tells it)."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / GIB)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024**2 if found else float("nan")


def measure(setting: Setting, steps: int) -> dict[str, Any]:
    """Train 1 + ``steps`` steps, the first untimed; medians a step, the share of each phase, peak memory. In a fresh process."""
    torch.set_num_threads(1)
    profile = load_profile("tiny")
    processor = load_processor(resolve(profile.policy))
    processor.image_processor.size = {"shortest_edge": setting.side**2, "longest_edge": setting.side**2}
    torch.manual_seed(0)
    model = new_adapter(load_policy(profile.policy, profile.dtype), profile.lora)
    settings = replace(
        profile.grpo, generations=setting.generations, prompts_per_step=setting.prompts, max_new_tokens=setting.tokens
    )  # fmt: skip
    rows, Watched.watch = rows_of(setting, (1 + steps) * setting.prompts), (watch := Stopwatch())
    watch_model(model, watch)
    never = (*grpo.VISION_TOKENS, "<|im_end|>") if setting.full else grpo.VISION_TOKENS
    work = [
        (ImageProcessorOnly, "apply_chat_template", "preprocess"), (ImageProcessorOnly, "__call__", "preprocess"),
        (Accelerator, "backward", "loss"), (Accelerator, "clip_grad_norm_", "optimiser"), (AcceleratedOptimizer, "step", "optimiser"),
    ]  # fmt: skip
    with ExitStack() as stack, tempfile.TemporaryDirectory() as out:
        for owner, name, phase in work:
            stack.enter_context(patch.object(owner, name, watch.around(phase, getattr(owner, name))))
        stack.enter_context(patch.object(grpo, "VISION_TOKENS", never))
        stack.enter_context(patch.object(grpo, "CurriculumTrainer", Watched))
        grpo.train(model, processor, rows, settings, Path(out), {"stage": "cost"}, 0)
    timed = watch.steps[1:]
    seconds = [sum(s.get(p, 0.0) for p in PHASES) for s in timed]
    shares = {p: sum(s.get(p, 0.0) for s in timed) / sum(seconds) for p in PHASES}
    return {
        **setting._asdict(), "image_tokens": (setting.side // 16) ** 2, "seconds": float(np.median(seconds)),
        "cpu_seconds": float(np.median([s["processor"] for s in timed])), "peak_gib": peak_gib(),
        "tokens": float(np.median([s["tokens"] for s in timed])), "tokens_per_second": sum(s["tokens"] for s in timed) / sum(seconds),
        "shares": shares, "n": len(timed),
    }  # fmt: skip


HEAD = ("varied", "G", "image", "length", "prompts", "seconds", "CPU s", "GiB", "tokens/s", *PHASES)


def line(name: str, found: dict[str, Any]) -> list[str]:
    """One row of the table."""
    length = found["tokens"] / found["generations"] / found["prompts"]
    numbers = (f"{found['seconds']:.3f}", f"{found['cpu_seconds']:.3f}", f"{found['peak_gib']:.2f}", f"{found['tokens_per_second']:.0f}")
    shares = (f"{found['shares'][p]:.0%}" for p in PHASES)
    return [name, str(found["generations"]), str(found["image_tokens"]), f"{length:.0f}", str(found["prompts"]), *numbers, *shares]


def show(cells: Sequence[str]) -> None:
    """Print a row in columns."""
    print(f"{cells[0]:17}", *(f"{c:>{max(len(h), 6)}}" for c, h in zip(cells[1:], HEAD[1:], strict=True)), flush=True)


def main() -> None:
    """Measure every setting, print the table as it grows, store it with provenance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three settings, two timed steps each; nothing is stored")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    varied, steps = (QUICK, 2) if args.quick else (VARIED, 5)
    torch.set_num_threads(1)
    found: dict[Setting, dict[str, Any]] = {}
    show(HEAD)
    # One process a setting, or its peak memory would be that of the largest before it.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, settings in varied.items():
            for setting in settings:
                if setting not in found:
                    found[setting] = pool.submit(measure, setting, steps).result()
                show(line(name, found[setting]))
    table = {
        "varied": {name: [found[s] for s in settings] for name, settings in varied.items()},
        "made_from": made_from(),
    }
    if not args.quick:
        OUT.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(table))


if __name__ == "__main__":
    main()
