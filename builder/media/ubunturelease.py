"""Ubuntu's releases: which live-server ISO there is, by the listing that Ubuntu signs.

Facts: a release's folder holds ``SHA256SUMS`` (lines of ``<sha256> *<file>``) and ``SHA256SUMS.gpg``, a detached
signature by the key in ``keys/ubuntu-cdimage.gpg``. Only the newest point releases stay there; the others move to
the archive of old releases, under the release, its codename and the point release alike.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder import resources
from builder.distributions import ubuntu as distribution
from builder.errors import BuilderError, Exit
from builder.fetch import get_bytes
from builder.run import run
from builder.spec.netrules import http
from builder.spec.sizes import RuleError

# Those whose installer we know, oldest first.
CODENAMES = {number: codename for codename, number in distribution.UBUNTU.numbers.items()}
CURRENT = "BUILDER_UBUNTU_RELEASES"
OLD = "BUILDER_UBUNTU_OLD_RELEASES"
# The only place; the environment variables above come first.
DEFAULTS: Mapping[str, str] = {
    CURRENT: "https://releases.ubuntu.com",
    OLD: "https://old-releases.ubuntu.com/releases",
}
SUMS = "SHA256SUMS"
_HINT = f"a mirror or a proxy gave something else, or half of it; {CURRENT} names another mirror"
_IMAGE = re.compile(r"([0-9a-f]{64}) [ *]ubuntu-([0-9]{2}\.[0-9]{2}(?:\.[0-9]+)?)-live-server-amd64\.iso")


@dataclass(frozen=True)
class Trust:
    """Whose signature a listing needs: a keyring as gpgv reads it, and the one key's fingerprint."""

    keyring: Path
    fingerprint: str


UBUNTU = Trust(resources.root() / "keys/ubuntu-cdimage.gpg", "843938DF228D22F7B3742BC0D94AA3F0EFE21092")


@dataclass(frozen=True)
class Image:
    """A live-server ISO as a listing names it; ``point`` is its point release, like ``24.04.3``."""

    point: str
    sha256: str

    @property
    def name(self) -> str:
        return f"ubuntu-{self.point}-live-server-amd64.iso"

    @property
    def order(self) -> tuple[int, ...]:
        """Greater is newer."""
        return tuple(int(part) for part in self.point.split("."))


def number(release: str) -> str:
    """``24.04`` of ``24.04`` or ``noble``. Raises BuilderError (SPEC) naming the releases that are known."""
    for known, codename in CODENAMES.items():
        if release in (known, codename):
            return known
    hint = "known: " + ", ".join(f'"{known}" ({codename})' for known, codename in CODENAMES.items())
    if release.rpartition(".")[0] in CODENAMES:
        hint += "; a point release is named by its digest: base_iso.sha256"
    raise BuilderError(f"media.base_iso: Ubuntu {release} is not known", hint=hint, code=Exit.SPEC)


def folders(release: str) -> tuple[str, ...]:
    """Where a release's listing may lie, in the order to try. Raises BuilderError (FETCH) for a bad variable."""
    old = _base(OLD)
    return (f"{_base(CURRENT)}/{release}", f"{old}/{release}", f"{old}/{CODENAMES[release]}")


def urls(name: str) -> tuple[str, ...]:
    """Where an ISO of this name may lie, in the order to try. Raises BuilderError (FETCH) for a bad variable."""
    found = re.fullmatch(r"ubuntu-(([0-9]{2}\.[0-9]{2})(?:\.[0-9]+)?)-live-server-amd64\.iso", name)
    if not found or found[2] not in CODENAMES:
        raise BuilderError(
            f"the lock's {name} is no live-server ISO of a known release",
            hint="make it anew: builder lock --update",
            code=Exit.SPEC,
        )
    return tuple(f"{folder}/{name}" for folder in (*folders(found[2]), f"{_base(OLD)}/{found[1]}"))


