"""How fast is a GRPO step beside stock TRL, and is it the same step? Alternating runs in one process, medians.

``python -m figures.grpo_speed [--quick] [--json]`` measures the tiny triage and attending steps on the CPU; ``--shape 3b`` or ``7b``
measures a Qwen2.5-VL of that shape with random weights on a GPU. Both sides train the same LoRA adapter on the same rows with the same
configuration; "off" is the kit's trainer with all sharing off. Gradients are compared at the first step, from one random state and without
the entropy term, which the kit averages by completion and stock TRL by token; the timed steps have it on both sides. What the kit
measures every ten steps (``dose``) is not in the times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from trl import GRPOTrainer

from figures._clock import made_from, now
from figures._shapes import SHAPES, random_policy, random_processor
from mmedlite import features, grpo, prompt_once
from mmedlite.attending import prompt_of
from mmedlite.demo import GIB
from mmedlite.models import ImageProcessorOnly, load_adapter, load_policy, new_adapter, share_work
from mmedlite.profiles import DEPARTMENTS, ROOT, Grpo, load_profile
from mmedlite.prompts import triage_prompt
from mmedlite.rewards import accuracy_reward, format_reward
from mmedlite.run import Run

OUT = ROOT / "figures" / "data"
GAMMA, BETA = 5e-3, 4e-3  # of the medium bucket
STEPS = 3  # a run; its first step is not timed


class Watched:
    """Notes when each step began, the first step's loss and gradient, and its completions; mixed into both trainers."""

    seen: dict[str, Any]  # of the run that is going on

    def training_step(self, *args: Any) -> Any:
        """One step; the clock is read before it."""
        began, ended = self.seen.setdefault("began", []), self.seen.setdefault("ended", [])
        if len(began) == len(ended):  # not a further micro-batch of this step
            began.append((now(), time.process_time()))
        loss = super().training_step(*args)  # type: ignore[misc]
        if "gradient" not in self.seen:
            weights = [p for n, p in self.model.named_parameters() if ".default." in n]  # type: ignore[attr-defined]
            self.seen |= {"loss": float(loss), "gradient": [p.grad.detach().float().cpu().clone() for p in weights]}
        return loss

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self.seen["ended"].append((now(), time.process_time()))
        return super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        out = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self.seen.setdefault("completions", out["completion_ids"].cpu())
        return out


class Ours(Watched, grpo.CurriculumTrainer):
    """The kit's trainer."""


class Stock(Watched, GRPOTrainer):
    """TRL's own trainer, called as the kit calls its own."""

    def __init__(self, *args: Any, rollout_file: Path, rollout_info: dict[str, Any], **kwargs: Any) -> None:
        kwargs["args"].beta, kwargs["args"].entropy_coef = BETA, GAMMA
        super().__init__(*args, **kwargs)
        self.step_log = [{"accuracy": 0.0, "entropy": 0.0, "sample": ""}]  # for the progress line

    def take_up(self) -> None:
        """Nothing to go on from."""

    write_rollouts = take_up  # none are kept

    def _compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self.entropy_coef = GAMMA if self.state.global_step else 0.0
        return super()._compute_loss(*args, **kwargs)


@contextlib.contextmanager
def side(name: str, model: Any) -> Iterator[type[Watched]]:
    """The model made ready for one side, and the trainer of that side.

    "ours": all that the kit shares; "features": image features alone; "prompts": prompts alone; "off": nothing; "stock": TRL's trainer.
    """
    base = model.get_base_model()
    for owner, attribute in ((base, "generate"), (base, "forward"), (base.model, "get_image_features")):
        owner.__dict__.pop(attribute, None)  # what share_work or a trainer has put on it
    if name == "ours":
        share_work(base)
    if name == "features":
        features.share_image_features(base)
    if name == "prompts":
        prompt_once.share_prompts(base)
    trainer = Stock if name == "stock" else Ours
    with patch.object(grpo, "CurriculumTrainer", trainer), contextlib.ExitStack() as stack:
        if name in ("off", "features"):
            stack.enter_context(patch.object(prompt_once, "can_share", lambda *_: False))
        yield trainer


