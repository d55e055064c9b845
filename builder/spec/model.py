"""The spec as one frozen value. Field names are the keys of ``cluster.yaml``, except ``Opening.source``.

Descriptions and examples here feed the JSON Schema and ``docs/spec.md``. What needs more than one field to
judge is in :mod:`builder.spec.checks`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, SerializeAsAny, model_validator

from builder.engines.none import NoEngine
from builder.spec import types as t
from builder.spec.engine import Engine
from builder.spec.gpu import Gpu
from builder.spec.section import Choice, Section

_LATER: Any = None  # a default that another key decides; no finished section has it


class Network(Section):
    """The network that the nodes share."""

    subnet: t.Subnet = Field(
        description="The nodes' own network. Firewall openings for `cluster` are for addresses in it.",
        examples=["10.77.0.0/24"],
    )
    gateway: t.Address | None = Field(
        None,
        description="The router, for nodes with a static address. Leave out when there is none.",
        examples=["10.77.0.1"],
    )
    dns: tuple[t.Address, ...] = Field(
        (), description="Name servers, for nodes with a static address.", examples=[["10.77.0.1"]]
    )


class Distribution(Section):
    """What the nodes run, and where its packages come from."""

    name: Literal["debian", "ubuntu"] = Field(
        "debian", description="The distribution.", examples=["debian", "ubuntu"]
    )
    release: t.Release = Field(
        "13",
        description='Number or code name. Quote a number: `"13"`. Ubuntu needs one: `"24.04"` or `"26.04"`.',
        examples=["13", "trixie", "24.04"],
    )
    kernel: Literal["generic", "cloud", "hwe"] = Field(
        "generic",
        description="`generic` drives real machines; `cloud` is smaller and knows virtual machines only; `hwe` is "
        "Ubuntu's newer one, for newer hardware.",
        examples=["generic"],
    )
    packages: tuple[t.Package, ...] = Field(
        (),
        description="Packages beyond what every node has. Names only: the lock pins the versions.",
        examples=[["htop", "firmware-realtek"]],
    )
    mirror: t.Archive | None = Field(
        None,
        description="Base URL of the package archive. Default: the environment variable `BUILDER_MIRROR`, "
        "else what the building machine's apt uses, else the distribution's own.",
        examples=["https://mirror.example/debian"],
    )
    security_mirror: t.Archive | None = Field(
        None,
        description="Base URL of the security archive that belongs to `mirror`.",
        examples=["https://mirror.example/debian-security"],
    )
    snapshot: t.Archive | None = Field(
        None,
        description="Base URL of an archive that keeps superseded packages, asked when `mirror` has dropped "
        "a version that the lock pins.",
        examples=["https://snapshot.example/archive/debian"],
    )


class Access(Section):
    """Who may log in. There are no default passwords: without a key or a hash, nobody can."""

    user: t.User = Field("admin", description="The account that is made. It may use sudo.", examples=["admin"])
    ssh_keys: tuple[t.PublicKey, ...] = Field(
        (), description="Public key lines.", examples=[["ssh-ed25519 AAAA… you@laptop"]]
    )
    ssh_key_files: tuple[t.LocalPath, ...] = Field(
        (),
        description="Files with public keys on the building machine, relative to the spec; `~` and globs are "
        "allowed. A glob may match nothing; a plain path must exist.",
        examples=[["~/.ssh/*.pub"]],
    )
    password_hash: t.PasswordHash | None = Field(
        None,
        description="Hash of the password for the console (ssh takes keys only); anyone who holds the medium "
        "can read it. Make one with `mkpasswd -m yescrypt` or `openssl passwd -6`. Never a password itself.",
        examples=["$y$j9T$…"],
    )


class Match(Section):
    """How a machine is recognised as this node. All keys that are given must be the machine's."""

    choice = Choice(("mac", "serial", "uuid"), exactly=False)

    mac: t.Mac | None = Field(
        None, description="MAC address of one of its network cards.", examples=["52:54:00:77:00:01"]
    )
    serial: t.Serial | None = Field(
        None, description="System serial number (`dmidecode -s system-serial-number`).", examples=["MJ0ABCDE"]
    )
    uuid: t.Uuid | None = Field(
        None,
        description="System UUID (`dmidecode -s system-uuid`).",
        examples=["4c4c4544-0042-3510-8048-b7c04f4d3433"],
    )


def _kind_of_models(_text: str) -> str:
    """Which key of ``storage.models`` a single value is the value of."""
    return "size"


