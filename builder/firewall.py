"""The firewall: what a node lets in, derived from the spec. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from builder import engines
from builder.spec.model import Cluster

SSH = 22
LINK_LOCAL = "fe80::/10"  # IPv6 on the cable alone (RFC 4291, 2.5.6)


@dataclass(frozen=True)
class Rule:
    """One opening. ``ports`` is a port or a range like "8000-8010"; ``source`` a subnet, or None for anywhere."""

    proto: str
    ports: str
    source: str | None
    why: str

    @property
    def as_nft(self) -> str:
        """The rule's match in nftables' language, without its verdict."""
        family = "ip6" if ":" in (self.source or "") else "ip"
        return (f"{family} saddr {self.source} " if self.source else "") + f"{self.proto} dport {self.ports}"


def rules(cluster: Cluster) -> tuple[Rule, ...]:
    """Every opening of a node, in the order in which it is written down."""
    ssh = Rule("tcp", str(SSH), _source(cluster, cluster.firewall.ssh), "ssh")
    return (
        ssh,
        *(
            Rule(port.proto, port.ports, _source(cluster, port.source), port.why)
            for port in engines.ports(cluster)
        ),
        *(
            Rule(
                opening.proto,
                str(opening.port),
                _source(cluster, opening.source),
                "firewall.allow in the spec",
            )
            for opening in cluster.firewall.allow
        ),
    )


def _source(cluster: Cluster, source: object) -> str | None:
    names = {"any": None, "cluster": str(cluster.network.subnet), "link-local": LINK_LOCAL}
    return names.get(str(source), str(source))