def hashed(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """A reward without sense for random weights, but with a spread in every group: a hash of the tokens."""
    return [zlib.crc32(str(ids).encode()) % 100 / 50 for ids in completion_ids]


def run_side(
    name: str, model: Any, processor: ImageProcessorOnly, rows: Sequence[dict[str, Any]], settings: Grpo, seed: int,
    rewards: Sequence[grpo.Reward],
) -> dict[str, Any]:  # fmt: skip
    """Train ``STEPS`` steps from where the adapter stands, at a rate that does not move it; seconds a step, peak memory, first gradient."""
    features.MEMORY.kept.clear()  # or a side would find the pictures that the one before it has encoded
    features.MEMORY.size = 0
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with side(name, model) as trainer, tempfile.TemporaryDirectory() as out:
        trainer.seen = {}
        grpo.train(model, processor, rows, settings, Path(out), {"stage": name}, seed, rewards, learning_rate=1e-12)
    steps = [np.subtract(e, b) for b, e in zip(trainer.seen["began"], trainer.seen["ended"], strict=False)]
    peak = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None
    return {**trainer.seen, "seconds": [float(s) for s, _ in steps[1:]], "cpu_seconds": [float(s) for _, s in steps[1:]], "peak_gib": peak}


def agreement(ours: dict[str, Any], stock: dict[str, Any]) -> dict[str, Any]:
    """How far the first step differs: loss, gradient of every weight (cosine, relative norm of the difference), completions."""
    every = list(zip(ours["gradient"], stock["gradient"], strict=True))
    pairs = [(a, b) for a, b in every if float(b.norm()) > 0]
    stray = [float(a.norm()) for a, b in every if float(b.norm()) == 0]  # a fresh adapter's first factor: 0 on both sides
    same = ours["completions"].shape == stock["completions"].shape and bool((ours["completions"] == stock["completions"]).all())
    cosines = [float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0, eps=1e-30)) for a, b in pairs]
    errors = [float((a - b).norm() / b.norm()) for a, b in pairs]
    return {
        "same_completions": same,
        "loss_difference": abs(ours["loss"] - stock["loss"]),
        "min_cosine": min(cosines),
        "max_error": max([*errors, *stray]),
    }


def measure(
    make: Callable[[], Any], processor: ImageProcessorOnly, rows: Sequence[dict[str, Any]], settings: Grpo, n: int, sides: Sequence[str],
    rewards: Sequence[grpo.Reward],
) -> dict[str, Any]:  # fmt: skip
    """Alternate the sides n times on one model; medians, and the agreement of "ours" with "stock" in each round.

    A ratio is the median over pairs of steps on the same rows in the same round, since the machine's pace changes within minutes.
    """
    model, per_run = make(), STEPS * settings.prompts_per_step
    seconds: dict[str, list[float]] = {s: [] for s in sides}
    cpu: dict[str, list[float]] = {s: [] for s in sides}
    peaks: dict[str, Any] = dict.fromkeys(sides)
    agree = []
    for turn in range(n):
        part = [{**rows[(turn * per_run + i) % len(rows)], "gamma": GAMMA * (i >= settings.prompts_per_step)} for i in range(per_run)]
        found = {s: run_side(s, model, processor, part, settings, turn, rewards) for s in (sides if turn % 2 == 0 else sides[::-1])}
        for s in sides:
            seconds[s] += found[s]["seconds"]
            cpu[s] += found[s]["cpu_seconds"]
            peaks[s] = found[s]["peak_gib"] and max(found[s]["peak_gib"], peaks[s] or 0.0)
        agree.append(agreement(found["ours"], found["stock"]))
    return {
        "seconds": {s: float(np.median(v)) for s, v in seconds.items()}, "cpu_seconds": {s: float(np.median(v)) for s, v in cpu.items()},
        "all_seconds": seconds, "peak_gib": peaks, "n": n * (STEPS - 1), "agreement": agree,
        "ratio": {s: float(np.median(np.divide(seconds["stock"], v))) for s, v in seconds.items()},
        "completion_tokens": settings.max_new_tokens,
    }  # fmt: skip


