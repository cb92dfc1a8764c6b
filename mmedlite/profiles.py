"""Profiles: one TOML file holds every setting of a world (cases, policy, batch sizes, steps, schedule).

A world is a profile, never an ``if tiny``. Settings the paper prints are marked "paper" in the TOML; all others are the kit's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

# The seven departments of the paper (section 3.1), in its order.
DEPARTMENTS = ("Pathologist", "Radiologist", "Surgeon", "Oncologist", "Endocrinologist", "Ophthalmologist", "Dermatologist")


class InputError(ValueError):
    """Bad input, told for people: what was wrong, where (file, row, field), what to do next."""

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what + (f" ({where})" if where else "") + (f". Fix: {fix}" if fix else ""))


@dataclass(frozen=True)
class Lora:
    """LoRA on the linear layers of the language model; the vision tower stays frozen."""

    r: int
    alpha: int


@dataclass(frozen=True)
class Stage:
    """One curriculum stage: which buckets, how many updates, entropy coefficient and KL weight (paper App. F.2).

    ``steps`` = 0 visits every case of the stage once.
    """

    name: str
    buckets: tuple[str, ...]
    steps: int
    gamma: tuple[float, ...]  # one entropy coefficient a bucket
    beta: tuple[float, ...]  # one KL weight a bucket


@dataclass(frozen=True)
class Grpo:
    """GRPO settings shared by triage and attending (paper: G = 8, T = 1)."""

    learning_rate: float
    prompts_per_step: int
    generations: int
    temperature: float
    max_new_tokens: int
    gradient_accumulation: int
    gradient_checkpointing: bool
    vllm: bool  # vLLM writes the completions, on the GPU that trains


@dataclass(frozen=True)
class Triage:
    """Triage training: updates, entropy coefficient, KL weight."""

    steps: int
    learning_rate: float
    gamma: float
    beta: float
    cases: int  # training cases used; 0 = all


@dataclass(frozen=True)
class Attending:
    """Attending training: the recipes the kit runs."""

    recipe: tuple[Stage, ...]  # the recommended recipe, chosen on validation cases
    paper_schedule: tuple[Stage, ...]  # as printed: easy, medium, hard, one epoch each
    no_panel: tuple[Stage, ...]  # the same budget without the panel
    no_panel_learning_rate: float


@dataclass(frozen=True)
class Model:
    """A model behind an endpoint: what is asked of it, and what it costs."""

    revision: str  # of open weights; "" where the name itself is dated
    sampling: dict[str, Any]  # as the endpoint takes it, with max_tokens or max_completion_tokens
    image_tokens: int  # of one picture, at most; see the provider's page
    input_dollars: float  # a million tokens; 0 for a server of your own
    output_dollars: float


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint. Its address and key come from OPENAI_BASE_URL and OPENAI_API_KEY."""

    longest_side: int  # pixels: larger pictures are downsized before they are sent
    concurrency: int
    timeout_s: float  # of one attempt
    deadline_s: float  # of one question with all its attempts
    max_requests: int  # the budget of one process; 0 in any of the three: no limit
    max_tokens: int
    max_dollars: float
    models: dict[str, Model]


@dataclass(frozen=True)
class Simulated:
    """Dial-a-panel: see ``simulated``."""

    accuracy: float
    correlation: float
    corrupted: float


