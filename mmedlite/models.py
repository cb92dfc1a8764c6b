"""The policy: a Qwen2.5-VL of any size, loaded image-only, with the features of the frozen vision tower computed once.

No torchvision and no remote code: the processor is built from its parts and loaded by its class.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging
from trl.trainer.utils import add_fused_lm_head

from mmedlite import prompt_once
from mmedlite.profiles import ROOT, InputError, Lora
from mmedlite.prompts import message

logging.disable_progress_bar()  # "Loading weights", once a checkpoint, says nothing of a run's progress

LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
VISION_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


class ImageProcessorOnly(Qwen2_5_VLProcessor):
    """The Qwen2.5-VL processor without its video half, which would need torchvision.

    A row that comes several times in a call, as in a group of rollouts, is prepared once.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """Tokens, pixel values and grids of all rows, as the plain processor gives them."""
        pictures = [row if isinstance(row, list | tuple) else [row] for row in images or []]
        if not isinstance(text, list) or len(pictures) != len(text):
            return super().__call__(images=images, text=text, **kwargs)
        keys = [(t, *((p.size, p.mode, p.tobytes()) for p in row)) for t, row in zip(text, pictures, strict=True)]
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        distinct = sorted(first.values())
        out = super().__call__(images=[pictures[i] for i in distinct], text=[text[i] for i in distinct], **kwargs)
        which = [distinct.index(first[key]) for key in keys]
        of_row = np.split(np.arange(len(out["image_grid_thw"])), np.cumsum([len(pictures[i]) for i in distinct])[:-1])
        grids = np.concatenate([of_row[i] for i in which])  # (pictures of all rows,)
        ends = np.cumsum([int(np.prod(np.asarray(grid))) for grid in out["image_grid_thw"]])
        of_picture = np.split(np.arange(ends[-1]), ends[:-1])
        places = {"pixel_values": np.concatenate([of_picture[i] for i in grids]), "image_grid_thw": grids}
        for name, values in out.items():
            index = places.get(name, which)
            out[name] = [values[i] for i in index] if isinstance(values, list) else values[index]
        return out


def load_processor(folder: str | Path) -> ImageProcessorOnly:
    """Read image processor, tokenizer and chat template of a Qwen2.5-VL checkpoint folder; left padding, as generation needs.

    Raises:
        InputError: one of its files is missing or damaged.
    """
    folder = Path(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, padding_side="left")
        image = Qwen2VLImageProcessorPil.from_pretrained(folder)
    except Exception as error:
        what = f"cannot read tokenizer or image processor: {error}"
        raise InputError(what, str(folder), "restore the folder from git, or run `make artifacts`") from error
    return ImageProcessorOnly(image_processor=image, tokenizer=tokenizer, chat_template=tokenizer.chat_template)


def resolve(path: str | Path) -> Path:
    """A path of a profile: absolute, or relative to the repository.

    Raises:
        InputError: there is no such folder.
    """
    full = Path(path) if Path(path).is_absolute() else ROOT / path
    if not full.exists():
        raise InputError("no such model folder", str(full), "run `make artifacts`, or name an existing checkpoint in the profile")
    return full


class FeatureMemory:
    """Features of pictures by key, the youngest ``limit`` bytes of them, on the CPU."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def add(self, key: bytes, features: torch.Tensor) -> None:
        """Remember; the oldest go first."""
        self.kept[key] = features
        self.size += features.nbytes
        while self.size > self.limit:
            self.size -= self.kept.popitem(last=False)[1].nbytes


MEMORY = FeatureMemory(2**30)  # of this process: policies that stand on one tower share it


def share_image_features(model: Any, memory: FeatureMemory = MEMORY) -> None:
    """Encode each image once: remember the output of the frozen tower by the hash of its weights and of the image's pixels.

    The weights are hashed again where PyTorch counts a write; one through ``.data`` it does not count.
    """
    core = model.model
    encode: Callable[..., Any] = core.get_image_features
    towers: dict[tuple[int, ...], bytes] = {}  # hash of the weights, as long as nobody has written to them

    def tower() -> bytes:
        written = tuple(p._version for p in core.visual.parameters())
        if written not in towers:
            digest = hashlib.blake2b(digest_size=16)
            for p in core.visual.parameters():
                digest.update(p.detach().cpu().float().numpy().tobytes())
            towers.clear()
            towers[written] = digest.digest()
        return towers[written]

    def get_image_features(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        if any(p.requires_grad for p in core.visual.parameters()):
            return encode(pixel_values, image_grid_thw, **kwargs)
        patches = pixel_values.split([int(n) for n in image_grid_thw.prod(1)])  # one (patches, channels) tensor an image
        weights = tower()
        keys = [
            hashlib.blake2b(p.cpu().float().numpy().tobytes() + str(g.tolist()).encode(), digest_size=16, key=weights).digest()
            for p, g in zip(patches, image_grid_thw, strict=True)
        ]
        found = {key: memory.kept[key] for key in keys if key in memory.kept}
        new = {key: i for i, key in enumerate(keys) if key not in found}
        if new:
            index = list(new.values())
            with torch.no_grad():
                fresh = encode(torch.cat([patches[i] for i in index]), image_grid_thw[index], **kwargs).pooler_output
            for key, features in zip(new, fresh, strict=True):
                found[key] = features.detach().cpu()
                memory.add(key, found[key])
        return BaseModelOutputWithPooling(pooler_output=tuple(found[key].to(pixel_values.device) for key in keys))  # each (tokens, hidden)

    core.get_image_features = get_image_features


def share_work(model: Any) -> None:
    """Encode each image once, run each prompt once, and score tokens by TRL's head, which forms no logits of a whole batch."""
    share_image_features(model)
    prompt_once.share_prompts(model)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))


