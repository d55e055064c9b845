"""Debian: its releases, where its packages come from, and what a node needs there."""

from __future__ import annotations

from pathlib import Path

from builder.distributions.family import Family

DEBIAN = Family(
    name="debian",
    numbers={"trixie": "13"},
    keyring=Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    keyring_package="debian-archive-keyring",  # `builder doctor` asks for it
    known_of_old="bookworm",
    # non-free-firmware: most real network cards and GPUs want a blob from there.
    components=("main", "non-free-firmware"),
    kernels={
        "generic": "linux-image-amd64",
        "cloud": "linux-image-cloud-amd64",  # virtio and a few others only: virtual machines, never real nodes
    },
)
