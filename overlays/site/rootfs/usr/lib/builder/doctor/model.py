"""The values that the doctor's decisions are made of. No imports that cost time: a node may be slow."""

from __future__ import annotations

from typing import Any, NamedTuple


class Ok(NamedTuple):
    """A check that passed; ``what`` says what was seen."""

    what: str


class Problem(NamedTuple):
    """A check that failed: what is wrong, why we think so, and what to do."""

    what: str
    why: str
    do: str


class NotRun(NamedTuple):
    """A check that could not be made; it is never a pass."""

    reason: str


Result = Ok | Problem | NotRun


class Door(NamedTuple):
    """A TCP port that a node offers for the engine. ``serial``: it serves one client at a time.

    A connection to a serial door while it serves somebody stays in its queue, and a full queue looks like a
    firewall; so nobody may knock on one just to look.
    """

    port: int
    unit: str
    why: str
    serial: bool = False


class Link(NamedTuple):
    """A network interface. ``carrier``: None when the interface is down, and so cannot tell."""

    name: str
    mac: str
    carrier: bool | None
    addresses: tuple[str, ...]


class Peer(NamedTuple):
    """What we learnt of another node.

    ``knocks``: port → one of net.KNOCKS, or "not tried". ``neighbour``: the state of its entry in the kernel's
    table, or "". ``ping``: None when it could not be tried. ``says``: the answer of its builder-join;
    ``no_answer``: why there is none. ``ahead``: seconds that its clock is ahead of ours; None without an answer.
    """

    name: str
    address: str
    knocks: dict[int, str]
    neighbour: str = ""
    ping: bool | None = None
    says: dict[str, Any] | None = None
    no_answer: str = ""
    ahead: float | None = None


class Unit(NamedTuple):
    """A systemd unit: the properties of the same names, and the last line that its own process logged."""

    load: str
    active: str
    sub: str = ""
    result: str = ""
    restarts: int = 0
    last: str = ""


class Facts(NamedTuple):
    """Everything that the checks look at. None: could not be learnt; ``limits`` says why, by fact.

    ``multicast``: the group and port that the engine needs, None if it needs none. ``heard``: node → seconds since
    its last word there.
    """

    node: str
    cluster: dict[str, Any]
    plan: str
    links: tuple[Link, ...] = ()
    cloud_init: tuple[str, ...] | None = ()
    ruleset: tuple[dict[str, Any], ...] | None = ()
    peers: dict[str, Peer] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    doors: dict[str, tuple[Door, ...]] = {}  # noqa: RUF012
    multicast: dict[str, Any] | None = None
    heard: dict[str, float] | None = None
    units: dict[str, Unit] = {}  # noqa: RUF012
    models: dict[str, str | None] | None = {}  # noqa: RUF012
    unhashed: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = ()
    members: dict[str, str | None] | None = None
    url: str = ""
    notes: tuple[str, ...] = ()
    limits: dict[str, str] = {}  # noqa: RUF012

    @property
    def address(self) -> str:
        """This node's own address by the spec, or "dhcp"."""
        return str(next(n["address"] for n in self.cluster["nodes"] if n["name"] == self.node))

    @property
    def engine(self) -> str:
        return str(self.cluster["engine"]["name"])
