"""Ubuntu's medium of a plan: what goes onto the official live-server ISO, and with which arguments it boots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.canonical import PACKAGE
from builder.errors import Exit
from builder.media import grubconfig, liveiso, remaster
from builder.media.catalog import Source
from builder.media.grubconfig import Menu
from builder.media.payload import Payload
from builder.plan import Plan
from builder.run import run

# unsquashfs -lln: mode, owner/group, size, …; only files have bytes.
_FILE = re.compile(r"^-\S+ \d+/\d+ +(\d+) ", re.MULTILINE)


def require(source_iso: Path, release: str) -> None:
    """Refuse an ISO that is not the live-server of ``release`` (``24.04``), or cannot be remastered: a second's
    work, before hours of others.

    Raises BuilderError (MEDIUM).
    """
    liveiso.require_release(liveiso.read(source_iso), release)
    remaster.judge(source_iso, Menu("", "", (), 0, None, ()), Source("", 0, "", ""))


def write(
    plan: Plan, source_iso: Path, stack: Sequence[Path], payload: Payload, target: Path, *, stick_size: int | None
) -> None:
    """Write the remastered ISO to ``target``, complete or not at all. ``stack``: the layers, lowest first;
    ``stick_size``: bytes that the ISO may have.

    Raises BuilderError (MEDIUM) as :func:`builder.media.remaster.write`.
    """
    assert plan.id is not None
    remaster.write(
        source_iso=source_iso,
        target=target,
        plan_id=plan.id,
        epoch=plan.epoch,
        payload=payload,
        live_files=live_files(plan),
        autoinstall=plan.bootstrap,
        menu=menu(plan, payload.sha256),
        source=source(plan, sum(unpacked_size(layer) for layer in stack)),
        stick_size=stick_size,
    )


def live_files(plan: Plan) -> Mapping[str, bytes]:
    """What the live system runs of ours, by its path below ``/builder/live``: seed, scripts, and the installer."""
    code = {f"installer/{path.name}": path.read_bytes() for path in sorted((PACKAGE / "installer").glob("*.py"))}
    return {**plan.live, **code}


def menu(plan: Plan, manifest_sha256: str) -> Menu:
    """The boot menu. Pure."""
    assert plan.id is not None
    return Menu(
        cluster=plan.cluster.name,
        plan=plan.id,
        nodes=tuple(node.name for node in plan.cluster.nodes),
        countdown=plan.cluster.media.countdown,
        serial=plan.serial,
        arguments=grubconfig.arguments(manifest_sha256, plan.kernel_arguments),
        hwe=plan.cluster.distribution.kernel == "hwe",
    )


def source(plan: Plan, size: int) -> Source:
    """The entry in Ubuntu's catalogue of what can be installed; ``size`` in bytes. Pure."""
    return Source(
        path=plan.layers[-1].file,
        size=size,
        name=f"{plan.cluster.name} node",
        description=f"A node of the cluster {plan.cluster.name}, plan {(plan.id or '')[:12]}.",
    )


def unpacked_size(layer: Path) -> int:
    """How many bytes the files of a squashfs have. Raises BuilderError (MEDIUM) if it cannot be read."""
    listed = run(["unsquashfs", "-lln", layer], step=f"measuring {layer.name}", code=Exit.MEDIUM).stdout
    return sum(int(size) for size in _FILE.findall(listed))
