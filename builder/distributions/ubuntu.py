"""Ubuntu: releases, suites, and the packages that make a node."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

NUMBERS = {"noble": "24.04", "resolute": "26.04"}
RELEASES = {
    **{codename: codename for codename in NUMBERS},
    **{n: codename for codename, n in NUMBERS.items()},
}

# The same file in Ubuntu's package and in Debian's of that name (Debian 12 has it in its backports).
KEYRING = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
KEYRING_PACKAGE = "ubuntu-keyring"

# mmdebstrap takes a release that it has never heard of for one of Debian's. This one is in its own list.
KNOWN_OF_OLD = "bionic"

# universe: busybox, and most of what people add. restricted: NVIDIA's drivers.
COMPONENTS = ("main", "restricted", "universe")

KERNELS = {
    "generic": "linux-generic",
    # Without the modules and the firmware of real machines. linux-kvm was given up with 23.10 (livecd-rootfs).
    "cloud": "linux-virtual",
    "hwe": "linux-generic-hwe-{number}",
}

_NODE = (
    # boots
    "busybox",
    "efibootmgr",
    # grub-efi-amd64-signed wants this or grub-pc, which shut each other out; GRUB for BIOS needs grub-pc-bin only.
    "grub-efi-amd64",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "initramfs-tools",  # 26.04 would take dracut
    "kmod",
    "shim-signed",
    "systemd-sysv",
    "udev",
    "zstd",
    # is configured
    "cloud-init",
    "console-setup",  # Ubuntu's installer calls its setupcon in every system that it installs
    # cloud-init calls these, and its package in Ubuntu does not depend on them: lsb_release tells it the release
    # for apt's sources, and for want of update-locale it would ask apt, which has no network.
    "locales",
    "lsb-release",
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
    return KERNELS[kernel].format(number=NUMBERS[codename])


def packages(codename: str, kernel: str, features: Collection[str] = ()) -> tuple[str, ...]:
    """What is asked of apt for a node with this kernel flavour; dependencies follow, recommendations do not."""
    more = [name for feature in features for name in FEATURES[feature]]
    return tuple(sorted((*_NODE, kernel_package(codename, kernel), *more)))
