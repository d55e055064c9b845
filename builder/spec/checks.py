"""What needs more than one value to judge: duplicates, addresses and their subnet, wishes that contradict.

Every check is pure and takes a draft: values that could not be read are None or absent, so each check passes
over them. A finding that rests on such a value (``rests_on``) is dropped by the loader.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from builder import engines
from builder.distributions import codename_of, distribution, kernels
from builder.errors import BuilderError
from builder.gpu.check import gpu_fits
from builder.spec.finding import Finding, Keys
from builder.spec.model import Cluster, Disk, Opening
from builder.spec.sizes import format_size

MIN_ROOT = 1 << 30  # bytes; the smallest node takes half of it
UNPRIVILEGED = 1024  # ip(7), ip_unprivileged_port_start: the first port that is not root's alone


def check(cluster: Cluster) -> tuple[Finding, ...]:
    """Everything that is wrong between the values of a spec."""
    return tuple(finding for one in CHECKS for finding in one(cluster))


def release_is_known(cluster: Cluster) -> Iterator[Finding]:
    wanted = cluster.distribution
    try:
        distribution(wanted.name, wanted.release, "generic")
    except BuilderError as error:
        doubt: tuple[Keys, ...] = (("distribution", "name"),)
        message = f"{wanted.name} {wanted.release} is not known"
        yield Finding(("distribution", "release"), message, error.hint, doubt)


def kernel_is_known(cluster: Cluster) -> Iterator[Finding]:
    wanted = cluster.distribution
    known = kernels(wanted.name)
    if wanted.kernel not in known:
        hint = f"take {' or '.join(known)}"
        message = f"{wanted.name} has no {wanted.kernel} kernel"
        yield Finding(("distribution", "kernel"), message, hint, (("distribution", "name"),))


def installer_fits(cluster: Cluster) -> Iterator[Finding]:
    """What only Ubuntu's installer does, and what it needs."""
    installer: Keys = ("media", "installer")
    if cluster.media.installer == "subiquity":
        if cluster.distribution.name != "ubuntu":
            message = f"subiquity installs Ubuntu, and the nodes are to run {cluster.distribution.name}"
            hint = "write distribution.name: ubuntu, or installer: direct"
            yield Finding(installer, message, hint, (("distribution", "name"),))
        if cluster.storage.models.keep:
            message = "subiquity makes the models partition anew"
            yield Finding(
                ("storage", "models", "keep"), message, "leave it out, or write installer: direct", (installer,)
            )
        return
    hint = "write media.installer: subiquity, or leave it out"
    wishes: tuple[tuple[bool, Keys, str], ...] = (
        (cluster.storage.layout == "lvm", ("storage", "layout"), "lvm"),
        (cluster.storage.luks is not None, ("storage", "luks"), "encryption"),
        (cluster.media.base_iso is not None, ("media", "base_iso"), "an official ISO"),
    )
    for wanted, path, what in wishes:
        if wanted:
            yield Finding(path, f"the direct installer knows nothing of {what}", hint, (installer,))


def iso_is_of_the_release(cluster: Cluster) -> Iterator[Finding]:
    wanted, iso = cluster.distribution, cluster.media.base_iso
    if iso is None or iso.release is None or wanted.name != "ubuntu" or cluster.media.installer != "subiquity":
        return
    path: Keys = ("media", "base_iso", "release")
    theirs, ours = (codename_of(wanted.name, release) for release in (iso.release, wanted.release))
    if ours is not None and theirs != ours:
        message = f"{iso.release} is not the nodes' release, which is {wanted.release}"
        hint = f'write "{wanted.release}", or leave it out: it is the default'
        yield Finding(path, message, hint, (("distribution", "release"), ("distribution", "name")))


def names_differ(cluster: Cluster) -> Iterator[Finding]:
    nodes = ((("nodes", i, "name"), node.name) for i, node in enumerate(cluster.nodes))
    yield from _twice(nodes, lambda name, first: f"the name {name} is also {_of(first)}")
    models = ((("models", i, "name"), model.name) for i, model in enumerate(cluster.models))
    yield from _twice(models, lambda name, first: f"the name {name} is also {_of(first)}")


