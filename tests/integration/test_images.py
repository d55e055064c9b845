"""Container images: by a real registry and by archives, into lock, cache, and the archive for the node."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.cache import Cache
from builder.containers import archive, registry
from builder.containers.manifest import INDEXES, LockedImage, document
from builder.errors import BuilderError, Exit
from builder.fetch import fetch
from builder.run import run, which
from tests.integration.registrylab import (
    NAME,
    Guarded,
    Registry,
    digest,
    guarded,
    images,
    registry_program,
    tiny,
)
from tests.integration.registrylab import registry as registry_fixture

pytestmark = pytest.mark.tools
served = registry_fixture
__all__ = ["guarded", "registry_program", "served"]


@pytest.fixture
def empty(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def index_of(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": list(entries)}


def entry(files: dict[str, bytes], architecture: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files["index.json"])["manifests"][0]
    return {**found, "platform": {"os": "linux", "architecture": architecture}}


def save(files: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def complaint(code: Exit, work: Any) -> str:
    with pytest.raises(BuilderError) as caught:
        work()
    assert caught.value.code == code
    return str(caught.value)


def test_the_lock_holds_what_a_tag_meant(served: Registry, empty: Cache, tmp_path: Path) -> None:
    """A tag that moves afterwards changes nothing: the build still gets the bytes that were pinned."""
    files = tiny()
    first = served.push(files, "1")
    (image,) = images(empty, tmp_path, f"  - ref: {served.host}/{NAME}:1")
    assert (f"sha256:{image.digest}", image.manifest.sha256) == (first, image.digest)

    moved = json.loads(files["blobs/sha256/" + first.partition(":")[2]])
    moved["annotations"] = {"moved": "yes"}
    data = json.dumps(moved).encode()
    later = {**files, "blobs/sha256/" + digest(data).partition(":")[2]: data}
    later["index.json"] = json.dumps(
        index_of({**entry(files, "amd64"), "digest": digest(data), "size": len(data)})
    ).encode()
    assert served.push(later, "1") != first

    elsewhere = Cache(tmp_path / "elsewhere")
    fetch(registry.items(image), elsewhere, title="images")
    archive.write(image, tmp_path / "out.tar", 1_700_000_000, elsewhere)
    assert archive.identify(tmp_path / "out.tar", image.name, first) == image


def test_of_several_platforms_ours_is_taken(served: Registry, empty: Cache, tmp_path: Path) -> None:
    files = tiny()
    other = {**entry(files, "arm64"), "digest": "sha256:" + "0" * 64}
    unknown = {**entry(files, "unknown"), "platform": {"os": "unknown", "architecture": "unknown"}}
    meant = served.push(files, "1", None)
    listed = index_of(entry(files, "amd64"), unknown)
    listed["manifests"][1]["digest"] = meant
    top = served.push(files, "many", listed)
    (image,) = images(empty, tmp_path, f"  - {{ref: '{served.host}/{NAME}:many', digest: '{top}'}}")
    assert f"sha256:{image.digest}" == top
    assert f"sha256:{image.manifest.sha256}" == meant != other["digest"]


def test_what_a_registry_does_not_have(served: Registry, empty: Cache, tmp_path: Path) -> None:
    served.push(tiny(), "1")
    served.push(tiny("arm64"), "arm")
    said = complaint(Exit.FETCH, lambda: images(empty, tmp_path, f"  - ref: {served.host}/{NAME}:2"))
    assert f"images: {served.host} has no image {NAME} 2" in said
    said = complaint(Exit.FETCH, lambda: images(empty, tmp_path, f"  - ref: {served.host}/lab/none:1"))
    assert f"images: {served.host} has no image lab/none 1" in said
    said = complaint(Exit.SPEC, lambda: images(empty, tmp_path, f"  - ref: {served.host}/{NAME}:arm"))
    assert said.endswith("cannot be used: it is not for linux/amd64, but for linux/arm64")
    wrong = "sha256:" + "1" * 64
    text = f"  - {{ref: '{served.host}/{NAME}:1', digest: '{wrong}'}}"
    assert "has no image" in complaint(Exit.FETCH, lambda: images(empty, tmp_path, text))


def test_a_registry_that_lies_is_found_out(guarded: Guarded, empty: Cache, tmp_path: Path) -> None:
    """A blob with other bytes, and a manifest by digest with other bytes."""
    (image,) = images(empty, tmp_path, f"  - ref: 127.0.0.1:{guarded.port}/{NAME}:1")
    layer = f"blobs/sha256/{image.layers[0].sha256}"
    guarded.files[layer] = guarded.files[layer][:-1] + b"!"
    said = complaint(Exit.FETCH, lambda: fetch(registry.items(image), empty, title="images"))
    assert "wrong content" in said
    assert image.layers[0].sha256 in said


def test_a_token_is_fetched_renewed_and_not_shown_to_others(
    guarded: Guarded, empty: Cache, tmp_path: Path
) -> None:
    (image,) = images(empty, tmp_path, f"  - ref: 127.0.0.1:{guarded.port}/{NAME}:1")
    tokens = [path for path, _ in guarded.seen if path.startswith("/token")]
    assert tokens == ["/token?service=lab&scope=repository%3Alab%2Fhello%3Apull"]
    guarded.expire()
    fetch(registry.items(image), empty, title="images")
    assert guarded.given > 1
    content = [authorization for path, authorization in guarded.seen if path.startswith("/content/")]
    assert content == [""] * len(content) and content
    assert len({path for path, _ in guarded.seen if path.startswith("/content/")}) == 2


def test_a_private_image_is_refused_with_a_way_out(guarded: Guarded, empty: Cache, tmp_path: Path) -> None:
    guarded.private = True
    text = f"  - ref: 127.0.0.1:{guarded.port}/{NAME}:1"
    with pytest.raises(BuilderError, match=r"does not give .* to everybody \(401 Unauthorized\)") as caught:
        images(empty, tmp_path, text)
    assert "OCI archive" in caught.value.hint


def twice() -> dict[str, bytes]:
    listed = index_of(entry(tiny(), "a"), entry(tiny(), "b"))
    return {**tiny(), "index.json": json.dumps(listed).encode()}


def damaged() -> dict[str, bytes]:
    files = tiny()
    place = "blobs/sha256/" + entry(files, "amd64")["digest"].partition(":")[2]
    return {**files, place: files[place].replace(b'"schemaVersion": 2', b'"schemaVersion": 3')}


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "no archive of OCI": ({"manifest.json": b"[]"}, "it has no index.json"),
    "a blob is missing": (dict(list(tiny().items())[:-1]), "it lacks blobs/sha256/"),
    "another machine's": (tiny("arm64"), "it is not for linux/amd64, but for linux/arm64"),
    "two without names": (twice(), "it holds 2 images, and 0 are called that"),
    "a damaged manifest": (damaged(), "is damaged"),
    "no image in it": ({**tiny(), "index.json": json.dumps(index_of()).encode()}, "it holds no image"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_an_archive_that_cannot_be_used(case: str, empty: Cache, tmp_path: Path) -> None:
    files, message = BAD[case]
    save(files, tmp_path / "x.tar")
    said = complaint(Exit.SPEC, lambda: images(empty, tmp_path, "  - {ref: 'localhost/hello:1', path: x.tar}"))
    assert message in said
    assert said.startswith("images: x.tar cannot be used for localhost/hello:1: ")


def test_a_file_that_is_no_archive(empty: Cache, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2048)
    said = complaint(Exit.SPEC, lambda: images(empty, tmp_path, "  - {ref: 'localhost/hello:1', path: x.tar}"))
    assert "it is not a tar archive" in said


def test_an_archive_that_changed_after_the_lock(empty: Cache, tmp_path: Path) -> None:
    files = tiny()
    save(files, tmp_path / "x.tar")
    (image,) = images(empty, tmp_path, "  - {ref: 'localhost/hello:1', path: x.tar}")
    layer = f"blobs/sha256/{image.layers[0].sha256}"
    save({**files, layer: b"!" * len(files[layer])}, tmp_path / "x.tar")
    said = complaint(Exit.FETCH, lambda: archive.take_out(tmp_path / "x.tar", image, empty))
    assert "wrong content" in said and layer in said
    assert not empty.blob(image.layers[0].sha256).exists()


def written(cache: Cache, folder: Path) -> tuple[LockedImage, Path]:
    save(tiny(), folder / "x.tar")
    (image,) = images(cache, folder, "  - {ref: 'localhost/hello:1', path: x.tar}")
    archive.take_out(folder / "x.tar", image, cache)
    archive.write(image, folder / "out.tar", 1_700_000_000, cache)
    return image, folder / "out.tar"


def test_the_archive_is_the_same_every_time_and_docker_s_as_well(empty: Cache, tmp_path: Path) -> None:
    image, made = written(empty, tmp_path)
    archive.write(image, tmp_path / "again.tar", 1_700_000_000, empty)
    assert made.read_bytes() == (tmp_path / "again.tar").read_bytes()
    with tarfile.open(made) as tar:
        names = set(tar.getnames())
        (docker,) = json.loads((tar.extractfile("manifest.json") or pytest.fail()).read())
    assert docker["RepoTags"] == ["localhost/hello:1"]
    assert {docker["Config"], *docker["Layers"]} <= names
    assert document(empty.blob(image.config.sha256).read_bytes())["architecture"] == "amd64"


@pytest.mark.skipif(which("skopeo") is None, reason="skopeo is not here")
def test_other_programs_read_the_archive(empty: Cache, tmp_path: Path) -> None:
    image, made = written(empty, tmp_path)
    for kind in ("oci-archive", "docker-archive"):
        where = tmp_path / kind
        run(
            ["skopeo", "copy", "--insecure-policy", f"{kind}:{made}", f"dir:{where}"], step=f"reading it as {kind}"
        )
        found = json.loads((where / "manifest.json").read_text())
        assert found["config"]["digest"] == image.id
        shutil.rmtree(where)
