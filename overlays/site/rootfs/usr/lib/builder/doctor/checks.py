"""Why this node is not in the cluster: each check a pure function of the gathered facts."""

from __future__ import annotations

from collections.abc import Callable

from . import firewall, node, watch
from .model import Facts, NotRun, Ok, Peer, Problem, Result
from .multicast import FRESH

SKEW = 2.0  # seconds between two nodes' clocks before it is a problem
_THERE = ("REACHABLE", "DELAY", "PROBE", "PERMANENT", "NOARP")  # STALE is an old answer, and proves nothing now
_NOBODY = ("FAILED", "INCOMPLETE")
_ALONE = "this node is the only one"


def address(facts: Facts) -> Result:
    """This node has the address that the spec gave it."""
    wanted = facts.address
    have = {a: link.name for link in facts.links for a in link.addresses}
    if wanted == "dhcp":
        if have:
            return Ok(f"by DHCP: {', '.join(f'{a} on {name}' for a, name in have.items())}")
    elif wanted in have:
        return Ok(f"{wanted} on {have[wanted]}")
    what = f"the address {wanted} is missing" if wanted != "dhcp" else "no address came by DHCP"
    if not facts.links:
        why = "there is no network card that the kernel has a driver for"
        return Problem(what, why, "see `lspci -nn`; firmware packages go to distribution.packages in the spec")
    if facts.cloud_init:
        do = "see /var/log/cloud-init.log; the seed is made from the spec, so mend the spec and reinstall"
        return Problem(what, f"cloud-init failed: {facts.cloud_init[0]}", do)
    down = [link.name for link in facts.links if link.carrier is False]
    if down and len(down) == len([link for link in facts.links if link.carrier is not None]):
        do = "plug in the cable, or look at the switch's port"
        return Problem(what, f"no carrier on {', '.join(down)}", do)
    if facts.cloud_init is None:
        return Problem(what, "cloud-init did not finish", "wait, or see `cloud-init status --long`")
    shown = ", ".join(
        f"{link.name} {link.mac} {' '.join(link.addresses) or 'without address'}" for link in facts.links
    )
    do = "compare the cards' MAC addresses with the node's match in the spec, and see `networkctl status`"
    return Problem(what, f"the cards are: {shown}", do)


def peers(facts: Facts) -> Result:
    """Every other node is there at all."""
    if not facts.peers:
        return NotRun(_no_peers(facts))
    gone = [peer for peer in facts.peers.values() if not reachable(peer)]
    if not gone:
        return Ok(f"{len(facts.peers)} reachable")
    if len(gone) > 1 and len(gone) == len(facts.peers):
        do = "they are many, so look at this node's cable, switch port and VLAN first"
    else:
        do = "see that it is switched on, plugged into the same network, and has that address (node-doctor there)"
    names = ", ".join(f"{peer.name} ({peer.address})" for peer in gone)
    return Problem(f"{names} cannot be reached", "; ".join(f"{p.name}: {_silence(p)}" for p in gone), do)


def reachable(peer: Peer) -> bool:
    """Whether anything shows that the machine is there; a dropped packet shows nothing, its ARP answer does."""
    if peer.says is not None or peer.ping or {"open", "refused"} & set(peer.knocks.values()):
        return True
    return "unreachable" not in peer.knocks.values() and peer.neighbour in (*_THERE, "STALE")


def _silence(peer: Peer) -> str:
    if peer.neighbour in _NOBODY:
        return "nobody answers ARP for its address"
    if "unreachable" in peer.knocks.values():
        return "there is no way to it from here"
    return "answers nothing"


def ports_here(facts: Facts) -> Result:
    """This node's firewall lets in what the spec opens."""
    if facts.ruleset is None:
        return NotRun(facts.limits["ruleset"])
    mend = "sudo systemctl restart nftables"
    if not firewall.loaded(facts.ruleset):
        return Problem(
            "the firewall is not loaded", "there is no table inet builder", f"{mend}, then node-doctor again"
        )
    closed = firewall.closed(facts.ruleset, facts.cluster["ports"])
    if not closed:
        return Ok(f"{len(facts.cluster['ports'])} openings")
    what = [f"{c.opening['proto']} {c.opening['ports']} ({c.opening['why']}) is closed here" for c in closed]
    why = [f"{c.because} in {c.chain}; it should be: {firewall.as_nft(c.opening)}" for c in closed]
    if any(not c.chain.startswith(f"inet {firewall.TABLE} ") for c in closed):
        mend = "take the foreign table away (sudo nft delete table …), or open the port there too"
    else:
        mend += " loads the spec's rules again"
    return Problem("; ".join(what), "; ".join(dict.fromkeys(why)), mend)


