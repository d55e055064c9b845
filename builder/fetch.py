"""The one door to the network: files come in by digest, in parallel, and a cut download resumes.

A file is written to the cache's ``partial`` folder and gets its place among the blobs only when its
digest is right. A wrong digest removes the bad copy and names both digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.files import mismatch, naming_full_disk, need_room, sha256_of
from builder.progress import Bars

TRIES = 5  # in a row that bring nothing
JOBS = 6
ARCHIVE_HINT = (
    "what was received is kept, and the next run resumes; an archive drops old versions: "
    "`builder lock --update` picks the current ones, `distribution.snapshot` names one that keeps them"
)
UNTRUSTED_HINT = (
    "is this host's clock right? A proxy that looks into https has an authority of its own, and "
    "REQUESTS_CA_BUNDLE=FILE names its certificate"
)
_CHUNK = 1 << 16  # a cut loses what is short of a whole chunk
_TIMEOUT = (15, 60)  # seconds to connect, and between two packets
_REFUSED = (401, 403)
_GONE = (404, 410)

_T = TypeVar("_T")

# What an answer of 401, 403, 404 or 410 means to whoever asked.
Refusal = Callable[[requests.Response], BuilderError]


@dataclass(frozen=True)
class Item:
    """A file to have: tried at each URL in turn. ``size`` in bytes; an unknown digest is None.

    ``auth`` signs the request to the URL itself; a redirect to another host does not take it along.
    ``refusal`` explains a final answer better than its number; ``hint`` is for everything else.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    size: int | None = None
    auth: AuthBase | None = None
    refusal: Refusal | None = None
    hint: str = ARCHIVE_HINT

    @property
    def key(self) -> str:
        """Names the partial download: by content, else by where it comes from."""
        return self.sha256 or hashlib.sha256(self.urls[0].encode()).hexdigest()


class _UntrustedError(BuilderError):
    """A server shows a certificate that this host does not trust; asking it again would not mend that."""

    def __init__(self, url: str, reason: str) -> None:
        message = f"{urlsplit(url).netloc} shows a certificate that this host does not trust: {reason}"
        super().__init__(message, hint=UNTRUSTED_HINT, code=Exit.FETCH)


class _StoppedError(Exception):
    """Another download failed, so this one does not go on."""


def fetch(items: Sequence[Item], cache: Cache, *, title: str) -> dict[str, Path]:
    """Bring every item into the cache; returns the path of each by its sha256.

    Raises BuilderError (FETCH): out of reach, refused, gone from every URL, or wrong content. The first
    failure stops the downloads beside it; what they received is kept.
    """
    return {path.name: path for path in fetch_each(items, cache, title=title)}


def fetch_each(items: Sequence[Item], cache: Cache, *, title: str) -> tuple[Path, ...]:
    """As :func:`fetch`; returns the paths in the order of the items."""
    missing = {item.key: item for item in items if item.sha256 is None or not cache.blob(item.sha256).exists()}
    total = sum(item.size or 0 for item in missing.values())
    here = sum(min(_size(cache.partial(key)), item.size or 0) for key, item in missing.items())
    need_room(cache.root, total - here, step=title)
    paths = {item.key: cache.blob(item.key) for item in items}
    stop = threading.Event()
    with contextlib.closing(Bars(title, total, JOBS)) as bars, ThreadPoolExecutor(JOBS) as pool:
        futures = {pool.submit(_fetch_one, item, cache, bars, stop): key for key, item in missing.items()}
        try:
            for future in as_completed(futures):
                paths[futures[future]] = future.result()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
    return tuple(paths[item.key] for item in items)


def get_json(url: str, params: Mapping[str, str], auth: AuthBase | None, refusal: Refusal) -> Any:
    """The JSON document at ``url``. Raises BuilderError (FETCH) naming the URL without ``params``."""

    def use(reply: requests.Response) -> Any:
        if _is_final(reply, url):
            raise refusal(reply)
        return reply.json()

    return _ask(url, use, params=params, auth=auth)


def get_bytes(url: str, limit: int = 1 << 20) -> bytes | None:
    """The small file at ``url``, or None if the server says that there is none.

    Raises BuilderError (FETCH): out of reach, refused, or larger than ``limit`` bytes.
    """

    def use(reply: requests.Response) -> bytes | None:
        if reply.status_code in _GONE:
            return None
        if not reply.ok:
            raise BuilderError(f"{url}: {_answer(reply)}", code=Exit.FETCH)
        data = b""
        for chunk in reply.iter_content(_CHUNK):
            data += chunk
            if len(data) > limit:
                raise BuilderError(f"{url}: more than {limit} bytes, which it cannot be", code=Exit.FETCH)
        return data

    return _ask(url, use, stream=True)


def get_size(url: str) -> int | None:
    """How many bytes the file at ``url`` has, if the server will tell; it is only a claim.

    Raises BuilderError (FETCH) if the server is out of reach.
    """

    def use(reply: requests.Response) -> int | None:
        told = reply.headers.get("Content-Length", "")
        return int(told) if reply.ok and told.isdecimal() else None

    return _ask(url, use, method="HEAD", any_answer=True, headers={"Accept-Encoding": "identity"})