def choose(release: str, sha256: str | None = None, trust: Trust = UBUNTU) -> Image:
    """The newest live-server ISO of a release, or the one with this digest, which may be an old one.

    Raises BuilderError (FETCH): out of reach, no listing, one that is not signed by Ubuntu, or no such ISO in it.
    """
    seen: list[Image] = []
    for folder in folders(release):
        text = listing(folder, trust)
        if text is None:
            continue
        images = parse(text, release)
        if not images:
            raise BuilderError(
                f"{folder}/{SUMS} lists no ubuntu-{release}-live-server-amd64.iso, nor a point release of it",
                hint="a mirror that is incomplete, perhaps; or name the ISO by url or path",
                code=Exit.FETCH,
            )
        if sha256 is None:
            return images[-1]
        seen += images
        for image in images:
            if image.sha256 == sha256:
                return image
    if not seen:
        raise BuilderError(
            f"Ubuntu {release} has no {SUMS} with a signature in any of\n"
            + "\n".join(f"  {folder}" for folder in folders(release)),
            hint=f"{CURRENT} and {OLD} name mirrors",
            code=Exit.FETCH,
        )
    listed = "\n".join(f"  {image.sha256}  {image.name}" for image in seen)
    raise BuilderError(
        f"media.base_iso.sha256: Ubuntu {release} lists no live server with the digest {sha256}, but\n{listed}",
        hint="take one of these digests, or leave it out for the newest",
        code=Exit.FETCH,
    )


def parse(text: str, release: str) -> tuple[Image, ...]:
    """The live-server ISOs of this release in a listing, oldest first. Pure."""
    found = (_IMAGE.fullmatch(line.strip()) for line in text.splitlines())
    images = {Image(point=match[2], sha256=match[1]) for match in found if match}
    of_release = (image for image in images if image.point == release or image.point.startswith(f"{release}."))
    return tuple(sorted(of_release, key=lambda image: image.order))


def listing(folder: str, trust: Trust) -> str | None:
    """The listing in a folder, its signature checked; None if there is no listing.

    Raises BuilderError (FETCH): out of reach, or the signature is missing or not of that key.
    """
    sums = _get(f"{folder}/{SUMS}")
    if sums is None:
        return None
    signature = _get(f"{folder}/{SUMS}.gpg")
    if signature is None:
        raise BuilderError(f"{folder}/{SUMS} is not signed: there is no {SUMS}.gpg", hint=_HINT, code=Exit.FETCH)
    with tempfile.TemporaryDirectory(prefix="builder-signature-") as name:
        work = Path(name)
        (work / SUMS).write_bytes(sums)
        (work / f"{SUMS}.gpg").write_bytes(signature)
        done = run(gpgv_argv(trust, work), step=f"checking the signature of {SUMS}", check=False)
    if not is_good(done.stdout, trust.fingerprint):
        said = "\n".join(f"  | {line}" for line in done.stderr.strip().splitlines()[-5:])
        raise BuilderError(f"{folder}/{SUMS} is not what Ubuntu signed\n{said}", hint=_HINT, code=Exit.FETCH)
    return sums.decode(errors="replace")


def _get(url: str) -> bytes | None:
    try:
        return get_bytes(url)
    except BuilderError as error:
        hint = f"try again later; {CURRENT} names a mirror, and media.base_iso.path an ISO that is here already"
        raise BuilderError(error.message, hint=hint, code=error.code) from error


def gpgv_argv(trust: Trust, work: Path) -> list[str | Path]:
    """The command line that checks ``work/SHA256SUMS``. Pure."""
    return [
        *("gpgv", "--homedir", work, "--keyring", trust.keyring, "--status-fd", "1"),
        *(work / f"{SUMS}.gpg", work / SUMS),
    ]


def is_good(status: str, fingerprint: str) -> bool:
    """Whether gpgv found a valid signature of this key, and no bad one. Pure.

    Format: GnuPG's doc/DETAILS, ``VALIDSIG``, whose last word is the primary key. gpgv's exit status will not do:
    a listing that is signed by a second key, too, which we lack, is good.
    """
    lines = [words for line in status.splitlines() if (words := line.removeprefix("[GNUPG:]").split())]
    bad = any(words[0] in ("BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG") for words in lines)
    return not bad and any(words[0] == "VALIDSIG" and words[-1] == fingerprint for words in lines)


def _base(variable: str) -> str:
    """A base address without a final slash."""
    text = os.environ.get(variable, "").strip() or DEFAULTS[variable]
    try:
        return http(text).rstrip("/")
    except RuleError as error:
        raise BuilderError(
            f"the environment variable {variable} {error.message}", hint=error.hint, code=Exit.FETCH
        ) from None
