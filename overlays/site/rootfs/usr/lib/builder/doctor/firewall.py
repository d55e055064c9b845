"""Which of the spec's openings the live ruleset does not let in: a walk over the rules of ``nft --json``. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

TABLE, CHAIN = "builder", "input"


class Closed(NamedTuple):
    """An opening that is not open, and the chain that stops it: "inet builder input"."""

    opening: dict[str, Any]
    chain: str
    because: str  # "no rule lets it in" or the rule that drops it


def as_nft(opening: dict) -> str:
    """The rule that opens it, in nftables' language, as the site layer renders it."""
    family = "ip6" if ":" in (opening["source"] or "") else "ip"
    source = f"{family} saddr {opening['source']} " if opening["source"] else ""
    return f"{source}{opening['proto']} dport {opening['ports']} accept"


def loaded(ruleset: tuple[dict, ...]) -> bool:
    """Whether our table is there at all."""
    return any(item.get("table", {}).get("name") == TABLE for item in ruleset)


def closed(ruleset: tuple[dict, ...], openings: list[dict]) -> list[Closed]:
    """Every opening that some chain on the way in stops; one drop is enough, so other tables count too."""
    found = []
    for chain in _input_chains(ruleset):
        name = f"{chain['family']} {chain['table']} {chain['name']}"
        rules = [item["rule"]["expr"] for item in ruleset if "rule" in item and _in(item["rule"], chain)]
        for opening in openings:
            verdict = _verdict(rules, opening)
            if verdict == "drop":
                found.append(Closed(opening, name, "a rule before it drops or rejects"))
            elif verdict is None and chain.get("policy") == "drop":
                found.append(Closed(opening, name, "no rule lets it in"))
    return found


def _input_chains(ruleset: tuple[dict, ...]) -> list[dict]:
    chains = [item["chain"] for item in ruleset if "chain" in item]
    return [c for c in chains if c.get("hook") == "input" and c["family"] in ("ip", "inet")]


def _in(rule: dict, chain: dict) -> bool:
    return (rule["family"], rule["table"], rule["chain"]) == (chain["family"], chain["table"], chain["name"])


def _verdict(rules: list[list[dict]], opening: dict) -> str | None:
    """What happens to a new connection of this opening: "accept", "drop", or None for the policy."""
    for rule in rules:
        matches = True
        for part in rule:
            if "match" in part:
                matches = matches and _matches(part["match"], opening, drops=_drops(rule))
            elif not matches:
                break
            elif "accept" in part:
                return "accept"
            elif "drop" in part or "reject" in part:
                return "drop"
            elif "vmap" in part:
                # Ours is over the connection's state, in which a new one has no entry. Others are not followed.
                break
    return None


def _drops(rule: list[dict]) -> bool:
    return any("drop" in part or "reject" in part for part in rule)


def _matches(match: dict, opening: dict, *, drops: bool) -> bool:
    """Whether one match fits all of the opening, or, in a rule that drops, any of it.

    What we do not know does not fit.
    """
    left, right = match["left"], match["right"]
    if match["op"] not in ("==", "in"):
        return False
    payload, meta, ct = left.get("payload", {}), left.get("meta", {}), left.get("ct", {})
    if payload.get("field") == "dport":
        if payload["protocol"] not in (opening["proto"], "th"):
            return False
        first, last = _range(opening["ports"])
        return any(_fits(first, last, *_range(item), drops) for item in _items(right))
    if payload.get("field") == "saddr" and payload["protocol"] in ("ip", "ip6"):
        wanted = ipaddress.ip_network(opening["source"] or "0.0.0.0/0")
        networks = [network for item in _items(right) for network in _networks(item)]
        networks = [network for network in networks if network.version == wanted.version]
        return any(wanted.overlaps(n) if drops else wanted.subnet_of(n) for n in networks)
    if meta.get("key") in ("l4proto", "protocol", "nfproto"):
        return bool({opening["proto"], "ip", "ipv4"} & set(map(str, _items(right))))
    if ct.get("key") == "state":
        return "new" in _items(right)
    return False


def _fits(first: int, last: int, low: int, high: int, drops: bool) -> bool:
    return (first <= high and low <= last) if drops else (low <= first and last <= high)


def _items(right: Any) -> list[Any]:
    if isinstance(right, dict) and "set" in right:
        return list(right["set"])
    return right if isinstance(right, list) else [right]


def _range(value: Any) -> tuple[int, int]:
    if isinstance(value, dict) and "range" in value:
        return int(value["range"][0]), int(value["range"][1])
    if isinstance(value, dict):
        return -1, -1
    first, _, last = str(value).partition("-")
    return (int(first), int(last or first)) if first.isdigit() else (-1, -1)


def _networks(item: Any) -> list[Any]:
    if isinstance(item, dict) and "prefix" in item:
        item = f"{item['prefix']['addr']}/{item['prefix']['len']}"
    if isinstance(item, dict) and "range" in item:
        ends = [ipaddress.ip_address(end) for end in item["range"]]
        return list(ipaddress.summarize_address_range(*ends))
    try:
        return [ipaddress.ip_network(item)]
    except (ValueError, TypeError):
        return []  # the name of a set
