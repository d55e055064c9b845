"""Container images and Docker: what a spec may say, and what plan, preflight and the node's files make of it."""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder import lock, plan, preflight, resources
from builder.containers import registry
from builder.containers.manifest import (
    Blob,
    LockedImage,
    archive_documents,
    is_index,
    locked,
    of_json,
    ours,
)
from builder.containers.reference import parse
from builder.errors import SpecError
from builder.layers import images
from builder.lock import Lock
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.spec.warnings import warnings

SHA = "0123456789abcdef" * 4
HEAD = """name: demo
network: {subnet: 10.77.0.0/24}
nodes: [{name: node1, match: {serial: A}}]
"""
DOCKER = "runtime: docker\n"
IMAGE = LockedImage(
    "ghcr.io/org/name:1.0", SHA, Blob(SHA, 500), Blob(SHA[::-1], 900), (Blob("a" * 64, 30_000_000),)
)


def cluster_of(text: str, base: Path = Path()) -> Cluster:
    return loads(f"{HEAD}{text}\n", base=base)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("runtime: podman", "runtime: must be none or docker | "),
        ("runtime: dokcer", "runtime: must be none or docker | did you mean docker?"),
        ("images: [{ref: 'h.io/x:1'}]", "images: nothing runs containers on these nodes | write runtime: docker, or leave the images out"),
        (DOCKER + "images: [{ref: busybox}]", "images[0].ref: \"busybox\" is not the name of an image | write HOST/NAME:TAG, like ghcr.io/org/name:1.0"),
        (DOCKER + "images: [{ref: 'busybox:1'}]", "images[0].ref: busybox:1 does not say which registry it comes from | write docker.io/library/busybox:1, or another registry's"),
        (DOCKER + "images: [{ref: 'org/x:1'}]", "images[0].ref: org/x:1 does not say which registry it comes from | write docker.io/org/x:1, or another registry's"),
        (DOCKER + "images: [{ref: 'docker.io/busybox:1'}]", "images[0].ref: docker.io/busybox:1 is Docker Hub's short form | write docker.io/library/busybox:1"),
        (DOCKER + "images: [{ref: 'ghcr.io/org/name'}]", "images[0].ref: ghcr.io/org/name has no tag | write ghcr.io/org/name:TAG; `latest` is a tag too"),
        (DOCKER + f"images: [{{ref: 'h.io/x:1@sha256:{SHA}'}}]", f"images[0].ref: h.io/x:1@sha256:{SHA} holds a digest | write ref: h.io/x:1 and digest: sha256:{SHA}"),
        (DOCKER + "images: [{ref: 'Ghcr.io/Org/name:1'}]", 'images[0].ref: "Ghcr.io/Org/name:1" is not the name of an image | write HOST/NAME:TAG, like ghcr.io/org/name:1.0'),
        (DOCKER + "images: [{ref: '../x:1'}]", 'images[0].ref: "../x:1" is not the name of an image | '),
        (DOCKER + f"images: [{{ref: 'h.io/x:1', digest: {SHA}}}]", f"images[0].digest: lacks the name of its algorithm | write sha256:{SHA}"),
        (DOCKER + "images: [{ref: 'h.io/x:1', digest: 'md5:1'}]", 'images[0].digest: "md5:1" is not a digest | write sha256: and 64 hex digits'),
        (DOCKER + "images: [{ref: 'h.io/x:1'}, {ref: 'h.io/x:1'}]", "images[1].ref: h.io/x:1 is given twice | "),
        (DOCKER + "images: [{ref: 'h.io/x:1', path: gone.tar}]", "images[0].path: gone.tar does not exist | "),
        (DOCKER + "images: [h.io/x:1]", "images[0]: must be a group of keys, not text | its keys are: ref, digest, path"),
        (DOCKER + "images: [{digest: x}]", "images[0].ref: is missing | "),
    ],
)  # fmt: skip
def test_mistakes(text: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        cluster_of(text)
    found = [f"{mistake.path}: {mistake.message} | {mistake.hint}" for mistake in caught.value.mistakes]
    assert [line for line in found if line.startswith(told)], found


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("docker.io/library/busybox:1", "https://registry-1.docker.io/v2/library/busybox"),
        ("ghcr.io/org/name:1.0", "https://ghcr.io/v2/org/name"),
        ("lab:5000/x:1", "https://lab:5000/v2/x"),
        ("localhost:5000/a/b/c:1", "http://localhost:5000/v2/a/b/c"),
        ("127.0.0.1:5000/x:1", "http://127.0.0.1:5000/v2/x"),
        ("localhost.example/x:1", "https://localhost.example/v2/x"),
    ],
)
def test_where_a_registry_is_asked(name: str, url: str) -> None:
    cluster_of(f"{DOCKER}images: [{{ref: '{name}'}}]")
    assert (str(parse(name)), parse(name).url) == (name, url)


