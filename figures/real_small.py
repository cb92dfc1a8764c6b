"""The whole pipeline on real pictures with small models, beside readers that need no picture, no panel or no policy; numbers only are stored.

``python -m figures.real_small --source DIR``: DIR holds ``vqa_rad/`` and ``slake/`` as published, and folders with labels.jsonl or qa.jsonl. It
builds one table split by picture, teaches the models on a school of it (``data_prep small_base``), runs the profile ``real-small``, and answers
the test cases with every reader. Without ``--source`` there is nothing to do: the pictures are not part of the kit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_prep.leaks import report
from data_prep.pictures import dhash
from figures.looks import Changed, spoiled
from mmedlite.attending import answer, image_features
from mmedlite.cases import Case, CaseTable, option_key, read_table
from mmedlite.evaluation import fit_colour_histogram, macro_recall, paired_difference
from mmedlite.models import merged
from mmedlite.profiles import ROOT
from mmedlite.run import Run

OUT = ROOT / "figures" / "data" / "real_small.json"
DATA = ROOT / "data"
SETS = {"vqa_rad": "VQA-RAD", "slake": "SLAKE", "omnimedvqa_with_images": "OmniMedVQA"}
LABELLED, ALL = "label sets", "all"


def commands(source: Path, out: Path) -> list[list[str]]:
    """What is run, in order, as one would type it."""
    alone = ["--group-by-image"]  # no picture in two splits; image_folder always splits so
    tables = {"vqa_rad": (source / "vqa_rad", alone), "slake": (source / "slake", alone), "image_folder": (source, [])}
    return [
        *(["data_prep", name, "--source", str(folder), *more, "--out", str(DATA / f"real_{name}")] for name, (folder, more) in tables.items()),
        ["data_prep", "merge", "--source", *(str(DATA / f"real_{name}") for name in tables), "--out", str(DATA / "real")],
        ["data_prep", "small_base", "--cases", str(DATA / "real"), "--out", str(DATA / "real_small")],
        ["mmedlite", "run", "--profile", "real-small", "--cases", str(DATA / "real_small" / "cases"), "--out", str(out)],
    ]


def likeliest(probabilities: np.ndarray, classes: Sequence[str], cases: Sequence[Case]) -> list[int]:
    """The option of each case whose text is the likeliest class; one that no training answer names has no probability."""
    place = {name: i for i, name in enumerate(classes)}
    known = [[p[place[k]] if (k := option_key(o)) in place else 0.0 for o in c.options] for p, c in zip(probabilities, cases, strict=True)]
    return [int(np.argmax(row)) for row in known]


def linear_readers(train: Sequence[Case], seen: np.ndarray, cases: Sequence[Case], shown: np.ndarray) -> dict[str, list[int]]:
    """Option of each test case by the commonest training answer, the question's words alone, and these with the frozen tower's features.

    seen (n_train, d), shown (n, d): mean features of the pictures. The two are logistic regressions over the texts of answers.
    """
    labels = [option_key(c.answer_text) for c in train]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    asked = words.fit_transform(c.question for c in train).toarray(), words.transform(c.question for c in cases).toarray()
    scale = StandardScaler().fit(seen)
    looked = [np.hstack([a, scale.transform(x) / np.sqrt(x.shape[1])]) for a, x in zip(asked, (seen, shown), strict=True)]
    found = {}
    for name, (x, y) in {"text_only": asked, "linear_probe": looked}.items():
        model = LogisticRegression(C=10, max_iter=2000).fit(x, labels)
        found[name] = likeliest(model.predict_proba(y), list(model.classes_), cases)
    names, counts = np.unique(labels, return_counts=True)
    return {"majority_answer": likeliest(np.tile(counts, (len(cases), 1)), list(names), cases), **found}


def changed_pictures(run: Run, panel: str) -> dict[str, list[int]]:
    """Options of the trained policy where the picture is blank, has its pixels shuffled, or is another case's of the same modality."""
    cases, own = run.cases("test"), {c.case_id: run.table.open_image(c) for c in run.cases("test")}
    last = run.stages_that_fit(panel, run.profile.attending.recipe)[-1].name
    policy, found = merged(run.policy(f"{panel}/{last}")), {}
    for name, changed in spoiled(own, cases).items():
        table, sent = Changed(run.table, changed), run.routes("test")
        texts = answer(policy, run.processor, table, cases, sent, run.panel("test", panel), run.profile, name)
        found[name] = run.score(name, "test", panel, texts)["option"].tolist()
    return found


