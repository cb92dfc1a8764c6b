"""The policy: a Qwen2.5-VL of any size, loaded image-only, with the features of the frozen vision tower computed once.

No torchvision and no remote code: the processor is built from its parts and loaded by its class.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging

from mmedlite.profiles import ROOT, InputError, Lora
from mmedlite.prompt_once import share_prompts
from mmedlite.prompts import message

logging.disable_progress_bar()  # "Loading weights", once a checkpoint, says nothing of a run's progress

LANGUAGE_LINEAR = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
VISION_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


class ImageProcessorOnly(Qwen2_5_VLProcessor):
    """The Qwen2.5-VL processor without its video half, which would need torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


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


def share_image_features(model: Any, capacity: int = 20_000) -> None:
    """Encode each image once: remember the frozen tower's output by the hash of its pixels (bounded, oldest out first)."""
    core = model.model
    encode: Callable[..., Any] = core.get_image_features
    memory: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def get_image_features(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        if any(p.requires_grad for p in core.visual.parameters()):
            return encode(pixel_values, image_grid_thw, **kwargs)
        patches = pixel_values.split([int(n) for n in image_grid_thw.prod(1)])  # one (patches, channels) tensor an image
        keys = [
            hashlib.blake2b(p.cpu().float().numpy().tobytes() + str(g.tolist()).encode(), digest_size=16).digest()
            for p, g in zip(patches, image_grid_thw, strict=True)
        ]
        new = {key: i for i, key in enumerate(keys) if key not in memory}
        if new:
            index = list(new.values())
            with torch.no_grad():
                fresh = encode(torch.cat([patches[i] for i in index]), image_grid_thw[index], **kwargs).pooler_output
            memory.update(zip(new, (f.detach().cpu() for f in fresh), strict=True))
        features = tuple(memory[key].to(pixel_values.device) for key in keys)  # each (tokens, hidden)
        while len(memory) > capacity:
            memory.popitem(last=False)
        return BaseModelOutputWithPooling(pooler_output=features)

    core.get_image_features = get_image_features


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
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(path, dtype=getattr(torch, dtype), use_safetensors=True)
    except Exception as error:
        raise InputError(f"cannot read the checkpoint: {error}", str(path), "restore it from git, or run `make artifacts`") from error
    model.requires_grad_(True)
    model.model.visual.requires_grad_(False)
    share_image_features(model)
    share_prompts(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def lora_config(lora: Lora) -> LoraConfig:
    """LoRA on every linear layer of the language model; no dropout, since the policy scores in training mode."""
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=LANGUAGE_LINEAR, task_type="CAUSAL_LM"
    )  # fmt: skip


def new_adapter(model: Any, lora: Lora) -> PeftModel:
    """Put a fresh, trainable LoRA adapter on ``model`` (its output is unchanged until it is trained)."""
    return get_peft_model(model, lora_config(lora))


def load_adapter(model: Any, folder: str | Path, name: str = "default", trainable: bool = False) -> PeftModel:
    """Read a LoRA adapter folder onto ``model``, or add it to a model that already carries adapters.

    Raises:
        InputError: the adapter file is missing or damaged; nothing has been trained yet when this is raised.
    """
    file = Path(folder) / "adapter_model.safetensors"
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
        with safe_open(file, "pt") as stored:  # PEFT only warns of a tensor that is not there, and leaves it at random
            absent = set(get_peft_model_state_dict(model, adapter_name=name)) - set(stored.keys())
        if absent:
            raise ValueError(f"{len(absent)} tensors are missing, the first {min(absent)}")
    except Exception as error:
        raise InputError(f"cannot read the adapter: {error}", str(file), "delete the folder and train again, or restore it") from error
    return model


@torch.no_grad()
def generate(
    model: Any,
    processor: ImageProcessorOnly,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Answer a batch of (image, prompt) pairs; greedy at temperature 0, else sampled from the full vocabulary.

    Args:
        images: n pictures. prompts: n texts. max_new_tokens: tokens. seed: of the sampling.

    Returns:
        n texts without special tokens (``<think>`` and ``<answer>`` are kept: they are ordinary tokens).
    """
    texts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) for p in prompts]
    batch = processor(text=texts, images=list(images), return_tensors="pt", padding=True).to(model.device)
    ids = processor.tokenizer.convert_tokens_to_ids
    options: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        torch.manual_seed(seed)
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    out = model.generate(
        **batch,
        **options,
        max_new_tokens=max_new_tokens,
        eos_token_id=ids("<|im_end|>"),
        pad_token_id=ids("<|endoftext|>"),
        suppress_tokens=[ids(t) for t in VISION_TOKENS],
    )  # (n, prompt + new)
    texts_out: list[str] = processor.tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [t.strip() for t in texts_out]


def completion_log_probs(
    model: Any,
    processor: ImageProcessorOnly,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    given: Sequence[str],
    wanted: Sequence[str],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each token of ``wanted`` after prompt and ``given``: two (n, t) float tensors, values and mask."""
    texts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) + g
             for p, g in zip(prompts, given, strict=True)]  # fmt: skip
    batch = processor(text=texts, images=list(images), return_tensors="pt", padding=True)  # left-padded
    tails = processor.tokenizer(list(wanted), return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    t = tails["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], tails["input_ids"]], 1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], tails["attention_mask"]], 1)
    if "mm_token_type_ids" in batch:
        batch["mm_token_type_ids"] = torch.cat([batch["mm_token_type_ids"], torch.zeros_like(tails["input_ids"])], 1)
    logits = model(**batch.to(model.device), logits_to_keep=t + 1).logits[:, :-1]  # (n, t, vocabulary)
    target = tails["input_ids"].to(model.device)
    logps = logits.float().log_softmax(-1).gather(2, target[..., None])[..., 0]  # (n, t)
    return logps, tails["attention_mask"].to(model.device)