def test_docker_s_packages_are_the_distribution_s() -> None:
    assert {"docker.io", "docker-cli", "apparmor"} <= set(lock.target_of(cluster_of(DOCKER)).packages)
    assert "docker.io" not in lock.target_of(cluster_of("")).packages
    ubuntu = lock.target_of(cluster_of(DOCKER + "distribution: {name: ubuntu, release: '24.04'}"))
    assert "docker.io" in ubuntu.packages and "docker-cli" not in ubuntu.packages


def pinned(cluster: Cluster, *found: LockedImage) -> Lock:
    return Lock(lock.asks_of(cluster), 1_700_000_000, (), (), images=found)


# NVIDIA's archive, in the words of the spec; the key stands in for theirs.
ARCHIVE = """gpu:
  model: rtx-5070
  source: nvidia
  repository: {url: 'http://nvidia.example/debian13', key: k, fingerprint: 843938DF228D22F7B3742BC0D94AA3F0EFE21092}
"""
WITH = DOCKER + "images: [{ref: 'ghcr.io/org/name:1.0'}]"


def test_images_are_a_layer_of_their_own() -> None:
    cluster = cluster_of(WITH)
    made = plan.make(cluster, pinned(cluster, IMAGE))
    assert [layer.file for layer in made.layers] == [
        "node.squashfs",
        "node.images.squashfs",
        "node.images.site.squashfs",
    ]
    assert made.summary()["images"] == [{"name": IMAGE.name, "digest": SHA, "size": 30_001_400}]
    moved = replace(IMAGE, manifest=Blob("b" * 64, 500))
    again = plan.make(cluster, pinned(cluster, moved))
    changed = [old.name for old, new in zip(made.layers, again.layers, strict=True) if old.digest != new.digest]
    assert changed == ["images"]
    assert made.id != again.id
    assert [layer.name for layer in plan.make(cluster_of(DOCKER), None).layers] == ["base", "site"]


def test_a_lock_keeps_images_and_an_old_one_stays_good(tmp_path: Path) -> None:
    cluster = cluster_of(WITH)
    path = tmp_path / "x.lock"
    lock.save(pinned(cluster, IMAGE), path)
    assert lock.load(path).images == (IMAGE,)
    plain = cluster_of("")
    old = pinned(plain)
    asks = {key: value for key, value in old.asks.items() if key != "images"}
    assert lock.belongs(replace(old, asks=asks), plain)
    assert not lock.belongs(replace(old, asks=asks), cluster)
    with pytest.raises(KeyError):
        of_json({"name": "x"})


def test_the_node_s_docker_opens_nothing() -> None:
    files = plan.make(cluster_of(DOCKER), None).files("node1")
    settings = json.loads(files["/etc/docker/daemon.json"])
    assert settings["bridge"] == "none"
    assert not any(settings[key] for key in ("iptables", "ip6tables", "ip-forward", "ip-masq"))
    assert "runtimes" not in settings
    assert files["/usr/lib/builder/ready.d/docker"].decode().split() == [
        "docker.service",
        "builder-images.service",
    ]
    assert "/etc/docker/daemon.json" not in plan.make(cluster_of(""), None).files("node1")


