"""Packages: what apt would install, decided by apt itself in a private root, without root rights.

The archive's signature is checked here, against the distribution's keyring, when a lock is made; from then
on every package is held to the SHA-256 in the lock. :func:`repository` turns fetched packages into an archive
that mmdebstrap installs from without a network.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

from builder import host
from builder.distributions import Distribution, Foreign
from builder.errors import BuilderError, Exit
from builder.files import link_or_copy
from builder.run import run
from builder.sources import pgp
from builder.sources.mirror import Mirror


@dataclass(frozen=True, order=True)
class Package:
    """A pinned package: ``path`` below the base URI of the archive called ``archive``; ``size`` in bytes."""

    name: str
    version: str
    architecture: str
    archive: str
    path: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@dataclass(frozen=True)
class Resolution:
    """The packages, sorted, and the date of the newest archive index (seconds since 1970)."""

    packages: tuple[Package, ...]
    epoch: int


def resolve(target: Distribution, mirror: Mirror, names: Sequence[str]) -> Resolution:
    """Every package that installing ``names`` on an empty root brings, essential ones included.

    Raises BuilderError: an archive that is out of reach or not signed by the keyring (FETCH), a package that
    does not exist (SPEC).
    """
    essential = f"?narrow(?codename(^{target.codename}$),?architecture({target.architecture}),?essential)"
    return _resolve(target, mirror, [essential, "apt", *names])


def resolve_part(target: Distribution, mirror: Mirror, names: Sequence[str]) -> tuple[Package, ...]:
    """``names`` and what they depend on, for a root that is only unpacked and never configured.

    Raises as :func:`resolve`.
    """
    return _resolve(target, mirror, names).packages


def _resolve(target: Distribution, mirror: Mirror, asked: Sequence[str]) -> Resolution:
    if not target.keyring.exists():
        raise BuilderError(
            f"the archive's keyring {target.keyring} is not there",
            hint=f"install the package {target.keyring_package}: {_where(target.keyring_package)}",
        )
    with tempfile.TemporaryDirectory(prefix="builder-apt-") as folder:
        config = _private_root(Path(folder), target, mirror)
        env = {"APT_CONFIG": str(config)}
        run(["apt-get", "update", "--error-on=any"], step="reading the package archive", env=env, code=Exit.FETCH)
        shown = run(
            ["apt-get", "install", "--yes", "--print-uris", *asked],
            step="resolving packages",
            env=env,
            code=Exit.SPEC,
        )
        uris = re.findall(r"^'([^']+)' (\S+) ", shown.stdout, re.MULTILINE)
        # apt-cache show prints one stanza a name; the exact version is part of the question.
        wanted = ["=".join(unquote(file).split("_")[:2]) for _uri, file in uris]
        records = parse_records(
            run(["apt-cache", "show", *wanted], step="reading package records", env=env).stdout
        )
        packages = tuple(sorted(_packages(records, [unquote(uri) for uri, _ in uris], mirror)))
        epoch = max(_date(path) for path in (Path(folder) / "lists").glob("*Release"))
    if len(packages) != len(uris):
        raise BuilderError(f"apt named {len(uris)} packages but described {len(packages)}", code=Exit.BUG)
    return Resolution(packages, epoch)


def _where(package: str) -> str:
    """How a host comes by a package that is not in every release's own archive."""
    if any(tool.package == package for tool in host.BUILD):
        return "`builder doctor --install` does"
    return f"apt-get install {package}; Debian 12 has it in bookworm-backports"


def parse_records(text: str) -> list[dict[str, str]]:
    """The stanzas of deb822 text such as a Packages file; continuation lines are dropped."""
    stanzas = [stanza for stanza in re.split(r"\n\n+", text) if stanza.strip()]
    return [dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE)) for stanza in stanzas]


def sources_list(target: Distribution, mirror: Mirror, keys: Path = Path("/")) -> str:
    """One-line apt sources for every suite of the release that the mirror has, and for others' archives.

    ``keys``: the folder that holds the keys of those.
    """
    components = " ".join(target.components)
    own = (
        f"deb [signed-by={target.keyring}] {mirror.uris[label]} {suite} {components}\n"
        for label, suite in target.suites
        if label in mirror.uris
    )
    others = (f"deb [signed-by={keys / _key_name(one)}] {mirror.uris[one.label]} ./\n" for one in target.foreign)
    return "".join((*own, *others))


