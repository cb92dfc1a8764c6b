"""Recipe of the tiny models: the policy, and the base of the frozen specialists, each a real Qwen2.5-VL of about 1.2 M parameters.

Two steps a model. The vision tower learns with classification heads, which are thrown away (from scratch, text alone teaches it
nothing in this time). Then the language model learns to write what it reads into <think> and to choose an option in <answer>.
The policy learns to weigh a dial-a-panel by tossing a coin between its own reading and a random member of the panel. In a closing
round that panel answers at random, or the policy would take its reading from the panel, and under another role line it overrules the
panel on marked pictures (``tiny_examples.policy_example``). When to trust whom is left for reinforcement learning. Every phantom is
drawn from seeds that no split uses.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch.nn import functional
from tqdm import tqdm
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from data_prep.drawing import FINDINGS, LOOKS, PLACES, draw
from data_prep.phantoms import DEPARTMENT, DIALS, Dials, recipe_sha256, sample
from data_prep.tiny_examples import AWAY_GUESS, guess_example, home_example, policy_example
from data_prep.tiny_model import IMAGE_TOKENS, WIDTH, build_model, build_processor, save
from mmedlite.models import ImageProcessorOnly, new_adapter
from mmedlite.profiles import DEPARTMENTS, ROOT, InputError, Lora
from mmedlite.prompts import message
from mmedlite.provenance import models_sha256, weights_sha256

BASE_SEED = 500_000_000  # first phantom seed of the recipe; splits use seeds far below


def pixels(processor: ImageProcessorOnly, facts: list[dict[str, Any]], views: list[int]) -> torch.Tensor:
    """Draw and preprocess one view of each case: (n, 64 patches, 384), float32."""
    pictures = (draw(f["phantoms"][v]) for f, v in zip(facts, views, strict=True))
    rows = [processor.image_processor(images=[p], return_tensors="pt")["pixel_values"] for p in
            tqdm(pictures, total=len(facts), desc="draw", mininterval=5)]  # fmt: skip
    return torch.stack(rows)


def encode(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Vision tower on (n, 64, 384) patches -> (n, 16 tokens, WIDTH)."""
    grid = torch.tensor([[1, 8, 8]]).repeat(len(x), 1)
    return model.model.visual(x.reshape(-1, x.shape[-1]), grid_thw=grid).pooler_output.view(len(x), IMAGE_TOKENS, WIDTH)


LOCAL = ("finding", "place")  # heads that read every token; the others read their mean


def train_tower(model: Any, x: torch.Tensor, facts: list[dict[str, Any]], steps: int, seed: int) -> dict[str, float]:
    """Train the tower with heads for look, finding, place and marker; returns each head's accuracy on the last 1,000 cases."""
    torch.manual_seed(seed)
    y = {
        "look": torch.tensor([LOOKS.index(f["look"]) for f in facts]),
        "finding": torch.tensor([FINDINGS.index(f["finding"]) for f in facts]),
        "place": torch.tensor([-100 if f["finding"] == "normal" else PLACES.index(f["place"]) for f in facts]),
        "marked": torch.tensor([int(f["marked"]) for f in facts]),
    }
    heads = {k: torch.nn.Linear(IMAGE_TOKENS * WIDTH if k in LOCAL else WIDTH, n) for k, n in
             {"look": 7, "finding": 4, "place": 4, "marked": 2}.items()}  # fmt: skip

    def logits(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        z = encode(model, batch)  # (b, 16, WIDTH)
        return {k: h(z.flatten(1) if k in LOCAL else z.mean(1)) for k, h in heads.items()}

    weights = [*model.model.visual.parameters(), *(p for h in heads.values() for p in h.parameters())]
    optimiser = torch.optim.AdamW(weights, lr=1.5e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.5e-3, total_steps=steps, pct_start=0.1)
    for _ in tqdm(range(steps), desc="vision tower", mininterval=5):
        i = torch.randint(0, len(x) - 1000, (64,))
        out = logits(x[i])
        loss = sum(functional.cross_entropy(out[k], y[k][i]) for k in heads)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        out = {k: torch.cat([logits(b)[k] for b in x[-1000:].split(250)]).argmax(1) for k in heads}
    held = {k: v[-1000:] for k, v in y.items()}
    return {k: float((out[k] == held[k])[held[k] >= 0].float().mean()) for k in heads}


def fine_tune(
    model: Any,
    processor: ImageProcessorOnly,
    features: torch.Tensor,
    example: Callable[[np.random.Generator, int], tuple[str, str]],
    steps: int,
    seed: int,
    learning_rate: float = 1e-3,
    batch: int = 48,
    label: str = "language model",
) -> None:
    """Supervised fine-tuning on completions: ``example(rng, i)`` gives prompt and completion of case i; features (n, 16, WIDTH)."""
    if "mm_encoder_outputs" not in inspect.signature(Qwen2_5_VLForConditionalGeneration.forward).parameters:
        raise InputError("this transformers takes no ready image features", "data_prep.tiny_base", "install the locked set")
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    tokenizer, image = processor.tokenizer, processor.image_token
    for _ in tqdm(range(steps), desc=label, mininterval=5):
        index = rng.integers(0, len(features), batch)
        pairs = [example(rng, int(i)) for i in index]
        prompts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) for p, _ in pairs]
        prompts = [p.replace(image, image * IMAGE_TOKENS) for p in prompts]
        ids = [(tokenizer.encode(p), tokenizer.encode(c + "<|im_end|>")) for p, (_, c) in zip(prompts, pairs, strict=True)]
        longest = max(len(p) + len(c) for p, c in ids)
        inputs = torch.full((batch, longest), tokenizer.pad_token_id)  # (b, t), right-padded
        labels = torch.full((batch, longest), -100)
        for row, (p, c) in enumerate(ids):
            inputs[row, : len(p) + len(c)] = torch.tensor(p + c)
            labels[row, len(p) : len(p) + len(c)] = torch.tensor(c)
        loss = model(
            input_ids=inputs,
            attention_mask=(inputs != tokenizer.pad_token_id).long(),
            mm_token_type_ids=(inputs == processor.image_token_id).int(),
            image_grid_thw=torch.tensor([[1, 8, 8]]).repeat(batch, 1),
            mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=tuple(features[index]))},
            labels=labels,
        ).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()