def load_policy(folder: str | Path, dtype: str = "float32") -> Any:
    """Load a Qwen2.5-VL checkpoint with its vision tower frozen and its image features shared.

    Args:
        folder: checkpoint folder (absolute, or relative to the repository) with safetensors weights.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        InputError: the folder is missing or its weights cannot be read.
    """
    path = resolve(folder)
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, attn_implementation="sdpa"
        )
    except Exception as error:
        raise InputError(f"cannot read the checkpoint: {error}", str(path), "restore it from git, or run `make artifacts`") from error
    model.requires_grad_(True)
    model.model.visual.requires_grad_(False)
    share_work(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def lora_config(lora: Lora) -> LoraConfig:
    """LoRA on every linear layer of the language model; no dropout, since the policy scores in training mode."""
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=LANGUAGE_LINEAR, task_type="CAUSAL_LM"
    )  # fmt: skip


def new_adapter(model: Any, lora: Lora) -> PeftModel:
    """Put a fresh, trainable LoRA adapter on ``model`` (its output is unchanged until it is trained)."""
    return get_peft_model(model, lora_config(lora))


NEW_ADAPTER = "delete its folder and train again, or restore it"


def check_adapter(file: Path) -> set[str]:
    """Names of the tensors in an adapter's safetensors file.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        with safe_open(file, "pt") as stored:
            return set(stored.keys())
    except Exception as error:
        raise InputError(f"cannot read the adapter: {error}", str(file), NEW_ADAPTER) from error


def load_adapter(model: Any, folder: str | Path, name: str = "default", trainable: bool = False) -> PeftModel:
    """Read a LoRA adapter folder onto ``model``, or add it to a model that already carries adapters.

    Raises:
        InputError: the adapter file is missing or damaged; nothing has been trained yet when this is raised.
    """
    file = Path(folder) / "adapter_model.safetensors"
    stored = check_adapter(file)
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
    except Exception as error:
        raise InputError(f"cannot read the adapter: {error}", str(file), NEW_ADAPTER) from error
    # PEFT only warns of a tensor that is not there, and leaves it at random.
    if absent := set(get_peft_model_state_dict(model, adapter_name=name)) - stored:
        raise InputError(f"cannot read the adapter: {len(absent)} tensors are missing, the first {min(absent)}", str(file), NEW_ADAPTER)
    return model


class Answer(NamedTuple):
    """What a policy wrote."""

    text: str
    ended: bool  # False: the token limit cut it


@torch.no_grad()
def generate(
    model: Any, processor: ImageProcessorOnly, images: Sequence[Image.Image], prompts: Sequence[str], max_new_tokens: int,
    temperature: float = 0.0, seed: int = 0,
) -> list[Answer]:  # fmt: skip
    """Answer a batch of (image, prompt) pairs; greedy at temperature 0, else sampled from the full vocabulary.

    Args:
        images: n pictures. prompts: n texts. max_new_tokens: tokens. seed: of the sampling.

    Returns:
        n answers; their texts are without special tokens (``<think>`` and ``<answer>`` are kept: they are ordinary tokens).
    """
    texts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) for p in prompts]
    batch = processor(text=texts, images=list(images), return_tensors="pt", padding=True).to(model.device)
    ids = processor.tokenizer.convert_tokens_to_ids
    if temperature > 0:
        torch.manual_seed(seed)
    config = GenerationConfig(
        do_sample=temperature > 0, temperature=temperature or None, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens,
        eos_token_id=ids("<|im_end|>"), pad_token_id=ids("<|endoftext|>"), suppress_tokens=[ids(t) for t in VISION_TOKENS],
    )  # fmt: skip
    new = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]  # (n, new)
    ended = (new == config.eos_token_id).any(1).tolist()  # (n,)
    return [Answer(t.strip(), e) for t, e in zip(processor.tokenizer.batch_decode(new, skip_special_tokens=True), ended, strict=True)]


def completion_log_probs(
    model: Any, processor: ImageProcessorOnly, images: Sequence[Image.Image], prompts: Sequence[str], given: Sequence[str],
    wanted: Sequence[str],
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Log-probability of each token of ``wanted`` after prompt and ``given``: two (n, t) float tensors, values and mask.

    Rows with the same picture, prompt and ``given``, as the options of a case, share their forward pass.
    """
    texts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) + g
             for p, g in zip(prompts, given, strict=True)]  # fmt: skip
    batch = processor(text=texts, images=list(images), return_tensors="pt", padding=True)  # left-padded
    tails = processor.tokenizer(list(wanted), return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    batch, tails = batch.to(model.device), tails.to(model.device)
    ids, mask = (torch.cat([batch[name], tails[name]], 1) for name in ("input_ids", "attention_mask"))
    values, _ = prompt_once.score(model, ids, mask, tails["input_ids"].shape[1], batch["pixel_values"], batch["image_grid_thw"])
    return values, tails["attention_mask"]


@torch.no_grad()
def option_log_probs(
    model: Any, processor: ImageProcessorOnly, images: Sequence[Image.Image], prompts: Sequence[str], texts: Sequence[str],
    options: Sequence[str],
) -> torch.Tensor:  # fmt: skip
    """Log-probability of ``options`` as the answer, each after the reasoning of its text: (n,) float, in nats.

    Args:
        images, prompts, texts, options: n each; of a text without an answer tag, an empty reasoning is taken.
    """
    given = [f"{text.split('<answer>')[0] if '<answer>' in text else '<think></think>'}<answer>" for text in texts]
    values, mask = completion_log_probs(model, processor, images, prompts, given, [f"{o}</answer>" for o in options])  # (n, t) each
    return (values * mask).sum(1)
