"""Checkpoint folders in the hub's own layout, sharded, and a second backbone: load, two GRPO steps, save, load outside the kit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from data_prep.tiny_model import build_processor
from mmedlite import models
from mmedlite.checkpoints import resolve
from mmedlite.grpo import train
from mmedlite.models import generate, load_adapter, load_policy, load_processor, merged, new_adapter, option_log_probs, picture_tokens
from mmedlite.profiles import InputError
from mmedlite.prompts import message
from tests.small import LORA, SETTINGS, base, pictures, processor, rows

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL as the hub lays it out: shards with an index, the image processor's and the chat template's own files."""
    folder = tmp_path_factory.mktemp("hub") / "qwen"
    base(shared=False).save_pretrained(folder, max_shard_size="1MB")
    tools = build_processor()
    template, tools.tokenizer.chat_template = tools.tokenizer.chat_template or tools.chat_template, None
    tools.tokenizer.save_pretrained(folder)
    tools.image_processor.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert (folder / "model.safetensors.index.json").exists() and len([*folder.glob("model-*.safetensors")]) > 1
    assert (folder / "preprocessor_config.json").exists() and not (folder / "chat_template.jinja").exists()
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA: another vision tower, another processor, one number of patches for every picture."""
    folder = tmp_path_factory.mktemp("hub") / "llava"
    tokenizer = build_processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        image_processor=image, tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
                                       patch_size=8, projection_dim=32),
        text_config=Qwen2Config(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )).save_pretrained(folder, max_shard_size="100KB")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def internvl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random InternVL, the paper's second backbone: its processor has a video half, for which torchvision would be wanted."""
    folder = tmp_path_factory.mktemp("hub") / "internvl"
    tokenizer = build_processor().tokenizer
    marks = {"context_image_token": "<IMG_CONTEXT>", "start_image_token": "<img>", "end_image_token": "</img>", "video_token": "<video>"}
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks.values()]})
    tokenizer.save_pretrained(folder)
    GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}).save_pretrained(folder)
    parts = {"tokenizer": {"extra_special_tokens": marks}, "preprocessor": {"image_processor_type": "GotOcr2ImageProcessor"},
             "processor": {"image_seq_length": 4}}  # fmt: skip
    for name, more in parts.items():
        file = folder / f"{name}_config.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | more | {"processor_class": "InternVLProcessor"}))
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("<image>", "<IMG_CONTEXT>"))
    torch.manual_seed(0)
    InternVLForConditionalGeneration(InternVLConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4,
        text_config=Qwen2Config(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                                num_attention_heads=4, num_key_value_heads=2),
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": [56, 56],
                       "patch_size": [14, 14]},
    )).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma 3: a list of pictures a row is wanted, and its picture token is not the one that the template writes."""
    folder = tmp_path_factory.mktemp("hub") / "gemma"
    tokenizer = build_processor().tokenizer
    marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks.values()]})
    tokenizer.save_pretrained(folder)
    (file := folder / "tokenizer_config.json").write_text(json.dumps(json.loads(file.read_text()) | {"extra_special_tokens": marks}))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 56, "width": 56}), tokenizer=tokenizer, image_seq_length=4,
        chat_template=TEMPLATE.replace("<image>", "<start_of_image>"),
    ).save_pretrained(folder)  # fmt: skip
    ids = {f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in marks.items()}
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(Gemma3Config(
        text_config={"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                     "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 512},
        vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
                       "patch_size": 14},
        mm_tokens_per_image=4, **ids,
    )).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(params=["qwen", "llava", "internvl", "gemma"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_any_checkpoint_trains_saves_and_loads(checkpoint: Path, tmp_path: Path) -> None:
    """Two GRPO steps move the language model's adapter alone; PEFT reads it without the kit, and the answers are the same."""
    tools, model = load_processor(checkpoint), new_adapter(load_policy(checkpoint), LORA)
    assert tools.tokenizer.padding_side == "left" and all("language_model" in n for n, p in model.named_parameters() if p.requires_grad)
    before = {name: p.clone() for name, p in model.named_parameters()}
    log = train(model, tools, rows(4), SETTINGS, tmp_path / "out", {"stage": "easy"}, 0)
    assert [row["step"] for row in log] == [1, 2] and log[0]["kl"] == pytest.approx(0, abs=1e-6) and log[0]["entropy"] > 0
    assert "decision_entropy" in log[0]
    moved = {name for name, p in model.named_parameters() if name in before and not torch.equal(p, before[name])}
    assert moved and all(".default." in name for name in moved)
    model.save_pretrained(tmp_path / "adapter", selected_adapters=["default"])
    shown, asked = pictures(3), ["What is seen?", "Is there a mass?", "Where?"]
    answers = generate(model, tools, shown, asked, 8)
    outside = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(checkpoint), tmp_path / "adapter").eval()
    assert generate(load_adapter(load_policy(checkpoint), tmp_path / "adapter"), tools, shown, asked, 8) == answers
    texts = [tools.apply_chat_template(message(p), add_generation_prompt=True, tokenize=False) for p in asked]
    batch = tools(text=texts, images=[[picture] for picture in shown], return_tensors="pt", padding=True)
    with torch.no_grad():
        assert torch.allclose(outside(**batch).logits, model(**batch).logits, atol=1e-4)


