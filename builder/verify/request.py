"""What a boot test is asked to do, and the virtual machine that this makes of a node of the manifest."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from builder.errors import BuilderError, Exit
from builder.run import run
from builder.verify.disks import Target, target_for
from builder.verify.firmware import FirmwareKind
from builder.verify.machine import DirectKernel, MediumKind
from builder.verify.network import Address


@dataclass(frozen=True)
class Identity:
    """What an installer can know a machine by."""

    mac: str
    serial: str | None = None
    uuid: str | None = None


@dataclass(frozen=True)
class Limits:
    """Caps in seconds; a stall is noticed long before. They guard against guests that talk for ever."""

    install: float = 3600
    leave: float = 240  # from builder-installed to the exit of QEMU
    boot: float = 1200  # from power-on of the installed node to builder-ready
    ssh: float = 300
    cloud_init: float = 900
    checks: float = 1200
    power_off: float = 180

    def scaled(self, factor: float) -> Limits:
        return Limits(**{one.name: getattr(self, one.name) * factor for one in fields(self)})


@dataclass(frozen=True)
class BootTest:
    """One node to be installed from one medium and checked. Only the first six have to be given.

    ``iso``, ``out``: the medium, and the folder for the report and logs (made; earlier results are replaced).
    ``node``: its name in the manifest. ``address``, ``subnet``, ``gateway``: of the spec; ``taken`` are the
    addresses of the other nodes and of name servers, which QEMU must not use for itself.
    ``manifest``: read out of the medium if not given. ``boot_firmware``: of the second phase; default the
    same. ``memory``: MiB. ``facts``: what the checks are told besides name, address and plan; ``checks``:
    their files. ``identity``, ``target``: a machine or disk other than the one that the manifest asks for;
    ``content``: an image that the target starts with; ``more_disks``: further blank disks, to stay blank.
    ``stall``: seconds of silence that count as a stall; default by accelerator. ``install_log``: its path on
    the node. ``keep_disks``: keep the disk images of a test that passed, too.
    """

    iso: Path
    out: Path
    node: str
    address: Address
    subnet: IPv4Network
    gateway: IPv4Address | None
    taken: tuple[IPv4Address, ...] = ()
    manifest: Mapping[str, Any] | None = None
    firmware: FirmwareKind = "bios"
    boot_firmware: FirmwareKind | None = None
    medium: MediumKind = "cdrom"
    direct: DirectKernel | None = None
    memory: int = 2048
    cpus: int = 2
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Path, ...] = ()
    identity: Identity | None = None
    target: Target | None = None
    content: Path | None = None
    more_disks: tuple[Target, ...] = ()
    stall: float | None = None
    limits: Limits = Limits()
    install_log: str = "/var/log/builder/install.log"
    keep_disks: bool = False


def read_manifest(iso: Path) -> dict[str, Any]:
    """The payload manifest inside a medium. Raises BuilderError (MEDIUM) if it has none that can be read."""
    if not iso.is_file():
        raise BuilderError(f"{iso} does not exist", hint="`builder iso` makes it", code=Exit.MEDIUM)
    with tempfile.TemporaryDirectory(prefix="builder-manifest-") as name:
        copy = Path(name) / "manifest.json"
        argv: list[str | Path] = [
            "xorriso",
            "-osirrox",
            "on",
            "-indev",
            iso,
            "-extract",
            "/builder/manifest.json",
            copy,
        ]
        run(argv, step="reading the manifest of the medium", code=Exit.MEDIUM)
        try:
            manifest = json.loads(copy.read_bytes())
        except ValueError as error:
            raise BuilderError(f"the manifest in {iso} is damaged: {error}", code=Exit.MEDIUM) from error
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        raise BuilderError(f"{iso} has a manifest of another format than 1", code=Exit.MEDIUM)
    return manifest


def node_of(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The manifest's entry for a node. Raises BuilderError if there is none."""
    nodes: dict[str, Mapping[str, Any]] = {node["name"]: node for node in manifest["nodes"]}
    if name not in nodes:
        raise BuilderError(
            f"the medium holds no node {name}", hint=f"it holds {', '.join(nodes) or 'none'}", code=Exit.SPEC
        )
    return nodes[name]


def identity_for(node: Mapping[str, Any]) -> Identity:
    """A machine that the node's ``match`` picks; a node matched without a MAC gets one made from its name."""
    match = node["match"]
    made = hashlib.sha256(str(node["name"]).encode()).hexdigest()
    mac = match.get("mac") or f"52:54:00:{made[0:2]}:{made[2:4]}:{made[4:6]}"
    return Identity(mac, match.get("serial"), match.get("uuid"))


def target_of(manifest: Mapping[str, Any], node: Mapping[str, Any]) -> Target:
    """A disk that the node's ``disk`` picks, large enough for the cluster's storage. Raises BuilderError."""
    sizes = {file["path"]: int(file["size"]) for file in manifest["files"]}
    models = sum(sizes.get(model["path"], 0) for model in manifest["models"])
    return target_for(node["disk"], manifest["storage"], models)
