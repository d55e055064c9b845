"""Where packages come from: the spec, else the environment, else this host's apt, else the distribution.

An engine's part may be of another distribution than the nodes. The spec's mirror is not its, and its variable in
the environment has the distribution's name: ``BUILDER_DEBIAN_MIRROR``.

No mirror is named in this project. The distribution's default is asked of mmdebstrap, which knows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.distributions import Distribution
from builder.run import run

VARIABLE = "BUILDER_MIRROR"
SECURITY_VARIABLE = "BUILDER_SECURITY_MIRROR"
VARIABLE_OF_ANOTHER = "BUILDER_{name}_MIRROR"


@dataclass(frozen=True)
class Mirror:
    """``uris``: archive label ("main", "security") → base URI without a final slash. ``origin`` says who chose.

    ``snapshot``: the base URI of an archive that still has what this one has dropped.
    """

    uris: Mapping[str, str]
    origin: str
    snapshot: str | None = None

    def urls(self, archive: str, path: str) -> tuple[str, ...]:
        """Where to ask for a file, first choice first; nothing for an archive that this mirror lacks."""
        if archive not in self.uris:
            return ()
        bases = (self.uris[archive], self.snapshot)
        return tuple(f"{base.rstrip('/')}/{path}" for base in bases if base)


def choose(spec: Mirror | None, target: Distribution) -> Mirror:
    """The mirror to build from, by the order above."""
    return spec or from_environment(os.environ) or from_host(Path("/"), target) or from_mmdebstrap(target)


def of_another(target: Distribution) -> Mirror:
    """The mirror of a distribution that the nodes do not run."""
    variable = VARIABLE_OF_ANOTHER.format(name=target.name.upper())
    environment = given(os.environ.get(variable), None, f"the environment ({variable})")
    return environment or from_host(Path("/"), target) or from_mmdebstrap(target)


def given(main: str | None, security: str | None, origin: str) -> Mirror | None:
    """A mirror that a person named; without a security archive its suites are left out."""
    if main is None:
        return None
    uris = {"main": main, "security": security} if security else {"main": main}
    return Mirror({label: uri.rstrip("/") for label, uri in uris.items()}, origin)


def from_environment(environ: Mapping[str, str]) -> Mirror | None:
    return given(environ.get(VARIABLE), environ.get(SECURITY_VARIABLE), f"the environment ({VARIABLE})")


def from_host(root: Path, target: Distribution) -> Mirror | None:
    """The mirrors that the host itself uses, when it runs (any release of) the same distribution."""
    release = root / "etc/os-release"
    if not release.exists():
        return None
    facts = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', release.read_text(), re.MULTILINE))
    codename = facts.get("VERSION_CODENAME")
    if facts.get("ID") != target.name or not codename:
        return None
    lists = [root / "etc/apt/sources.list", *sorted((root / "etc/apt/sources.list.d").glob("*"))]
    suites: dict[str, str] = {}
    for path in lists:
        if path.suffix in (".list", ".sources") and path.is_file():
            for uri, suite in parse_sources(path.read_text()):
                suites.setdefault(suite, uri.rstrip("/"))
    if codename not in suites:
        return None
    return given(suites[codename], suites.get(f"{codename}-security"), "this host's apt configuration")


def from_mmdebstrap(target: Distribution) -> Mirror:
    """The distribution's own default, as mmdebstrap would write it (nothing is downloaded for the answer).

    It is asked of an old release: mmdebstrap takes one that it does not know for Debian's, without a word.
    """
    asked = target.known_of_old
    done = run(
        [
            *("mmdebstrap", "--variant=custom", "--format=null", "--skip=update"),
            *('--setup-hook=cat "$1/etc/apt/sources.list"', asked, "-"),
        ],
        step="asking mmdebstrap for the default mirror",
    )
    uris = {suite: uri for uri, suite in parse_sources(done.stdout + done.stderr)}
    mirror = given(uris[asked], uris.get(f"{asked}-security"), "the distribution's default")
    assert mirror is not None
    return mirror


def parse_sources(text: str) -> list[tuple[str, str]]:
    """(URI, suite) of every binary source in apt's one-line or deb822 text, in order.

    Format: sources.list(5).
    """
    if re.search(r"^\s*Types\s*:", text, re.MULTILINE | re.IGNORECASE):
        return _parse_deb822(text)
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line)
        if match:
            found.append((match[1], match[2]))
    return found


def _parse_deb822(text: str) -> list[tuple[str, str]]:
    found = []
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            key.lower(): value.split()
            for key, value in re.findall(r"^([\w-]+)\s*:\s*((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        found += [(uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", [])]
    return found
