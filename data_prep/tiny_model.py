"""The tiny Qwen2.5-VL before any training: tokenizer, image processor, and a random model of about 1.2 M parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from data_prep.drawing import FINDINGS, LOOKS, PLACES
from data_prep.phantoms import PHRASINGS, SHIFTED_PHRASINGS
from mmedlite.models import ImageProcessorOnly
from mmedlite.profiles import DEPARTMENTS
from mmedlite.prompts import FIXED_LINES

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
)  # fmt: skip
TAGS = ("<think>", "</think>", "<answer>", "</answer>")  # ordinary tokens: special ones would vanish on decoding
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, LAYERS = 96, 4
IMAGE_TOKENS = 16


def build_processor() -> ImageProcessorOnly:
    """Tokenizer (byte-level BPE, about 700 tokens, each fixed prompt line one token) and a 64 x 64, patch 8 image processor."""
    words = [q.format(s) for kind in (PHRASINGS, SHIFTED_PHRASINGS) for k, qs in kind.items() for q in qs
             for s in (FINDINGS[:3] if k == "present" else ("upper", "lower", "left", "right"))]  # fmt: skip
    words += [f"Question: {w}" for w in words] + [f"Options: {', '.join(o)}" for o in (FINDINGS, PLACES, DEPARTMENTS, ("yes", "no"))]
    words += [f"Answer from {d} {i}: {a}" for d in DEPARTMENTS for i in (1, 2, 3) for a in (*FINDINGS, *PLACES, "yes", "no", "no answer")]
    words += [f"<think>{k}, {f}, {p}</think><answer>{a}</answer>" for k in ("clear", "marked") for f in FINDINGS for p in PLACES
              for a in (f, p, "yes", "no")]  # fmt: skip
    words += [f"<think>{x}</think><answer>{d}</answer>" for x in LOOKS for d in DEPARTMENTS] + [
        "user",
        "assistant",
        "system",
    ]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [w.replace(t, " ") for w in words for t in ("<think>",)],
        trainers.BpeTrainer(vocab_size=700, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False),
    )
    core.add_tokens([AddedToken(t, normalized=False) for t in (*TAGS, *FIXED_LINES)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
    image = Qwen2VLImageProcessorPil(min_pixels=64 * 64, max_pixels=64 * 64, patch_size=8, merge_size=2)
    return ImageProcessorOnly(image_processor=image, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE)


def build_model(processor: ImageProcessorOnly) -> Any:
    """A random Qwen2.5-VL with 4 + 4 layers of width 96."""
    ids = {t: processor.tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config=dict(  # noqa: C408
            vocab_size=len(processor.tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH * 3, num_hidden_layers=LAYERS,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 1e4},
            bos_token_id=None, eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
        ),
        vision_config=dict(  # noqa: C408
            depth=LAYERS, hidden_size=WIDTH, intermediate_size=WIDTH * 3, num_heads=4, out_hidden_size=WIDTH, patch_size=8,
            spatial_merge_size=2, temporal_patch_size=2, window_size=32, fullatt_block_indexes=[1, 3],
        ),
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    return model


def save(model: Any, processor: ImageProcessorOnly, folder: Path) -> None:
    """Write a checkpoint in the hub's own layout: safetensors weights, config, tokenizer, image processor."""
    model.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
