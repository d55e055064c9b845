"""Debian: releases, suites, and the packages that make a node."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

NUMBERS = {"trixie": "13"}
RELEASES = {
    **{codename: codename for codename in NUMBERS},
    **{n: codename for codename, n in NUMBERS.items()},
}

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KEYRING_PACKAGE = "debian-archive-keyring"  # `builder doctor` asks for it

# A release that every mmdebstrap has in its own list: it tells the archive's address.
KNOWN_OF_OLD = "bookworm"

# non-free-firmware: most real network cards and GPUs want a blob from there.
COMPONENTS = ("main", "non-free-firmware")

KERNELS = {
    "generic": "linux-image-amd64",
    "cloud": "linux-image-cloud-amd64",  # virtio and a few others only: virtual machines, never real nodes
}

_NODE = (
    # boots
    "busybox",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "initramfs-tools",
    "kmod",
    "shim-signed",
    "systemd-sysv",
    "udev",
    "zstd",
    # is configured
    "cloud-init",
    "netplan.io",
    "systemd-resolved",
    "systemd-timesyncd",
    # is reached, and guarded
    "ca-certificates",
    "nftables",
    "openssh-server",
    "sudo",
    # has disks; the direct installer takes these programs from the node's own packages
    "dosfstools",
    "e2fsprogs",
    "fdisk",
    "squashfs-tools",
    # can be looked at
    "bash-completion",
    "iproute2",
    "iputils-ping",
    "less",
    "python3",
    "vim-tiny",
)

# What a way to lay out a disk needs on the node.
FEATURES = {"lvm": ("lvm2",), "luks": ("cryptsetup", "cryptsetup-initramfs")}


def suites(codename: str) -> tuple[tuple[str, str], ...]:
    """Archive label and suite name of everything that a node's packages come from."""
    return (("main", codename), ("main", f"{codename}-updates"), ("security", f"{codename}-security"))


def kernel_package(codename: str, kernel: str) -> str:
    """The metapackage of a kernel flavour."""
    return KERNELS[kernel]


def packages(codename: str, kernel: str, features: Collection[str] = ()) -> tuple[str, ...]:
    """What is asked of apt for a node with this kernel flavour; dependencies follow, recommendations do not."""
    more = [name for feature in features for name in FEATURES[feature]]
    return tuple(sorted((*_NODE, kernel_package(codename, kernel), *more)))