@dataclass(frozen=True)
class Profile:
    """Everything a run needs to know. Paths are relative to the repository."""

    name: str
    seed: int
    policy: str
    specialists: str
    source: str
    panels: dict[str, tuple[str, ...]]  # who gives each of the three answers
    max_pixels: int  # larger pictures are made smaller, where a Qwen2.5-VL reads them; 0: as the checkpoint says
    eval_batch: int
    eval_cases: int  # cases evaluated, of test and of shifted; 0 = all
    dtype: str
    lora: Lora
    grpo: Grpo
    triage: Triage
    attending: Attending
    endpoint: Endpoint | None = None  # in place of the local specialists
    simulated: Simulated | None = None

    def sha256(self) -> str:
        """Hash of every setting that decides a number, stored beside each."""
        settings = dataclasses.asdict(self)
        if self.endpoint:  # budget, prices and pace decide no number, and may change in the midst of a run
            models = {n: {"revision": m.revision, "sampling": m.sampling} for n, m in self.endpoint.models.items()}
            settings["endpoint"] = {"longest_side": self.endpoint.longest_side, "models": models}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _build(cls: Any, data: dict[str, Any], file: Path, prefix: str = "") -> Any:
    """Make the dataclass ``cls`` from a TOML table; name unknown, missing and ill-typed keys."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if not isinstance(data, dict):
        raise InputError(f"'{prefix.rstrip('.')}' is {data!r}, not a table", str(file), "see mmedlite/profiles/tiny.toml")
    for key in data:
        if key not in fields:
            raise InputError(f"unknown profile key '{prefix}{key}'", str(file), f"use one of: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in data and field.default is None:
            continue
        if name not in data:
            raise InputError(f"profile key '{prefix}{name}' is missing", str(file), "add it; see mmedlite/profiles/tiny.toml")
        values[name] = _value(data[name], str(field.type).removesuffix(" | None"), f"{prefix}{name}", file)
    return cls(**values)


def _value(value: Any, kind: str, name: str, file: Path) -> Any:
    """``value`` as the type that ``kind`` names: a dataclass, a tuple or table of entries, or a plain value."""
    where = f"{file}, field {name}"
    if kind in _NESTED:
        return _build(_NESTED[kind], value, file, f"{name}.")
    if kind.startswith("tuple"):
        if not isinstance(value, list) or not value:
            raise InputError(f"'{name}' is {value!r}, not a list", where, "write a list of at least one entry")
        one = kind.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_value(v, one, f"{name}[{i}]", file) for i, v in enumerate(value))
    if kind.startswith("dict"):
        if not isinstance(value, dict) or not value:
            raise InputError(f"'{name}' is {value!r}, not a table", where, "write a table of at least one entry")
        one = kind.removeprefix("dict[str, ").removesuffix("]")
        return {k: v if one == "Any" else _value(v, one, f"{name}.{k}", file) for k, v in value.items()}
    return _plain(value, kind, name, file)


def _plain(value: Any, kind: str, name: str, file: Path) -> Any:
    """``value`` where it is of ``kind`` ("int", "float", "str" or "bool"); an InputError where it is not."""
    types: Any = {"int": int, "float": (int, float), "str": str, "bool": bool}[kind]
    if not isinstance(value, types) or (kind != "bool" and isinstance(value, bool)):
        raise InputError(f"'{name}' is {value!r}, not {kind}", f"{file}, field {name}", f"write a {kind}")
    return float(value) if kind == "float" else value


_NESTED: dict[str, Any] = {
    "Lora": Lora, "Stage": Stage, "Grpo": Grpo, "Triage": Triage, "Attending": Attending, "Model": Model, "Endpoint": Endpoint,
    "Simulated": Simulated,
}  # fmt: skip


def _check(profile: Profile, file: Path) -> None:
    g = profile.grpo
    if g.generations < 2:
        raise InputError("grpo.generations is below 2: no advantage", f"{file}, field grpo.generations", "use 8, as the paper does")
    positive = {
        "eval_batch": profile.eval_batch, "lora.r": profile.lora.r, "lora.alpha": profile.lora.alpha,
        **{f"grpo.{n}": getattr(g, n) for n in (
            "learning_rate", "prompts_per_step", "temperature", "max_new_tokens", "gradient_accumulation")},
        "triage.steps": profile.triage.steps,
        "triage.learning_rate": profile.triage.learning_rate, "attending.no_panel_learning_rate": profile.attending.no_panel_learning_rate,
    }  # fmt: skip
    for name, value in positive.items():
        if not 0 < value < math.inf:  # nor nan
            raise InputError(f"'{name}' is {value}, not above 0", f"{file}, field {name}", "write a number above 0")
    whole = {n: getattr(profile, n) for n in ("seed", "eval_cases", "max_pixels")} | {"triage.cases": profile.triage.cases}
    whole |= {"triage.gamma": profile.triage.gamma, "triage.beta": profile.triage.beta}
    for name, value in whole.items():
        if not 0 <= value < 2**32:
            raise InputError(f"'{name}' is {value}, no number from 0 to 2^32", f"{file}, field {name}", "write 0 or a number above it")
    if 0 < profile.max_pixels < 28 * 28:  # of one image token of Qwen2.5-VL
        raise InputError(f"'max_pixels' is {profile.max_pixels}, below 784", f"{file}, field max_pixels", "write 784 or more, or 0: no limit")
    if not profile.policy:
        raise InputError("'policy' is empty", f"{file}, field policy", "name a checkpoint folder, or owner/name@commit")
    if g.prompts_per_step * g.generations % g.gradient_accumulation:
        what = f"an update of {g.prompts_per_step} prompts x {g.generations} cannot be cut into {g.gradient_accumulation} equal parts"
        where = f"{file}, field grpo.gradient_accumulation"
        raise InputError(what, where, "let it divide grpo.prompts_per_step * grpo.generations")
    if profile.dtype not in (known := ("float32", "bfloat16", "float16")):
        raise InputError(f"'dtype' is '{profile.dtype}'", f"{file}, field dtype", f"use {', '.join(known)}")
    _check_panels(profile, file)
    for part in ("recipe", "paper_schedule", "no_panel"):
        names = [stage.name for stage in getattr(profile.attending, part)]
        for i, stage in enumerate(getattr(profile.attending, part)):
            where = f"{file}, field attending.{part}[{i}]"
            if names.count(stage.name) > 1 or not re.fullmatch(r"\w+", stage.name):  # it names files
                what = f"stage name '{stage.name}' is used twice, or is not of letters, digits and _"
                raise InputError(what, where, "give each stage a short name of its own")
            if not len(stage.buckets) == len(stage.gamma) == len(stage.beta):
                what = f"stage '{stage.name}' has {len(stage.buckets)} buckets, {len(stage.gamma)} gammas, {len(stage.beta)} betas"
                raise InputError(what, where, "give one gamma and one beta a bucket")
            if any(not 0 <= value < math.inf for value in (*stage.gamma, *stage.beta)):
                raise InputError(f"stage '{stage.name}' has a gamma or beta that is no number from 0 on", where, "write 0 or above")
            if set(stage.buckets) - {"easy", "medium", "hard"}:
                raise InputError(f"stage '{stage.name}' names an unknown bucket", where, "use easy, medium, hard")
            if stage.steps < 0:
                raise InputError(f"stage '{stage.name}' has {stage.steps} steps", where, "write 0 for one epoch, or more")


# Of a request to an endpoint, set by the kit or secret: what stands in a profile would be written into every answer.
OWN = re.compile(r"model|messages|n|seed|stream|timeout|.*(key|header|auth|url|query|body).*", re.IGNORECASE)


def _check_panels(profile: Profile, file: Path) -> None:
    endpoint, dials = profile.endpoint, profile.simulated
    doctors = set(endpoint.models) if endpoint else {"simulated"} if dials else {"0", "1", "2"}
    bounds = [(f"simulated.{dial}", value, 0.0, 1.0) for dial, value in dataclasses.asdict(dials).items()] if dials else []
    if endpoint:
        least = {"longest_side": 1, "concurrency": 1, "timeout_s": 0.001, "deadline_s": 0.001}  # a budget may be 0: no limit
        bounds += [(f"endpoint.{n}", v, least.get(n, 0), 1e9) for n, v in dataclasses.asdict(endpoint).items() if n != "models"]
        for name, model in endpoint.models.items():
            costs = ("image_tokens", "input_dollars", "output_dollars")
            bounds += [(f"endpoint.models.{name}.{n}", getattr(model, n), 0, 1e9) for n in costs]
            limits = [model.sampling[n] for n in ("max_completion_tokens", "max_tokens") if n in model.sampling]
            if len(limits) != 1 or not isinstance(limits[0], int) or limits[0] <= 0 or any(map(OWN.fullmatch, model.sampling)):
                what, where = f"the fields {', '.join(model.sampling)} of sampling cannot be used", f"{file}, field endpoint.models.{name}"
                fix = "give max_tokens or max_completion_tokens, not both, and no address, key, header, seed or the like, which the kit sets"
                raise InputError(what, where, fix)
    for name, value, low, high in bounds:
        if not low <= value <= high:  # nor nan
            raise InputError(f"'{name}' is {value}, not from {low:g} to {high:g}", f"{file}, field {name}", "write a number between them")
    for name, three in profile.panels.items():
        where = f"{file}, field panels.{name}"
        if not re.fullmatch(r"\w+", name):  # it names files
            raise InputError(f"panel name '{name}' is not of letters, digits and _", where, "give it a short name")
        if len(three) != 3 or set(three) - doctors:
            what = f"panel '{name}' is {list(three)}"
            raise InputError(what, where, f"name three of {', '.join(sorted(doctors))}; one may come more than once")


def load_profile(name_or_path: str | Path) -> Profile:
    """Read a profile by name (``tiny``) or from a TOML file.

    Raises:
        InputError: unknown name, unknown or missing key, wrong type, or a setting that cannot work.
    """
    folder = Path(__file__).parent / "profiles"
    file = Path(name_or_path) if str(name_or_path).endswith(".toml") else folder / f"{name_or_path}.toml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise InputError(f"no profile '{name_or_path}'", str(file), f"use one of: {known}, or a path to a .toml file")
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # some editors write a mark before the first line
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not valid TOML: {error}", str(file), "mend that line") from error
    profile: Profile = _build(Profile, data, file)
    _check(profile, file)
    return profile
