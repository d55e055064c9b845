"""What a boot over the network tells this installer on the kernel's command line, and the payload that is there.

    builder.payload=http://ADDRESS:PORT/builder   where the payload's files are
    builder.manifest=SHA256                       which manifest the server means
    builder.server=http://ADDRESS:PORT            who is told how far it is, and asked before the first write
    builder.order=WORD                            the order to install that started this boot

The command line comes from whoever answered first, so it is believed in nothing that matters: the manifest must be
signed with the key in this boot image. That it must have the digest besides keeps an older one, signed as well,
from being played back where only the payload's server was taken over.
"""

from __future__ import annotations

import hashlib
import re

from . import facts, payload
from .console import Console
from .listener import Nobody
from .model import InstallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .web import Web

_ORDER = re.compile(r"[0-9a-f]{16,64}")  # becomes part of a file's name


def address() -> str:
    """Where the payload is; empty when a medium has to be looked for."""
    return facts.kernel_argument("builder.payload")


def listener(console: Console) -> Nobody:
    """Who is told. Raises InstallError if the command line did not arrive whole."""
    server, order = facts.kernel_argument("builder.server"), facts.kernel_argument("builder.order")
    if not server:
        if address():
            raise InstallError("the kernel's command line has builder.payload= and no builder.server=")
        return Nobody()
    if not _ORDER.fullmatch(order):
        raise InstallError(f"builder.order= on the kernel's command line is no order: {order!r}")
    from .beacon import Beacon  # what it loads would cost every install from a medium its time

    found = Beacon(server, order, console.log)
    console.on_phase, console.on_progress = found.phase, found.progress
    found.start()
    return found


def find(console: Console) -> tuple[Web, payload.Payload]:
    """The payload of the server.

    Raises InstallError if its manifest is not signed, or not the one that was meant, or the memory is too little.
    """
    from . import signature, web

    web.require_memory()
    source = web.Web(address(), console.log)
    digest = payload.argued_digest()
    data = source.manifest()
    signature.require(data, source.small("manifest.sig"), log=console.log)
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise InstallError(f"manifest.json has sha256 {actual}, and builder.manifest= asks for {digest}")
    return source, payload.Payload(payload.NOWHERE, payload.parse_manifest(data), frozenset())