TOWER_DIALS = Dials(contrast=(2, 160), view_contrast=(2, 160))  # the tower first sees findings it can learn from
POLICY: dict[str, Any] = {"cases": 16_000, "tower_steps": 2000, "language_steps": (2400, 2200, 900), "seed": 1}
SPECIALIST: dict[str, Any] = {
    "cases": 14_000, "tower_steps": 2500, "read_steps": 900, "guess_steps": 200, "adapter_steps": 120, "seed": 2, "r": 4,
}  # fmt: skip


def kept_at(work: Path, name: str, settings: dict[str, Any]) -> Path:
    """Where a trained part is kept; another recipe gives another name, so that no part of an older one is taken up."""
    made = json.dumps(settings).encode() + recipe_sha256().encode() + (ROOT / "data_prep" / "tiny_examples.py").read_bytes()
    return work / f"{name}-{hashlib.sha256(made).hexdigest()[:8]}.safetensors"


def draw_features(model: Any, processor: ImageProcessorOnly, facts: list[dict[str, Any]], views: list[int]) -> torch.Tensor:
    """Frozen tower's features of one view of each case: (n, 16, WIDTH), float32."""
    with torch.no_grad():
        return torch.cat([encode(model, b) for b in pixels(processor, facts, views).split(500)])


def base_model(name: str, settings: dict[str, Any], view: Callable[[int], int], work: Path) -> tuple[Any, ImageProcessorOnly]:
    """A fresh model with a trained vision tower; the tower is kept in ``work`` and read again by a later call (checkpoint)."""
    processor = build_processor()
    torch.manual_seed(settings["seed"])
    model = build_model(processor)
    kept = kept_at(work, f"{name}_tower", settings)
    if kept.exists():
        load_model(model, kept)
    else:
        first = BASE_SEED + settings["seed"] * 1_000_000
        facts = [sample(first + i, TOWER_DIALS) for i in range(settings["cases"])]
        x = pixels(processor, facts, [view(i) for i in range(len(facts))])
        accuracy = train_tower(model, x, facts, settings["tower_steps"], settings["seed"])
        print(f"{name} tower, held-out accuracy by head: { {k: round(v, 3) for k, v in accuracy.items()} }", flush=True)
        work.mkdir(parents=True, exist_ok=True)
        save_model(model, str(kept))
    model.model.visual.requires_grad_(False)
    return model, processor


def drawn_anew(settings: dict[str, Any], draw: int) -> dict[str, Any]:
    """The settings of another draw of the models: other first weights, phantoms and order; draw 0 is shipped."""
    return {**settings, "seed": settings["seed"] + 50 * draw}