def machines_differ(cluster: Cluster) -> Iterator[Finding]:
    """An identifier belongs to one machine, so no two nodes may share one."""
    seen: dict[tuple[str, str], int] = {}
    for i, node in enumerate(cluster.nodes):
        mine = _identifiers(cluster, i)
        for kind, value in mine.items():
            first = seen.setdefault((kind, value.lower()), i)
            if first == i:
                continue
            other = cluster.nodes[first].name or f"nodes[{first}]"
            theirs = _identifiers(cluster, first)
            hint = "each node needs an identifier of its own"
            if theirs.items() <= mine.items():
                hint = f"a machine that is {node.name or f'nodes[{i}]'} would be {other} as well"
            yield Finding(("nodes", i, "match", kind), f"the {_KINDS[kind]} {value} is also {other}'s", hint)


def addresses_differ(cluster: Cluster) -> Iterator[Finding]:
    pairs = (
        (("nodes", i, "address"), node.address)
        for i, node in enumerate(cluster.nodes)
        if isinstance(node.address, IPv4Address)
    )
    yield from _twice(pairs, lambda address, first: f"the address {address} is also {_of(first)}")


def addresses_are_in_the_subnet(cluster: Cluster) -> Iterator[Finding]:
    subnet, gateway = cluster.network.subnet, cluster.network.gateway
    for i, node in enumerate(cluster.nodes):
        path = ("nodes", i, "address")
        if not isinstance(node.address, IPv4Address):
            continue
        if subnet is not None and (complaint := _outside(subnet, node.address)):
            yield Finding(path, complaint)
        elif node.address == gateway:
            yield Finding(path, f"{node.address} is the gateway's address")
        elif node.address in cluster.network.dns and node.address != gateway:
            yield Finding(path, f"{node.address} is also a name server, which no node is")
        if node.match is not None and node.match.mac is None and node.interface is None:
            rests_on: tuple[Keys, ...] = (("nodes", i, "match", "mac"), ("nodes", i, "interface"))
            message = "a static address needs to know which network card gets it"
            yield Finding(path, message, "give match.mac, or interface: enp5s0", rests_on)


def network_is_sound(cluster: Cluster) -> Iterator[Finding]:
    subnet, gateway, dns = cluster.network.subnet, cluster.network.gateway, cluster.network.dns
    if subnet is None:
        return
    if gateway is not None and (complaint := _outside(subnet, gateway)):
        yield Finding(("network", "gateway"), complaint)
    static = all(isinstance(node.address, IPv4Address) for node in cluster.nodes)
    doubt: tuple[Keys, ...] = (
        ("network", "gateway"),
        ("nodes",),
        *(("nodes", i, "address") for i in range(len(cluster.nodes))),
    )
    for i, server in enumerate(dns):
        path = ("network", "dns", i)
        if server is None:
            continue
        if server in subnet:
            if complaint := _outside(subnet, server):
                yield Finding(path, complaint)
        elif server.is_multicast or server.is_loopback or server.is_unspecified or server.is_reserved:
            yield Finding(path, f"{server} cannot be a name server on the network")
        elif gateway is None and static:
            yield Finding(path, f"{server} is outside {subnet} and there is no gateway to reach it by", "", doubt)
    yield from _twice(
        ((("network", "dns", i), server) for i, server in enumerate(dns)),
        lambda server, first: f"{server} is given twice",
    )
    room = subnet.num_addresses - 2 - (gateway is not None and gateway in subnet)
    if len(cluster.nodes) > room:
        message = f"{subnet} has room for {room} machines, and there are {len(cluster.nodes)} nodes"
        yield Finding(("network", "subnet"), message)