def triage(run: Run, train: Sequence[Case], seen: np.ndarray, cases: Sequence[Case], shown: np.ndarray) -> dict[str, Any]:
    """Accuracy and macro recall of each way to a department, over the cases with a known one."""
    known, taught = [i for i, c in enumerate(cases) if c.specialty], [i for i, c in enumerate(train) if c.specialty]
    gold, labels = [str(cases[i].specialty) for i in known], [str(train[i].specialty) for i in taught]
    rows = run.rows("triage").set_index("case_id")
    sent = {name: rows[rows["system"] == name]["department"] for name in ("base", "trained")}
    said = {name: [str(by_case[cases[i].case_id]) for i in known] for name, by_case in sent.items()}
    scale = StandardScaler().fit(seen[taught])
    probe = LogisticRegression(max_iter=2000, class_weight="balanced").fit(scale.transform(seen[taught]), labels)
    said["linear_probe"] = probe.predict(scale.transform(shown[known])).tolist()
    histogram = fit_colour_histogram((run.table.open_image(c) for c in run.cases("train") if c.specialty), [
        str(c.specialty) for c in run.cases("train") if c.specialty])  # fmt: skip
    said["histogram"] = [str(d) for d in histogram(run.table.open_image(cases[i]) for i in known)]
    most = max(set(labels), key=labels.count)
    said["majority"] = [most] * len(known)
    right = {name: float(np.mean([a == b for a, b in zip(s, gold, strict=True)])) for name, s in said.items()}
    return {"n": len(known), "accuracy": right, "macro_recall": {name: macro_recall(gold, s, min_count=1) for name, s in said.items()},
            "departments": {d: gold.count(d) for d in sorted(set(gold))}}  # fmt: skip


def table_of(options: Mapping[str, Sequence[int]], cases: Sequence[Case]) -> dict[str, Any]:
    """Accuracy of each reader by set, chance beside them, how often it names no option, and the trained policy minus it, paired."""
    answers, groups = np.array([c.answer for c in cases]), np.array([SETS.get(c.source, LABELLED) for c in cases])
    pictures, found = np.array([c.image_sha256s[0] for c in cases]), {}
    right = {name: np.array(o) == answers for name, o in options.items()}
    for group in (*SETS.values(), LABELLED, ALL):
        part = np.ones(len(cases), bool) if group == ALL else groups == group
        if not part.any():
            continue
        found[group] = {
            "n": int(part.sum()), "chance": float(np.mean([1 / len(c.options) for c, p in zip(cases, part, strict=True) if p])),
            "accuracy": {name: float(r[part].mean()) for name, r in right.items()},
            "no_answer": {name: float((np.array(o)[part] < 0).mean()) for name, o in options.items()},
            "trained_minus": {name: paired_difference(right["trained"][part], r[part], pictures[part])
                              for name, r in right.items() if name != "trained"},
        }  # fmt: skip
    return found


def look_alikes(school: CaseTable, table: CaseTable) -> dict[str, int]:
    """Test pictures, how many of them a training picture is too, and how many more look like one by their perceptual hash.

    Of copies that are turned it knows nothing.
    """
    hashes = {c.image_sha256s[0]: dhash(t.open_image(c)) for t in (school, table) for c in t}
    found = report([*school.cases, *table.cases], hashes)["train/test"]
    return {name: found[name] for name in ("images", "images_shared", "images_alike")}


def measure(run: Run, school: Path) -> dict[str, Any]:
    """Every number of the table, for the first panel of the profile."""
    panel, cases = [*run.profile.panels][0], run.cases("test")
    taught, model, ids = read_table(school, check_images=False), run.policy(), [c.case_id for c in cases]

    def features(table: CaseTable, part: Sequence[Case]) -> np.ndarray:
        return image_features(model, run.processor, table, part, run.profile)

    train = [*taught.cases, *run.cases("train")]
    seen, shown = np.vstack([features(taught, taught.cases), features(run.table, run.cases("train"))]), features(run.table, cases)
    systems = ("no_panel", "majority_vote", "best_single", "untrained_panel", "trained", "ideal_reader")
    rows = {name: run.rows(f"{panel}/test/{name}").set_index("case_id")["option"] for name in systems}
    options = {name: option.loc[ids].tolist() for name, option in rows.items()}
    options |= linear_readers(train, seen, cases, shown) | changed_pictures(run, panel)
    return {
        "panel": panel, "cases": {"school": len(taught.cases), "train": len(run.cases("train")), "test": len(cases)},
        "pictures": len({c.image_sha256s[0] for c in (*taught.cases, *run.table)}),
        "look_alikes": look_alikes(taught, run.table), "by_set": table_of(options, cases), "triage": triage(run, train, seen, cases, shown),
        "buckets": run.results()["panel"][panel], **run.facts,
    }  # fmt: skip


def main() -> int:
    """Build, teach, run, measure and store; nothing is stored without real pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of the real pictures")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "real-small", help="the run's folder")
    args = parser.parse_args()
    if not args.source:
        print("real_small: no --source DIR given, the stored numbers are left as they are")
        return 0
    if not (args.source / "vqa_rad").is_dir() or not (args.source / "slake").is_dir():
        print(f"error: {args.source} holds no folders vqa_rad and slake as they are published", file=sys.stderr)
        return 1
    start = time.time()
    for number, command in enumerate(plan := commands(args.source.resolve(), args.out), start=1):
        print(f"{number} of {len(plan)}: python -m {' '.join(command[:2])}, after {(time.time() - start) / 60:.1f} minutes", flush=True)
        if status := subprocess.run([sys.executable, "-m", *command], cwd=ROOT).returncode:
            return status  # it has said why
    run = Run(args.out, "real-small", DATA / "real_small" / "cases")
    found = measure(run, DATA / "real_small" / "school") | {"minutes": round((time.time() - start) / 60, 1)}
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({group: part["accuracy"] for group, part in found["by_set"].items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
