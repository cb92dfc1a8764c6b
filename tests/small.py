"""A policy with random weights, phantom cases and short GRPO settings: what the tests of the core train on, in seconds."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data_prep.drawing import draw
from data_prep.phantoms import _FIRST_SEED, DEPARTMENT, DIALS, build, sample
from data_prep.tiny_examples import as_case
from data_prep.tiny_model import build_model, build_processor, save
from mmedlite.cases import Case, CaseTable, read_table
from mmedlite.grpo import picture_rows
from mmedlite.models import ImageProcessorOnly, new_adapter, share_work
from mmedlite.pictures import image_sha256
from mmedlite.profiles import ROOT, Grpo, Lora
from mmedlite.prompts import attending_prompt, message
from mmedlite.provenance import weights_sha256

LORA = Lora(r=4, alpha=8)
SETTINGS = Grpo(
    learning_rate=1e-2, prompts_per_step=2, generations=4, temperature=1.0, max_new_tokens=8,
    gradient_accumulation=1, gradient_checkpointing=False, vllm=False,
)  # fmt: skip


SHORT = {"triage": 4, "easy": 1, "medium": 1, "hard": 3}  # enough to pass through every step


@cache
def processor() -> ImageProcessorOnly:
    """Tokenizer and image processor of the tiny models."""
    return build_processor()


def pictures(n: int) -> list[Image.Image]:
    """The first n phantoms."""
    return [draw(sample(seed, DIALS)["phantoms"][0]) for seed in range(n)]


def cases_again(case_ids: Iterable[str]) -> CaseTable:
    """These cases of the stored clinic, made again from their seeds with the hashes of their pictures: no folder is read or written."""
    cases = []
    for case_id in dict.fromkeys(case_ids):
        _, world, split, number = case_id.split("-")
        facts = sample(int(world) * 10_000_000 + _FIRST_SEED[split] + int(number), DIALS, shift=int(split == "shifted"))
        hashes, options = tuple(image_sha256(draw(p)) for p in facts["phantoms"]), facts["options"]
        cases.append(Case(
            case_id, "phantoms", split, hashes, hashes, facts["question"], options, options.index(facts["text"]), facts["look"],
            DEPARTMENT[facts["look"]], "yes_no" if facts["kind"] in ("present", "side") else "choice", "MIT", {"marked": facts["marked"]},
        ))  # fmt: skip
    return CaseTable(Path("drawn"), cases)


def inputs_of(prompts: Sequence[str]) -> Any:
    """Prompts with a phantom each, as the processor gives them to the model."""
    tools = processor()
    texts = [tools.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) for p in prompts]
    return tools(text=texts, images=pictures(len(prompts)), return_tensors="pt", padding=True)


def base(seed: int = 0, shared: bool = True, likely: str = "<|im_end|>", strength: float = 6.5) -> Any:
    """A random Qwen2.5-VL in memory with a frozen tower. Its words differ in likelihood, and ``likely`` comes in up to one
    place in two, so that completions differ in length and entropy is not the same everywhere."""
    torch.manual_seed(seed)
    tools = processor()
    model = build_model(tools).eval()
    words = model.get_input_embeddings().weight  # (vocabulary, hidden), tied to the output
    with torch.no_grad():
        words *= 2
        state = model(**inputs_of(["What is seen?"]), output_hidden_states=True).hidden_states[-1][0, -1]  # (hidden,)
        words[tools.tokenizer.convert_tokens_to_ids(likely)] = state * strength / state.square().sum()
    model.model.visual.requires_grad_(False)
    if shared:
        share_work(model)
    return model


def policy(seed: int = 0) -> Any:
    """:func:`base` with a fresh LoRA adapter, the same for the same seed."""
    model = base(seed)
    torch.manual_seed(seed)
    return new_adapter(model, LORA)


def rows(n: int, gamma: float | Sequence[float] = 0.01, kl_weight: float | Sequence[float] = 0.1) -> list[dict[str, Any]]:
    """n training rows with phantom pictures; one coefficient for all, or one a row."""
    cases = [as_case(sample(seed, DIALS)) for seed in range(n)]
    prompts = [attending_prompt(c, c.specialty, [i % 2, 1, None]) for i, c in enumerate(cases)]
    gammas = [gamma] * n if isinstance(gamma, float) else gamma
    weights = [kl_weight] * n if isinstance(kl_weight, float) else kl_weight
    ids = [f"case-{i}" for i in range(n)]
    return picture_rows(pictures(n), prompts, [c.options for c in cases], [c.answer for c in cases], ids, gammas, weights)


def chance(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward without sense but with a spread in every group: a hash of the text."""
    return [zlib.crc32(c[0]["content"].encode()) % 100 / 50 for c in completions]