class Disk(Section):
    """Which disk a node is installed to. The medium itself is never taken; if in doubt nothing is written."""

    choice = Choice(("serial", "wwn", "path", "largest"), exactly=True)

    serial: t.DiskText | None = Field(
        None, description="Serial number of the disk (`lsblk -o +SERIAL`).", examples=["S6XNNS0W123456"]
    )
    wwn: t.DiskText | None = Field(
        None,
        description="World-wide name of the disk (`lsblk -o +WWN`).",
        examples=["0x5002538f00000001"],
    )
    path: t.DiskPath | None = Field(
        None,
        description="Glob over the names in /dev/disk/by-id and /dev/disk/by-path.",
        examples=["/dev/disk/by-id/nvme-Samsung_SSD_990*"],
    )
    largest: Literal[True] | None = Field(
        None, description="The largest fixed disk; two of that size are refused.", examples=[True]
    )
    min_size: t.Size | None = Field(None, description="A smaller disk is refused.", examples=["200G"])
    overwrite: bool | None = Field(
        None,
        description="Whether a disk that holds somebody's data may be wiped. Default: `true` when the disk "
        "is named by serial, wwn or path, `false` with `largest`.",
        examples=[True],
    )

    @property
    def named(self) -> bool:
        """Whether the spec points at one disk, rather than describing it."""
        return not self.largest

    @property
    def may_overwrite(self) -> bool:
        """``overwrite`` with its default filled in."""
        return self.named if self.overwrite is None else self.overwrite


class Node(Section):
    """One machine."""

    name: t.Label = Field(description="Host name, short.", examples=["node1"])
    match: Match = Field(description="How the machine is recognised.")
    address: t.NodeAddress = Field(
        "dhcp", description="Its address in the subnet, or `dhcp`.", examples=["10.77.0.11", "dhcp"]
    )
    interface: t.Interface | None = Field(
        None,
        description="Name (or glob) of the network interface. For nodes that are matched without a MAC.",
        examples=["enp5s0"],
    )
    disk: Disk | None = Field(None, description="Its disk, instead of `storage.disk`.")
    memory: t.Size | None = Field(
        None,
        description="Its memory for the model (RAM, or that of its GPUs), to tell beforehand whether that fits.",
        examples=["24G"],
    )


class Luks(Section):
    """Encryption of the disk by LUKS: of root, or with `layout: lvm` of everything but the boot partitions."""

    passphrase_file: t.LocalPath = Field(
        description="File on the building machine, relative to the spec, whose one line is the passphrase: at "
        "least 8 characters that a keyboard has. The medium holds it, and each node asks for it at every boot.",
        examples=["secrets/passphrase"],
    )
    # Read by the loader; no key of a spec, and in no dump.
    passphrase: SecretStr | None = Field(None, exclude=True, repr=False)


class ModelsPartition(Section):
    """The partition that the models lie on. A single value stands for `size`."""

    short = _kind_of_models

    size: t.ModelsSize = Field(
        "fit",
        description="Its size: `fit` is as large as the models need (and no partition when there are none), "
        "`rest` is what root leaves.",
        examples=["fit", "100G", "rest"],
    )
    keep: bool = Field(
        False,
        description="Whether a reinstall keeps it, and brings only the files that are missing or no longer right. "
        "It is made anew when the spec would put it elsewhere, or it is too small, so give it a size. With the "
        "direct installer only.",
        examples=[True],
    )


class Storage(Section):
    """Disk and partitions, for nodes that do not say otherwise."""

    disk: Disk = Field(Disk(largest=True), description="Which disk is installed to.")
    root: t.RootSize = Field(
        "rest",
        description="Size of the root partition; `rest`: what the others leave.",
        examples=["40G", "rest"],
    )
    models: ModelsPartition = Field(
        ModelsPartition(),
        description="The partition that the models lie on: its size, or a group.",
        examples=["fit", "100G", "rest", {"size": "100G", "keep": True}],
    )
    layout: Literal["direct", "lvm"] = Field(
        "direct",
        description="`direct` makes partitions, `lvm` logical volumes, with `media.installer: subiquity` only.",
        examples=["direct", "lvm"],
    )
    luks: Luks | None = Field(None, description="Encrypts, with `media.installer: subiquity` only.")

    @property
    def features(self) -> tuple[str, ...]:
        """What a node needs for its disk beyond partitions and ext4."""
        return (*(["lvm"] if self.layout == "lvm" else []), *(["luks"] if self.luks else []))


