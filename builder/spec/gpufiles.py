"""The files that a spec's ``gpu`` section names: a signing key, patches, an archive's key. Reads, never writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from builder.sources import pgp
from builder.spec.finding import Finding, Keys
from builder.spec.gpu import Gpu, Mok, Patch, Repository
from builder.spec.sizes import RuleError

_LIMIT = 4 << 20  # bytes; no key and no patch is near


def resolve(gpu: Gpu | None, base: Path) -> tuple[Gpu | None, tuple[Finding, ...]]:
    """The section with what its files held, and what is wrong. Paths start at ``base``. Takes a draft."""
    if gpu is None:
        return None, ()
    findings: list[Finding] = []
    findings += (one for i, patch in enumerate(gpu.patches) if patch for one in _patch(patch, i, base))
    changed: dict[str, object] = {}
    if gpu.mok is not None:
        mok, wrong = _mok(gpu.mok, base)
        findings += wrong
        changed["mok"] = mok
    if gpu.repository is not None:
        repository, wrong = _repository(gpu.repository, base)
        findings += wrong
        changed["repository"] = repository
    return gpu.model_copy(update=changed), tuple(findings)


def _read(name: str, base: Path) -> bytes:
    """A small file. Raises RuleError if there is none."""
    path = base / Path(name).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError:
        raise RuleError(f"{name} does not exist", "the path starts at the spec's folder") from None
    except OSError as error:
        raise RuleError(f"{name} cannot be read: {error.strerror}") from None
    if not content or len(content) > _LIMIT:
        raise RuleError(f"{name} is {'empty' if not content else 'too large for what it should be'}")
    return content


def _patch(patch: Patch, index: int, base: Path) -> Iterator[Finding]:
    where: Keys = ("gpu", "patches", index)
    if patch.path is None or patch.sha256 is None:
        return
    try:
        content = _read(patch.path, base)
    except RuleError as error:
        yield Finding((*where, "path"), error.message, error.hint)
        return
    if (found := hashlib.sha256(content).hexdigest()) != patch.sha256:
        yield Finding((*where, "sha256"), f"{patch.path} has another one", f"it has {found}")


def _mok(mok: Mok, base: Path) -> tuple[Mok, list[Finding]]:
    """The key is looked at and not kept: only the certificate is part of what is built."""
    findings, pem = [], None
    if mok.key is not None:
        where: Keys = ("gpu", "mok", "key")
        try:
            text = _read(mok.key, base)
            if b"ENCRYPTED" in text.split(b"\n", 2)[0] or b"Proc-Type: 4,ENCRYPTED" in text:
                raise RuleError(f"{mok.key} wants a passphrase", "openssl pkey -in KEY -out PLAIN, for the build")
            if b"PRIVATE KEY-----" not in text:
                raise RuleError(f"{mok.key} is not a private key in PEM")
        except RuleError as error:
            findings.append(Finding(where, error.message, error.hint))
    if mok.certificate is not None:
        where = ("gpu", "mok", "certificate")
        try:
            pem = _read(mok.certificate, base)
            if b"PRIVATE KEY-----" in pem:
                raise RuleError(f"{mok.certificate} holds a PRIVATE key, and goes to every node", "give it alone")
            if not pem.lstrip().startswith(b"-----BEGIN CERTIFICATE-----"):
                hint = f"openssl x509 -inform der -in {mok.certificate} -out mok.pem, if it is DER"
                raise RuleError(f"{mok.certificate} is not a certificate in PEM", hint)
        except RuleError as error:
            findings.append(Finding(where, error.message, error.hint))
    return mok.model_copy(update={"pem": pem}), findings


def _repository(repository: Repository, base: Path) -> tuple[Repository, list[Finding]]:
    if repository.key is None:
        return repository, []
    try:
        content = _read(repository.key, base)
        found = pgp.fingerprints(content)
    except RuleError as error:
        return repository, [Finding(("gpu", "repository", "key"), error.message, error.hint)]
    except ValueError as error:
        return repository, [
            Finding(("gpu", "repository", "key"), f"{repository.key} is not a public key: {error}")
        ]
    if repository.fingerprint is not None and found != (repository.fingerprint,):
        where: Keys = ("gpu", "repository", "fingerprint")
        message = f"{repository.key} holds {'another key' if len(found) == 1 else f'{len(found)} keys'}"
        return repository, [Finding(where, message, f"it has {', '.join(found)}; compare with NVIDIA's page")]
    return repository.model_copy(update={"keyring": content}), []
