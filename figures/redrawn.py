"""Further worlds in which the models are drawn anew too: policy, specialists and triage doctor, beside cases, opinions and training.

``python -m figures.redrawn`` runs what is missing of ``analysis_plan.md``'s arms there, two worlds at a time; stopped in any way, it goes on
where it was. A finished world is one file, ``figures/data/redrawn/<seed>.parquet``, as in ``figures.worlds``.
"""

from __future__ import annotations

from data_prep import phantoms
from data_prep.tiny_base import make_policy, make_specialists
from figures._wide import write_wide
from figures.worlds import SCRIPT, SIZES, answer_missing
from mmedlite.evidence import ARMS, DATA, REDRAWN, UNTRAINED, WORLDS, recipe_sha256, world_seeds
from mmedlite.profiles import ROOT
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side

OUT, WORK = DATA / "redrawn", ROOT / "runs" / "redrawn"


def open_world(seed: int, draw: int) -> Run:
    """The run of a world with models of its own; what is not there is drawn and trained."""
    models, table = WORK / f"{seed}-models", WORK / f"{seed}-cases"
    if not (table / "card.json").exists():
        phantoms.build(table, seed, SIZES)
    if not (models / "specialists" / "revision.json").exists():
        make_policy(models / "policy", WORK / f"{seed}-parts", draw)
        make_specialists(models / "specialists", WORK / f"{seed}-parts", draw)
    text = (ROOT / "mmedlite" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    text = text.replace('"artifacts/', f'"{models.relative_to(ROOT).as_posix()}/')
    (profile := WORK / f"{seed}.toml").write_text(text, encoding="utf-8")
    return Run(WORK / str(seed), str(profile), table, seed)


def world(_: Run, name: str) -> None:
    """Every missing arm of one world ("<seed> <draw>"), then its file."""
    seed, draw = map(int, name.split())
    if (file := OUT / f"{seed}.parquet").exists():
        return
    run = open_world(seed, draw)
    run.train_triage()
    answer_missing(run, ARMS)
    write_wide(run, [*UNTRAINED, *("_".join(arm) for arm in ARMS)], file, SCRIPT, plan=recipe_sha256(), policy=run.facts["policy"])


def main() -> None:
    """Run what is missing."""
    names = [f"{seed} {draw}" for draw, seed in enumerate(world_seeds(WORLDS, REDRAWN), start=1)]
    side_by_side(Run(WORK / "clinic-0"), [(world, name) for name in names])


if __name__ == "__main__":
    main()