def ports_there(facts: Facts) -> Result:
    """The other nodes' engine ports answer."""
    if not any(facts.doors.values()):
        return NotRun(_no_engine(facts))
    tried = [(peer, door) for peer in facts.peers.values() for door in facts.doors[peer.name] if reachable(peer)]
    if not tried:
        return NotRun(_no_peers(facts) if not facts.peers else "no other node can be reached")
    bad = [(peer, door, peer.knocks[door.port]) for peer, door in tried if peer.knocks[door.port] not in _FINE]
    if not bad:
        return Ok(", ".join(f"{peer.name}:{door.port} {_FINE[peer.knocks[door.port]]}" for peer, door in tried))
    what, why, do = [], [], []
    for peer, door, state in bad:
        what.append(f"{peer.name}:{door.port} ({door.why}) {state}")
        if state == "refused":
            why.append(f"{peer.name} is there, but {door.unit} does not run on it")
            do.append(f"on {peer.name}: sudo node-doctor; systemctl status {door.unit}")
        else:
            # A serial door that says nothing may also be full, but then its builder-join says that it serves.
            why.append(f"{peer.name} is there, but a firewall drops what goes to that port")
            do.append(f"on {peer.name}: sudo node-doctor names the rule; else a switch or router between filters")
    return Problem("; ".join(what), "; ".join(why), "; ".join(dict.fromkeys(do)))


_FINE = {"open": "open", "not tried": "in use"}


def multicast(facts: Facts) -> Result:
    """Multicast passes, for an engine that finds its peers by it."""
    used = facts.multicast
    if used is None:
        return NotRun(f"the engine ({facts.engine}) does not use multicast")
    if facts.heard is None:
        return NotRun(facts.limits["heard"])
    speaking = {
        peer.name: peer.says["heard"]
        for peer in facts.peers.values()
        if peer.says and peer.says.get("heard") is not None
    }
    if not speaking:
        return NotRun(_no_answers(facts))
    deaf = [f"from {name} it does not arrive here" for name in speaking if not _fresh(facts.heard, name)]
    deaf += [
        f"from here it does not arrive at {name}"
        for name, heard in speaking.items()
        if not _fresh(heard, facts.node)
    ]
    group = f"{used['group']}, udp {used['port']}"
    if not deaf:
        return Ok(f"{group}: to and from {len(speaking)} nodes{_unheard(facts)}")
    why = "they answer each other otherwise, so a firewall drops it, or what is between them does"
    do = "see `ports here` on both nodes; else a switch with IGMP snooping and no querier (turn it off), or Wi-Fi"
    instead = f"; or write {used['instead']}" if used["instead"] else ""
    return Problem(f"multicast ({group}): {'; '.join(deaf)}", why, do + instead)


def _fresh(heard: dict[str, float], name: str) -> bool:
    return heard.get(name, FRESH) < FRESH


def plan(facts: Facts) -> Result:
    """All nodes were installed from the same build."""
    answers = {peer.name: str(peer.says["plan"]) for peer in facts.peers.values() if peer.says}
    if not answers:
        return NotRun(_no_answers(facts))
    differ = {name: theirs for name, theirs in answers.items() if theirs != facts.plan}
    if not differ:
        return Ok(f"{facts.plan[:12]} on {len(answers) + 1} nodes{_unheard(facts)}")
    why = ", ".join(f"{name} has {theirs[:12]}" for name, theirs in differ.items())
    do = "reinstall the nodes with the old plan from the new stick; `builder status` shows which they are"
    refused = ", which the spec refuses" if node.refuses_mixed_plans(facts.cluster) else ""
    what = f"{', '.join(differ)}: another plan than here{refused}"
    return Problem(what, f"{why}; this node has {facts.plan[:12]}", do)


def clock(facts: Facts) -> Result:
    """The nodes' clocks agree."""
    ahead = {peer.name: peer.ahead for peer in facts.peers.values() if peer.ahead is not None}
    if not ahead:
        return NotRun(_no_answers(facts))
    off = {name: seconds for name, seconds in ahead.items() if abs(seconds) > SKEW}
    if not off:
        return Ok(f"within {SKEW:.0f} s of {len(ahead)} nodes{_unheard(facts)}")
    what = ", ".join(f"{name} is {abs(s):.0f} s {'ahead' if s > 0 else 'behind'}" for name, s in off.items())
    # If all are off by about the same, it is this clock that is wrong.
    ours = len(off) > 1 and len(off) == len(ahead) and max(off.values()) - min(off.values()) <= SKEW
    why = "all others agree, so this node's clock is wrong" if ours else f"more than {SKEW:.0f} s apart"
    do = "set it (sudo date --set=…), or let timesyncd reach a time server; without one, check the battery"
    return Problem(f"clocks differ: {what}", why, do)