class Model(Section):
    """A file, or the files of a repository, that every node gets, read-only and verified."""

    choice = Choice(("path", "url", "repo"), exactly=True)
    unless: ClassVar[Mapping[str, str]] = {"name": "repo"}
    only_with: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "revision": ("repo",),
        "files": ("repo",),
        "token_env": ("repo",),
        "sha256": ("path", "url"),
    }

    name: t.FileName = Field(
        _LATER,
        description="Name on the node, below /srv/models: of the file, or of the folder that holds the files of "
        "`repo` (default: `org--name`) or of a folder at `path`.",
        examples=["tiny.gguf", "org--name"],
    )
    path: t.LocalPath | None = Field(
        None,
        description="The file, or a folder of files, on the building machine, relative to the spec.",
        examples=["models/tiny.gguf"],
    )
    url: t.Url | None = Field(
        None, description="Where to download it from.", examples=["https://models.example/tiny.gguf"]
    )
    repo: t.Repo | None = Field(
        None,
        description="A repository on the Hugging Face hub, or on the one that the environment variable "
        "`HF_ENDPOINT` names when the lock is made and the medium is built.",
        examples=["org/name"],
    )
    revision: t.Revision | None = Field(
        None,
        description="Commit, branch or tag of `repo`; the lock pins the commit. Default: `main`.",
        examples=["main", "9217f5db79a29953eb74d5343926648285ec7e67"],
    )
    files: tuple[t.FileGlob, ...] | None = Field(
        None,
        description="Which files of `repo`: paths or globs (`*` takes `/` too), each of which must find one. "
        "Default: all.",
        examples=[["*.gguf", "config.json"]],
    )
    token_env: t.Variable | None = Field(
        None,
        description="Name of the environment variable that holds the hub's token, for a gated or private "
        "`repo`. Never the token itself: it is not kept anywhere, and goes to the hub alone.",
        examples=["HF_TOKEN"],
    )
    sha256: t.Sha256 | None = Field(
        None,
        description="SHA-256. A file with another one is refused. Without it, the lock pins what is found.",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    )

    @model_validator(mode="before")
    @classmethod
    def _folder_of_a_repository(cls, given: Any) -> Any:
        """``org/name`` becomes ``org--name``: no repository's own name holds two hyphens."""
        if isinstance(given, dict) and isinstance(given.get("repo"), str) and not given.get("name"):
            return {**given, "name": given["repo"].replace("/", "--")}
        return given


