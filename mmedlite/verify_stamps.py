"""Do the stamps beside the numbers agree with each other and with what lies there: settings, seed, code, cases, models, sections, bands?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmedlite.cases import CaseTable
from mmedlite.checks import banded, make_band
from mmedlite.profiles import ROOT, InputError, Profile, load_profile
from mmedlite.provenance import code_sha256, locked, models_sha256, weights_sha256
from mmedlite.run_folder import RunFolder
from mmedlite.summary import LIVE
from mmedlite.world_bands import world_bands

FACTS = ("profile", "config_sha256", "seed", "code", "cases_sha256", "policy", "specialists")  # of run.json
OF_SEEDS = "figures/artifacts.py"  # where the bands of clinic 0 come from
SHIPPED = (
    *("bands.json", "recipe.json", "timings.json", "opinions/answers.parquet", "policy/model.safetensors", "specialists/base"),
    *(f"reference/{name}" for name in ("results.json", "adapters", "logs", "results", "rollouts", "routes")),
)
END = "run the notebook that writes it, or `python -m mmedlite run`, to its end"


def read_object(file: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def own_profile(facts: Mapping[str, Any]) -> Profile | None:
    """The kit's profile of a run by its facts; None where it is another one, whatever its name."""
    try:
        profile = load_profile(str(facts["profile"]))
        return profile if profile.sha256() == facts["config_sha256"] else None
    except (InputError, KeyError):
        return None


def _policy_of(folder: Path, facts: dict[str, Any]) -> Path | None:
    """The policy's checkpoint beside ``artifacts/reference``, else the one of the kit's profile; None where it is not here."""
    if (beside := folder.parent / "policy").is_dir():
        return beside
    profile = own_profile(facts)
    return named if profile and (named := ROOT / profile.policy).is_dir() else None


def wrong_stamps(folder: Path, table: CaseTable) -> list[str]:
    """Problems with the stamps of a run folder: run.json, results.json, the adapters' made_from.json, the manifest's made_from."""
    facts, results = read_object(folder / "run.json"), read_object(folder / "results.json")
    if lacking := [name for name in FACTS if name not in facts]:
        return [f"run.json: without {', '.join(lacking)}, so that nothing says what made this run"]
    problems = []
    if facts["cases_sha256"] != table.sha256:
        problems.append("run.json, cases_sha256: made with another case table")
    if facts["code"] != code_sha256():
        problems.append(f"run.json, code: made by another version of the kit ({str(facts['code'])[:8]}); verify it with that version")
    if (policy := _policy_of(folder, facts)) and weights_sha256(policy) != facts["policy"]:
        problems.append("run.json, policy: the weights of the policy are others than those that it names")
    stamped = {"results.json": {k: results.get(k) for k in ("seed", "code", "cases_sha256")}} if results else {}
    stamped |= {f.relative_to(folder).as_posix(): read_object(f) for f in sorted((folder / "adapters").rglob("made_from.json"))}
    made = read_object((folder.parent if folder.name == "reference" else folder) / "manifest.json").get("made_from")
    stamped |= {"manifest.json": made} if isinstance(made, dict) else {}
    for name, stamp in stamped.items():
        other = [k for k, value in stamp.items() if k in FACTS and value != facts[k]]
        problems += [f"{name}, {', '.join(other)}: not what run.json says"] if other else []
    return [*problems, *(_lacking_sections(RunFolder(folder, facts), results) if results else ())]


def _lacking_sections(run: RunFolder, results: dict[str, Any]) -> Iterator[str]:
    """Sections of results.json that are not there although all rows behind them are."""
    tests = sorted(f.parent.name for f in (run.folder / "results").glob("*/test"))
    panels = [p for p in tests if all(run.has_own_rows(f"{p}/test/{name}") for name in (*LIVE, "bias_sweep"))]
    wanted = dict.fromkeys(("attending", "flip", "trust", "panel"), panels)
    wanted["triage"] = ["trained"] if run.has_own_rows("triage") else []
    wanted["shifted"] = ["n"] if panels and any(run.has_own_rows(f"{p}/shifted/trained") for p in panels) else []
    for section, parts in wanted.items():
        told = results[section] if isinstance(results.get(section), dict) else {}
        if lacking := [part for part in parts if part not in told]:
            yield f"results.json, {section}: without {', '.join(lacking)}, though the rows are there; {END}"


