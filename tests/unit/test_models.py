"""The policy's plumbing: tokenizer, processor, shared image features, generation, adapters, checkpoints."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import Qwen2_5_VLProcessor

from data_prep.tiny_model import IMAGE_TOKENS, TAGS, build_processor
from mmedlite.checkpoints import resolve
from mmedlite.features import FeatureMemory, share_image_features
from mmedlite.models import (
    VISION_TOKENS,
    completion_log_probs,
    generate,
    load_adapter,
    load_policy,
    load_processor,
    new_adapter,
)
from mmedlite.profiles import ROOT, InputError
from mmedlite.prompts import FIXED_LINES, message, triage_prompt
from tests.small import LORA, adapter, base, checkpoint, inputs_of, pictures, policy, processor, same

PROMPTS = ["What is seen?", "Is there a mass?\n" + FIXED_LINES[0], triage_prompt(), "Locate the finding."]


def encode(text: str) -> list[int]:
    ids: list[int] = processor().tokenizer.encode(text)
    return ids


# ---- tokenizer and processor


@pytest.mark.parametrize("line", FIXED_LINES, ids=lambda line: line[:30])
def test_a_fixed_line_is_one_token(line: str) -> None:
    assert len(encode(line)) == 1
    tokenizer = processor().tokenizer
    inside = encode(f"user\n{line}\nQuestion: What is seen?")
    assert inside.count(encode(line)[0]) == 1
    assert tokenizer.decode(encode(line), skip_special_tokens=True) == line


def kept(tokenizer: Any) -> bool:
    """Whether the tags survive decoding as generation does it."""
    text = "<think>clear, mass</think><answer>upper left</answer>"
    return bool(tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text)


def test_tags_survive_decoding() -> None:
    assert kept(processor().tokenizer)
    assert all(len(encode(tag)) == 1 for tag in TAGS)


def test_tags_as_special_tokens_would_vanish() -> None:
    tokenizer = build_processor().tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(tag, special=True) for tag in TAGS]})
    assert not kept(tokenizer)


def test_any_text_survives_the_tokenizer() -> None:
    for text in ("Ödem – 3 µm?\n\ttab", "日本", "<answer> yes </answer>", "A. yes  B. no"):
        assert processor().tokenizer.decode(encode(text), skip_special_tokens=True) == text


def test_padding_is_on_the_left() -> None:
    batch = inputs_of(PROMPTS)
    mask = batch["attention_mask"]
    assert (mask[:, -1] == 1).all() and (mask[:, 0] == 0).any()
    assert (mask.diff(dim=1) >= 0).all()  # nothing but padding before, nothing but text after


def test_a_picture_is_sixteen_tokens() -> None:
    batch = inputs_of(PROMPTS)
    assert (batch["input_ids"] == processor().image_token_id).sum(1).tolist() == [IMAGE_TOKENS] * len(PROMPTS)
    large = processor().image_processor(images=[Image.new("RGB", (700, 500))], return_tensors="pt")
    assert large["image_grid_thw"].prod() <= 64  # any picture is brought to the size of a phantom


@pytest.mark.parametrize("more", [{}, {"return_tensors": "pt", "padding": True}])
def test_rows_that_repeat_are_prepared_once_and_come_out_as_if_not(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one text and several pictures, of one picture and several texts, of pictures of two sizes, two pictures in a row."""
    tools, (a, b) = processor(), pictures(2)
    wide = a.resize((96, 64))
    one, two, three = (f"<|vision_start|>{'<|image_pad|>' * n}{text}" for n, text in ((1, "Is it?"), (1, "Is it there, left?"), (2, "Both?")))
    text, images = [one, two, one, one, three, one, three], [[a], [a], [b], [a], [a, wide], [wide], [a, wide]]
    plain = Qwen2_5_VLProcessor.__call__(tools, images=images, text=text, **more)
    prepared: list[int] = []
    real = tools.image_processor.preprocess

    def counted(pictures: Any, *args: Any, **kwargs: Any) -> Any:
        prepared.append(sum(len(row) for row in pictures))
        return real(pictures, *args, **kwargs)

    monkeypatch.setattr(tools.image_processor, "preprocess", counted)
    found = tools(images=images, text=text, **more)
    assert found.keys() == plain.keys() and prepared == [6]  # of the five distinct rows
    for name in plain:
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(plain[name])) if more else str(found[name]) == str(plain[name])
    assert found["image_grid_thw"].tolist() == plain["image_grid_thw"].tolist()
    assert torch.equal(torch.as_tensor(found["pixel_values"]), torch.as_tensor(plain["pixel_values"]))