def disks_are_one_machines(cluster: Cluster) -> Iterator[Finding]:
    """A serial number or WWN names one disk in the world; it cannot be in two machines."""
    shared = [i for i, node in enumerate(cluster.nodes) if node.disk is None]
    for kind in ("serial", "wwn"):
        if getattr(cluster.storage.disk, kind, None) and len(shared) > 1:
            message = f"names one disk, and {len(shared)} nodes would use it"
            doubt = tuple(("nodes", i, "disk") for i in shared)
            yield Finding(("storage", "disk", kind), message, "give each node its own disk", doubt)
        pairs = (
            (("nodes", i, "disk", kind), value.lower().removeprefix("0x"))
            for i, node in enumerate(cluster.nodes)
            if (value := getattr(node.disk, kind, None))
        )
        yield from _twice(pairs, lambda _value, first: f"this disk is also {_of(first)}")


def partitions_fit(cluster: Cluster) -> Iterator[Finding]:
    storage = cluster.storage
    if storage.root == "rest" and storage.models.size == "rest":
        message = "root and models cannot both take the rest of the disk"
        hint = "give one of them a size; root is rest unless it has one"
        yield Finding(("storage", "models"), message, hint, (("storage", "root"),))
    if isinstance(storage.root, int) and storage.root < MIN_ROOT:
        yield Finding(("storage", "root"), f"a node needs at least {format_size(MIN_ROOT)}")
    least = sum(size for size in (storage.root, storage.models.size) if isinstance(size, int))
    wishes: list[tuple[Keys, Disk | None]] = [(("storage", "disk"), storage.disk)]
    wishes += [(("nodes", i, "disk"), node.disk) for i, node in enumerate(cluster.nodes)]
    for path, disk in wishes:
        if disk is not None and disk.min_size and disk.min_size < least:
            message = "is less than storage.root and storage.models need together"
            yield Finding((*path, "min_size"), message, rests_on=(("storage", "root"), ("storage", "models")))


def packages_differ(cluster: Cluster) -> Iterator[Finding]:
    pairs = ((("distribution", "packages", i), name) for i, name in enumerate(cluster.distribution.packages))
    yield from _twice(pairs, lambda name, first: f"{name} is given twice")


def openings_differ(cluster: Cluster) -> Iterator[Finding]:
    """Two openings for the same source must not overlap (nftables would refuse them), nor repeat ``any``."""
    groups: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for i, opening in enumerate(cluster.firewall.allow):
        if opening.port is not None and opening.proto is not None and opening.source is not None:
            group = groups.setdefault((opening.proto, _source(cluster, opening)), [])
            group.append((opening.first, opening.last, i))
    for (proto, source), spans in groups.items():
        spans.sort()
        widest = spans[0]
        for span in spans[1:]:
            if span[0] <= widest[1]:
                later, earlier = max(span[2], widest[2]), min(span[2], widest[2])
                message = f"{proto} is opened to the same machines by firewall.allow[{earlier}] already"
                yield Finding(("firewall", "allow", later, "port"), message, "name each port once")
            widest = max(widest, span, key=lambda one: one[1])
        if source == "any":
            continue
        open_to_all = _Spans(groups.get((proto, "any"), ()))
        for first, last, i in spans:
            if (found := open_to_all.covering(first, last)) is not None:
                message = f"is open to any by firewall.allow[{found}] already"
                yield Finding(("firewall", "allow", i, "port"), message)


def ssh_has_its_own_key(cluster: Cluster) -> Iterator[Finding]:
    """Port 22 is opened by firewall.ssh; a second rule for it would undo what that says."""
    for i, opening in enumerate(cluster.firewall.allow):
        if opening.port is not None and opening.proto == "tcp" and opening.first <= 22 <= opening.last:
            path = ("firewall", "allow", i, "port")
            yield Finding(path, "includes port 22, which is always open", "say from where under firewall.ssh")


def security_has_its_mirror(cluster: Cluster) -> Iterator[Finding]:
    wanted = cluster.distribution
    if wanted.security_mirror and not wanted.mirror:
        hint = "give both, or neither"
        path = ("distribution", "security_mirror")
        yield Finding(path, "is given without mirror", hint, (("distribution", "mirror"),))


def images_have_a_runtime(cluster: Cluster) -> Iterator[Finding]:
    if cluster.images and cluster.runtime == "none":
        hint = "write runtime: docker, or leave the images out"
        yield Finding(("images",), "nothing runs containers on these nodes", hint, (("runtime",),))
    pairs = ((("images", i, "ref"), image.ref) for i, image in enumerate(cluster.images) if image)
    yield from _twice(pairs, lambda name, _first: f"{name} is given twice")