def _ask(
    url: str,
    use: Callable[[requests.Response], _T],
    *,
    method: str = "GET",
    any_answer: bool = False,
    **options: Any,
) -> _T:
    """Ask until ``use`` can take the answer: a good one, one that asking again would not mend, or any at all."""
    complaint = ""
    for wait in _pauses():
        threading.Event().wait(wait)
        try:
            with requests.request(method, url, timeout=_TIMEOUT, **options) as reply:
                if reply.ok or any_answer or _is_final(reply, url):
                    return use(reply)
                complaint = _answer(reply)
        except requests.RequestException as error:
            _require_trusted(url, error)
            complaint = _in_short(error)
    raise BuilderError(f"{url}: {complaint} ({TRIES} tries)", hint="try again later", code=Exit.FETCH)


def _fetch_one(item: Item, cache: Cache, bars: Bars, stop: threading.Event) -> Path:
    """Download one item and give its bytes their place; returns the blob's path, named by its digest."""
    partial = cache.partial(item.key)
    partial.parent.mkdir(parents=True, exist_ok=True)
    complaints, hint = [], item.hint
    with bars.file(item.name, item.size) as at:
        for url in item.urls:
            try:
                complaint = _download(url, item, partial, at, stop)
            except _UntrustedError as error:
                complaint, hint = error.message, error.hint
            if complaint is None:
                break
            complaints.append(f"{url}: {complaint}")
        else:
            raise BuilderError(
                f"{item.name} could not be downloaded\n" + "\n".join(f"  {text}" for text in complaints),
                hint=hint,
                code=Exit.FETCH,
            )
    actual = _digest(item, partial, bars, stop)
    if item.sha256 is not None and actual != item.sha256:
        partial.unlink()
        raise mismatch(item.name, item.sha256, actual, hint="the bad copy was removed")
    blob = cache.blob(actual)
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(blob)
    return blob


def _digest(item: Item, partial: Path, bars: Bars, stop: threading.Event) -> str:
    """The SHA-256 of what was received; for weights this takes minutes."""
    done = 0
    with bars.file(f"checking {item.name}", partial.stat().st_size, counts=False) as at:

        def advance(count: int) -> None:
            nonlocal done
            if stop.is_set():
                raise _StoppedError
            done += count
            at(done)

        return sha256_of(partial, advance)


def _download(url: str, item: Item, partial: Path, at: Callable[[int], None], stop: threading.Event) -> str | None:
    """Download ``url`` on top of what ``partial`` holds; returns the complaint if it cannot be had.

    It gives up after TRIES that bring nothing, so a long download may be cut any number of times.
    """
    complaint = ""
    pauses = _pauses()
    furthest = _size(partial)
    while (pause := next(pauses, None)) is not None:
        if stop.wait(pause):
            raise _StoppedError
        have = _size(partial)
        if item.size is not None and have > item.size:
            partial.unlink()
            have = 0
        at(have)
        if item.size is not None and have == item.size:
            partial.touch()
            return None
        # Ranges are of the bytes themselves, so a server must not compress them.
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        try:
            with requests.get(url, headers=headers, auth=item.auth, stream=True, timeout=_TIMEOUT) as reply:
                if reply.status_code == 416:  # what we hold does not belong to what is there now
                    partial.unlink(missing_ok=True)
                elif _is_final(reply, url):
                    if item.refusal:
                        raise item.refusal(reply)
                    return _answer(reply)
                elif reply.ok:
                    with naming_full_disk(f"downloading {item.name}", partial.parent):
                        _append(reply, partial, at, stop)
                    return None
                complaint = _answer(reply)
        except requests.RequestException as error:
            _require_trusted(url, error)
            complaint = _in_short(error)
        if _size(partial) > furthest:
            furthest = _size(partial)
            pauses = _pauses(again=True)
    return f"{complaint} ({TRIES} tries)"


def _append(reply: requests.Response, partial: Path, at: Callable[[int], None], stop: threading.Event) -> None:
    with partial.open("ab" if reply.status_code == 206 else "wb") as file:
        for chunk in _unless(stop, reply.iter_content(_CHUNK)):
            file.write(chunk)
            at(file.tell())


def _unless(stop: threading.Event, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if stop.is_set():
            raise _StoppedError
        yield chunk


def _pauses(*, again: bool = False) -> Iterator[float]:
    """Seconds to wait before each try: a busy mirror needs air, not luck."""
    for attempt in range(1 if again else 0, TRIES):
        yield min(2**attempt, 20) / 4 if attempt else 0


def _is_final(reply: requests.Response, url: str) -> bool:
    """Whether asking again is of no use.

    A refusal by another host than the one that was asked is not final: links to a content network are signed
    for minutes, and the next try gets a new one.
    """
    asked, answered = urlsplit(url), urlsplit(reply.url)
    same = (asked.scheme, asked.netloc) == (answered.scheme, answered.netloc)
    return reply.status_code in _GONE or (reply.status_code in _REFUSED and same)


def _answer(reply: requests.Response) -> str:
    """Without the address, which may have been signed."""
    return f"the server answered {reply.status_code} {reply.reason}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_trusted(url: str, error: requests.RequestException) -> None:
    """Raises _UntrustedError if the server's certificate is the trouble."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        asked = (error.request and error.request.url) or url  # a redirect may have led elsewhere
        raise _UntrustedError(asked, cause.verify_message) from None


def _in_short(error: requests.RequestException) -> str:
    cause = _cause(error)
    return f"{type(cause).__name__}: {cause}"


def _cause(error: BaseException) -> BaseException:
    """The last link of requests' chain of causes, which is the one that tells."""
    while error.__context__ is not None:
        error = error.__context__
    return error
