"""Qwen2.5-VL of the hub's sizes with random weights: what is measured on a GPU that no hub reaches."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from data_prep.tiny_model import SPECIAL
from mmedlite.checkpoints import resolve
from mmedlite.models import ImageProcessorOnly, load_processor

SHAPES = {
    "3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4},
}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "window_size": 112,
          "fullatt_block_indexes": [7, 15, 23, 31]}  # fmt: skip


def random_processor() -> ImageProcessorOnly:
    """The shipped tokenizer, and pictures cut as the hub's models cut them, of 448 to 672 pixels a side."""
    processor = load_processor(resolve("artifacts/policy"))
    processor.image_processor.patch_size = 14
    processor.image_processor.size = {"shortest_edge": 448 * 448, "longest_edge": 672 * 672}
    return processor


def random_policy(shape: str, processor: ImageProcessorOnly) -> Any:
    """A model of ``SHAPES`` in bf16, on the GPU where there is one; its vision tower is frozen."""
    ids = {t: processor.tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    layers, tied = SHAPES[shape], shape == "3b"
    config = Qwen2_5_VLConfig(
        text_config={**layers, "vocab_size": 151_936, "max_position_embeddings": 32_768, "tie_word_embeddings": tied,
                     "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
                     "bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]},
        vision_config={**VISION, "out_hidden_size": layers["hidden_size"]}, tie_word_embeddings=tied,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2_5_VLForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    model.model.visual.requires_grad_(False)
    return model
