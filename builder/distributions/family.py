"""The shape of a distribution, and what nodes of every one of them have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# By the names that Debian and Ubuntu share.
COMMON = (
    # boots
    "busybox",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-signed",
    "grub-pc-bin",
    "initramfs-tools",  # named, as Ubuntu 26.04 would take dracut
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

# What a way to lay out a disk, or a runtime of containers, needs on the node.
FEATURES = {
    "lvm": ("lvm2",),
    "luks": ("cryptsetup", "cryptsetup-initramfs"),
    # apparmor: the kernel confines containers by its profiles, if its parser is there to load them.
    "docker": ("apparmor", "docker-cli", "docker.io"),
}


@dataclass(frozen=True)
class Family:
    """A distribution.

    ``numbers``: codename → number of the releases that are known. ``keyring`` comes with ``keyring_package``.
    ``known_of_old``: a release that every mmdebstrap has in its own list: it tells the archive's address.
    ``kernels``: flavour → metapackage, in which ``{number}`` is the release's. ``own``: packages of a node besides
    :data:`COMMON`. ``features``: where its packages differ from :data:`FEATURES`.
    """

    name: str
    numbers: Mapping[str, str]
    keyring: Path
    keyring_package: str
    known_of_old: str
    components: tuple[str, ...]
    kernels: Mapping[str, str]
    own: tuple[str, ...] = ()
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def releases(self) -> dict[str, str]:
        """Every accepted name of a release → its codename."""
        return {name: codename for codename, number in self.numbers.items() for name in (codename, number)}

    def suites(self, codename: str) -> tuple[tuple[str, str], ...]:
        """Archive label and suite name of everything that a node's packages come from."""
        return (("main", codename), ("main", f"{codename}-updates"), ("security", f"{codename}-security"))

    def kernel(self, codename: str, flavour: str) -> str:
        """The metapackage of a kernel flavour."""
        return self.kernels[flavour].format(number=self.numbers[codename])

    def packages(self, codename: str, flavour: str, features: Collection[str] = ()) -> tuple[str, ...]:
        """What is asked of apt for a node; dependencies follow, recommendations do not."""
        more = [name for feature in features for name in {**FEATURES, **self.features}[feature]]
        return tuple(sorted((*COMMON, *self.own, self.kernel(codename, flavour), *more)))
