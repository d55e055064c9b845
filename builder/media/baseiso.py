"""The ISO that a remastered medium starts from: from a release, a URL or a path to a verified local file.

A lock is made with :func:`resolve`, which says which bytes the spec means today, and a build takes them with
:func:`obtain`. The lock holds no host name: a release's ISO is found again by its name and its digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from builder.cache import Cache
from builder.console import bar
from builder.errors import BuilderError, Exit
from builder.fetch import Item, fetch, get_size
from builder.files import mismatch, sha256_of
from builder.media import liveiso, ubunturelease
from builder.media.ubunturelease import UBUNTU, Trust

_HINT = "what was received is kept, and the next run resumes; see media.base_iso in the spec"
_CHANGED = "if it was meant to change: builder lock --update"


@dataclass(frozen=True)
class BaseIso:
    """What the spec says: one of ``release`` (``24.04``), ``url`` and ``path`` (below the spec's folder)."""

    release: str | None = None
    url: str | None = None
    path: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class LockedIso:
    """An ISO's identity; ``size`` in bytes."""

    name: str
    sha256: str
    size: int


def resolve(base: BaseIso, folder: Path, cache: Cache, trust: Trust = UBUNTU) -> LockedIso:
    """Which ISO the spec means now; ``folder`` is the spec's.

    A release's is named by the listing that Ubuntu signed. Anything else must be here to be known: a URL is
    fetched, and what is no live-server ISO is refused before it is pinned.

    Raises BuilderError: an unknown release, or a path without a file or with another digest than the spec's
    (SPEC); out of reach, not signed, or a URL's content with another digest (FETCH); no live-server ISO that we
    know (MEDIUM).
    """
    if base.release is not None:
        release = ubunturelease.number(base.release)
        image = ubunturelease.choose(release, base.sha256, trust)
        return LockedIso(image.name, image.sha256, _size(image, cache))
    if base.url is not None:
        (path,) = fetch([_url_item(base.url, base.sha256)], cache, title="fetching the base ISO").values()
        liveiso.read(path)
        return LockedIso(name_of(base.url), path.name, path.stat().st_size)
    path = _local(base, folder)
    liveiso.read(path)
    found = LockedIso(path.name, _digest(path), path.stat().st_size)
    if base.sha256 not in (None, found.sha256):
        raise mismatch(
            f"media.base_iso: {path}",
            str(base.sha256),
            found.sha256,
            hint="mend the digest in the spec, or the file",
            code=Exit.SPEC,
        )
    return found


def obtain(base: BaseIso, pinned: LockedIso, folder: Path, cache: Cache) -> Path:
    """The pinned ISO as a local file: from the cache, from where it is published, or where it lies.

    An ISO of a release that Ubuntu has moved away is taken from the archive of old releases.

    Raises BuilderError (FETCH): out of reach, gone from everywhere, or not the bytes that the lock says; (SPEC) a
    path without a file, or a lock that names no ISO of a release.
    """
    if base.path is not None:
        return _unchanged(_local(base, folder), pinned)
    blob = cache.blob(pinned.sha256)
    if blob.exists():
        return blob
    urls = (base.url,) if base.url is not None else ubunturelease.urls(pinned.name)
    item = Item(pinned.name, urls, pinned.sha256, pinned.size, hint=_HINT)
    return fetch([item], cache, title="fetching the base ISO")[pinned.sha256]


def name_of(url: str) -> str:
    """The file's name in a URL, without host or query. Pure."""
    return PurePosixPath(unquote(urlsplit(url).path)).name or "base.iso"


def _size(image: ubunturelease.Image, cache: Cache) -> int:
    """A listing has no sizes, so the servers are asked; if none of them will tell, the ISO itself does."""
    blob = cache.blob(image.sha256)
    if blob.exists():
        return blob.stat().st_size
    urls = ubunturelease.urls(image.name)
    for url in urls:
        if size := get_size(url):
            return size
    item = Item(image.name, urls, image.sha256, hint=_HINT)
    return fetch([item], cache, title="fetching the base ISO")[image.sha256].stat().st_size


def _url_item(url: str, sha256: str | None) -> Item:
    return Item(name_of(url), (url,), sha256, hint=_HINT)


def _local(base: BaseIso, folder: Path) -> Path:
    assert base.path is not None
    path = folder / base.path
    if not path.is_file():
        raise BuilderError(
            f"media.base_iso: there is no file {path}",
            hint="a path is relative to the spec's folder",
            code=Exit.SPEC,
        )
    return path


def _unchanged(path: Path, pinned: LockedIso) -> Path:
    size = path.stat().st_size
    if size != pinned.size:
        raise BuilderError(f"{path}: {size} bytes, the lock says {pinned.size}", hint=_CHANGED, code=Exit.FETCH)
    actual = _digest(path)
    if actual != pinned.sha256:
        raise mismatch(str(path), pinned.sha256, actual, hint=_CHANGED)
    return path


def _digest(path: Path) -> str:
    with bar(f"hashing {path.name}", path.stat().st_size) as advance:
        return sha256_of(path, advance)