def tiny(n: int, sides: Sequence[str]) -> dict[str, Any]:
    """The triage step and the attending step of the tiny world, from partly trained adapters."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        panel = [*run.profile.panels][0]
        count = n * STEPS * run.profile.grpo.prompts_per_step
        cases = [c for c in run.cases("train") if c.specialty][:count]
        said = {c.case_id: v for c, v in zip(run.cases("train"), run.panel("train", panel), strict=True)}
        sent = dict(zip([c.case_id for c in run.cases("train")], run.routes("train"), strict=True))
        pictures, ids = [run.table.open_image(c) for c in cases], [c.case_id for c in cases]
        flat = [GAMMA] * len(cases), [BETA] * len(cases)
        asked = [prompt_of(c, sent[c.case_id], said[c.case_id]) for c in cases]
        work: dict[str, Any] = {
            "triage": ("triage", [triage_prompt()] * len(cases), [DEPARTMENTS] * len(cases),
                       [DEPARTMENTS.index(c.specialty or "") for c in cases], 8),
            "attending": (f"{panel}/medium", asked, [c.options for c in cases], [c.answer for c in cases],
                          run.profile.grpo.prompts_per_step),
        }  # fmt: skip
        found = {}
        for name, (adapter, prompts, options, answers, per_step) in work.items():
            rows = grpo.picture_rows(pictures, prompts, options, answers, ids, *flat)
            settings = replace(run.profile.grpo, prompts_per_step=per_step)

            def make(adapter: str = adapter) -> Any:
                return load_adapter(load_policy(run.profile.policy), run.reference / "adapters" / adapter, trainable=True)

            found[name] = measure(make, run.processor, rows, settings, n, sides, (format_reward, accuracy_reward))
        return found


def shape(name: str, n: int, prompts: int, tokens: int, checkpointing: bool) -> dict[str, Any]:
    """A Qwen2.5-VL of the hub's size with random weights, bf16, on one GPU; noise pictures of 448 to 672 pixels."""
    processor = random_processor()

    def make() -> Any:
        return new_adapter(random_policy(name, processor), load_profile("tiny").lora)

    rng = np.random.default_rng(0)
    sizes = [448, 560, 672] * (n * STEPS * prompts)
    pictures = [Image.fromarray(rng.integers(0, 256, (s, s, 3), dtype=np.uint8)) for s in sizes[: n * STEPS * prompts]]
    text = "Is there a mass in the upper right of this picture, and what do the three specialists say of it? " * 2
    m = len(pictures)
    rows = grpo.picture_rows(
        pictures, [f"{i}. {text}" for i in range(m)], [["yes", "no"]] * m, [0] * m, [str(i) for i in range(m)], [GAMMA] * m, [BETA] * m
    )  # fmt: skip
    settings = Grpo(
        learning_rate=1e-5, prompts_per_step=prompts, generations=8, temperature=1.0, max_new_tokens=tokens,
        gradient_accumulation=prompts, gradient_checkpointing=checkpointing, vllm=False,
    )  # fmt: skip
    with patch.object(grpo, "VISION_TOKENS", (*grpo.VISION_TOKENS, "<|im_end|>")):  # every completion has its full length
        found = measure(make, processor, rows, settings, n, ("stock", "ours"), (hashed,))
    return {**found, "prompts_per_step": prompts, "gradient_checkpointing": checkpointing}


def main() -> None:
    """Measure, store with provenance, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds and sides instead of five; nothing is stored")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="measure this shape on a GPU instead")
    parser.add_argument("--prompts", type=int, default=1, help="prompts a step of --shape (eight rollouts each)")
    parser.add_argument("--tokens", type=int, default=256, help="new tokens a rollout of --shape")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in --shape, on both sides")
    parser.add_argument("--rounds", type=int, help="rounds; five if not given")
    args = parser.parse_args()
    n = args.rounds or (3 if args.quick else 5)
    if args.shape and not torch.cuda.is_available():
        parser.error("--shape needs a GPU: run it on a machine with one, or leave it out for the tiny policy")
    if not args.shape:
        torch.set_num_threads(1)
    sides = ("stock", "ours", "off") if args.quick else ("stock", "ours", "off", "features", "prompts")
    found = {args.shape: shape(args.shape, n, args.prompts, args.tokens, args.checkpointing)} if args.shape else tiny(n, sides)
    for name, m in found.items():
        times = ", ".join(f"{s} {v:.3f} s" for s, v in m["seconds"].items())
        peak = ", ".join(f"{s} {v:.1f} GiB" for s, v in m["peak_gib"].items() if v)
        faster = f"{m['ratio']['ours']:.2f} times as fast as stock"
        print(f"{name}: {times} a step (medians of {m['n']}), {faster}{'; peak ' + peak if peak else ''}")
    if not args.quick:
        file = OUT / (f"grpo_speed_{args.shape}.json" if args.shape else "grpo_speed.json")
        file.write_text(json.dumps({**found, "made_from": made_from()}, indent=1) + "\n", encoding="utf-8")
    if args.json:
        agree = [a for m in found.values() for a in m["agreement"]]
        off = sorted((1 / m["ratio"]["off"] for m in found.values() if "off" in m["ratio"]), key=lambda r: -abs(r - 1))
        ratios = {f"{name}_ratio": round(m["ratio"]["ours"], 3) for name, m in found.items()}
        print(json.dumps({
            **ratios, **({"off_ratio": round(off[0], 3)} if off else {}),
            "max_grad_rel_err": max(a["max_error"] for a in agree), "min_grad_cos": min(a["min_cosine"] for a in agree),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
