"""Proves that a manifest that came over the network was signed with the key that this boot image trusts.

Ed25519 (RFC 8032), by the node's own openssl: boot files and payload travel separately there, and anybody on the
network can answer in the server's name.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from . import commands
from .model import InstallError

KEY = Path("/etc/builder/manifest.pub")


def require(manifest: bytes, signature: bytes, key: Path = KEY, log: commands.Log = commands.quiet) -> None:
    """Raises InstallError unless ``signature`` is the key's, over exactly these bytes."""
    if not key.exists():
        raise InstallError(f"the boot image has no {key}; it was not made for the network")
    with tempfile.TemporaryDirectory(prefix="builder-signature-") as name:
        folder = Path(name)
        (folder / "manifest").write_bytes(manifest)
        (folder / "signature").write_bytes(signature)
        argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(key), "-rawin"]
        argv += ["-in", str(folder / "manifest"), "-sigfile", str(folder / "signature")]
        try:
            commands.run(argv, step="checking the manifest's signature", log=log)
        except InstallError as error:
            raise InstallError(
                "the manifest is not signed with this cluster's key, so nothing of it is believed", error.details
            ) from error
