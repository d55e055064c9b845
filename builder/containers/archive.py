"""OCI archives: reading one that somebody brings, and writing the one that a node loads."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from builder.cache import Cache
from builder.containers import manifest as documents
from builder.containers.manifest import MANIFESTS, Blob, LockedImage, place
from builder.errors import BuilderError, Exit
from builder.files import CHUNK, complete_or_absent, mismatch

_SMALL = 8 << 20  # bytes of a document that are read at once
_MAKE = "make one with `skopeo copy … oci-archive:FILE`, or `docker save` of Docker 25 or later"


def identify(path: Path, name: str, digest: str | None) -> LockedImage:
    """The image in an archive that ``name`` means: the one of ``digest``, or the only one, or the one of its name.

    Raises BuilderError (SPEC): no OCI archive, no such image in it, a blob that is missing, another platform.
    """
    try:
        with _opened(path) as tar:
            entry = _chosen(_json(tar, "index.json")["manifests"], name, digest)
            top = manifest = documents.blob(entry)
            found = _document(tar, top)
            if documents.is_index(found):
                manifest = documents.ours(found)
                found = _document(tar, manifest)
            image = documents.locked(name, top.sha256, manifest, found)
            documents.require_platform(_document(tar, image.config))
            for blob in image.blobs:
                if _member(tar, place(blob)).size != blob.size:
                    raise ValueError(f"{place(blob)} has not the {blob.size} bytes that it should")
    except (ValueError, KeyError, TypeError, tarfile.TarError) as error:
        raise BuilderError(
            f"images: {path.name} cannot be used for {name}: {error}", hint=_MAKE, code=Exit.SPEC
        ) from None
    return image


def take_out(path: Path, image: LockedImage, cache: Cache) -> None:
    """Copy the image's blobs into the cache.

    Raises BuilderError (FETCH) for one that is not what the lock says.
    """
    hint = "if it was meant to change: builder lock --update"
    try:
        with _opened(path) as tar:
            for blob in image.blobs:
                if not cache.blob(blob.sha256).exists():
                    with _reading(tar, place(blob)) as source:
                        _keep(source, blob, cache, f"{path.name}: {place(blob)}", hint)
    except (ValueError, tarfile.TarError) as error:
        raise BuilderError(f"images: {path.name}: {error}", hint=hint, code=Exit.FETCH) from None


def write(image: LockedImage, target: Path, epoch: int, cache: Cache) -> None:
    """The archive of one image whose blobs are all in the cache: the same bytes every time."""
    media_type = (
        documents.document(cache.blob(image.manifest.sha256).read_bytes()).get("mediaType") or MANIFESTS[0]
    )
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in documents.archive_documents(image, media_type).items():
            tar.addfile(_entry(name, len(data), epoch), io.BytesIO(data))
        for blob in sorted(image.blobs, key=place):
            with cache.blob(blob.sha256).open("rb") as file:
                tar.addfile(_entry(place(blob), blob.size, epoch), file)


def _entry(name: str, size: int, epoch: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, epoch, 0o644
    return entry


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Uncompressed, since blobs are looked up in any order, and are compressed themselves."""
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except tarfile.ReadError:
        raise ValueError("it is not a tar archive, or a compressed one") from None


def _member(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    for spelling in (name, f"./{name}"):
        try:
            found = tar.getmember(spelling)
        except KeyError:
            continue
        if found.isfile():
            return found
    what = "it is no OCI archive: it has no index.json" if name == "index.json" else f"it lacks {name}"
    raise ValueError(what)


@contextmanager
def _reading(tar: tarfile.TarFile, name: str) -> Iterator[IO[bytes]]:
    source = tar.extractfile(_member(tar, name))
    assert source is not None  # it is a file
    with source:
        yield source


def _json(tar: tarfile.TarFile, name: str) -> dict[str, Any]:
    with _reading(tar, name) as source:
        return documents.document(source.read(_SMALL))


def _document(tar: tarfile.TarFile, blob: Blob) -> dict[str, Any]:
    """Read a document and hold it to its digest. Raises ValueError."""
    with _reading(tar, place(blob)) as source:
        data = source.read(_SMALL)
    if hashlib.sha256(data).hexdigest() != blob.sha256:
        raise ValueError(f"{place(blob)} is damaged")
    return documents.document(data)


def _chosen(entries: list[Mapping[str, Any]], name: str, digest: str | None) -> Mapping[str, Any]:
    if digest is not None:
        entries = [entry for entry in entries if entry.get("digest") == digest]
        if not entries:
            raise ValueError(f"it does not hold {digest}")
    if len(entries) > 1:
        called = [entry for entry in entries if _names(entry) & {name, name.rpartition(":")[2]}]
        if len(called) != 1:
            raise ValueError(f"it holds {len(entries)} images, and {len(called)} are called that; give its digest")
        entries = called
    if not entries:
        raise ValueError("it holds no image")
    return entries[0]


def _names(entry: Mapping[str, Any]) -> set[str]:
    notes = entry.get("annotations") or {}
    return {str(notes.get(key)) for key in ("io.containerd.image.name", "org.opencontainers.image.ref.name")}


def _keep(source: IO[bytes], blob: Blob, cache: Cache, name: str, hint: str) -> None:
    target = cache.blob(blob.sha256)
    hasher = hashlib.sha256()
    with complete_or_absent(target, step=f"taking {name}") as part:
        with part.open("wb") as file:
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                file.write(chunk)
        if hasher.hexdigest() != blob.sha256:
            raise mismatch(name, blob.sha256, hasher.hexdigest(), code=Exit.FETCH, hint=hint)