def wrong_environment(manifest: Mapping[str, Any], shipped: bool) -> list[str]:
    """Problems with the versions that a manifest names: none, or, of what the kit ships, others than those of ``requirements.lock``.

    A run of one's own may come from any machine; its report says which.
    """
    named = manifest.get("environment")
    if not isinstance(named, dict):
        return ["manifest.json, environment: missing, so that nothing says which libraries made these files"] if manifest else []
    pins = locked() if shipped else {}
    return [f"manifest.json, environment: {k} {named.get(k)}, and requirements.lock has {v}" for k, v in pins.items() if named.get(k) != v]


def wrong_bands(file: Path, run: RunFolder) -> list[str]:
    """Problems with bands.json: one missing, or one that its seeds' values, the stored worlds or the reference run do not give again.

    The values of further seeds than the reference run's are believed: their rows are not shipped.
    """
    bands, facts, results = read_object(file), run.facts, run.results()
    made = {name: str(facts.get(fact)) for name, fact in (("code", "code"), ("config", "config_sha256"), ("cases_sha256", "cases_sha256"))}
    of_worlds, of_seeds = world_bands(made), banded(results)
    problems = [f"{file.name}, {name}: missing" for name in (*of_seeds, *of_worlds) if name not in bands]
    problems += [f"{file.name}, {name}: no such band" for name in bands if name not in of_seeds and name not in of_worlds]
    for name, band in bands.items():
        again: dict[str, Any] = of_worlds.get(name, band)
        if name in of_seeds:
            seeds = {**band.get("seeds", {}), str(facts.get("seed")): of_seeds[name][0]}
            try:
                again = make_band(seeds, band.get("n"), _controls(name, run, results), source=OF_SEEDS, **made)
            except (InputError, TypeError) as error:
                again = {"control": str(error)}
        problems += [f"{file.name}, {name}: {key} is {band.get(key)}, counted again {again.get(key, 'nothing')}"
                     for key in {**again, **band} if again.get(key) != band.get(key)]  # fmt: skip
    return problems


def _controls(name: str, run: RunFolder, results: dict[str, Any]) -> dict[str, float]:
    """What the band of clinic 0 must tell from the trained policy."""
    if name == "triage_accuracy":
        return {"untrained": results["triage"]["base"], "random_reward": results["triage"]["random_reward"]}
    kind, panel = name.removesuffix("_trained").split("_", 1)
    rows = {rival: run.rows(f"{panel}/test/{rival}") for rival in ("untrained_panel", "majority_vote")}
    return {rival: float(f[f["unanimous"] | (kind == "attending")]["correct"].mean()) for rival, f in rows.items()}


def wrong_artifacts(folder: Path) -> Iterator[str]:
    """Problems with ``artifacts`` beside its run: something that is not there, models of other sources or weights, wrong bands."""
    run = RunFolder(folder / "reference", read_object(folder / "reference" / "run.json"))
    yield from (f"{name}: missing" for name in SHIPPED if not (folder / name).exists())
    revision, models = read_object(folder / "specialists" / "revision.json").get("revision"), run.facts.get("specialists", {}).get("models", {})
    if weights_sha256(folder / "specialists") != revision:
        yield "specialists: the weights are others than those that revision.json names"
    if models.get("*", {}).get("revision") != revision:
        yield "specialists: the reference run asked another revision of them"
    if read_object(folder / "recipe.json").get("sources_sha256") != models_sha256():
        yield "recipe.json: the models were made by other sources than those of today"
    try:
        yield from wrong_bands(folder / "bands.json", run)
    except Exception as error:  # damaged in any way: said, and the rest is still checked
        yield f"bands.json: cannot be checked ({type(error).__name__}: {error})"