def test_options_of_another_backbone_are_scored_as_by_a_plain_pass(llava: Path) -> None:
    tools, model = load_processor(llava), load_policy(llava)
    found = option_log_probs(
        model, tools, pictures(2), ["What?", "Is it a long question?"], ["<think>a</think><answer>b</answer>", ""], ["yes", "no"]
    )
    for i, (prompt, given, option) in enumerate([("What?", "<think>a</think><answer>", "yes"),
                                                 ("Is it a long question?", "<think></think><answer>", "no")]):  # fmt: skip
        text = tools.apply_chat_template(message(prompt), add_generation_prompt=True, tokenize=False) + given
        end = tools.tokenizer(f"{option}</answer>", return_tensors="pt", add_special_tokens=False)["input_ids"]
        batch = tools(text=[text], images=[pictures(2)[i]], return_tensors="pt")
        ids = torch.cat([batch["input_ids"], end], 1)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=batch["pixel_values"]).logits
        said = logits[0, -end.shape[1] - 1 : -1].log_softmax(-1).gather(1, end[0][:, None]).sum()
        assert float(found[i]) == pytest.approx(float(said), abs=1e-4)


def test_no_backbone_writes_its_picture_tokens(checkpoint: Path) -> None:
    tools, model = load_processor(checkpoint), load_policy(checkpoint)
    banned = picture_tokens(tools)
    assert tools.tokenizer.convert_tokens_to_ids(tools.image_token) in banned
    asked: list[Any] = []
    plain = model.generate
    model.generate = lambda **more: (asked.append(more["generation_config"]), plain(**more))[1]
    generate(model, tools, pictures(1), ["What?"], 2)
    assert asked[0].suppress_tokens == banned and asked[0].eos_token_id == tools.tokenizer.eos_token_id


def test_a_shared_qwen_is_read_from_shards(qwen: Path) -> None:
    """The same weights and answers as from one file."""
    whole, sharded = base(), load_policy(qwen)
    assert type(sharded) is Qwen2_5_VLForConditionalGeneration
    assert all(torch.equal(p, sharded.state_dict()[name]) for name, p in whole.state_dict().items())
    assert generate(sharded, load_processor(qwen), pictures(2), ["What?", "Where?"], 8) == generate(
        whole, processor(), pictures(2), ["What?", "Where?"], 8)  # fmt: skip