def test_processor_and_policy_need_no_torchvision(tmp_path: Path) -> None:
    """Read from a checkpoint folder where importing torchvision fails; the same ids come out."""
    checkpoint(tmp_path / "policy")
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from mmedlite.models import load_policy, load_processor\nfrom PIL import Image\n"
        f"p = load_processor({str(tmp_path / 'policy')!r})\n"
        "text = '<|vision_start|><|image_pad|><|vision_end|>What?'\n"
        "b = p(text=[text], images=[Image.new('RGB', (64, 64))], return_tensors='pt')\n"
        f"load_policy({str(tmp_path / 'policy')!r})(**b)\nprint(b['input_ids'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    text = "<|vision_start|><|image_pad|><|vision_end|>What?"
    ids = processor()(text=[text], images=[Image.new("RGB", (64, 64))], return_tensors="pt")["input_ids"]
    assert done.stdout.strip() == str(ids.tolist())


# ---- checkpoints and adapters


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**inputs_of(PROMPTS)).logits
    return found


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "policy")
    model = load_policy(folder)
    assert torch.equal(logits(model), logits(base()))
    assert load_processor(folder).tokenizer.encode(triage_prompt()) == encode(triage_prompt())
    assert load_processor(folder).tokenizer.padding_side == "left"
    assert not any(p.requires_grad for p in model.model.visual.parameters())
    assert all(p.requires_grad for p in model.model.language_model.parameters())
    assert not model.training


def test_dtype_of_a_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "policy")
    assert load_policy(folder, "bfloat16").dtype == torch.bfloat16
    assert load_policy(folder).dtype == torch.float32


def test_fresh_adapter_changes_nothing_and_leaves_the_tower_alone() -> None:
    model = policy()
    assert torch.equal(logits(model), logits(base()))
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable and all("language_model" in name and "lora_" in name for name in trainable)
    assert len(trainable) == 4 * 7 * 2  # layers x linear maps x (A, B)