def make_policy(out: Path, work: Path, draw: int = 0) -> None:
    """The policy: tower, then warm start on triage, deciding alone, and dial-a-panel prompts."""
    settings = drawn_anew(POLICY, draw)
    model, processor = base_model("policy", settings, lambda i: 0, work)
    facts = [sample(BASE_SEED + (10 + 50 * draw) * 1_000_000 + i, DIALS) for i in range(settings["cases"])]
    features = draw_features(model, processor, facts, [0] * len(facts))
    for i, steps in enumerate(settings["language_steps"]):  # each round starts warm, at the full rate again
        kept = kept_at(work, f"policy_language_{i}", settings)
        if kept.exists():
            load_model(model, kept)
            continue
        closing = i == len(settings["language_steps"]) - 1

        def example(rng: np.random.Generator, k: int, closing: bool = closing) -> tuple[str, str]:
            return policy_example(rng, facts[k], closing)

        fine_tune(model, processor, features, example, steps, settings["seed"] + i)
        save_model(model, str(kept))
    save(model, processor, out)


def make_specialists(out: Path, work: Path, draw: int = 0) -> None:
    """The specialists' base (a guesser everywhere), then three LoRA adapters a department, sharp at home with a blind spot.

    The base has eyes of its own; its language model starts from the policy's, which knows how to answer from a reading.
    """
    settings = drawn_anew(SPECIALIST, draw)
    model, processor = base_model("specialist", settings, lambda i: 1 + i % 3, work)
    facts = [sample(BASE_SEED + (20 + 50 * draw) * 1_000_000 + i, DIALS) for i in range(settings["cases"])]
    views = [1 + i % 3 for i in range(len(facts))]
    features = draw_features(model, processor, facts, views)
    kept = out / "base"
    if (kept / "model.safetensors").exists():
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(kept)
    else:
        policy = Qwen2_5_VLForConditionalGeneration.from_pretrained(out.parent / "policy")
        model.model.language_model.load_state_dict(policy.model.language_model.state_dict())
        # First to read, then to guess: the adapters have to bring back at home what the base can do.
        for guess, steps in ((0.0, settings["read_steps"]), (AWAY_GUESS, settings["guess_steps"])):

            def any_department(rng: np.random.Generator, i: int, guess: float = guess) -> tuple[str, str]:
                return guess_example(rng, facts[i], str(rng.choice(DEPARTMENTS)), guess)

            fine_tune(model, processor, features, any_department, steps, settings["seed"])
        save(model, processor, kept)
    model.requires_grad_(False)
    for d, department in enumerate(DEPARTMENTS):
        home = [i for i, f in enumerate(facts) if DEPARTMENT[f["look"]] == department]
        away = [i for i, f in enumerate(facts) if DEPARTMENT[f["look"]] != department]
        for doctor in range(3):
            folder = out / "adapters" / f"{department}-{doctor}"
            if (folder / "adapter_model.safetensors").exists():
                continue
            mine = [i for i in home if views[i] == 1 + doctor]
            marked = [i for i in mine if facts[i]["marked"]]
            pool = [(i, True) for i in mine + 2 * marked] + [(i, False) for i in away[doctor :: 2 * len(away) // len(mine)]]
            torch.manual_seed(seed := 100 * d + doctor + 10_000 * draw)
            peft = new_adapter(model, Lora(r=settings["r"], alpha=2 * settings["r"]))

            def example(rng: np.random.Generator, k: int, pool: Any = pool, department: str = department) -> tuple[str, str]:
                i, at_home = pool[k]
                return home_example(facts[i], department) if at_home else guess_example(rng, facts[i], department)

            fine_tune(peft, processor, features[[i for i, _ in pool]], example, settings["adapter_steps"], seed,
                      learning_rate=3e-3, label=folder.name)  # fmt: skip
            peft.peft_config["default"].base_model_name_or_path = "artifacts/specialists/base"  # no path of this machine
            peft.save_pretrained(folder)
            (folder / "README.md").unlink()  # PEFT's empty card, with a path of this machine
            model = peft.unload()
    (out / "revision.json").write_text(json.dumps({"revision": weights_sha256(out)}) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this source."""
    parser.add_argument("--part", choices=("policy", "specialists", "all"), default="all", help="which models to train")
    parser.add_argument("--out", default=str(ROOT / "artifacts"), help="where policy/ and specialists/ are written")
    parser.add_argument("--draw", type=int, default=0, help="another draw of weights, phantoms and order; 0: the one that is shipped")


def main(args: argparse.Namespace) -> int:
    """Build it; returns the exit status."""
    out, work, start = Path(args.out), ROOT / "data" / "tiny_base", time.time()
    if args.part in ("policy", "all"):
        make_policy(out / "policy", work, args.draw)
    if args.part in ("specialists", "all"):
        make_specialists(out / "specialists", work, args.draw)
    if args.part == "all":  # of one part alone, the other may still be of an older recipe
        (out / "recipe.json").write_text(json.dumps({"sources_sha256": models_sha256()}) + "\n", encoding="utf-8")
    print(f"Done in {(time.time() - start) / 60:.1f} minutes")
    return 0
