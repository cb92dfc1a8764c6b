"""Recipe of the real-small models: the tiny ones, taught on real pictures, and the case table that is left for training and tests.

``python -m data_prep small_base --cases data/real --out data/real_small``. Half of the training pictures are a school, from which the policy
and three specialists a department learn; the other half stays for triage and attending, since a specialist is nearly always right about what
he learned from, and the buckets would say so. The vision towers stay as they were trained on phantoms. Each doctor of a department misses
another third of its pictures; a department without any has three doctors who know no more than the base.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken
from tqdm import tqdm
from transformers import Qwen2_5_VLForConditionalGeneration

from data_prep.items import held_out
from data_prep.tiny_examples import OWN_READING
from data_prep.tiny_model import save
from mmedlite import sft
from mmedlite.cases import Case, CaseTable, TableWriter, read_table
from mmedlite.models import load_policy, load_processor, new_adapter
from mmedlite.profiles import DEPARTMENTS, ROOT, Lora
from mmedlite.prompts import attending_prompt, specialist_prompt, triage_prompt
from mmedlite.provenance import weights_sha256

SCHOOL = 0.5  # share of the training pictures
SIDE = 128  # pixels of the longer side of a stored picture: the tiny towers read 64 x 64
COMMON = 3  # a word that comes so often, and is cut into more than two tokens, becomes one token
EXAMPLES, BATCH, RATE = 6000, 32, 1e-3
POLICY_STEPS, BASE_STEPS, ADAPTER_STEPS, ADAPTER_RATE, RANK = 700, 400, 60, 3e-3, 4
SEED = 0


def reduced(picture: Image.Image) -> Image.Image:
    """The picture with its longer side at most ``SIDE``."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    return small


def divide(table: CaseTable, out: Path) -> tuple[CaseTable, CaseTable]:
    """Write the reduced pictures as two tables, ``school`` and ``cases``; gives both."""
    taught = held_out({c.image_sha256s[0] for c in table.split("train")}, SCHOOL, SEED)
    with TableWriter(out / "school") as school, TableWriter(out / "cases") as rest:
        for case in tqdm(table, desc="pictures", mininterval=2):
            writer = school if case.split == "train" and case.image_sha256s[0] in taught else rest
            path, sha = writer.add_image(reduced(table.open_image(case)))
            writer.add(replace(case, images=(path,), image_sha256s=(sha,)))
    return read_table(out / "school", check_images=False), read_table(out / "cases", check_images=False)


def new_words(processor: Any, school: Sequence[Case]) -> list[str]:
    """Words of the school's questions, options and modalities that the tokenizer of the phantoms cuts into many tokens, common ones."""
    texts = (" ".join((c.question, *c.options, c.modality)) for c in school)
    count = Counter(word for text in texts for word in re.findall(r"[A-Za-z][A-Za-z-]+", text))
    return sorted(w for w, n in count.items() if n >= COMMON and len(processor.tokenizer.encode(f" {w}")) > 2)


def start_from(source: Path, school: Sequence[Case], out: Path) -> tuple[Any, Any]:
    """The tiny checkpoint with the new words as tokens, each begun at the mean of what it was cut into; (model, processor)."""
    processor = load_processor(source)
    words = new_words(processor, school)
    pieces = [processor.tokenizer.encode(f" {w}") for w in words]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(source)
    old = model.get_input_embeddings().weight.detach().clone()  # (vocabulary, width)
    processor.tokenizer.add_tokens([AddedToken(w, single_word=True, normalized=False) for w in words])
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    for word, piece in zip(words, pieces, strict=True):
        model.get_input_embeddings().weight.data[processor.tokenizer.convert_tokens_to_ids(word)] = old[piece].mean(0)
    save(model, processor, out)
    return load_policy(out), processor


def gold(case: Case, said: str) -> str:
    """A completion that names the modality, then answers."""
    return f"<think>{case.modality}</think><answer>{said}</answer>"