def test_gpus_come_into_containers_where_nvidia_s_archive_is_given(tmp_path: Path) -> None:
    (told,) = (text for text in warnings(cluster_of(DOCKER + "gpu: {model: rtx-3090}")) if "containers" in text)
    assert "NVIDIA's container toolkit is in no archive of Debian or Ubuntu" in told
    assert not [text for text in warnings(cluster_of("gpu: {model: rtx-3090}")) if "containers" in text]
    shutil.copy(resources.root() / "keys/ubuntu-cdimage.gpg", tmp_path / "k")
    given = loads(HEAD + DOCKER + ARCHIVE, base=tmp_path)
    assert not [text for text in warnings(given) if "containers" in text]
    settings = json.loads(plan.make(given, None).files("node1")["/etc/docker/daemon.json"])
    assert settings["runtimes"] == {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
    assert settings["features"] == {"cdi": True}
    assert "nvidia-container-toolkit" in lock.target_of(given).packages
    assert "nvidia-container-toolkit" not in lock.target_of(loads(HEAD + ARCHIVE, base=tmp_path)).packages


def test_loading_needs_room() -> None:
    cluster = cluster_of(WITH + "\nstorage: {root: 4G, disk: {largest: true, min_size: 8G}}")

    def root(*found: LockedImage) -> int:
        (row,) = (
            row for row in preflight.check(cluster, pinned(cluster, *found)).rows if row.what == "root partition"
        )
        return row.need

    large = replace(IMAGE, layers=(Blob("a" * 64, 1 << 30),))
    # The archive, its layers unpacked to three times as much, and once more while they are loaded.
    assert root(large) - root() >= 5 * (1 << 30)
    assert preflight.check(cluster, pinned(cluster, replace(IMAGE, layers=(Blob("a" * 64, 8 << 30),)))).mistakes


def test_the_archive_says_who_is_in_it() -> None:
    made = {name: json.loads(data) for name, data in archive_documents(IMAGE, "type").items()}
    assert made["manifest.json"] == [
        {"Config": f"blobs/sha256/{SHA[::-1]}", "Layers": [f"blobs/sha256/{'a' * 64}"], "RepoTags": [IMAGE.name]}
    ]
    assert made["index.json"]["manifests"][0]["digest"] == f"sha256:{SHA}"
    assert images.file_name(IMAGE) == "ghcr.io_org_name_1.0.tar"
    assert images.entry(IMAGE)["id"] == f"sha256:{SHA[::-1]}"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "of a kind that is not known"),
        ({"schemaVersion": 2, "config": {}, "layers": []}, "no image that can be run"),
        ({"schemaVersion": 2, "config": {}, "layers": [1], "artifactType": "x"}, "no image that can be run"),
        ({"schemaVersion": 2, "config": {"digest": "md5:1", "size": 1}, "layers": [1]}, "no descriptor"),
        ({"schemaVersion": 2, "config": {"digest": f"sha256:{SHA}", "size": -1}, "layers": [1]}, "no descriptor"),
        ({"schemaVersion": 2, "config": {"digest": f"sha256:{SHA}", "size": "1"}, "layers": [1]}, "no descriptor"),
    ],
)
def test_manifests_that_cannot_be_used(document: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        locked("x", SHA, Blob(SHA, 1), document)


def test_our_platform_is_looked_for_in_an_index() -> None:
    def entry(system: str, machine: str, digit: str) -> dict[str, Any]:
        return {"digest": f"sha256:{digit * 64}", "size": 7, "platform": {"os": system, "architecture": machine}}

    listed = [entry("linux", "arm64", "1"), entry("windows", "amd64", "2"), entry("linux", "amd64", "3")]
    index = {"schemaVersion": 2, "manifests": listed}
    assert is_index(index) and not is_index({"config": {}})
    assert ours(index) == Blob("3" * 64, 7)
    with pytest.raises(ValueError, match=r"but for linux/arm64, windows/amd64$"):
        ours({"manifests": listed[:2]})


@pytest.mark.parametrize(
    ("header", "parts"),
    [
        ('Bearer realm="https://h/token",service="s",scope="repository:x:pull"', {"realm": "https://h/token", "service": "s", "scope": "repository:x:pull"}),
        ('bearer realm="http://h/t"', {"realm": "http://h/t"}),
        ('Bearer realm="file:///etc/passwd"', {}),
        ('Basic realm="x"', {}),
        ("", {}),
    ],
)  # fmt: skip
def test_challenges(header: str, parts: dict[str, str]) -> None:
    assert registry.challenge(header) == parts
