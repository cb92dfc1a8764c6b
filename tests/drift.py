"""What the kit uses of trl, transformers, peft, accelerate and datasets, held against their sources.

Read from our own sources: names imported, arguments passed, members of what is imported, methods overridden. What a syntax tree does
not tell stands in four tables: signatures overridden, types of attributes, where ``**kwargs`` end, and words read under no known type.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.shelf import Found, Function, Shelf, targets, words

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("trl", "transformers", "peft", "accelerate", "datasets")

OVERRIDDEN = {
    "trl.GRPOTrainer._generate_and_score_completions": "(inputs)",
    "trl.GRPOTrainer._calculate_rewards": "(inputs, prompts, completions, completion_ids_list)",
    "trl.GRPOTrainer._get_per_token_logps_and_entropies": (
        "(model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=None, compute_aux_loss=None, "
        "pixel_values=None, image_grid_thw=None, num_images=None, pixel_attention_mask=None, spatial_shapes=None, num_tiles=None, "
        "image_sizes=None, token_type_ids=None, mm_token_type_ids=None, image_position_ids=None)"
    ),
    "trl.GRPOTrainer._compute_loss": "(model, inputs)",
    "trl.GRPOTrainer._load_from_checkpoint": "(resume_from_checkpoint, model=None)",
    "transformers.TrainerCallback.on_train_begin": "(args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_step_end": "(args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_train_end": "(args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_save": "(args, state, control, **kwargs)",
    "transformers.Qwen2_5_VLProcessor.__call__": "(images=None, text=None, videos=None, audio=None, **kwargs)",
}  # every default is written None
TYPES = {
    "trl.GRPOTrainer.args": "trl.GRPOConfig",
    "trl.GRPOTrainer.state": "transformers.TrainerState",
    "trl.GRPOTrainer.accelerator": "accelerate.Accelerator",
    "trl.GRPOTrainer._tokenizer": "transformers.PreTrainedTokenizerBase",
}
PASSED_ON = {
    "transformers.AutoTokenizer.from_pretrained(padding_side)": "transformers.PreTrainedTokenizerBase.__init__",
    "peft.PeftModel.merge_and_unload": "peft.LoraModel.merge_and_unload",  # by __getattr__
    "peft.PeftModel.dtype": "transformers.PreTrainedModel.dtype",
}
QWEN = "transformers.models.qwen2_5_vl"
READ = {
    "trl.GRPOTrainer.__init__": "ref",  # the name of the reference's adapter
    "trl.GRPOTrainer._calculate_rewards": "completions",
    "trl.GRPOTrainer._generate_and_score_completions": "completion_ids completion_mask advantages ref_per_token_logps",
    "trl.GRPOTrainer._compute_loss": "completion_mask ref_per_token_logps pixel_values image_grid_thw current_gradient_accumulation_steps",
    "trl.trainer.utils.add_fused_lm_head": "fused_lm_head labels",
    "trl.trainer.utils.FusedCausalLMOutput": "log_probs entropy",
    "transformers.ProcessorMixin.apply_chat_template": "add_generation_prompt tokenize",
    "transformers.ProcessorMixin": "get_attributes from_pretrained",
    "transformers.PreTrainedTokenizerBase": (
        "all_special_tokens batch_decode decode skip_special_tokens get_vocab convert_tokens_to_ids padding_side"
    ),
    "transformers.PreTrainedModel.resize_token_embeddings": "mean_resizing",
    "transformers.PreTrainedModel.from_pretrained": "dtype use_safetensors attn_implementation",
    "transformers.generation.GenerationMixin.generate": "generation_config",
    f"{QWEN}.Qwen2_5_VLForConditionalGeneration.forward": (
        "input_ids attention_mask position_ids past_key_values pixel_values image_grid_thw logits_to_keep labels mm_token_type_ids"
    ),
    f"{QWEN}.Qwen2_5_VLModel": "rope_deltas visual get_rope_index",
    f"{QWEN}.Qwen2_5_VLModel.get_rope_index": "input_ids mm_token_type_ids image_grid_thw attention_mask",
    f"{QWEN}.Qwen2_5_VLModel.get_image_features": "pixel_values image_grid_thw pooler_output",
    f"{QWEN}.modeling_qwen2_5_vl.Qwen2_5_VisionTransformerPretrainedModel.forward": "grid_thw pooler_output",
    f"{QWEN}.Qwen2_5_VLTextConfig": (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads max_position_embeddings "
        "rope_parameters bos_token_id eos_token_id pad_token_id"
    ),
    f"{QWEN}.configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig": (
        "depth hidden_size intermediate_size num_heads out_hidden_size patch_size spatial_merge_size temporal_patch_size window_size "
        "fullatt_block_indexes"
    ),
    "transformers.configuration_utils.PreTrainedConfig": "_attn_implementation",
    "peft.PeftModel": "peft_config set_adapter get_base_model delete_adapter",
    "peft.PeftModel.load_adapter": "adapter_name is_trainable",
    "peft.PeftModel.save_pretrained": "selected_adapters save_embedding_layers",
    "peft.PeftConfig": "base_model_name_or_path",
    "peft.utils.SAFETENSORS_WEIGHTS_NAME": "adapter_model.safetensors",
}


class Thing(NamedTuple):
    """What an expression of ours stands for."""

    name: str  # dotted, as imported
    found: Found
    instance: bool = False
    own: frozenset[str] = frozenset()  # members that a class of ours adds
    init: frozenset[str] = frozenset()  # parameters that its __init__ keeps for itself


class Reader(ast.NodeVisitor):
    """Walks one source of ours; ``problems`` are told for people, ``uses`` are what was looked up."""

    def __init__(self, shelf: Shelf, place: str, source: str) -> None:
        self.shelf, self.place = shelf, place
        self.problems: list[str] = []
        self.uses: set[str] = set()
        self.names: dict[str, Thing] = {}
        self.visit(ast.parse(source))

    def tell(self, name: str, what: str, line: int) -> None:
        """Note a problem with a name."""
        library = name.partition(".")[0]
        told = f"{library} {self.shelf.version(library)}: {name} {what} ({self.place}:{line})"
        self.problems += [] if told in self.problems else [told]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module.partition(".")[0] not in LIBRARIES:
            return
        for alias in node.names:
            name = f"{module}.{alias.name}"
            self.uses.add(name)
            if found := self.shelf.find(module, alias.name):
                self.names[alias.asname or alias.name] = Thing(name, found)
            else:
                self.tell(name, "is not there", node.lineno)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name in LIBRARIES:
                self.names[alias.asname or alias.name] = Thing(alias.name, Found(alias.name, ast.Module([], [])))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [base for part in node.bases if (base := self.thing(part)) and isinstance(base.found.node, ast.ClassDef)]
        if not bases:
            self.generic_visit(node)
            return
        (base,) = bases
        methods = {part.name: part for part in node.body if isinstance(part, Function)}
        attributes = [n for n in ast.walk(node) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "self"]
        stored = {n.attr for n in attributes if isinstance(n.ctx, ast.Store)}
        init = methods["__init__"].args if "__init__" in methods else None
        kept = {a.arg for a in [*init.args, *init.kwonlyargs]} if init else set()
        for name, method in methods.items():
            self.override(base, f"{base.name}.{name}", name, method)
        self.names[node.name] = base._replace(own=base.own | methods.keys() | stored, init=base.init | kept)
        before, self.names = self.names, self.names | {"self": self.names[node.name]._replace(instance=True), "super": base}
        self.generic_visit(node)
        self.names = before

    def override(self, base: Thing, full: str, name: str, method: Function) -> None:
        """A method of ours over one of theirs: is its signature the one we know, and do their calls fit ours?"""
        found, known = self.shelf.member(base.found, name), OVERRIDDEN.get(full)
        theirs = found and self.shelf.signature(found)
        if theirs is None:
            if known:
                self.tell(full, "is gone, and we override it", method.lineno)
            return
        if name == "__init__":
            return
        self.uses.add(f"override {full}")
        if known != str(theirs):
            self.tell(full, f"takes {theirs}, and we override {known}", method.lineno)
        ours = self.shelf.signature(Found("", method))
        for part in self.shelf.line(base.found):
            for call in (n for n in ast.walk(part.node) if isinstance(n, ast.Call) and ast.unparse(n.func) == f"self.{name}"):
                if wrong := unfit(ours, call):
                    self.tell(full, f"is called by the library in a way that our override does not take: {wrong}", method.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self.names = self.names, dict(self.names)
        for argument in [*node.args.args, *node.args.kwonlyargs]:
            if argument.arg != "self":
                self.names.pop(argument.arg, None)
            if argument.annotation and (kind := self.thing(argument.annotation)):
                self.names[argument.arg] = kind._replace(instance=True)
        self.generic_visit(node)
        self.names = before

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                value = self.thing(node.value)
                self.names = {k: v for k, v in self.names.items() if k != target.id} | ({target.id: value} if value else {})

    def thing(self, node: ast.AST) -> Thing | None:
        """What an expression stands for, as far as names, members, calls and the annotations of the libraries tell."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := self.thing(node.value)):
            name = f"{owner.name}.{node.attr}"
            if kind := TYPES.get(name):
                return Thing(kind, found, True) if (found := self.shelf.named(kind)) else None
            found = self.attribute(owner, node.attr)
            return Thing(name, found) if found else None
        if isinstance(node, ast.Call) and (called := self.thing(node.func)) and not called.instance:
            if ast.unparse(node.func) == "super" or isinstance(called.found.node, ast.ClassDef):
                return called._replace(instance=True)
            if isinstance(called.found.node, Function) and called.found.node.returns:
                returned = ast.unparse(called.found.node.returns).strip("'")
                found = self.shelf.find(called.found.module, returned)
                return Thing(f"{called.name.partition('.')[0]}.{returned}", found, True) if found else None
        return None

    def attribute(self, owner: Thing, name: str) -> Found | None:
        """A member of a module, a class or an instance."""
        if end := PASSED_ON.get(f"{owner.name}.{name}"):
            return self.shelf.named(end)
        if isinstance(owner.found.node, ast.Module):
            return self.shelf.find(owner.found.module, name)
        return self.shelf.member(owner.found, name)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self.thing(node.value)
        if owner and isinstance(owner.found.node, ast.ClassDef | ast.Module) and node.attr not in owner.own:
            name = f"{owner.name}.{node.attr}"
            self.uses.add(name)
            if self.attribute(owner, node.attr) is None:
                self.tell(name, "is gone", node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = self.thing(node.func)
        if called is None or called.instance or ast.unparse(node.func) == "super":
            return
        owner = self.thing(node.func.value) if isinstance(node.func, ast.Attribute) else None
        if owner and node.func.attr in owner.own:  # a method of ours
            return
        decorators = [ast.unparse(d) for d in getattr(called.found.node, "decorator_list", [])]
        plain = owner is not None and not owner.instance and isinstance(owner.found.node, ast.ClassDef) and "classmethod" not in decorators
        signature = self.shelf.signature(called.found, bound=not plain)
        if signature is None:
            return
        if wrong := unfit(signature, node, called.init):
            self.tell(called.name, f"takes {signature}, and we call it otherwise: {wrong}", node.lineno)
        for keyword in {k.arg for k in node.keywords if k.arg} - called.init:
            self.uses.add(f"{called.name}({keyword})")
            if keyword not in signature.parameters:  # **kwargs take it: who reads it there?
                end = PASSED_ON.get(f"{called.name}({keyword})")
                reader = self.shelf.named(end) if end else called.found
                if reader is None or keyword not in read_from_kwargs(reader.node):
                    self.tell(called.name, f"has nobody who reads our {keyword}", node.lineno)


def unfit(signature: inspect.Signature | None, call: ast.Call, kept: frozenset[str] = frozenset()) -> str:
    """Why the arguments of a call, without those ``kept``, do not fit a signature ("": they do)."""
    spread = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
    positional = [None for a in call.args if not isinstance(a, ast.Starred)]
    keywords = {k.arg: None for k in call.keywords if k.arg and k.arg not in kept}
    try:
        if signature:
            (signature.bind_partial if spread or kept else signature.bind)(*positional, **keywords)
    except TypeError as error:
        return str(error)
    return ""


def read_from_kwargs(node: ast.AST) -> set[str]:
    """What a function, or any method of a class, takes out of its ``**kwargs`` by name; of a class also its variables."""
    calls = (n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func) in ("kwargs.pop", "kwargs.get"))
    variables = {name for part in node.body for name in targets(part)} if isinstance(node, ast.ClassDef) else set()
    return variables | {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


def sources() -> Iterator[tuple[str, str]]:
    """Our own sources and the code of the notebooks: (path, text)."""
    for folder in ("mmedlite", "data_prep", "figures"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        yield file.name, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def unread(shelf: Shelf) -> list[str]:
    """Words of the table READ that a library no longer has, a line each."""
    problems = []
    for name, wanted in READ.items():
        found = shelf.named(name)
        if missing := set(wanted.split()) - (words(found.node) if found else set()):
            library, what = name.partition(".")[0], f"has lost {', '.join(sorted(missing))}" if found else "is not there"
            problems.append(f"{library} {shelf.version(library)}: {name} {what}")
    return problems


def drift(shelf: Shelf) -> tuple[list[str], set[str]]:
    """What no longer fits, a line each, and all that was looked up in our sources."""
    readers = [Reader(shelf, *source) for source in sources()]
    return [line for reader in readers for line in reader.problems] + unread(shelf), {use for reader in readers for use in reader.uses}
