"""Images of a registry, through the fetch door, every byte by its digest.

Facts: the OCI distribution spec (``GET /v2/NAME/manifests/REFERENCE`` and ``/v2/NAME/blobs/DIGEST``), and the
tokens that are wanted even for public images (distribution's docs/spec/auth/token.md): the registry answers 401
and names a realm, which gives a token to anybody.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from builder.cache import Cache
from builder.containers import manifest as documents
from builder.containers.manifest import INDEXES, MANIFESTS, Blob, LockedImage
from builder.containers.reference import Reference, parse
from builder.errors import BuilderError, Exit
from builder.fetch import Item, Refusal, fetch_each, get_json

_HINT = "what was received is kept, and the next run resumes"
_BRING = "bring it as an OCI archive: `path` in the spec; `skopeo copy docker://… oci-archive:FILE` makes one"


class Caller(AuthBase):
    """Says which documents we read, and gets the token that a registry asks for, which goes to that host alone."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.token = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if "/manifests/" in (request.path_url or ""):
            request.headers["Accept"] = ", ".join((*INDEXES, *MANIFESTS))
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        request.register_hook("response", self._answer)  # type: ignore[no-untyped-call]
        return request

    def _answer(self, reply: requests.Response, **options: Any) -> requests.Response:
        """Ask once more, with a token, if the registry wants one. What a connection sends calls no hook again."""
        ours = urlsplit(reply.url).netloc == urlsplit(self.reference.url).netloc
        wanted = challenge(reply.headers.get("WWW-Authenticate", ""))
        if reply.status_code != 401 or not ours or not wanted:
            return reply
        realm = wanted.pop("realm")
        told = get_json(realm, wanted, None, _refusal(self.reference))
        self.token = str(told.get("token") or told.get("access_token") or "")
        _drain(reply)
        again = reply.request.copy()
        again.headers["Authorization"] = f"Bearer {self.token}"
        second: requests.Response = reply.connection.send(again, **options)
        second.history.append(reply)
        second.request = again
        return second


def challenge(header: str) -> dict[str, str]:
    """The parts of ``Bearer realm="…",service="…",scope="…"``; nothing if it is of another kind."""
    if not header.lower().startswith("bearer "):
        return {}
    parts = dict(re.findall(r'([a-z]+)="([^"]*)"', header))
    return parts if re.match("https?://", parts.get("realm", "")) else {}


def resolve(name: str, digest: str | None, cache: Cache) -> LockedImage:
    """What the tag of ``name`` means now, or what ``digest`` ("sha256:…") is, for our platform.

    Raises BuilderError: out of reach, refused or not there (FETCH); not for our platform (SPEC).
    """
    reference, caller = parse(name), Caller(parse(name))
    asked = digest or reference.tag
    top = _document(reference, caller, asked, digest.removeprefix("sha256:") if digest else None, None, cache)
    meant, manifest = top.sha256, top
    try:
        found = _read(top, cache)
        if documents.is_index(found):
            manifest = documents.ours(found)
            _document(reference, caller, f"sha256:{manifest.sha256}", manifest.sha256, manifest.size, cache)
            found = _read(manifest, cache)
        image = documents.locked(name, meant, manifest, found)
        fetch_each([_blob(reference, caller, image.config)], cache, title=f"fetching {name}")
        documents.require_platform(_read(image.config, cache))
    except (ValueError, KeyError, TypeError) as error:
        raise BuilderError(f"images: {name} cannot be used: {error}", code=Exit.SPEC) from None
    return image


def items(image: LockedImage) -> list[Item]:
    """Everything of a pinned image, for the fetch door."""
    reference, caller = parse(image.name), Caller(parse(image.name))
    first = _item(reference, caller, f"sha256:{image.manifest.sha256}", image.manifest.sha256, image.manifest.size)
    return [first, *(_blob(reference, caller, blob) for blob in image.blobs if blob != image.manifest)]


def _document(
    reference: Reference, caller: Caller, asked: str, sha256: str | None, size: int | None, cache: Cache
) -> Blob:
    (path,) = fetch_each([_item(reference, caller, asked, sha256, size)], cache, title=f"looking up {reference}")
    return Blob(path.name, path.stat().st_size)


def _read(blob: Blob, cache: Cache) -> dict[str, Any]:
    return documents.document(cache.blob(blob.sha256).read_bytes())


def _item(reference: Reference, caller: Caller, asked: str, sha256: str | None, size: int | None) -> Item:
    url = f"{reference.url}/manifests/{asked}"
    return Item(f"{reference}'s manifest", (url,), sha256, size, caller, _refusal(reference, asked), _HINT)


def _blob(reference: Reference, caller: Caller, blob: Blob) -> Item:
    url = f"{reference.url}/blobs/sha256:{blob.sha256}"
    name = f"{reference} {blob.sha256[:12]}"
    return Item(name, (url,), blob.sha256, blob.size, caller, _refusal(reference), _HINT)


def _refusal(reference: Reference, asked: str = "") -> Refusal:
    def explain(reply: requests.Response) -> BuilderError:
        if reply.status_code in (404, 410):
            what = f"{reference.host} has no image {reference.name} {asked}".rstrip()
            return BuilderError(f"images: {what}", hint=f"look at its name; else {_BRING}", code=Exit.FETCH)
        what = f"{reference.host} does not give {reference} to everybody ({reply.status_code} {reply.reason})"
        return BuilderError(f"images: {what}", hint=f"for a private image: {_BRING}", code=Exit.FETCH)

    return explain


def _drain(reply: requests.Response) -> None:
    """Read the rest of an answer, so that its connection can be used again."""
    _ = reply.content
    reply.close()
