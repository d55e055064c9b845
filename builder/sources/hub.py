"""The Hugging Face hub: which files a repository has at a commit, and where their bytes are.

Facts (huggingface_hub, ``hf_api.py`` and ``file_download.py``): ``GET /api/models/REPO/revision/REVISION`` with
``blobs=true`` answers ``sha`` (the commit) and ``siblings``, each with ``rfilename``, ``size``, ``blobId`` (git's
own SHA-1) and, if the bytes lie in LFS, ``lfs.sha256``. ``GET /REPO/resolve/COMMIT/PATH`` gives the bytes, mostly
by a redirect to a content network with a link that is good for minutes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase

from builder.errors import BuilderError, Exit
from builder.fetch import Item, Refusal, get_json
from builder.spec.netrules import http
from builder.spec.sizes import RuleError

DEFAULT = "https://huggingface.co"  # the only place; the environment variable below comes first
ENDPOINT = "HF_ENDPOINT"


@dataclass(frozen=True)
class Repo:
    """A repository at a revision; ``token_env`` names the variable with the token, if one is needed."""

    name: str
    revision: str = "main"
    token_env: str | None = None

    def __str__(self) -> str:
        return f"{self.name} at {self.revision}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: ``size`` in bytes; either ``sha256`` or git's ``oid`` is known."""

    path: str
    size: int
    sha256: str | None
    oid: str | None


@dataclass(frozen=True)
class Snapshot:
    """A repository's files at one commit, by path."""

    commit: str
    files: tuple[RemoteFile, ...]


class Bearer(AuthBase):
    """Signs requests to the hub with the token that an environment variable holds.

    It keeps the variable's name only. requests drops the header when a redirect leads to another host.
    """

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {_token(self.variable)}"
        return request


def endpoint() -> str:
    """The hub's address without a final slash. Raises BuilderError (FETCH) if the environment's is no URL."""
    text = os.environ.get(ENDPOINT, "").strip() or DEFAULT
    try:
        return http(text).rstrip("/")
    except RuleError as error:
        raise BuilderError(
            f"the environment variable {ENDPOINT} {error.message}", hint=error.hint, code=Exit.FETCH
        ) from None


def snapshot(repo: Repo) -> Snapshot:
    """Ask the hub what ``repo`` is made of, and resolve its revision to a commit.

    Raises BuilderError (FETCH): out of reach, refused, or an answer that cannot be trusted with file names.
    """
    url = f"{endpoint()}/api/models/{repo.name}/revision/{quote(repo.revision, safe='')}"
    return parse(repo, get_json(url, {"blobs": "true"}, _auth(repo), _refusal(repo)))


def parse(repo: Repo, answer: Any) -> Snapshot:
    """Pure: the hub's answer, held to what we rely on. Raises BuilderError (FETCH)."""
    try:
        commit = answer["sha"]
        files = tuple(sorted(map(_file, answer["siblings"]), key=lambda file: file.path))
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise ValueError(f"{commit!r} is not a commit")
        if re.fullmatch("[0-9a-f]{40}", repo.revision) and commit != repo.revision:
            raise ValueError(f"it answers for the commit {commit}")
        _require_apart([file.path for file in files])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise BuilderError(f"the hub's list of {repo} cannot be used: {detail}", code=Exit.FETCH) from None
    return Snapshot(commit, files)


def chosen(repo: Repo, files: Sequence[RemoteFile], globs: Sequence[str]) -> tuple[RemoteFile, ...]:
    """The files that the globs take (all without globs); ``*`` takes ``/`` too, as the hub's own tools have it.

    Raises BuilderError (SPEC) for each glob that takes none.
    """
    idle = [glob for glob in globs if not any(fnmatchcase(file.path, glob) for file in files)]
    if idle or not files:
        some = ", ".join(file.path for file in files[:20]) + (", …" if len(files) > 20 else "")
        what = f"no file is like {' or like '.join(idle)}" if idle else "the repository is empty"
        raise BuilderError(
            f"models: {repo}: {what}", hint=f"its {len(files)} files: {some}" if files else "", code=Exit.SPEC
        )
    return tuple(file for file in files if not globs or any(fnmatchcase(file.path, glob) for glob in globs))


def item(repo: Repo, commit: str, path: str, sha256: str | None, size: int) -> Item:
    """One file of a repository for the fetch door."""
    return Item(
        name=f"{repo.name}/{path}",
        urls=(f"{endpoint()}/{repo.name}/resolve/{commit}/{quote(path)}",),
        sha256=sha256,
        size=size,
        auth=_auth(repo),
        refusal=_refusal(repo, path),
        hint="what was received is kept, and the next run resumes",
    )


