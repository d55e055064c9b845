"""What differs between versions of exo: the one table. Nobody else compares versions. Pure.

Facts are read from exo's source at each commit; the files are named beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from builder.engines.exo import mends
from builder.engines.kind import Port

URL = "https://github.com/exo-explore/exo"
API = "exo API"
PEERS = "exo peers"
RING = "exo MLX ring"
# One random port an instance (master/placement.py, random_ephemeral_port), never the API's. It may be
# builder-join's or
# the peers', which are there first: the runners fail, exo gives up after five tries, and exo-place asks again.
_RING_PORTS = range(49152, 65536)


@dataclass(frozen=True)
class Fork:
    """A Python package that exo takes from a git branch. ``like``: the release whose dependencies it has."""

    url: str
    commit: str
    like: str


@dataclass(frozen=True)
class Gpu:
    """What a node with NVIDIA's driver runs. ``driver``: the oldest that serves it; ``headers``: the package that
    brings what MLX's run-time compiler includes, and where in the packages' folder, or "" if MLX looks there by
    itself; ``torch``: uv's name of PyTorch's index.
    """

    extra: str
    driver: str
    headers: str
    headers_in: str
    torch: str


@dataclass(frozen=True)
class Version:
    """One version of exo.

    ``transport``: libp2p nodes and zenoh nodes cannot form one cluster. ``peer_flag``: pins the peers' port;
    ``default_port`` is ours where exo's own is random. ``discovery``, ``group``: the multicast by which nodes find
    each other. ``bootstrap``: the flag that names peers by address beside it, None where there is none.
    ``namespace``: how a node is told it, an environment variable that exo makes a pre-shared key of, or a flag;
    ``secret``: whether that keeps others out. ``module``, ``crate``: the Rust extension. ``keeps``: what it
    persists that no image may hold. ``cards``: whether cards of its own that are laid into its data folder survive
    a start. ``edits``: mends of its source, (path, old, new). ``stuck``: packages that exist as source only.
    """

    name: str
    commit: str
    transport: Literal["libp2p", "zenoh"]
    peer_flag: str
    default_port: int
    bootstrap: str | None
    namespace: tuple[Literal["variable", "flag"], str]
    secret: bool
    discovery: Port
    group: str
    crate: str
    module: str
    distribution: str
    cpu: str
    gpu: Mapping[str, Gpu]
    forks: Mapping[str, Fork] = field(default_factory=dict)
    stuck: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    link_local: bool = False
    cards: bool = True
    edits: tuple[tuple[str, str, str], ...] = ()

    def ports(self, peers: int, clients: str) -> tuple[Port, ...]:
        """Everything that a node lets in. ``peers``: the peers' TCP port; ``clients``: who may use the API."""
        inside = "link-local" if self.link_local else "cluster"
        api = [Port("tcp", str(API_PORT), "cluster", API)]
        if clients != "cluster":  # the nodes probe each other at the API's port, whoever else may use it
            api.append(Port("tcp", str(API_PORT), clients, API))
        ring = (Port("tcp", ports, "cluster", RING) for ports in ranges(_RING_PORTS, {JOIN, API_PORT, peers}))
        return (self.discovery, Port("tcp", str(peers), inside, PEERS), *api, *ring)


def ranges(ports: range, without: Collection[int]) -> Iterator[str]:
    """The ranges that are left of ``ports``, as a firewall writes them."""
    first = ports.start
    for port in sorted(port for port in without if port in ports):
        if first < port:
            yield f"{first}-{port - 1}"
        first = port + 1
    if first < ports.stop:
        yield f"{first}-{ports.stop - 1}"


JOIN = 50051  # builder-join's, which every engine has open
# The topology's edges are made by probing /node_id at each peer's address and this node's own --api-port, so it is
# the same everywhere, and fixed (utils/info_gatherer/net_profile.py).
API_PORT = 52415

VERSIONS = {
    version.name: version
    for version in (
        Version(
            name="v1.0.71",
            commit="fd707de30b42db4211d15da96b9052e1dc280ed1",
            transport="libp2p",
            peer_flag="--libp2p-port",  # main.py; exo's own default 0 is a random port
            default_port=30415,
            bootstrap="--bootstrap-peers",
            namespace=("variable", "EXO_LIBP2P_NAMESPACE"),  # rust/networking/src/swarm.rs, PNET_PRESHARED_KEY
            secret=True,
            # libp2p-mdns, IPv4 only (rust/networking/src/discovery.rs)
            discovery=Port("udp", "5353", "cluster", "exo discovery"),
            group="224.0.0.251",
            crate="exo_pyo3_bindings",
            module="exo_pyo3_bindings",
            distribution="exo-pyo3-bindings",
            cpu="cpu",
            # Driver minimums: MLX, docs/src/install.rst.
            gpu={
                "cuda12": Gpu("cuda12", "550.54.14", "nvidia-cuda-runtime-cu12==12.9.*", "", "cu126"),
                "cuda13": Gpu("cuda13", "580", "nvidia-cuda-runtime==13.0.*", "nvidia/cu13", "cu130"),
            },
            forks={
                "mlx-lm": Fork(
                    "https://github.com/rltakashige/mlx-lm", "c7010341e1f41ac15815feb5dc55134f44e3b044", "0.31.3"
                )
            },
            stuck=("miniaudio",),
            keeps=("config/exo/node_id.keypair", "cache/exo/exo_log", "data/exo/event_log"),
            edits=(mends.LET_THE_STATUS_OUT, mends.BE_PATIENT, mends.COUNT_LATE_VOTES, *mends.FORGET_OLD_IDS),
        ),
        Version(
            name="zenoh-2026-06-22",
            commit="b5375f8cee4368d09e1ce96a56b9f81fb0bc81aa",
            transport="zenoh",
            peer_flag="--zenoh-port",
            default_port=52414,
            bootstrap=None,
            namespace=(
                "flag",
                "--namespace",
            ),  # a filter for greetings, sent in clear (rust/networking, discovery.rs)
            secret=False,
            discovery=Port("udp", "52413", "link-local", "exo discovery"),
            group="ff12::e0a1:de89",  # rust/networking/src/discovery.rs
            crate="exo_rs",
            module="exo_rs",
            distribution="exo-rs",
            cpu="mlx-cpu",
            gpu={
                "cuda12": Gpu("mlx-cuda12", "550.54.14", "nvidia-cuda-runtime-cu12==12.9.*", "", "cu126"),
                "cuda13": Gpu("mlx-cuda13", "580", "nvidia-cuda-runtime==13.0.*", "nvidia/cu13", "cu130"),
            },
            forks={
                "mlx-lm": Fork(
                    "https://github.com/rltakashige/mlx-lm", "6a3df6cd6b00a347ee40f12d97a182aaf86ea599", "0.31.3"
                ),
                "mflux": Fork(
                    "https://github.com/evanev7/mflux", "0fdd4cca9468dd92d8c2511c88031e937655eb01", "0.17.5"
                ),
            },
            stuck=("miniaudio",),
            keeps=("cache/exo/node_zid", "cache/exo/exo.pid", "cache/exo/exo_log", "data/exo/event_log"),
            link_local=True,
            cards=False,
        ),
    )
}
DEFAULT = "v1.0.71"