class Image(Section):
    """A container image that every node has at hand, without a network."""

    ref: t.ImageName = Field(
        description="Its name, whole: registry, repository and tag. The node knows it by that name.",
        examples=["docker.io/library/busybox:1.37", "ghcr.io/org/name:1.0"],
    )
    digest: t.ImageDigest | None = Field(
        None,
        description="What the tag must mean: the digest of the image, or of its index of platforms. Without it, "
        "the lock pins what is found.",
        examples=["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    )
    path: t.LocalPath | None = Field(
        None,
        description="An OCI archive on the building machine, relative to the spec, to take it from instead of its "
        "registry.",
        examples=["images/name.tar"],
    )


class Opening(Section):
    """A port that is opened on every node."""

    port: t.Port = Field(description="Port, or a range in quotes.", examples=[8080, "8000-8010"])
    proto: Literal["tcp", "udp"] = Field("tcp", description="Protocol.", examples=["tcp"])
    source: t.Source = Field(
        "cluster",
        alias="from",
        description="Who may connect: `cluster` (the subnet), `any`, or a network.",
        examples=["cluster", "any", "192.168.1.0/24"],
    )

    @property
    def first(self) -> int:
        """The lowest port."""
        return int(str(self.port).partition("-")[0])

    @property
    def last(self) -> int:
        """The highest port, the same as ``first`` unless a range was given."""
        return int(str(self.port).rpartition("-")[2])


class Firewall(Section):
    """Everything that comes in is dropped, apart from ssh and what is allowed here."""

    ssh: t.Source = Field(
        "any",
        description="Who may reach ssh: `cluster` (the subnet), `any`, or a network.",
        examples=["any", "192.168.1.0/24"],
    )
    allow: tuple[Opening, ...] = Field((), description="What is opened besides.")


class Join(Section):
    """When nodes count as one cluster, where an engine makes them one."""

    mixed_plans: Literal["flag", "refuse"] = Field(
        "flag",
        description="A node that was installed from another plan than the others: `flag` lets it join, and "
        "`node-doctor` and `builder status` name it; `refuse` does not count it as joined.",
        examples=["refuse"],
    )


def _kind_of_iso(text: str) -> str:
    """Which key of ``base_iso`` a single value is the value of."""
    if "://" in text:
        return "url"
    return "release" if re.fullmatch(r"[0-9]+(\.[0-9]+)*", text) else "path"


class BaseIso(Section):
    """The official Ubuntu Server ISO that is remastered. A single value stands for one of the first three keys."""

    choice = Choice(("release", "url", "path"), exactly=True)
    short = _kind_of_iso

    release: t.BaseRelease | None = Field(
        None,
        description="Number or code name; it must be `distribution.release`. The newest point release is taken.",
        examples=["24.04", "noble"],
    )
    url: t.Url | None = Field(
        None,
        description="Where to download it from.",
        examples=["https://mirror.example/ubuntu-24.04.3-live-server-amd64.iso"],
    )
    path: t.LocalPath | None = Field(
        None,
        description="The file on the building machine, relative to the spec.",
        examples=["ubuntu-24.04.3-live-server-amd64.iso"],
    )
    sha256: t.Sha256 | None = Field(
        None,
        description="SHA-256. Another ISO is refused.",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    )


class Media(Section):
    """The install medium."""

    installer: Literal["direct", "subiquity"] = Field(
        "direct",
        description="Which installer is on it: `direct` is the builder's own, `subiquity` is Ubuntu's, on its "
        "official ISO, for nodes that run Ubuntu.",
        examples=["direct", "subiquity"],
    )
    base_iso: BaseIso | None = Field(
        None,
        description="The ISO that is remastered, with `installer: subiquity`. Default: that of "
        "`distribution.release`.",
        examples=["24.04"],
    )
    serial: t.Console | None = Field(
        "ttyS0,115200",
        description="Serial console, beside the screen, of the medium and of the nodes; `null` for none.",
        examples=["ttyS0,115200"],
    )
    countdown: t.Countdown = Field(
        5, description="Seconds that the boot menu waits before it installs.", examples=[5]
    )
    after: Literal["reboot", "poweroff"] = Field(
        "reboot", description="What a machine does when it is installed.", examples=["reboot"]
    )
    volume: t.Volume | None = Field(
        None,
        description="Volume label of the ISO. Default: the cluster's name.",
        examples=["QUICKSTART"],
    )
    stick_size: t.Size | None = Field(
        None,
        description="Size of the USB stick (`lsblk`; one sold as 16 GB has 14.9G), to tell beforehand whether the "
        "medium fits.",
        examples=["14.9G"],
    )


class Cluster(Section):
    """A whole spec. ``access.ssh_keys`` holds the keys found through ``ssh_key_files`` as well.

    ``storage.luks.passphrase`` is what the file held.
    """

    name: t.Label = Field(description="What it is called; so are the artifacts.", examples=["quickstart"])
    network: Network = Field(description="The network that the nodes share.")
    distribution: Distribution = Field(
        Distribution(), description="What the nodes run, and where its packages come from."
    )
    access: Access = Field(Access(), description="Who may log in.")
    nodes: tuple[Node, ...] = Field(description="The machines.", min_length=1)
    storage: Storage = Field(Storage(), description="Disk and partitions, for nodes that do not say otherwise.")
    models: tuple[Model, ...] = Field((), description="Files that every node gets, read-only and verified.")
    firewall: Firewall = Field(Firewall(), description="What is let in, beside ssh.")
    engine: SerializeAsAny[Engine] = Field(
        NoEngine(),
        description="What makes the nodes one cluster: a name, or a group with the engine's options.",
        examples=["none", "llamacpp", "exo"],
    )
    gpu: Gpu | None = Field(None, description="The nodes' GPUs. Default: none.")
    runtime: Literal["none", "docker"] = Field(
        "none",
        description="Whether nodes run containers beside what the engine runs: `docker` installs and sets up the "
        "distribution's Docker.",
        examples=["docker"],
    )
    images: tuple[Image, ...] = Field(
        (), description="Container images that every node loads from its own disk, with `runtime: docker`."
    )
    join: Join = Field(Join(), description="When nodes count as one cluster.")
    media: Media = Field(Media(), description="The install medium.")

    @property
    def volume(self) -> str:
        """The ISO's volume label: the one given, or one made of the cluster's name."""
        return self.media.volume or self.name.upper().replace("-", "_")[:32]

    @property
    def base_iso(self) -> BaseIso | None:
        """The ISO to remaster: the one given, or the release's; None with the direct installer."""
        if self.media.installer != "subiquity":
            return None
        return self.media.base_iso or BaseIso(release=self.distribution.release)

    @property
    def features(self) -> tuple[str, ...]:
        """What asks for packages of the distribution: the disks' layout, and the containers' runtime."""
        return (*self.storage.features, *(["docker"] if self.runtime == "docker" else []))

    def node(self, name: str) -> Node:
        """The node of that name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def disk_of(self, node: Node) -> Disk:
        """The disk a node is installed to: its own wish, or the cluster's."""
        return node.disk or self.storage.disk