def policy_example(rng: np.random.Generator, case: Case) -> tuple[str, str]:
    """(prompt, completion) of the policy's warm start: triage, deciding alone, or weighing a panel that is dialled.

    With a panel a coin decides between the right answer and what a member said, as in the tiny policy's: when to trust whom is left.
    """
    task, n = rng.random(), len(case.options)
    if task < 0.2 and case.specialty:
        return triage_prompt(), gold(case, case.specialty)
    if task < 0.5:
        return attending_prompt(case), gold(case, case.answer_text)
    skill, wrong = rng.uniform(0.4, 0.9), [i for i in range(n) if i != case.answer]
    panel = [case.answer if rng.random() < skill else int(rng.choice(wrong)) for _ in range(3)]
    said = case.answer if rng.random() < OWN_READING else panel[int(rng.integers(3))]
    return attending_prompt(case, case.specialty or str(rng.choice(DEPARTMENTS)), panel), gold(case, case.options[said])


def specialist_example(case: Case, department: str) -> tuple[str, str]:
    """(prompt, completion) of a specialist; without reasoning, which would not fit into his tokens."""
    return specialist_prompt(case, department), f"<think></think><answer>{case.answer_text}</answer>"


def teach(
    model: Any, processor: Any, table: CaseTable, examples: Sequence[tuple[Case, tuple[str, str]]], steps: int, rate: float, seed: int
) -> None:
    """Supervised fine-tuning of what is trainable in ``model``; each picture is opened once."""
    pictures = {c.image_sha256s[0]: table.open_image(c) for c, _ in examples}
    shown = [pictures[c.image_sha256s[0]] for c, _ in examples]
    prompts, completions = zip(*(pair for _, pair in examples), strict=True)
    model.train()
    sft.train(model, processor, shown.__getitem__, prompts, completions, steps, BATCH, seed, rate)
    model.eval()


def make_policy(school: CaseTable, out: Path) -> None:
    """The policy's warm start."""
    model, processor = start_from(ROOT / "artifacts" / "policy", school.cases, out)
    rng = np.random.default_rng([SEED, 1])
    drawn = [school.cases[int(i)] for i in rng.integers(0, len(school.cases), EXAMPLES)]
    teach(model, processor, school, [(c, policy_example(rng, c)) for c in drawn], POLICY_STEPS, RATE, SEED)
    save(model, processor, out)


def make_specialists(school: CaseTable, out: Path) -> None:
    """The base, which has seen a third of the pictures under all roles, and three adapters a department."""
    model, processor = start_from(ROOT / "artifacts" / "specialists" / "base", school.cases, out / "base")
    rng = np.random.default_rng([SEED, 2])
    general = held_out({c.image_sha256s[0] for c in school}, 1 / 3, SEED + 1)
    seen = [c for c in school if c.image_sha256s[0] in general]
    drawn = [seen[int(i)] for i in rng.integers(0, len(seen), EXAMPLES)]
    examples = [(c, specialist_example(c, str(rng.choice(DEPARTMENTS)))) for c in drawn]
    teach(model, processor, school, examples, BASE_STEPS, RATE, SEED)
    save(model, processor, out / "base")
    model.requires_grad_(False)
    third = {sha: i % 3 for i, sha in enumerate(sorted(c.image_sha256s[0] for c in school))}
    for d, department in enumerate(DEPARTMENTS):
        for doctor in range(3):
            torch.manual_seed(3 * d + doctor)
            mine = [c for c in school if c.specialty == department and third[c.image_sha256s[0]] != doctor]
            peft = new_adapter(model, Lora(r=RANK, alpha=2 * RANK))
            if mine:
                lessons = [(c, specialist_example(c, department)) for c in mine]
                teach(peft, processor, school, lessons, ADAPTER_STEPS, ADAPTER_RATE, 3 * d + doctor)
            peft.peft_config["default"].base_model_name_or_path = "specialists/base"  # no path of this machine
            peft.save_pretrained(folder := out / "adapters" / f"{department}-{doctor}", save_embedding_layers=False)
            (folder / "README.md").unlink()  # PEFT's empty card, with a path of this machine
            model = peft.unload()
    (out / "revision.json").write_text(json.dumps({"revision": weights_sha256(out)}) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this source."""
    parser.add_argument("--cases", type=Path, required=True, help="a case table of real pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "real_small", help="where policy/, specialists/ and cases/ are written")


def main(args: argparse.Namespace) -> int:
    """Build it; returns the exit status."""
    start = time.time()
    school, rest = divide(read_table(args.cases), args.out)
    print(f"{len(school.cases)} cases for the school, {len(rest.split('train'))} left for training", flush=True)
    make_policy(school, args.out / "policy")
    make_specialists(school, args.out / "specialists")
    print(f"Done in {(time.time() - start) / 60:.1f} minutes")
    return 0