def moved(model: Any) -> Any:
    """The model with its adapter moved by a fixed draw."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".default." in name:
                p += 0.1 * torch.randn_like(p)
    return model


def test_adapter_round_trip(tmp_path: Path) -> None:
    model = moved(policy())
    model.save_pretrained(tmp_path / "a")
    again = load_adapter(base(), tmp_path / "a")
    assert same(adapter(again), adapter(model)) and torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(model), logits(base()))
    assert not any(p.requires_grad for p in again.parameters())
    assert all(p.requires_grad for n, p in load_adapter(base(), tmp_path / "a", trainable=True).named_parameters() if "lora" in n)
    assert {f.suffix for f in (tmp_path / "a").iterdir()} <= {".safetensors", ".json", ".md"}


def test_adapters_by_name(tmp_path: Path) -> None:
    moved(policy()).save_pretrained(tmp_path / "a")
    policy().save_pretrained(tmp_path / "b")
    model = load_adapter(load_adapter(base(), tmp_path / "a", "a"), tmp_path / "b", "b")
    model.set_adapter("a")
    assert torch.equal(logits(model), logits(moved(policy())))
    model.set_adapter("b")
    assert torch.equal(logits(model), logits(base()))


def test_resolve(tmp_path: Path) -> None:
    assert resolve("mmedlite") == ROOT / "mmedlite" and resolve(tmp_path) == tmp_path
    with pytest.raises(InputError, match="no such model folder .*nowhere"):
        resolve("nowhere")


# ---- shared image features


def counted(model: Any) -> list[int]:
    """Count the images that the tower really encodes, a number a call."""
    calls: list[int] = []
    encode_images: Callable[..., Any] = model.model.get_image_features

    def get_image_features(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        calls.append(len(image_grid_thw))
        return encode_images(pixel_values, image_grid_thw, **kwargs)

    model.model.get_image_features = get_image_features
    return calls


def features(model: Any, images: list[Image.Image]) -> torch.Tensor:
    """The features of some pictures: (n * 16, hidden)."""
    batch = processor().image_processor(images=images, return_tensors="pt")
    found = model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"], return_dict=True).pooler_output
    return torch.cat(list(found))


def test_each_picture_is_encoded_once() -> None:
    model = base(shared=False)
    plain = features(model, pictures(4))
    calls = counted(model)
    share_image_features(model, FeatureMemory(2**20))
    a, b, c, d = pictures(4)
    assert torch.allclose(features(model, [a, b, a]), torch.cat([plain[:32], plain[:16]]), atol=1e-6)
    assert calls == [2]
    assert torch.allclose(features(model, [c, a, d, b]), plain.view(4, IMAGE_TOKENS, -1)[[2, 0, 3, 1]].flatten(0, 1), atol=1e-6)
    assert calls == [2, 2]
    features(model, [d, c])
    assert calls == [2, 2]


def test_one_pixel_makes_another_picture() -> None:
    model = base(shared=False)
    calls = counted(model)
    share_image_features(model, FeatureMemory(2**20))
    (first,) = pictures(1)
    other = first.copy()
    other.putpixel((10, 10), (0, 255, 0))
    assert not torch.equal(features(model, [first]), features(model, [other]))
    assert calls == [1, 1]


def test_a_tower_in_training_is_always_asked() -> None:
    model = base(shared=False)
    calls = counted(model)
    share_image_features(model, FeatureMemory(2**20))
    images = pictures(2)
    features(model, images)
    model.model.visual.requires_grad_(True)
    for _ in range(2):
        assert features(model, images).requires_grad
    assert calls == [2, 2, 2]
    model.model.visual.requires_grad_(False)
    assert not features(model, images).requires_grad and calls == [2, 2, 2]


def test_the_memory_is_bounded() -> None:
    model = base(shared=False)
    calls = counted(model)
    images = pictures(5)
    expected = features(base(shared=False), images)
    memory = FeatureMemory(3 * expected.nbytes // 5)
    share_image_features(model, memory)
    assert torch.allclose(features(model, images), expected, atol=1e-6)  # more at once than it holds
    features(model, images[2:])  # the three youngest are still there
    assert calls == [5]
    features(model, images[:1])  # the oldest went first
    assert calls == [5, 1]
    assert memory.size == sum(f.nbytes for f in memory.kept.values()) <= memory.limit


def test_models_on_one_tower_share_its_memory_and_others_do_not() -> None:
    memory, images = FeatureMemory(2**20), pictures(3)
    first, same, other = base(shared=False), base(shared=False), base(1, shared=False)
    calls = [counted(model) for model in (first, same, other)]
    for model in (first, same, other):
        share_image_features(model, memory)
    expected = features(base(1, shared=False), images)
    assert torch.equal(features(first, images), features(same, images))
    assert torch.allclose(features(other, images), expected, atol=1e-6)
    assert calls == [[3], [], [3]]


def test_features_of_a_changed_tower_are_not_taken_up() -> None:
    """An optimiser writes to the weights of a tower that is frozen again afterwards."""
    model, images = base(shared=False), pictures(2)
    share_image_features(model, FeatureMemory(2**20))
    before = features(model, images)
    model.model.visual.requires_grad_(True)
    features(model, images).sum().backward()
    torch.optim.SGD(model.model.visual.parameters(), lr=1e-3).step()
    model.model.visual.requires_grad_(False)
    after = features(model, images)
    assert not torch.allclose(before, after, atol=1e-4)
    model.model.get_image_features = types.MethodType(type(model.model).get_image_features, model.model)
    assert torch.allclose(after, features(model, images), atol=1e-6)


def test_sharing_changes_no_answer() -> None:
    """Greedy texts and logits, with pictures met twice; the language model still learns through shared features."""
    plain, shared = base(shared=False), base()
    for _ in range(2):
        texts = [generate(m, processor(), pictures(4), PROMPTS, 8) for m in (plain, shared)]
        assert texts[0] == texts[1]
    assert torch.allclose(logits(plain), logits(shared), atol=1e-5)
    gradients = []
    for model in (plain, shared):
        torch.manual_seed(0)
        tuned = new_adapter(model, LORA)
        tuned(**inputs_of(PROMPTS)).logits.square().mean().backward()
        gradients.append({n: p.grad for n, p in tuned.named_parameters() if "lora_B" in n})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][k], gradients[1][k], atol=1e-6) for k in gradients[0])


# ---- generation


def test_greedy_answers_are_the_same_each_time_and_in_any_batch() -> None:
    model = base()
    first = generate(model, processor(), pictures(4), PROMPTS, 8)
    assert first == generate(model, processor(), pictures(4), PROMPTS, 8, seed=5)
    alone = [generate(model, processor(), [i], [p], 8)[0] for i, p in zip(pictures(4), PROMPTS, strict=True)]
    assert first == alone  # left padding does not disturb


def test_samples_follow_their_seed() -> None:
    model = base()
    draws = [generate(model, processor(), pictures(4), PROMPTS, 8, temperature=1.0, seed=s) for s in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def generated_ids(model: Any, monkeypatch: pytest.MonkeyPatch, suppress: bool) -> set[int]:
    """New token ids of a few sampled answers."""
    found: set[int] = set()
    real = model.generate

    def watched(**kwargs: Any) -> torch.Tensor:
        if not suppress:
            kwargs["generation_config"].suppress_tokens = None
        out: torch.Tensor = real(**kwargs)
        found.update(out[:, kwargs["input_ids"].shape[1] :].flatten().tolist())
        return out

    monkeypatch.setattr(model, "generate", watched)
    generate(model, processor(), pictures(4), PROMPTS, 12, temperature=1.0, seed=0)
    return found


def test_no_vision_token_is_ever_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next forward pass would look for pictures that are not there."""
    banned = set(processor().tokenizer.convert_tokens_to_ids(list(VISION_TOKENS)))
    for token in VISION_TOKENS:
        model = base(likely=token, strength=12)
        assert not banned & generated_ids(model, monkeypatch, suppress=True)
    assert banned & generated_ids(base(likely="<|image_pad|>", strength=12), monkeypatch, suppress=False)  # the test can see one


