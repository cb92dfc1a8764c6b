"""Nothing but the finding tells the answer: probes on the text alone, and on the picture with the finding masked.

Each probe is a logistic regression judged on cases that it was not fitted on; a planted leak shows that it can see one.
"""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_prep.drawing import draw
from data_prep.phantoms import DIALS, sample

MARGIN = 0.03  # of chance
TEXTS, PICTURES = 20_000, 3_000
FIRST = 40_000_000  # seeds of a world that nothing else uses
KINDS = {"yes_no": ("present", "side"), "four_options": ("which", "where")}
CHANCE = {"yes_no": 0.5, "four_options": 0.25}
Facts = dict[str, Any]


@cache
def cases(kind: str, n: int) -> list[Facts]:
    """The first n cases of that kind of question."""
    found: list[Facts] = []
    seed = FIRST
    while len(found) < n:
        facts = sample(seed, DIALS)
        if facts["kind"] in KINDS[kind]:
            found.append(facts)
        seed += 1
    return found


def targets(facts: list[Facts]) -> dict[str, np.ndarray]:
    """What may be guessed: the text of the answer, and its place among the options."""
    return {
        "text": np.array([f["text"] for f in facts]),
        "place": np.array([f["options"].index(f["text"]) for f in facts]),
    }


def text_of(facts: Facts) -> str:
    """Question and options; an option also as a word that holds its place."""
    options = [o.replace(" ", "_") for o in facts["options"]]
    return " ".join([facts["question"], *options, *(f"{i}_{o}" for i, o in enumerate(options))])


def text_probe(facts: list[Facts], target: np.ndarray) -> float:
    """Accuracy on the second half of a bag-of-words probe fitted on the first (pairs of words are words too)."""
    half = len(facts) // 2
    texts = [text_of(f) for f in facts]
    probe = make_pipeline(CountVectorizer(ngram_range=(1, 2), min_df=5), LogisticRegression(C=0.1, max_iter=300))
    probe.fit(texts[:half], target[:half])
    return float(probe.score(texts[half:], target[half:]))


def masked(facts: Facts) -> Image.Image:
    """The attending's picture with the finding taken out: same seed, background, marker and noise."""
    return draw(replace(facts["phantoms"][0], finding="normal"))


def global_features(image: Image.Image) -> list[float]:
    """Mean and deviation of each colour, of the border, of the noise (second differences), and the size as PNG."""
    pixels = np.asarray(image, float)
    grey = pixels.mean(2)
    border = np.concatenate([grey[:4].ravel(), grey[-4:].ravel(), grey[:, :4].ravel(), grey[:, -4:].ravel()])
    noise = np.abs(grey[1:-1, 1:-1] * 4 - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:])
    file = io.BytesIO()
    image.save(file, "PNG")
    colour = [*pixels.mean((0, 1)), *pixels.std((0, 1))]
    return [*colour, border.mean(), border.std(), float(np.median(noise)), noise.mean(), file.tell()]


def picture_probe(facts: list[Facts], features: np.ndarray, target: np.ndarray) -> float:
    """Accuracy in five folds of a probe on features of the picture, alone and by the question asked."""
    asked = sorted({f["kind"] + f["slot"] for f in facts})
    question = np.eye(len(asked))[[asked.index(f["kind"] + f["slot"]) for f in facts]]  # (n, questions)
    scaled = StandardScaler().fit_transform(features)
    crossed = (scaled[:, :, None] * question[:, None]).reshape(len(facts), -1)
    probe = LogisticRegression(C=0.02, max_iter=300)
    return float(cross_val_score(probe, np.hstack([scaled, question, crossed]), target, cv=5).mean())


@cache
def features_of(kind: str) -> np.ndarray:
    return np.array([global_features(masked(f)) for f in cases(kind, PICTURES)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["text", "place"])
def test_text_alone_is_at_chance(kind: str, target: str) -> None:
    facts = cases(kind, TEXTS)
    assert abs(text_probe(facts, targets(facts)[target]) - CHANCE[kind]) <= MARGIN


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["text", "place"])
def test_the_picture_without_its_finding_is_at_chance(kind: str, target: str) -> None:
    facts = cases(kind, PICTURES)
    assert abs(picture_probe(facts, features_of(kind), targets(facts)[target]) - CHANCE[kind]) <= MARGIN


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_balanced(kind: str) -> None:
    facts = cases(kind, TEXTS)
    for name in KINDS[kind]:
        of_kind = [f for f in facts if f["kind"] == name]
        for target in targets(of_kind).values():
            shares = np.unique(target, return_counts=True)[1] / len(of_kind)
            assert np.abs(shares - CHANCE[kind]).max() <= MARGIN


# ---- the probes can see a leak


def test_text_probe_sees_a_leak() -> None:
    facts = [dict(f) for f in cases("yes_no", 4000)]
    rng = np.random.default_rng(0)
    for f in facts:  # one phrasing is used for "yes" a little more often
        if f["text"] == "yes" and rng.random() < 0.2:
            f["question"] = "Is there a mass?"
    assert text_probe(facts, targets(facts)["text"]) > 0.5 + MARGIN
    facts = [dict(f) for f in cases("four_options", 4000)]
    for f in facts:  # the answer stands first a little more often
        if rng.random() < 0.15:
            f["options"] = (f["text"], *(o for o in f["options"] if o != f["text"]))
    assert text_probe(facts, targets(facts)["place"]) > 0.25 + MARGIN


@pytest.mark.parametrize("column", [0, 6, 10], ids=["intensity", "border", "file size"])
def test_picture_probe_sees_a_leak(column: int) -> None:
    facts = cases("yes_no", PICTURES)
    features = features_of("yes_no").copy()
    features[targets(facts)["text"] == "yes", column] += 0.3 * features[:, column].std()
    assert picture_probe(facts, features, targets(facts)["text"]) > 0.5 + MARGIN


def test_the_finding_itself_tells_the_answer() -> None:
    """With the finding left in and strong, global features do tell: the mask is what the probe rests on."""
    facts = [f for f in cases("yes_no", PICTURES) if f["kind"] == "present"]
    strong = [draw(replace(f["phantoms"][0], contrast=256, noise=0)) for f in facts]
    features = np.array([global_features(image) for image in strong])
    assert picture_probe(facts, features, targets(facts)["text"]) > 0.5 + MARGIN
