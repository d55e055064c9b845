"""What Ubuntu's installer accepts, release by release: a table, so that nobody else compares releases.

Keys: autoinstall-schema.json of subiquity 24.04.4.1 and 26.04.1, which tests hold the table to. Of a document of
version 1 a key that the release does not know is dropped, with no more than a warning in a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder.autoinstall.shapes import ANYTHING, NULL, Group, Many, Named, OneOf, Shape


@dataclass(frozen=True)
class Accepts:
    """``keys``: every top-level key, with the shape that we give it; those that we do not use may be anything.

    ``keeps_kernel``: a kernel that the layers bring stays whatever the document says (24.04). Otherwise the named
    metapackage is installed and other kernels are purged, so it has to be named (26.04:
    subiquity/models/kernel.py).
    """

    keys: Mapping[str, Shape]
    keeps_kernel: bool


_COMMANDS = Many(Many(str))  # argv lists: a string would be handed to a shell

_NETWORK = Group(
    {
        "version": OneOf((2,)),
        "ethernets": Named(
            Group(
                optional={
                    "match": Group(optional={"macaddress": str, "name": str}),
                    "dhcp4": bool,
                    "addresses": Many(str),
                    "routes": Many(Group({"to": str, "via": str})),
                    "nameservers": Group({"addresses": Many(str)}),
                    "optional": bool,
                }
            )
        ),
    }
)

_APT = Group(
    {
        # False, curtin reads the sources that are there, and stops where none are (commands/apt_config.py).
        "preserve_sources_list": OneOf((True,)),
        "mirror-selection": Group({"primary": Many(Group({"uri": str}))}),
        "fallback": OneOf(("offline-install",)),
        "geoip": OneOf((False,)),
        "disable_components": Many(str),
    }
)

_STORAGE = Group(
    {
        "config": Many(Named(ANYTHING)),  # actions.py
        "swap": Group({"size": int}),
        "grub": Group(
            {
                "probe_additional_os": bool,
                "remove_old_uefi_loaders": bool,
                "reorder_uefi": bool,
                "replace_linux_default": bool,
                "terminal": str,
                "update_nvram": bool,
            }
        ),
    }
)

_OURS: Mapping[str, Shape] = {
    "version": OneOf((1,)),
    "early-commands": _COMMANDS,
    "late-commands": _COMMANDS,
    "error-commands": _COMMANDS,
    "reporting": Group({"builtin": Group({"type": OneOf(("print",))})}),
    "refresh-installer": Group({"update": OneOf((False,))}),
    "locale": str,
    "keyboard": Group({"layout": str, "variant": str}),
    "timezone": str,
    "source": Group({"id": OneOf(("node",)), "search_drivers": OneOf((False,))}),
    "network": _NETWORK,
    "proxy": NULL,
    "apt": _APT,
    "storage": _STORAGE,
    "user-data": Named(ANYTHING),
    "ssh": Group({"install-server": bool, "authorized-keys": Many(str), "allow-pw": bool}),
    "packages": Many(str),
    "snaps": Many(Group({"name": str})),
    "codecs": Group({"install": OneOf((False,))}),
    "drivers": Group({"install": OneOf((False,))}),
    # `auto` is "no" on a server with 24.04, and "yes" with 26.04, where it may replace the kernel.
    "oem": Group({"install": OneOf((False,))}),
    "debconf-selections": str,
    "updates": OneOf(("security", "all")),
    "shutdown": OneOf(("reboot", "poweroff")),
}

_OTHERS: Mapping[str, Shape] = {
    "active-directory": ANYTHING,
    "identity": ANYTHING,
    "interactive-sections": ANYTHING,
    "kernel": ANYTHING,
    "ubuntu-advantage": ANYTHING,
    "ubuntu-pro": ANYTHING,
}

RELEASES: Mapping[str, Accepts] = {
    "noble": Accepts({**_OURS, **_OTHERS}, keeps_kernel=True),
    "resolute": Accepts(
        {
            **_OURS,
            **_OTHERS,
            "kernel": Group({"package": str}),
            # Left out, curtin decides by the machine (curtin/kernel_crash_dumps.py).
            "kernel-crash-dumps": Group({"enabled": OneOf((False,))}),
            "zdevs": ANYTHING,
        },
        keeps_kernel=False,
    ),
}