def engine(facts: Facts) -> Result:
    """The engine's units run on this node."""
    units = {name: unit for name, unit in facts.units.items() if name != "builder-models.service"}
    if not units:
        return NotRun(_no_engine(facts))
    for name, unit in units.items():
        see = f"journalctl --boot --unit {name}"
        if unit.load == "not-found":
            do = "this node was not installed with the engine's layer: reinstall"
            return Problem(f"{name} is not installed", "systemd knows no such unit", do)
        if not unit.load:
            return NotRun("systemd does not answer")
        if unit.sub == "auto-restart" or unit.active == "failed":
            why = unit.last or f"result {unit.result}, and it logged nothing"
            return Problem(f"{name} crashed ({unit.result}, restarted {unit.restarts} times)", why, f"see {see}")
        if unit.active == "inactive" and facts.units.get("builder-models.service", unit).active == "failed":
            return Problem(
                f"{name} was not started", "builder-models.service failed", "see the check of the models"
            )
        if unit.active not in ("active", "reloading"):
            return Problem(f"{name} is {unit.active or 'unknown'}", unit.last or "it logged nothing", f"see {see}")
    restarted = [f"{name} restarted {unit.restarts} times" for name, unit in units.items() if unit.restarts]
    return Ok(", ".join(f"{name} runs" for name in units) + (f" ({', '.join(restarted)})" if restarted else ""))


def models(facts: Facts) -> Result:
    """The models are what the manifest says."""
    if not facts.models:
        return NotRun("the spec has no models")
    bad = {name: said for name, said in facts.models.items() if said}
    if bad:
        do = "reinstall this node; if it happens again, test its disk (smartctl) and memory"
        return Problem(f"model {', '.join(bad)}", "; ".join(f"{name}: {said}" for name, said in bad.items()), do)
    verifier = facts.units.get("builder-models.service")
    if facts.unhashed and (verifier is None or verifier.active != "active"):
        return NotRun("sizes are right, but builder-models.service has not verified the digests")
    return Ok(f"{', '.join(facts.models)} verified" + (" at this boot" if facts.unhashed else ""))


def gpu(facts: Facts) -> Result:
    """The GPU stack passes its proof, and the driver sees the cards, if the cluster is to have some."""
    if facts.gpus is None:
        return NotRun(facts.limits.get("gpus", "not looked for"))
    if facts.gpus:
        return Ok("; ".join(facts.gpus))
    do = "see `lspci | grep -i nvidia`, `dmesg | grep -i nvrm`; a card that is not listed: reseat it"
    return Problem("the GPU cannot be used", facts.limits.get("gpus_why", "the driver sees none"), do)


def membership(facts: Facts) -> Result:
    """The engine itself says that all nodes are in."""
    if facts.members is None:
        return NotRun(_no_engine(facts))
    n, total = watch.count(facts.members)
    if n == total:
        return Ok(f"joined {n}/{total}")
    do = "the other problems say why; if there is none, run node-doctor on the node that is missing"
    return Problem(f"joined {n}/{total}", watch.missing(facts.members), do)


CHECKS: dict[str, Callable[[Facts], Result]] = {
    "address": address,
    "peers": peers,
    "ports here": ports_here,
    "ports there": ports_there,
    "multicast": multicast,
    "plan": plan,
    "clock": clock,
    "engine": engine,
    "models": models,
    "gpu": gpu,
    "joined": membership,
}


def all_of(facts: Facts) -> dict[str, Result]:
    """Every check's result, in the order in which a cause comes before its consequences."""
    return {name: check(facts) for name, check in CHECKS.items()}


def _no_peers(facts: Facts) -> str:
    return (
        _ALONE if len(facts.cluster["nodes"]) == 1 else "the other nodes' addresses come by DHCP and are not known"
    )


def _no_engine(facts: Facts) -> str:
    return "this cluster has no engine" if facts.engine == "none" else "nothing to look at"


def _no_answers(facts: Facts) -> str:
    if facts.engine == "none":
        return "the nodes of a cluster without an engine do not tell each other"
    return "no other node's builder-join answers" if facts.peers else _no_peers(facts)


def _unheard(facts: Facts) -> str:
    silent = [peer.name for peer in facts.peers.values() if peer.says is None]
    return f"; no answer from {', '.join(silent)}" if silent else ""
