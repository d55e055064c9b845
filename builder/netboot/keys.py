"""The key that a cluster's network-boot tree is signed with: Ed25519, made once, kept outside every repository.

The public half goes into the initramfs, so whoever answers a node over the network must own the secret half for
the installer to believe a manifest. By the host's openssl, as the installer checks by the node's.
"""

from __future__ import annotations

import os
from pathlib import Path

from builder.errors import BuilderError
from builder.run import run


def folder() -> Path:
    """``$BUILDER_KEYS``, else ``cluster-image-builder/keys`` in the user's configuration."""
    if given := os.environ.get("BUILDER_KEYS"):
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "cluster-image-builder" / "keys"


def secret(cluster: str, where: Path | None = None) -> Path:
    """The secret key's file, made if there is none. Raises BuilderError if others can read it."""
    path = (where or folder()) / f"{cluster}.pem"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        # Nobody else may read it even while it is being written.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", part], step="making the cluster's key")
        part.chmod(0o600)
        part.replace(path)
    if path.stat().st_mode & 0o077:
        raise BuilderError(
            f"{path}: others can read the cluster's secret key",
            hint=f"chmod 600 {path}; if somebody may have it, remove it and build anew",
        )
    return path


def public(key: Path) -> bytes:
    """The public half, as PEM."""
    return run(["openssl", "pkey", "-in", key, "-pubout"], step="reading the cluster's key").stdout.encode()


def sign(key: Path, document: Path, signature: Path) -> None:
    """Write the signature of a file; 64 bytes, and always the same for the same file."""
    argv: list[str | Path] = ["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin"]
    run([*argv, "-in", document, "-out", signature], step="signing the manifest")
