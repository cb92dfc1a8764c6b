"""Downloads that fail in every known way, and what a local copy may be; nothing here reaches a network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from data_prep import hub, mmmu, omnimedvqa, path_vqa, slake, vqa_rad
from mmedlite.profiles import InputError

ANSWER = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
FAILURES = {
    "gated": (GatedRepoError("no", response=ANSWER), "asks for your consent", "HF_TOKEN"),
    "no revision": (RevisionNotFoundError("no", response=ANSWER), "no revision 'abc'", "--revision"),
    "no repository": (RepositoryNotFoundError("no", response=ANSWER), "no such data set", "--source"),
    "offline": (OfflineModeIsEnabled("no"), "cannot download it (OfflineModeIsEnabled)", "run the same command again"),
    "not in the cache": (LocalEntryNotFoundError("no"), "cannot download it", "run the same command again"),
    "server error": (HfHubHTTPError("no", response=ANSWER), "cannot download it", "--source"),
    "a broken line": (httpx.RemoteProtocolError("no"), "cannot download it (RemoteProtocolError)", "run the same command again"),
    "disk full": (OSError(28, "No space left on device"), "cannot download it (OSError)", "--source"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_download_says_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, what, fix = FAILURES[name]

    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError) as told:
        hub.fetch(argparse.Namespace(source=None, revision="abc"), "some/set", ["*"])
    assert what in told.value.what and fix in str(told.value) and "some/set" in str(told.value)


def test_one_commit_is_downloaded_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **more: (asked.append((repo, more)), str(tmp_path))[1])
    folder, origin = hub.fetch(argparse.Namespace(source=None, revision="abc"), "some/set", ["data/*"])
    assert folder == tmp_path and origin == {"repository": "some/set", "revision": "abc"}
    assert asked == [("some/set", {"repo_type": "dataset", "revision": "abc", "allow_patterns": ["data/*"]})]


def test_every_source_pins_a_commit() -> None:
    for source in (vqa_rad, slake, path_vqa, omnimedvqa, mmmu):
        parser = argparse.ArgumentParser()
        source.add_arguments(parser)
        assert len(source.REVISION) == 40 and parser.parse_args([]).revision == source.REVISION


def test_a_local_copy_is_used_as_it_is(tmp_path: Path) -> None:
    assert hub.fetch(argparse.Namespace(source=tmp_path, revision="abc"), "some/set", []) == (
        tmp_path, {"repository": "some/set", "revision": "a local copy"})  # fmt: skip
    with pytest.raises(InputError, match="no such folder"):
        hub.fetch(argparse.Namespace(source=tmp_path / "gone", revision="abc"), "some/set", [])
