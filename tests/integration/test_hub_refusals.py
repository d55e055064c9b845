"""Models by repository: what the hub refuses, and what of its answers is not taken on trust."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from tests.integration.hublab import (
    ANY,
    FILES,
    GATED,
    NEW,
    OLD,
    TOKEN,
    WEIGHTS,
    Content,
    Hub,
    pinned,
    staged,
)

REFUSALS = [
    ("gated, no token", ANY, None, "it is gated", "accept its terms"),
    ("gated, no access", GATED, "hf_stranger", "the token in HF_TOKEN has no access", "accept its terms"),
    ("bad token", GATED, "hf_made_up", "does not take the token in HF_TOKEN", "make a new token"),
    ("no token", GATED, "", "variable HF_TOKEN is not set", "export HF_TOKEN"),
    ("two lines", GATED, "hf_made\nup", "HF_TOKEN does not hold a token", "no spaces"),
    ("unknown", "  - repo: org/nmae\n", None, "or there is no such repository", "if the name is right"),
    ("unknown, token", "  - {repo: org/nmae, token_env: HF_TOKEN}\n", TOKEN, "no such repository", "`repo`"),
    ("revision", "  - {repo: org/name, revision: v9, token_env: HF_TOKEN}\n", TOKEN, "or tag v9", "`revision`"),
]


@pytest.mark.parametrize(
    ("text", "token", "said", "hint"), [one[1:] for one in REFUSALS], ids=[one[0] for one in REFUSALS]
)
def test_a_refusal_says_what_to_do(
    server: Hub,
    cache: Cache,
    text: str,
    token: str | None,
    said: str,
    hint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.gated = True
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BuilderError) as caught:
        pinned(text, cache)
    assert caught.value.code == Exit.FETCH
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert len(server.seen) <= 1  # asking again would not help
    assert not token or token.split("\n")[0] not in caught.value.message + caught.value.hint


def test_what_was_taken_from_the_hub_since_the_lock_is_named(server: Hub, cache: Cache) -> None:
    todo = pinned(ANY, cache)
    server.trees[OLD] = {path: data for path, data in FILES.items() if path != "model-1.gguf"}
    server.trees[OLD].pop("sub folder/twin.gguf")
    with pytest.raises(BuilderError, match=r"it has no file .*(model-1|twin)\.gguf any more") as caught:
        staged(todo, cache)
    assert "lock --update" in caught.value.hint


def test_a_token_never_goes_out_in_the_clear(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(BuilderError, match="HF_TOKEN would go over the network in the clear"):
        pinned(GATED, cache)


def test_an_endpoint_that_is_no_address_is_named(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example")
    with pytest.raises(BuilderError, match="HF_ENDPOINT holds a user or password") as caught:
        pinned(ANY, cache)
    assert "secret" not in caught.value.message


def test_a_hub_out_of_reach_is_named(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("builder.fetch.TRIES", 2)
    with pytest.raises(BuilderError, match=r"revision/main: .*refused \(2 tries\)") as caught:
        pinned(ANY, cache)
    assert caught.value.code == Exit.FETCH


BAD_NAMES = ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "", "a\\b", "a\nb", "a\x1b[2Jb", "x" * 300]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_out_of_its_folder_is_refused(
    server: Hub, cache: Cache, tmp_path: Path, name: str
) -> None:
    server.trees = {OLD: {**FILES, name: b"evil"}}
    with pytest.raises(
        BuilderError, match="the hub's list of org/name at main cannot be used: the name"
    ) as caught:
        pinned(ANY, cache)
    assert caught.value.code == Exit.FETCH
    assert "\n" not in caught.value.message and "\x1b" not in caught.value.message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


SIBLING = {"rfilename": "a", "size": 1, "blobId": "c" * 40}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([], "TypeError"),
        ({"sha": OLD}, "KeyError: 'siblings'"),
        ({"sha": "main", "siblings": []}, "'main' is not a commit"),
        ({"sha": OLD, "siblings": [SIBLING, SIBLING]}, "names a file twice"),
        ({"sha": OLD, "siblings": [SIBLING, {**SIBLING, "rfilename": "a/b"}]}, "a is both a file and a folder"),
        ({"sha": OLD, "siblings": [{"rfilename": "a", "size": 1}]}, "KeyError: 'blobId'"),
        ({"sha": OLD, "siblings": [{**SIBLING, "blobId": "../x"}]}, "a comes without a digest"),
        ({"sha": OLD, "siblings": [{**SIBLING, "lfs": {"sha256": "../x", "size": 1}}]}, "without a digest"),
        ({"sha": OLD, "siblings": [{**SIBLING, "size": None}]}, "a comes without a size"),
        ({"sha": OLD, "siblings": [{**SIBLING, "rfilename": 7}]}, "AttributeError"),
    ],
)
def test_an_answer_that_cannot_be_trusted(server: Hub, cache: Cache, answer: Any, said: str) -> None:
    server.listing = lambda _answer: answer
    with pytest.raises(BuilderError, match="cannot be used") as caught:
        pinned(ANY, cache)
    assert said in caught.value.message


def test_another_commit_than_the_one_asked_for_is_refused(server: Hub, cache: Cache) -> None:
    server.listing = lambda answer: {**answer, "sha": NEW}
    with pytest.raises(BuilderError, match=f"it answers for the commit {NEW}"):
        pinned(f"  - {{repo: org/name, revision: {OLD}}}\n", cache)


def test_a_small_file_is_held_to_git_s_digest(server: Hub, cache: Cache) -> None:
    def lie(answer: Any) -> Any:
        for entry in answer["siblings"]:
            if entry["rfilename"] == "config.json":
                entry["blobId"] = "d" * 40
        return answer

    server.listing = lie
    with pytest.raises(BuilderError, match=r"config\.json: wrong content") as caught:
        pinned(ANY, cache)
    assert "d" * 40 in caught.value.message
    assert not cache.blob(hashlib.sha256(FILES["config.json"]).hexdigest()).exists()


def test_weights_are_held_to_the_lock(server: Hub, content: Content, cache: Cache) -> None:
    todo = pinned(ANY, cache)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    content.bytes[digest] = WEIGHTS[:-1] + b"!"
    with pytest.raises(BuilderError, match="wrong content") as caught:
        staged(todo, cache)
    assert digest in caught.value.message
    assert not cache.blob(digest).exists()