def require_oid(file: RemoteFile, content: Path) -> None:
    """Hold a small file to git's object id (SHA-1 over a header and the bytes). Raises BuilderError (FETCH)."""
    data = content.read_bytes()
    actual = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if actual != file.oid:
        content.unlink()
        raise BuilderError(
            f"{file.path}: wrong content\n  the hub promised git blob {file.oid}\n  got               {actual}",
            hint="the bad copy was removed",
            code=Exit.FETCH,
        )


def unsafe(path: str) -> str:
    """Why a path may not become a file below a folder of ours; empty when it may. Pure."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        return "leads out of its folder"
    if not all(parts) or "." in parts or len(path) > 1024 or any(len(part.encode()) > 255 for part in parts):
        return "is not a plain path"
    return "" if path.isprintable() and "\\" not in path else "has characters that no file name should have"


def _file(entry: Any) -> RemoteFile:
    path, lfs = entry["rfilename"], entry.get("lfs")
    if complaint := unsafe(path):
        raise ValueError(f"the name {path!r} {complaint}")
    sha256 = lfs["sha256"].removeprefix("sha256:") if lfs else None
    oid = None if lfs else entry["blobId"]
    size = lfs["size"] if lfs else entry["size"]
    if not re.fullmatch("[0-9a-f]{64}" if lfs else "[0-9a-f]{40}", sha256 or oid or ""):
        raise ValueError(f"{path} comes without a digest")
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"{path} comes without a size")
    return RemoteFile(path, size, sha256, oid)


def _require_apart(paths: Sequence[str]) -> None:
    """No path twice, and none that is a file and a folder at once."""
    seen = set(paths)
    if len(seen) != len(paths):
        raise ValueError("it names a file twice")
    for path in paths:
        parents = (path[:i] for i, char in enumerate(path) if char == "/")
        if clash := seen.intersection(parents):
            raise ValueError(f"{clash.pop()} is both a file and a folder")


def _auth(repo: Repo) -> AuthBase | None:
    """How to sign requests; None for a repository that anyone may read.

    Raises BuilderError (FETCH) if the token would leave this machine unencrypted.
    """
    if repo.token_env is None:
        return None
    address = urlsplit(endpoint())
    if address.scheme != "https" and address.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise BuilderError(
            f"the token in {repo.token_env} would go over the network in the clear",
            hint=f"use an https address in {ENDPOINT}, or leave token_env out",
            code=Exit.FETCH,
        )
    return Bearer(repo.token_env)


def _token(variable: str) -> str:
    """The token itself. No message may quote it, so what http would complain about is refused here."""
    token = os.environ.get(variable, "").strip()
    if not token:
        hint = f"export {variable}=…, with a token that may read the repository"
        raise BuilderError(f"the environment variable {variable} is not set", hint=hint, code=Exit.FETCH)
    if not re.fullmatch("[!-~]+", token):
        raise BuilderError(
            f"the environment variable {variable} does not hold a token",
            hint="a token has no spaces and no characters beyond ASCII",
            code=Exit.FETCH,
        )
    return token


def _refusal(repo: Repo, path: str = "") -> Refusal:
    """What the hub's refusals mean, for one file of the repository or for its list."""

    def explain(reply: requests.Response) -> BuilderError:
        message, hint = _meaning(repo, path, reply.status_code, reply.headers.get("X-Error-Code", ""))
        return BuilderError(f"{repo.name}: {message}", hint=hint, code=Exit.FETCH)

    return explain


def _meaning(repo: Repo, path: str, status: int, code: str) -> tuple[str, str]:
    """Message and hint. The hub answers 401 for what does not exist, too, unless it knows who asks."""
    variable = repo.token_env
    if code == "RevisionNotFound":
        return f"it has no commit, branch or tag {repo.revision}", "see `revision` in the spec"
    if status in (404, 410):
        if path:
            return f"it has no file {path} any more", "builder lock --update takes what is there now"
        return "the hub has no such repository, or the token may not see it", "see `repo` in the spec"
    if code == "GatedRepo" or status == 403:
        terms = f"accept its terms on its page, {endpoint()}/{repo.name}, with your account"
        if variable:
            return (
                f"it is gated, and the account of the token in {variable} has no access",
                f"{terms}; a fine-grained token also needs the right to read gated repositories",
            )
        return "it is gated", f"{terms}, and name a variable with that account's token: token_env: HF_TOKEN"
    if variable:
        return (
            f"the hub does not take the token in {variable}, or there is no such repository",
            f"make a new token, and export {variable}=…; see `repo` in the spec",
        )
    return (
        "it is private or gated, or there is no such repository",
        "if the name is right, name a variable with a token that may read it: token_env: HF_TOKEN",
    )
