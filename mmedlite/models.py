"""The policy: a Qwen2.5-VL of any size, loaded image-only and with the work that rollouts have in common shared; or another backbone.

No torchvision and no remote code: the processor is built from its parts and loaded by its class. Other image-text models of
transformers with a chat template serve too (InternVL2.5, which the paper also trained), without the sharing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from PIL import Image
from safetensors import safe_open
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging
from trl.trainer.utils import add_fused_lm_head

from mmedlite import features, prompt_once
from mmedlite.checkpoints import RESTORE, model_type, resolve
from mmedlite.profiles import InputError, Lora
from mmedlite.prompts import message

logging.disable_progress_bar()  # "Loading weights", once a checkpoint, says nothing of a run's progress

LANGUAGE = r".*(language_model|text_model).*\."
LANGUAGE_LINEAR = LANGUAGE + r"(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
VISION_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN = "qwen2_5_vl"
Processor = Any  # of a Qwen2.5-VL ``ImageProcessorOnly``, of another backbone its own


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


def without_video(folder: Path, kind: str) -> Any:
    """The processor class that a checkpoint, or else its model type, names, without its video half, which would need torchvision."""
    files = [file for name in ("processor", "preprocessor", "tokenizer") if (file := folder / f"{name}_config.json").exists()]
    told = [json.loads(file.read_text(encoding="utf-8")).get("processor_class") for file in files]
    name = next(filter(None, [*told, PROCESSOR_MAPPING_NAMES.get(kind)]), None)
    if name is None or (whole := processor_class_from_name(name)) is None:
        raise ValueError(f"this transformers knows no processor '{name}' for a {kind}")
    parts = [part for part in whole.get_attributes() if "video" not in part]
    return type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: parts)})


def load_processor(folder: str | Path, max_pixels: int = 0) -> Processor:
    """Read image processor, tokenizer and chat template of a checkpoint folder; left padding, as generation needs.

    A Qwen2.5-VL gets larger pictures made smaller than ``max_pixels``; 0: as the checkpoint says, which other backbones always do.

    Raises:
        InputError: one of its files is missing or damaged, or it has no chat template.
    """
    kind = model_type(folder := Path(folder))
    try:
        if kind != QWEN:
            processor = without_video(folder, kind).from_pretrained(folder, padding_side="left")
        else:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, padding_side="left")
            template = tokenizer.chat_template
            if template is None and (file := folder / "chat_template.json").exists():  # where the hub keeps it for some
                template = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
            image = Qwen2VLImageProcessorPil.from_pretrained(folder, **({"max_pixels": max_pixels} if max_pixels else {}))
            processor = ImageProcessorOnly(image_processor=image, tokenizer=tokenizer, chat_template=template)
    except Exception as error:
        raise InputError(f"cannot read tokenizer or image processor: {error}", str(folder), RESTORE) from error
    if not processor.chat_template:
        raise InputError("the checkpoint has no chat template", str(folder), "use an instruction-tuned model")
    return processor


def picture_tokens(processor: Processor, names: Sequence[str] = VISION_TOKENS) -> list[int]:
    """Ids of the tokens that stand for pictures and that no policy may write: ``names``, the processor's own, special ones named so."""
    known = processor.tokenizer.get_vocab()
    special = [token for token in processor.tokenizer.all_special_tokens if re.search("image|img|vision", token, re.IGNORECASE)]
    return [known[name] for name in dict.fromkeys((*names, getattr(processor, "image_token", None), *special)) if name in known]


def share_work(model: Any) -> None:
    """Encode each image once, run each prompt once, and score tokens by TRL's head, which forms no logits of a whole batch."""
    features.share_image_features(model)
    prompt_once.share_prompts(model)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))


def load_policy(folder: str | Path, dtype: str = "float32") -> Any:
    """Load a checkpoint; of a Qwen2.5-VL with its vision tower frozen and its work shared.

    Args:
        folder: checkpoint folder (absolute, or relative to the repository) with safetensors weights, or as :func:`resolve` takes it.
        dtype: "float32", "bfloat16" or "float16"; on a GPU without bfloat16, float16 in its place.

    Raises:
        InputError: the folder is missing or its weights cannot be read.
    """
    kind = model_type(path := resolve(folder))
    if dtype == "bfloat16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        dtype = "float16"
    try:
        loader: Any = Qwen2_5_VLForConditionalGeneration if kind == QWEN else AutoModelForImageTextToText
        model = loader.from_pretrained(path, dtype=getattr(torch, dtype), use_safetensors=True, attn_implementation="sdpa")
    except Exception as error:
        raise InputError(f"cannot read the checkpoint: {error}", str(path), RESTORE) from error
    model.requires_grad_(True)
    if kind == QWEN:
        model.model.visual.requires_grad_(False)
        share_work(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def lora_config(lora: Lora) -> LoraConfig:
    """LoRA on every linear layer of the language model; no dropout, since the policy scores in training mode."""
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, target_modules=LANGUAGE_LINEAR, task_type="CAUSAL_LM"
    )  # fmt: skip


