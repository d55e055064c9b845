"""Sources of engines: a commit of a real git repository, by digest, from wherever it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from builder.cache import Cache
from builder.engines.recipe import Source
from builder.errors import BuilderError, Exit
from builder.run import run
from builder.sources import git as source

pytestmark = pytest.mark.tools


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    return run(["git", "-C", folder, *who, *words], step="git").stdout.strip()


def repository(folder: Path, text: str) -> Source:
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "pyproject.toml").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "x", "--date", "2026-01-01T00:00:00Z")
    return Source("exo", str(folder), git(folder, "rev-parse", "HEAD"), "TEST_SOURCE")


def test_the_commit_is_taken_whatever_the_work_tree_holds_and_from_a_url_too(tmp_path: Path) -> None:
    wanted = repository(tmp_path / "repo", "first")
    (tmp_path / "repo/pyproject.toml").write_text("changed since")
    here = source.pin(wanted, tmp_path, Cache(tmp_path / "here"))
    assert source.reader(Cache(tmp_path / "here").blob(here.sha256))("pyproject.toml") == "first"
    url = dataclasses.replace(wanted, url=(tmp_path / "repo").as_uri())
    assert source.pin(url, tmp_path, Cache(tmp_path / "there")) == here
    assert source.pin(dataclasses.replace(wanted, url="repo"), tmp_path, Cache(tmp_path / "relative")) == here


def test_the_environment_names_another_place_for_the_same_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = repository(tmp_path / "repo", "first")
    monkeypatch.setenv("TEST_SOURCE", wanted.url)
    assert source.pin(dataclasses.replace(wanted, url="https://gone.example/x"), tmp_path, Cache(tmp_path / "c"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"commit": "ab" * 20}, f"at commit {'ab' * 20}"),
        ({"url": "nowhere"}, "there is no such folder"),
    ],
)
def test_a_source_that_cannot_be_had_is_told_with_the_way_out(
    tmp_path: Path, change: dict[str, str], told: str
) -> None:
    wanted = dataclasses.replace(repository(tmp_path / "repo", "first"), **change)
    with pytest.raises(BuilderError, match=told) as caught:
        source.pin(wanted, tmp_path, Cache(tmp_path / "c"))
    assert caught.value.code is Exit.FETCH and "TEST_SOURCE names another" in caught.value.hint


def test_another_content_than_the_locks_is_refused_with_both_digests(tmp_path: Path) -> None:
    wanted = repository(tmp_path / "repo", "first")
    pin = source.pin(wanted, tmp_path, Cache(tmp_path / "c"))
    bad = dataclasses.replace(pin, sha256="cd" * 32)
    with pytest.raises(BuilderError, match=f"{'cd' * 32}(?s:.*){pin.sha256}") as caught:
        source.obtain(wanted, bad, tmp_path, Cache(tmp_path / "other"))
    assert caught.value.code is Exit.FETCH
    assert source.obtain(wanted, pin, tmp_path, Cache(tmp_path / "other")).name == pin.sha256
    nowhere = dataclasses.replace(wanted, url="nowhere")
    assert source.obtain(nowhere, pin, tmp_path, Cache(tmp_path / "c")).is_file()  # the cache has it
