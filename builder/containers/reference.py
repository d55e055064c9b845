"""What an image is called: ``HOST[:PORT]/NAME:TAG``. Pure.

The grammar is that of github.com/distribution/reference (``regexp.go``). A name is written whole, registry and
tag included: which registry a short name means is a setting of whoever runs it, and must not decide what a node
gets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.spec.sizes import RuleError

_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)(:[0-9]{1,5})?|[A-Za-z0-9-]+:[0-9]{1,5}"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
PATTERN = rf"^({_HOST})/{_PART}(/{_PART})*:{_TAG}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
_HUB = "docker.io"
# The address of Docker Hub's registry is not the host that its names begin with.
_ADDRESSES = {_HUB: "registry-1.docker.io"}
_LOCAL = re.compile(r"(localhost|127\.[0-9.]+)(:[0-9]+)?")


@dataclass(frozen=True)
class Reference:
    """An image's name, in parts."""

    host: str
    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}:{self.tag}"

    @property
    def url(self) -> str:
        """Where the registry's API has this repository. As for Docker, only this machine's own may speak http."""
        scheme = "http" if _LOCAL.fullmatch(self.host) else "https"
        return f"{scheme}://{_ADDRESSES.get(self.host, self.host)}/v2/{self.name}"


def parse(text: str) -> Reference:
    """The parts of a name that :func:`image` has accepted."""
    host, _, rest = text.partition("/")
    name, _, tag = rest.rpartition(":")
    return Reference(host, name, tag)


def image(text: str) -> str:
    """A whole name. Raises RuleError saying which part is missing."""
    if "@" in text:
        name, _, digest = text.partition("@")
        raise RuleError(f"{text} holds a digest", f"write ref: {name} and digest: {digest}")
    if re.fullmatch(PATTERN, text):
        host, _, rest = text.partition("/")
        if host == _HUB and "/" not in rest:
            raise RuleError(f"{text} is Docker Hub's short form", f"write {_HUB}/library/{rest}")
        return text
    if re.fullmatch(PATTERN, f"{_HUB}/library/{text}"):
        whole = f"{_HUB}/{text}" if "/" in text else f"{_HUB}/library/{text}"
        raise RuleError(
            f"{text} does not say which registry it comes from", f"write {whole}, or another registry's"
        )
    if re.fullmatch(PATTERN, f"{text}:tag"):
        raise RuleError(f"{text} has no tag", f"write {text}:TAG; `latest` is a tag too")
    raise RuleError(f'"{text}" is not the name of an image', "write HOST/NAME:TAG, like ghcr.io/org/name:1.0")


def digest(text: str) -> str:
    """A digest with its algorithm in front. Raises RuleError."""
    if re.fullmatch("[0-9a-f]{64}", text):
        raise RuleError("lacks the name of its algorithm", f"write sha256:{text}")
    if not re.fullmatch(DIGEST, text):
        raise RuleError(f'"{text[:80]}" is not a digest', "write sha256: and 64 hex digits")
    return text
