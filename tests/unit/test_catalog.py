"""Ubuntu's list of install sources, with ours in it."""

from __future__ import annotations

from hashlib import md5
from typing import Any, Literal

import pytest
import yaml

from builder.errors import BuilderError, Exit
from builder.media import catalog
from builder.media.catalog import Source
from tests import liveserver

OURS = Source("node.engine.site.squashfs", 3_000_000_000, "Node of lab", "made by builder")
VERSIONS: tuple[Literal[1, 2], ...] = (1, 2)
every_version = pytest.mark.parametrize("version", VERSIONS)


def sources(data: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = data["sources"] if isinstance(data, dict) else data
    return found


@every_version
def test_ours_is_the_only_default(version: Literal[1, 2]) -> None:
    stock = liveserver.catalog(version)
    old, new = yaml.safe_load(stock), yaml.safe_load(catalog.add(stock, OURS))
    assert [source["id"] for source in sources(new)] == ["ubuntu-server", "ubuntu-server-minimal", "node"]
    assert [source["id"] for source in sources(new) if "default" in source] == ["node"]
    assert sources(new)[-1] == {
        "id": "node",
        "default": True,
        "variant": "server",
        "type": "fsimage-layered",
        "path": "node.engine.site.squashfs",
        "size": 3_000_000_000,
        "locale_support": "none",
        "name": {"en": "Node of lab"},
        "description": {"en": "made by builder"},
    }
    for was, now in zip(sources(old), sources(new), strict=False):
        assert {key: value for key, value in was.items() if key != "default"} == now


def test_each_release_keeps_the_form_that_it_reads() -> None:
    """24.04 takes nothing but a list; the mapping says which kernel is installed."""
    assert isinstance(yaml.safe_load(catalog.add(liveserver.catalog(1), OURS)), list)
    newer = yaml.safe_load(catalog.add(liveserver.catalog(2), OURS))
    assert newer["version"] == 2 and newer["kernel"] == {"default": "linux-generic"}


@every_version
def test_an_id_that_is_taken_is_refused(version: Literal[1, 2]) -> None:
    taken = catalog.add(liveserver.catalog(version), OURS)
    with pytest.raises(BuilderError, match="has a source 'node' already") as caught:
        catalog.add(taken, OURS)
    assert caught.value.code == Exit.MEDIUM
    assert "remastered before" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no list of sources"),
        ("[]", "no list of sources"),
        ("version: 3\nsources: [{id: a}]", "its version is 3"),
        ("sources: [{id: a}]", "its version is None"),
        ("version: 2", "no list of sources"),
        ("- path: a.squashfs", "has no id"),
        ("- just text", "has no id"),
        ("{", "not YAML"),
    ],
)
def test_a_catalogue_that_is_not_known_is_refused(text: str, says: str) -> None:
    with pytest.raises(BuilderError, match=says) as caught:
        catalog.add(text, OURS)
    assert caught.value.code == Exit.MEDIUM


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{id: a}, {id: b}]", "a"),
        ("[{id: a}, {id: b, default: true}]", "b"),
        ("[{id: a, default: true}, {id: b, default: true}]", "b"),
        ("[{id: a}, {id: b, default: false}]", "a"),
    ],
)
def test_the_default_is_what_subiquity_takes(text: str, expected: str) -> None:
    assert catalog.default(text) == expected


def test_only_changed_files_get_new_sums() -> None:
    sums = f"{'0' * 32}  ./boot/grub/grub.cfg\n{'1' * 32}  ./casper/vmlinuz\nsomething else\n"
    new = catalog.refresh(sums, {"/boot/grub/grub.cfg": b"new", "/builder/manifest.json": b"ours"})
    digest = md5(b"new", usedforsecurity=False).hexdigest()
    assert new == f"{digest}  ./boot/grub/grub.cfg\n{'1' * 32}  ./casper/vmlinuz\nsomething else\n"
    assert catalog.refresh(new, {"/boot/grub/grub.cfg": b"new"}) == new