def new_adapter(model: Any, lora: Lora) -> PeftModel:
    """Put a fresh, trainable LoRA adapter on ``model`` (its output is unchanged until it is trained).

    Raises:
        InputError: a linear layer of the language model, or all of them, bear names that are not known; or it has cross-attention.
    """
    if any("cross_attn" in name for name, _ in model.named_modules()):
        what, fix = "reads pictures by cross-attention, which the trainer does not serve", "use one that reads them among its tokens"
        raise InputError(f"a {model.config.model_type} {what}", model.name_or_path, fix)
    head = model.get_output_embeddings()
    linear = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head and re.match(LANGUAGE, name)]
    missed = [name for name in linear if not re.fullmatch(LANGUAGE_LINEAR, name)]
    if missed or not linear:
        what = f"LoRA would miss {len(missed)} linear layers, the first {missed[0]}" if missed else "no linear layers of a language model found"
        fix = "use a Qwen2.5-VL, or add their names to LANGUAGE or LANGUAGE_LINEAR in models.py"
        raise InputError(f"a {model.config.model_type}: {what}", model.name_or_path, fix)
    return get_peft_model(model, lora_config(lora))


def merged(model: PeftModel) -> Any:
    """The policy as it is read: in float32 with its adapter added to the weights; in half precision the sum would round a small one away."""
    return model.merge_and_unload() if model.dtype == torch.float32 else model.eval()


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
    model: Any, processor: Processor, images: Sequence[Image.Image], prompts: Sequence[str], max_new_tokens: int,
    temperature: float = 0.0, seed: int = 0,
) -> list[Answer]:  # fmt: skip
    """Answer a batch of (image, prompt) pairs; greedy at temperature 0, else sampled from the full vocabulary.

    Args:
        images: n pictures. prompts: n texts. max_new_tokens: tokens. seed: of the sampling.

    Returns:
        n answers; their texts are without special tokens (``<think>`` and ``<answer>`` are kept: they are ordinary tokens).
    """
    texts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) for p in prompts]
    batch = processor(text=texts, images=[[image] for image in images], return_tensors="pt", padding=True).to(model.device)
    if temperature > 0:
        torch.manual_seed(seed)
    config = GenerationConfig(
        do_sample=temperature > 0, temperature=temperature or None, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens,
        eos_token_id=processor.tokenizer.eos_token_id, pad_token_id=processor.tokenizer.pad_token_id,
        suppress_tokens=picture_tokens(processor),
    )  # fmt: skip
    new = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]  # (n, new)
    ended = (new == config.eos_token_id).any(1).tolist()  # (n,)
    return [Answer(t.strip(), e) for t, e in zip(processor.tokenizer.batch_decode(new, skip_special_tokens=True), ended, strict=True)]


def completion_inputs(
    processor: Processor, images: Sequence[Image.Image], prompts: Sequence[str], given: Sequence[str], wanted: Sequence[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:  # fmt: skip
    """What a policy reads of n rows, prompt and ``given`` left-padded and ``wanted`` behind them; and ids and mask of ``wanted``, (n, t)."""
    texts = [processor.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) + g
             for p, g in zip(prompts, given, strict=True)]  # fmt: skip
    batch = processor(text=texts, images=[[image] for image in images], return_tensors="pt", padding=True)
    tails = processor.tokenizer(list(wanted), return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    both = {name: torch.cat([batch[name], tails[name]], 1) for name in ("input_ids", "attention_mask")}
    kinds = {name: torch.cat([batch[name], torch.zeros_like(tails["input_ids"])], 1) for name in batch if name.endswith("token_type_ids")}
    return {**batch, **kinds, **both}, {name: tails[name] for name in both}


def completion_log_probs(
    model: Any, processor: Processor, images: Sequence[Image.Image], prompts: Sequence[str], given: Sequence[str], wanted: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Log-probability of each token of ``wanted`` after prompt and ``given``: two (n, t) float tensors, values and mask.

    Rows with the same picture, prompt and ``given``, as the options of a case, share their forward pass.
    """
    inputs, tails = ({k: v.to(model.device) for k, v in part.items()} for part in completion_inputs(processor, images, prompts, given, wanted))
    ids, mask, keep, grid = inputs["input_ids"], inputs["attention_mask"], tails["input_ids"].shape[1], inputs.get("image_grid_thw")
    if prompt_once.can_share(model, ids, grid):
        values, _ = prompt_once.score(model, ids, mask, keep, inputs["pixel_values"], grid)
    else:
        logits = model(**inputs).logits[:, -keep - 1 : -1].float()  # (n, t, vocabulary)
        values = logits.log_softmax(-1).gather(2, tails["input_ids"][..., None])[..., 0]
    return values, tails["attention_mask"]


@torch.no_grad()
def option_log_probs(
    model: Any, processor: Processor, images: Sequence[Image.Image], prompts: Sequence[str], texts: Sequence[str], options: Sequence[str]
) -> torch.Tensor:  # fmt: skip
    """Log-probability of ``options`` as the answer, each after the reasoning of its text: (n,) float, in nats.

    Args:
        images, prompts, texts, options: n each; of a text without an answer tag, an empty reasoning is taken.
    """
    given = [f"{text.split('<answer>')[0] if '<answer>' in text else '<think></think>'}<answer>" for text in texts]
    values, mask = completion_log_probs(model, processor, images, prompts, given, [f"{o}</answer>" for o in options])  # (n, t) each
    return (values * mask).sum(1)
