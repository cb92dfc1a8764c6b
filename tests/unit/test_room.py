"""The room: worlds of seats, what a share holds, which shares are one experiment, and what the room would have concluded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from mmedlite import cli, room
from mmedlite.profiles import ROOT, InputError
from mmedlite.run_folder import RunFolder


def put(folder: Path, world: int, mean: float, half: float = 0.02, **other: Any) -> Path:
    gain = {"mean": mean, "low": mean - half, "high": mean + half}
    told = {"seed": world, "cases_sha256": f"{world:08d}", **dict.fromkeys(room.SAME, "a"),
            "panels": {"diverse": {"n": 3200, "trained": 0.8 + mean, "majority_vote": 0.8, "gain": gain}}} | other  # fmt: skip
    (file := folder / f"share-{world:08d}-{world}.json").write_text(json.dumps(told), encoding="utf-8")
    return file


def test_each_seat_has_a_world_of_its_own() -> None:
    worlds = {room.world_of("spring 26", n) for n in range(1, 31)}
    assert len(worlds) == 30 and worlds.isdisjoint({room.world_of("autumn 26", n) for n in range(1, 31)})
    assert room.world_of("Spring  26", 3) == room.world_of("spring 26", 3) and 0 not in worlds  # clinic 0 is the shipped one
    told = room.seat("spring 26", 3)
    assert told.count(str(room.world_of("spring 26", 3))) >= 5


def test_a_share_is_small_and_names_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["share", str(RunFolder.reference), "--out", str(tmp_path / "new")]) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file.stat().st_size <= room.LARGEST and str(ROOT) not in file.read_text(encoding="utf-8")
    told = json.loads(file.read_text(encoding="utf-8"))
    stored = json.loads((RunFolder.reference / "results.json").read_text(encoding="utf-8"))["attending"]
    for panel, part in told["panels"].items():
        assert part["gain"]["mean"] == pytest.approx(stored[panel]["trained"] - stored[panel]["majority_vote"], abs=1e-6)
        low, high = room.band(panel, told["config_sha256"]) or (1, 1)
        assert 0 < low < part["gain"]["mean"] < high and room.band(panel, "another") is None
    assert room.read_shares(file.parent) == ([told], [])


def test_a_run_without_results_has_no_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["share", str(tmp_path)]) == 1
    assert "no evaluated run lies here" in capsys.readouterr().err


def test_one_bad_share_costs_no_other(tmp_path: Path) -> None:
    for world in range(5):
        put(tmp_path, world, 0.05)
    put(tmp_path, 5, 0.05, code="b")
    put(tmp_path, 6, 0.05, cases_sha256="00000002")
    (tmp_path / "share-7.json").write_text('{"panels": ', encoding="utf-8")
    put(tmp_path, 8, 7.0)
    put(tmp_path, 9, float("nan"))
    long = {"pad": "x" * room.LARGEST, **json.loads(put(tmp_path, 4, 0.05).read_text(encoding="utf-8"))}
    (tmp_path / "share-x.json").write_text(json.dumps(long), encoding="utf-8")
    shares, left_out = room.read_shares(tmp_path)
    assert len(shares) == 5
    assert [line.split(": ")[0] for line in sorted(left_out)] == [
        "share-00000005-5.json", "share-00000006-6.json", "share-00000008-8.json", "share-00000009-9.json", "share-7.json", "share-x.json"
    ]  # fmt: skip


def test_interval_is_students() -> None:
    values = np.random.default_rng(0).normal(0.03, 0.02, 7)
    found = ttest_1samp(values, 0).confidence_interval(0.95)
    assert room.interval(values.tolist()) == pytest.approx((found.low, found.high), abs=1e-12)


def test_more_runs_conclude_more_surely() -> None:
    rng = np.random.default_rng(1)
    gains = [{"mean": m, "low": m - 0.03, "high": m + 0.03} for m in rng.normal(0.02, 0.02, 30)]
    one, five, thirty = (room.concluded(gains, k)[room.VERDICTS[0]] for k in room.SEEDS)
    assert one == pytest.approx(np.mean([g["low"] > 0 for g in gains]), abs=0.05)
    assert one < five < thirty and thirty > 0.95
    assert sum(room.concluded(gains, 5).values()) == pytest.approx(1)


def test_most_stored_worlds_lie_in_their_band() -> None:
    bands = json.loads((ROOT / "artifacts" / "bands.json").read_text(encoding="utf-8"))
    for panel in ("diverse", "paper_like"):
        low, high = room.band(panel, bands[f"vote_{panel}"]["config"]) or (1, 1)
        gains = [share - bands[f"vote_{panel}"]["seeds"][world] for world, share in bands[f"last_stage_{panel}"]["seeds"].items()]
        assert len(gains) == 10 and sum(low <= gain <= high for gain in gains) >= 9 and max(gains) - min(gains) > 0.02


def test_fewer_cases_conclude_less_surely() -> None:
    rng = np.random.default_rng(2)
    found = [room.on_fewer({"mean": 0.07, "low": 0.06, "high": 0.08}, 4.0, rng) for _ in range(4000)]
    assert np.mean([g["mean"] for g in found]) == pytest.approx(0.07, abs=0.001)
    assert found[0]["high"] - found[0]["low"] == pytest.approx(0.08)
    sd = np.std([g["mean"] for g in found])  # with the error that was there before it makes up the wider interval
    assert np.hypot(sd, 0.01 / 1.96) == pytest.approx(0.04 / 1.96, rel=0.05)
    gains = [{"mean": m, "low": m - 0.01, "high": m + 0.01} for m in np.linspace(0.06, 0.09, 10)]
    assert room.concluded(gains, 1)[room.VERDICTS[0]] == 1
    few = [room.concluded(gains, k, 4.6)[room.VERDICTS[0]] for k in room.SEEDS]
    assert 0.3 < few[0] < few[1] < few[2]


def test_page_says_what_the_numbers_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for world, mean in enumerate((0.01, 0.05, 0.09)):
        put(tmp_path, world, mean)
    (tmp_path / "share-<b>.json").write_text("", encoding="utf-8")
    assert cli.main(["pool", str(tmp_path)]) == 0
    page = (tmp_path / "room.html").read_text(encoding="utf-8")
    assert "The room: 3 worlds" in page and "mean +0.050" in page and "share-&lt;b&gt;.json: no share" in page
    assert not re.search(r"https?://|<script|<b>", page.replace(room.RENEW, "")) and page.count("alt=") == 1
    assert "<td>1 run</td>" in page and "5 runs" not in page  # of three worlds
    assert "share-<b>.json" in capsys.readouterr().out


def test_more_runs_than_worlds_are_called_a_projection(tmp_path: Path) -> None:
    for world in range(6):
        put(tmp_path, world, 0.01 * world)
    text = room.page(*room.read_shares(tmp_path))
    assert "5 runs<" in text and "30 runs, projected from 6 worlds<" in text


def test_a_first_share_that_is_still_being_copied_stops_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "share-00000000-0.json").write_text("{", encoding="utf-8")

    def wait(_: float) -> None:
        if (tmp_path / "room.html").exists():
            raise KeyboardInterrupt
        put(tmp_path, 0, 0.05)

    monkeypatch.setattr(room.time, "sleep", wait)
    assert room.pool(tmp_path, watch=True) == 0
    assert "no usable share among 1 files" in capsys.readouterr().out


def test_an_empty_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", str(tmp_path)]) == 1 and "no file share-*.json" in capsys.readouterr().err


def test_the_page_grows_as_files_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 0, 0.05)
    pages: list[str] = []

    def wait(_: float) -> None:
        pages.append((tmp_path / "room.html").read_text(encoding="utf-8"))
        if len(pages) == 3:
            raise KeyboardInterrupt
        put(tmp_path, len(pages), 0.05)

    monkeypatch.setattr(room.time, "sleep", wait)
    assert room.pool(tmp_path, watch=True) == 0
    assert [re.findall(r"The room: (\d) world", p)[0] for p in pages] == ["1", "2", "3"]


def test_a_watched_folder_may_begin_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(room.time, "sleep", wait)
    assert room.pool(tmp_path, watch=True) == 0 and not (tmp_path / "room.html").exists()
    with pytest.raises(InputError):
        room.pool(tmp_path, watch=False)
