"""Package names of the GPU stack: on the node, in the root where modules are compiled, and held. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from builder.gpu.choose import Choice

# What compiles a kernel module, by the names that Debian and Ubuntu share; the headers bring their compiler.
# base-files has the links /bin, /lib, … that the others are unpacked through; openssl's libcrypto signs.
TOOLS = (
    *(
        "base-files",
        "bash",
        "binutils",
        "coreutils",
        "dash",
        "diffutils",
        "findutils",
        "grep",
        "kmod",
        "libc6-dev",
    ),
    *("make", "mawk", "openssl", "patch", "perl-base", "sed", "xz-utils"),
)

_KERNEL = re.compile(r"linux-image-([0-9].*)")
# Kernel and driver: one without the other is a node without a GPU.
_HELD = re.compile(
    r"linux-(image|modules|objects|signatures|generic|virtual)(-.*)?|lib(cuda1|nvidia-.*)|.*nvidia.*"
)


def on_node(choice: Choice, kernel: str) -> tuple[str, ...]:
    """What is asked of apt for a node; ``kernel``: the kernel's metapackage."""
    names = list(choice.packages)
    if not choice.compiled and choice.modules.prebuilt:
        names.append(choice.modules.prebuilt.format(flavour=kernel.removeprefix("linux-")))
    return tuple(sorted(names))


def kernels(names: Iterable[str]) -> tuple[str, ...]:
    """The releases of the kernels among a node's packages, as ``uname -r`` says them."""
    return tuple(sorted(match[1] for name in names if (match := _KERNEL.fullmatch(name))))


def to_compile(choice: Choice, node: Iterable[str]) -> tuple[str, ...]:
    """What the root for compiling is asked to have, for the kernels among the ``node``'s packages."""
    assert choice.modules.source is not None
    headers = (f"linux-headers-{kernel}" for kernel in kernels(node))
    return tuple(sorted((*TOOLS, *headers, choice.modules.source)))


def held(node: Iterable[str]) -> tuple[str, ...]:
    """What of a node's packages an unattended upgrade must leave as it is."""
    return tuple(sorted(name for name in node if _HELD.fullmatch(name)))
