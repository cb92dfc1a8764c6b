"""The attending's chair: the numbers asked, their packing, and the page in a real browser where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from figures import chair as script
from figures._save import DRAWN
from mmedlite import chair, plots
from mmedlite.attending import answer, option_scores
from mmedlite.cases import Case, CaseTable
from mmedlite.chair import CONTRASTS, PANELS, SAYS, STORED, UNTRAINED, packed, page, panel_options, probabilities, sit, two_a_look, unpacked
from mmedlite.models import merged
from mmedlite.run import Run


def question(options: tuple[str, ...] = ("yes", "no"), seed: int = 7) -> Case:
    meta = {"seed": seed, "marked": False}
    return Case("c", "phantoms", "test", (), ("sha",), "Is there a mass?", options, 0, "PET", "Oncologist", "yes_no", "MIT", meta)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("options", [("yes", "no"), ("no", "yes")])
def test_doctors_say_what_the_panel_names(options: tuple[str, ...]) -> None:
    for panel, row in zip(PANELS, panel_options(question(options)), strict=True):
        assert [options[o] if o >= 0 else "silent" for o in row] == [SAYS[say] for say in panel]
    assert len({*PANELS}) == 27 and PANELS[0] == (0, 0, 0) and PANELS[1] == (0, 0, 1)


@pytest.mark.parametrize("options", [("yes", "no"), ("no", "yes")])
def test_probability_is_that_of_yes_after_the_reasoning(run: Run, options: tuple[str, ...]) -> None:
    case, model, at = question(options), run.policy(), 14
    found = probabilities(run, model, [case], "asking", contrasts=(0, 40))
    assert found.shape == (1, 2, 27) and ((found > 0) & (found < 1)).all()
    table = CaseTable(Path("none"), [case])
    table.open_image = lambda case, view=0: chair.paint(case, 40)  # type: ignore[method-assign]
    asked = (model, run.processor, table, [case], ["Oncologist"], panel_options(case)[at : at + 1])
    scores = option_scores(*asked, answer(*asked, run.profile), run.profile)[0]
    assert found[0, 1, at] == pytest.approx(np.exp(scores[options.index("yes")]) / np.exp(scores).sum(), abs=1e-5)


def test_packing_keeps_place_and_value() -> None:
    values = np.random.default_rng(0).random((2, 3, 27))
    found = {"phantoms": [1, 2], "contrasts": [0, 1, 2]}
    assert np.abs(unpacked(packed(values), found) - values).max() <= 0.5 / 255 + 1e-12


@pytest.mark.parametrize("contrast", [0, 5, 35, 80])
def test_layers_make_the_picture_that_was_asked(contrast: int, run: Run) -> None:
    for case in two_a_look(run.cases("test")):
        empty, full, grain = (np.asarray(layer).astype(int) for layer in script.layers(case))
        made = np.clip(empty + (full - empty) * contrast / 256 + (grain - 128)[..., None], 0, 255)
        assert np.abs(made - np.asarray(chair.paint(case, contrast))).max() <= 2


def test_stored_numbers_are_those_of_the_stored_policies(run: Run) -> None:
    found = json.loads(STORED.read_text(encoding="utf-8"))
    cases = two_a_look(run.cases("test"))
    for number, contrast, panel, name in ((2, 4, "diverse", "untrained"), (9, 9, "paper_like", "hard")):
        model = run.policy() if name == "untrained" else merged(run.policy(f"{panel}/{name}"))
        again = probabilities(run, model, [cases[number]], "asking", contrasts=[CONTRASTS[contrast]])[0, 0]
        title = {"hard": "hard (all buckets)"}.get(name, name)
        stored = unpacked(found["panels"][panel]["yes"][title], found)[number, contrast]
        assert np.abs(again - stored).max() <= 1 / 255
    assert [item["kind"] for item in found["sheet"]].count("wrong") == 6 and len(found["sheet"]) == 20
    for item in found["sheet"]:
        right = [said == item["options"][item["answer"]] for said in item["panel"]]
        assert {"easy": all(right), "split": 0 < sum(right) < 3, "wrong": not any(right) and len(set(item["panel"])) == 1}[item["kind"]]


def test_page_is_one_file_without_links() -> None:
    found = json.loads(STORED.read_text(encoding="utf-8"))
    text = page(found)
    assert len(text.encode()) <= 500_000 and "/*FOUND*/" not in text
    assert not re.search(r"https?:|src=\"(?!data:)|<link|@import|url\(", text)
    assert "</script" not in page({**found, "stages": ["</script>"]}).replace("</script>\n</body>", "")
    assert (DRAWN / "chair.html").read_text(encoding="utf-8") == text


def in_browser(file: Path, moves: str, tmp_path: Path) -> Any:
    """What ``moves`` (JavaScript that returns something) finds in the page, in headless Chromium."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium on this machine")
    ready = 'document.getElementById("plane").hasAttribute("aria-label")'  # drawn last; a busy machine takes its time
    told = f"const found = (() => {{ {moves} }})(); document.title = JSON.stringify(found);"
    probe = f"<script>(function look() {{ if (!{ready}) {{ setTimeout(look, 50); return; }} {told} }})();</script>"
    (page := tmp_path / "page.html").write_text(file.read_text(encoding="utf-8").replace("</body>", f"{probe}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title, done.stderr[-2000:]
    return json.loads(html.unescape(title[1]))


def test_page_shows_the_stored_probability_at_every_move(tmp_path: Path) -> None:
    found = json.loads(STORED.read_text(encoding="utf-8"))
    settings = [
        *((0, 0, (1, 1, 1), 0, "diverse"), (2, 5, (0, 1, 2), 3, "diverse")),
        *((6, 16, (2, 0, 0), 1, "paper_like"), (3, 9, (1, 2, 0), 2, "paper_like")),
    ]
    settings = [(2 * look + marked, *rest) for (look, *rest), marked in zip(settings, (0, 1, 1, 0), strict=True)]
    moves = f"""
      const set = (id, value, kind) => {{ const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event(kind)); }};
      return {json.dumps(settings)}.map(([phantom, contrast, says, stage, panel]) => {{
        set("phantom", FOUND.phantoms[phantom].look, "change");
        if (document.getElementById("marked").checked !== FOUND.phantoms[phantom].marked) document.getElementById("marked").click();
        set("panel", panel, "change");
        set("contrast", contrast, "input"); set("stage", stage, "input");
        says.forEach((say, d) => document.querySelectorAll(`input[name=doctor${{d}}]`)[say].click());
        const canvas = document.getElementById("picture");
        const pixel = [...canvas.getContext("2d").getImageData(20, 20, 1, 1).data];
        return [document.getElementById("bars").getAttribute("aria-label"), document.getElementById("told").textContent, pixel];
      }});"""
    told = in_browser(DRAWN / "chair.html", moves, tmp_path)
    cases = two_a_look(Run(tmp_path / "run").cases("test"))
    for (phantom, contrast, says, stage, panel), (label, words, pixel) in zip(settings, told, strict=True):
        yes = {name: unpacked(text, found)[phantom, contrast, PANELS.index(says)] for name, text in found["panels"][panel]["yes"].items()}
        own, ideal = yes[found["stages"][stage]], yes["ideal"]
        assert label == f"Probability of yes: attending {100 * own:.0f} %, ideal reader {100 * ideal:.0f} %."
        assert f"yes {100 * own:.0f} %" in words and f"ideal reader: yes {100 * ideal:.0f} %" in words  # what a screen reader hears
        asked = np.asarray(chair.paint(cases[phantom], CONTRASTS[contrast]))[20, 20].astype(int)
        assert np.abs(asked - pixel[:3]).max() <= 2


def test_twenty_answers_make_a_dot(tmp_path: Path) -> None:
    moves = """
      for (const item of FOUND.sheet) document.querySelectorAll("#case-options button")[item.answer].click();
      return [document.getElementById("case-told").textContent, document.getElementById("plane").getAttribute("aria-label")];"""
    told, plane = in_browser(DRAWN / "chair.html", moves, tmp_path)
    assert re.sub(r"\s+", " ", told).startswith("You were right in 7 of 7 cases with three right specialists, 7 of 7 that split them, 6 of 6")
    assert "you (1.00, 1.00)" in plane


def test_a_double_click_answers_one_case_and_again_begins_anew(tmp_path: Path) -> None:
    moves = """
      const first = () => document.querySelector("#case-options button"), count = () => document.getElementById("case-count").textContent;
      first().dispatchEvent(new MouseEvent("click", {bubbles: true, detail: 1}));
      first().dispatchEvent(new MouseEvent("click", {bubbles: true, detail: 2}));
      const after = count();
      while (document.getElementById("again").hidden) first().click();
      document.getElementById("again").click();
      return [after, count(), document.getElementById("plane").getAttribute("aria-label").includes("you")];"""
    after, now, named = in_browser(DRAWN / "chair.html", moves, tmp_path)
    assert after.startswith("Case 2 of 20") and now.startswith("Case 1 of 20") and not named


def test_a_run_shows_its_own_policies(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(plots, "show", lambda figure, alt: shown.append(figure))
    sit(run, "diverse", {"untrained": UNTRAINED, "hard (all buckets)": "hard"})
    strip, frame = shown
    model, marked = merged(run.policy("diverse/hard")), two_a_look(run.cases("test"))[1]
    asked = probabilities(run, model, [marked], "asking", contrasts=chair.ASKED)[0, :, PANELS.index((1, 1, 1))]
    three_no = strip.numbers[strip.numbers["panel"] == "three say no, marked"]
    assert three_no["hard (all buckets)"].tolist() == pytest.approx(asked.tolist(), abs=1 / 255)
    inside = html.unescape(re.search(r"srcdoc='([^']*)'", frame)[1])  # type: ignore[index]
    (file := tmp_path / "inside.html").write_text(inside, encoding="utf-8")
    moves = """return [document.querySelector("section").hidden, document.getElementById("plane").getAttribute("aria-label")];"""
    hidden, plane = in_browser(file, moves, tmp_path)
    assert hidden and "hard (all buckets) (0.9" in plane and "you" not in plane
    chair.keep_place(run, (0.75, 0.5))  # from the sheet of notebook 00
    sit(run, "diverse", {"untrained": UNTRAINED})
    file.write_text(html.unescape(re.search(r"srcdoc='([^']*)'", shown[-1])[1]), encoding="utf-8")  # type: ignore[index]
    assert "you (0.75, 0.50)" in in_browser(file, moves, tmp_path)[1]


def test_other_cases_have_no_chair(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "table", CaseTable(Path("none"), [question()]))
    sit(run, "diverse", {"untrained": UNTRAINED})
    assert capsys.readouterr().out == "The chair fades the findings of the phantom clinic; these are other cases.\n"