def adapter(model: Any) -> dict[str, torch.Tensor]:
    """The trainable weights, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if ".default." in name}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def checkpoint(folder: Path, seed: int = 0) -> Path:
    """A checkpoint folder in the hub's layout, with random weights."""
    save(base(seed), processor(), folder)
    return folder


def table(folder: Path, train: int = 12) -> CaseTable:
    """A small phantom clinic."""
    build(folder, sizes={"train": train, "validation": 4, "test": 6, "shifted": 3})
    return read_table(folder)


def specialists(folder: Path, adapters: Sequence[str] = ("Radiologist-0",)) -> Path:
    """A specialists' folder with random weights, sealed by its revision as the recipe does it."""
    checkpoint(folder / "base", seed=1)
    for name in adapters:
        policy(seed=len(name)).save_pretrained(folder / "adapters" / name)
    (folder / "revision.json").write_text(json.dumps({"revision": weights_sha256(folder)}))
    return folder


PANELS = {"diverse": ("0", "1", "2"), "paper_like": ("0", "0", "0")}
PROFILE = """
name = "small"
seed = 0
policy = "POLICY"
specialists = "SPECIALISTS"
source = "phantoms"
max_pixels = 0
eval_batch = 64
eval_cases = 0
dtype = "float32"

[panels]
diverse = ["0", "1", "2"]
paper_like = ["0", "0", "0"]

[lora]
r = 4
alpha = 8

[grpo]
learning_rate = 1e-3
prompts_per_step = 2
generations = 2
temperature = 1.0
max_new_tokens = 6
gradient_accumulation = 1
gradient_checkpointing = false
vllm = false

[triage]
steps = 2
learning_rate = 1e-2
gamma = 1e-4
beta = 1e-3
cases = 0

[attending]
no_panel_learning_rate = 3e-4

[[attending.recipe]]
name = "first"
buckets = ["medium"]
steps = 1
gamma = [5e-3]
beta = [4e-3]

[[attending.recipe]]
name = "last"
buckets = ["easy", "medium", "hard"]
steps = 2
gamma = [1e-4, 5e-3, 3e-2]
beta = [1e-3, 4e-3, 1e-2]

[[attending.paper_schedule]]
name = "easy"
buckets = ["easy"]
steps = 0
gamma = [1e-4]
beta = [1e-3]

[[attending.no_panel]]
name = "mixed"
buckets = ["easy", "medium", "hard"]
steps = 3
gamma = [1e-4, 5e-3, 3e-2]
beta = [1e-3, 4e-3, 1e-2]
"""


# In place of "[lora]": the specialists are a model named a behind an endpoint.
ENDPOINT = """
[endpoint]
longest_side = 512
concurrency = 8
timeout_s = 30
deadline_s = 300
max_requests = 0
max_tokens = 0
max_dollars = 5.0

[endpoint.models.a]
revision = ""
sampling = { temperature = 1.0, max_tokens = 300 }
image_tokens = 1600
input_dollars = 2.5
output_dollars = 10.0

[lora]"""


def profile(folder: Path, *changes: tuple[str, str]) -> Path:
    """A small profile as a file, with the first line that begins so replaced: ``("seed = 0", "seed = 1")``."""
    text = PROFILE
    for old, new in changes:
        assert f"\n{old}" in text, f"the small profile has no line that begins with '{old}'"
        text = text.replace(f"\n{old}", f"\n{new}", 1)
    file = folder / "profile.toml"
    file.write_text(text, encoding="utf-8")
    return file


def short_profile() -> str:
    """The tiny profile with few steps, as a file's text."""
    text = (ROOT / "mmedlite" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(\[triage\]\nsteps = )\d+", rf"\g<1>{SHORT['triage']}", text)
    head, recipe, rest = text.partition("[[attending.recipe]]")
    recipe_part, schedule, tail = rest.partition("[[attending.paper_schedule]]")
    for name in ("easy", "medium", "hard"):
        recipe_part = re.sub(rf'(?s)(name = "{name}".*?steps = )\d+', rf"\g<1>{SHORT[name]}", recipe_part, count=1)
    return head + recipe + recipe_part + schedule + tail