def _preferences(foreign: Foreign) -> str:
    """apt's pins: the branch, and nothing of another. Format: apt_preferences(5)."""
    if not foreign.branch:
        return ""
    names = " ".join(foreign.names)
    # Of the entries that name a package, the first decides.
    apart = f"Package: {' '.join(foreign.apart)}\nPin: release *\nPin-Priority: 500\n\n" if foreign.apart else ""
    wanted = f"Package: {names}\nPin: version {foreign.branch}.*\nPin-Priority: 1000\n"
    return f"{apart}{wanted}\nPackage: {names}\nPin: release *\nPin-Priority: -1\n"


def _key_name(foreign: Foreign) -> str:
    """apt tells an armoured key by its file's ending."""
    return f"{foreign.label}.{'asc' if pgp.is_armoured(foreign.key) else 'gpg'}"


def repository(folder: Path, packages: Sequence[Package], blobs: Mapping[str, Path], *, codename: str) -> None:
    """Make ``folder`` a flat archive of exactly these packages (blobs by sha256), readable by everyone.

    It is only ever read by path, with ``deb [trusted=yes] copy:FOLDER ./``: each file has just been held to
    the lock's digest, which binds harder than a signature.
    """
    folder.chmod(0o755)  # in unshare mode apt reads it as another user
    for package in packages:
        target = folder / package.file_name
        link_or_copy(blobs[package.sha256], target)
        target.chmod(0o644)
    _index(folder, "Packages", ["packages", "."])
    # mmdebstrap looks for essential packages in the suite that it was told, so the archive must say its name.
    _index(folder, "Release", ["-o", f"APT::FTPArchive::Release::Codename={codename}", "release", "."])


def _index(folder: Path, name: str, what: Sequence[str]) -> None:
    hashes = [f"-oAPT::FTPArchive::{weak}=false" for weak in ("MD5", "SHA1", "SHA512")]
    done = run(["apt-ftparchive", *hashes, *what], step="indexing the packages", cwd=folder)
    (folder / name).write_text(done.stdout)


def _private_root(folder: Path, target: Distribution, mirror: Mirror) -> Path:
    """Write an apt configuration that reads and writes nothing outside ``folder`` but the keyring."""
    for name in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    for foreign in target.foreign:
        (folder / _key_name(foreign)).write_bytes(foreign.key)
        (folder / "etc/preferences.d" / foreign.label).write_text(_preferences(foreign))
    (folder / "sources.list").write_text(sources_list(target, mirror, folder))
    config = folder / "apt.conf"
    config.write_text(
        f'''
        Dir::Etc "{folder}/etc";
        Dir::Etc::SourceList "{folder}/sources.list";
        Dir::Etc::SourceParts "-";
        Dir::Etc::TrustedParts "-";
        Dir::State "{folder}";
        Dir::State::Lists "{folder}/lists";
        Dir::State::Status "{folder}/status";
        Dir::Cache "{folder}/cache";
        APT::Architecture "{target.architecture}";
        APT::Architectures {{ "{target.architecture}"; }};
        APT::Install-Recommends "false";
        APT::Sandbox::User "";
        Acquire::Languages "none";
        Acquire::Retries "3";
        // A testing release's index is valid for a week only, and mirrors lag. The lock shows what was taken.
        Acquire::Check-Valid-Until "false";
        '''
    )
    return config


def _packages(records: Sequence[Mapping[str, str]], uris: Sequence[str], mirror: Mirror) -> Iterator[Package]:
    """Match each record to the URI that apt would take it from, which tells its archive."""
    archive_of = {}
    for uri in uris:
        for label, base in mirror.uris.items():
            if uri.startswith(base + "/"):
                archive_of[uri.removeprefix(base + "/").removeprefix("./")] = label
    for record in records:
        path = record["Filename"].removeprefix("./")
        if path in archive_of:
            yield Package(
                name=record["Package"],
                version=record["Version"],
                architecture=record["Architecture"],
                archive=archive_of[path],
                path=path,
                size=int(record["Size"]),
                sha256=record["SHA256"],
            )


def _date(release: Path) -> int:
    found = re.search(r"^Date: (.+)$", release.read_text(errors="replace"), re.MULTILINE)
    return int(parsedate_to_datetime(found[1]).timestamp()) if found else 0
