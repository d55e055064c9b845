"""Ubuntu: its releases, where its packages come from, and what a node needs there."""

from __future__ import annotations

from pathlib import Path

from builder.distributions.family import Family

UBUNTU = Family(
    name="ubuntu",
    numbers={"noble": "24.04", "resolute": "26.04"},
    # The same file in Ubuntu's package and in Debian's of that name (Debian 12 has it in its backports).
    keyring=Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
    keyring_package="ubuntu-keyring",
    # mmdebstrap takes a release that it has never heard of for one of Debian's.
    known_of_old="bionic",
    # universe: busybox, and most of what people add. restricted: NVIDIA's drivers.
    components=("main", "restricted", "universe"),
    kernels={
        "generic": "linux-generic",
        # Without the modules and the firmware of real machines. linux-kvm was given up with 23.10 (livecd-rootfs).
        "cloud": "linux-virtual",
        "hwe": "linux-generic-hwe-{number}",
    },
    own=(
        "console-setup",  # Ubuntu's installer calls its setupcon in every system that it installs
        "efibootmgr",
        # grub-efi-amd64-signed wants this or grub-pc, which shut each other out; BIOS needs grub-pc-bin only.
        "grub-efi-amd64",
        # cloud-init calls these, and its package in Ubuntu does not depend on them: lsb_release tells it the
        # release for apt's sources, and for want of update-locale it would ask apt, which has no network.
        "locales",
        "lsb-release",
        # The installer of 24.04 has apt read the medium's packages, needed or not, and its key signs them.
        "ubuntu-keyring",
    ),
    # Its docker.io holds Docker's command line as well (Ubuntu's docker.io-app, debian/control of 24.04).
    features={"docker": ("apparmor", "docker.io")},
)