# ---- what cannot be loaded


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path, qwen: Path) -> None:
    with pytest.raises(InputError, match=r"config.json cannot be read"):
        load_policy(tmp_path)
    (tmp_path / "bare").mkdir()
    for file in qwen.iterdir():
        if file.name != "chat_template.json":
            (tmp_path / "bare" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="no chat template"):
        load_processor(tmp_path / "bare")
    (tmp_path / "bare" / "model-00001-of-00002.safetensors").unlink(missing_ok=True)
    next((tmp_path / "bare").glob("model-00002*")).unlink()
    with pytest.raises(InputError, match="cannot read the checkpoint"):
        load_policy(tmp_path / "bare")


def test_a_model_on_the_hub_is_named_with_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **more: (asked.append((repo, more["revision"])), str(tmp_path))[1])
    assert resolve(f"Qwen/Qwen2.5-VL-3B-Instruct@{'a' * 40}") == tmp_path and asked == [("Qwen/Qwen2.5-VL-3B-Instruct", "a" * 40)]
    for name in ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct@main", "no/such/folder"):
        with pytest.raises(InputError, match="no such model folder"):
            resolve(name)

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"cannot download the model \(OSError\)"):
        resolve(f"Qwen/Qwen2.5-VL-3B-Instruct@{'a' * 40}")


def test_half_precision_where_there_is_no_bfloat16(monkeypatch: pytest.MonkeyPatch, qwen: Path) -> None:
    monkeypatch.setattr(models.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(models.torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)  # as a T4 says
    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "to", lambda self, device: self)
    assert load_policy(qwen, "bfloat16").dtype == torch.float16 and load_policy(qwen, "float32").dtype == torch.float32


def test_an_adapter_is_merged_in_single_precision_alone(qwen: Path) -> None:
    """In bfloat16 the sum would round away what a small learning rate has taught."""
    half, whole = (new_adapter(load_policy(qwen, dtype), LORA) for dtype in ("bfloat16", "float32"))
    assert merged(half) is half and not half.training and not any("lora_" in name for name, _ in merged(whole).named_parameters())


def test_a_model_without_known_layers_is_refused() -> None:
    eyes = CLIPVisionModel(CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32))
    with pytest.raises(InputError, match="no linear layers of a language model found"):
        new_adapter(eyes, LORA)


def test_cross_attention_is_refused(llava: Path) -> None:
    model = load_policy(llava)
    model.model.language_model.layers[0].cross_attn = torch.nn.Linear(4, 4)
    with pytest.raises(InputError, match="reads pictures by cross-attention"):
        new_adapter(model, LORA)


def test_a_checkpoint_names_its_own_processor(llava: Path, tmp_path: Path) -> None:
    """As Pixtral does, whose model type is LLaVA's; and one that nobody knows is told as such."""
    assert models.without_video(llava, "llava").__name__ == "LlavaProcessor"
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "Gemma3Processor"}))
    assert models.without_video(tmp_path, "llava").__name__ == "Gemma3Processor"
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="knows no processor 'None' for a made-up"):
        models.without_video(tmp_path, "made-up")


def test_no_linear_layer_of_a_language_model_is_missed_in_silence(checkpoint: Path) -> None:
    """GPT-2's names, say: an adapter on the layers of known names alone would train less than the profile says."""
    model = load_policy(checkpoint)
    attention = next(m for name, m in model.named_modules() if name.endswith("layers.0.self_attn") and "vision" not in name)
    attention.c_proj = torch.nn.Linear(4, 4)
    with pytest.raises(InputError, match=r"LoRA would miss 1 linear layers, the first .*layers\.0\.self_attn\.c_proj.*LANGUAGE_LINEAR"):
        new_adapter(model, LORA)


def test_pictures_of_any_size_are_taken(checkpoint: Path) -> None:
    tools, model = load_processor(checkpoint), load_policy(checkpoint)
    odd = [Image.new("RGB", size, "white") for size in ((64, 64), (300, 40), (31, 200))]
    assert len(generate(model, tools, odd, ["What?"] * 3, 4)) == 3