def engine_fits(cluster: Cluster) -> Iterator[Finding]:
    yield from engines.of(cluster).check(cluster, None)
    taken = engines.ports(cluster)
    for count, port in enumerate(taken):
        first, _, last = port.ports.partition("-")
        if int(first) < UNPRIVILEGED and port.why not in [other.why for other in taken[:count]]:
            message = f"{port.why} wants port {first}, and only root may have one below {UNPRIVILEGED}"
            yield Finding(("engine",), message, f"take one from {UNPRIVILEGED} on")
        for other in taken[:count]:
            if other.why != port.why and other.overlaps(port.proto, int(first), int(last or first)):
                message = f"{port.why} and {other.why} both want port {port.ports}"
                yield Finding(("engine",), message, "choose another")
    for index, opening in enumerate(cluster.firewall.allow):
        if opening and opening.port is not None and opening.proto is not None:
            clash = [port for port in taken if port.overlaps(opening.proto, opening.first, opening.last)]
            if clash:
                message = f"covers port {clash[0].ports}, which is opened for {clash[0].why}"
                hint = "the engine opens what it needs by itself; its options say to whom"
                yield Finding(("firewall", "allow", index), message, hint)


CHECKS: tuple[Callable[[Cluster], Iterator[Finding]], ...] = (
    release_is_known,
    kernel_is_known,
    installer_fits,
    iso_is_of_the_release,
    names_differ,
    machines_differ,
    addresses_differ,
    addresses_are_in_the_subnet,
    network_is_sound,
    disks_are_one_machines,
    partitions_fit,
    packages_differ,
    openings_differ,
    ssh_has_its_own_key,
    security_has_its_mirror,
    images_have_a_runtime,
    engine_fits,
    gpu_fits,
)

_KINDS = {"mac": "MAC address", "serial": "serial number", "uuid": "UUID"}


def _identifiers(cluster: Cluster, index: int) -> dict[str, str]:
    match = cluster.nodes[index].match
    found = {kind: getattr(match, kind, None) for kind in _KINDS}
    return {kind: value for kind, value in found.items() if value}


def _outside(subnet: IPv4Network, address: IPv4Address) -> str:
    """Why no machine can have this address in the subnet; empty when one can."""
    if address not in subnet:
        return f"{address} is outside {subnet}"
    if address == subnet.network_address:
        return f"{address} is the address of the network {subnet} itself"
    if address == subnet.broadcast_address:
        return f"{address} is the broadcast address of {subnet}"
    return ""


def _source(cluster: Cluster, opening: Opening) -> str:
    if opening.source == "cluster":
        return str(cluster.network.subnet)
    return "any" if str(opening.source) == "0.0.0.0/0" else str(opening.source)


class _Spans:
    """Port ranges (first, last, index) that answer which of them covers another."""

    def __init__(self, spans: Iterable[tuple[int, int, int]]) -> None:
        self.starts: list[int] = []
        self.widest: list[tuple[int, int]] = []  # (last, index): the furthest end of all that start no later
        for first, last, index in sorted(spans):
            self.starts.append(first)
            self.widest.append(max(self.widest[-1] if self.widest else (0, -1), (last, index)))

    def covering(self, first: int, last: int) -> int | None:
        before = bisect_right(self.starts, first)
        if before and self.widest[before - 1][0] >= last:
            return self.widest[before - 1][1]
        return None


def _of(path: Keys) -> str:
    return f"{path[0]}[{path[1]}]'s"


def _twice(pairs: Iterable[tuple[Keys, Hashable]], message: Callable[[Hashable, Keys], str]) -> Iterator[Finding]:
    """A finding for each value that came before; None is passed over."""
    seen: dict[Hashable, Keys] = {}
    for path, value in pairs:
        if value is None:
            continue
        first = seen.setdefault(value, path)
        if first != path:
            yield Finding(path, message(value, first))
