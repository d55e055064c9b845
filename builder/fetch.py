"""The one door to the network: files come in by digest, in parallel, and a cut download resumes.

A file is written to the cache's ``partial`` folder and gets its place among the blobs only when its
digest is right. A wrong digest removes the bad copy and names both digests.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests

from builder.cache import Cache
from builder.console import bar
from builder.errors import BuilderError, Exit
from builder.files import mismatch, naming_full_disk, need_room, sha256_of

TRIES = 5
JOBS = 6
_CHUNK = 1 << 16  # a cut loses what is short of a whole chunk
_TIMEOUT = (15, 60)  # seconds to connect, and between two packets


@dataclass(frozen=True)
class Item:
    """A file to have: tried at each URL in turn. ``size`` in bytes; an unknown digest is None."""

    name: str
    urls: tuple[str, ...]
    sha256: str | None
    size: int | None = None


def fetch(items: Sequence[Item], cache: Cache, *, title: str) -> dict[str, Path]:
    """Bring every item into the cache; returns the path of each by its sha256.

    Raises BuilderError (FETCH): out of reach, gone from every URL, or wrong content.
    """
    missing = [item for item in items if item.sha256 is None or not cache.blob(item.sha256).exists()]
    total = sum(item.size or 0 for item in missing)
    need_room(cache.root, total, step=title)
    with bar(title, total) as advance, ThreadPoolExecutor(JOBS) as pool:
        futures = [pool.submit(_fetch_one, item, cache, advance) for item in missing]
        try:
            fetched = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
    paths = {item.sha256: cache.blob(item.sha256) for item in items if item.sha256 is not None}
    return paths | {path.name: path for path in fetched}


def _fetch_one(item: Item, cache: Cache, advance: Callable[[int], object]) -> Path:
    """Download one item and give its bytes their place; returns the blob's path, named by its digest."""
    partial = cache.partial(item.sha256 or hashlib.sha256(item.urls[0].encode()).hexdigest())
    partial.parent.mkdir(parents=True, exist_ok=True)
    complaints = []
    for url in item.urls:
        complaint = _download(url, item, partial, advance)
        if complaint is None:
            break
        complaints.append(f"{url}: {complaint}")
    else:
        raise BuilderError(
            f"{item.name} could not be downloaded\n" + "\n".join(f"  {text}" for text in complaints),
            hint="what was received is kept, and the next run resumes; an archive drops old versions: "
            "`builder lock --update` picks the current ones, `distribution.snapshot` names one that keeps them",
            code=Exit.FETCH,
        )
    actual = sha256_of(partial)
    if item.sha256 is not None and actual != item.sha256:
        partial.unlink()
        raise mismatch(item.name, item.sha256, actual, hint="the bad copy was removed")
    blob = cache.blob(actual)
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(blob)
    return blob


def _download(url: str, item: Item, partial: Path, advance: Callable[[int], object]) -> str | None:
    """Download ``url`` on top of what ``partial`` holds; returns the complaint if it cannot be had."""
    complaint = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(2**attempt, 20) / 4)  # back off: a busy mirror needs air, not luck
        have = partial.stat().st_size if partial.exists() else 0
        if item.size is not None and have == item.size:
            return None
        if item.size is not None and have > item.size:
            partial.unlink()
            have = 0
        try:
            headers = {"Range": f"bytes={have}-"} if have else {}
            with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as reply:
                if reply.status_code == 416:  # what we hold does not belong to what is there now
                    partial.unlink()
                    continue
                if reply.status_code in (401, 403, 404, 410):
                    return f"the server answered {reply.status_code} {reply.reason}"
                reply.raise_for_status()
                resumed = reply.status_code == 206
                with naming_full_disk(f"downloading {item.name}", partial.parent):
                    _append(reply, partial, resumed, advance)
            return None
        except requests.RequestException as error:
            complaint = _in_short(error)
    return f"{complaint} ({TRIES} tries)"


def _append(reply: requests.Response, partial: Path, resumed: bool, advance: Callable[[int], object]) -> None:
    with partial.open("ab" if resumed else "wb") as file:
        for chunk in reply.iter_content(_CHUNK):
            file.write(chunk)
            advance(len(chunk))


def _in_short(error: requests.RequestException) -> str:
    """The last link of requests' chain of causes, which is the one that tells."""
    cause: BaseException = error
    while cause.__context__ is not None:
        cause = cause.__context__
    return f"{type(cause).__name__}: {cause}"