def test_an_answer_ends_at_its_end() -> None:
    answers = generate(base(), processor(), pictures(4), PROMPTS, 12, temperature=1.0, seed=1)
    assert all("<|im_end|>" not in a.text and "<|endoftext|>" not in a.text for a in answers)
    limits = [generate(base(likely="<|im_end|>", strength=s), processor(), pictures(4), PROMPTS, 4) for s in (50, -50)]
    assert [[a.ended for a in some] for some in limits] == [[True] * 4, [False] * 4]


def test_log_probabilities_of_a_completion() -> None:
    """In a padded batch, against one plain pass a row."""
    model, tools = base(), processor()
    given, wanted = ["<think>", "<think>mass, upper left</think><answer>", ""], ["clear</think>", "yes</answer>", "no"]
    with torch.no_grad():
        values, mask = completion_log_probs(model, tools, pictures(3), PROMPTS[:3], given, wanted)
        for i in range(3):
            tail = tools.tokenizer.encode(wanted[i])
            text = tools.apply_chat_template(message(PROMPTS[i]), add_generation_prompt=True, tokenize=False) + given[i]
            batch = tools(text=[text + wanted[i]], images=[pictures(3)[i]], return_tensors="pt")
            assert batch["input_ids"][0, -len(tail) :].tolist() == tail
            plain = model(**batch).logits[0, :-1].log_softmax(-1)[-len(tail) :]
            expected = plain[range(len(tail)), tail]
            assert mask[i].tolist() == [1] * len(tail) + [0] * (mask.shape[1] - len(tail))
            assert torch.allclose(values[i, : len(tail)], expected, atol=1e-4)
