"""Single values of a spec that concern the network: addresses, networks, ports, URLs, interfaces, consoles.

The contract is that of :mod:`builder.spec.rules`.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Literal
from urllib.parse import urlsplit

from builder.spec.rules import NotTextError, as_text, show
from builder.spec.sizes import RuleError

HTTP = r"^https?://[^\s/@?#]+(/\S*)?$"


def mac(text: str) -> str:
    """Six bytes in hex with ``:`` or ``-`` between them; kept in lower case with ``:``."""
    plain = text.lower().replace("-", ":")
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", plain):
        raise RuleError(f"{show(text)} is not a MAC address", "write it like 52:54:00:12:34:56")
    if int(plain[:2], 16) & 1 or plain == "00:00:00:00:00:00":
        raise RuleError(f"{show(text)} is not the address of one network card", "take it from `ip link`")
    return plain


def interface(text: str) -> str:
    """A kernel interface name (at most 15 bytes) or a glob over such names, as netplan's match.name takes."""
    if not re.fullmatch(r"[A-Za-z0-9_.*?\[\]-]{1,32}", text) or (
        not re.search(r"[*?\[]", text) and len(text) > 15
    ):
        raise RuleError(f"{show(text)} is not a network interface name", "write it like enp5s0, or enp*")
    if not re.search("[A-Za-z]", text) or text == "lo":
        raise RuleError(f"{show(text)} would take more than network cards", "write it like enp5s0, or enp*")
    return text


def address(value: object) -> IPv4Address:
    if isinstance(value, IPv4Address):
        return value
    text = as_text(value)
    if "/" in text:
        raise RuleError(f"{show(text)} is a network, not an address", "leave /… out: the subnet says it")
    if ":" in text and re.fullmatch(r"[0-9a-fA-F:.]+", text):
        raise RuleError(f"{show(text)} is an IPv6 address; the cluster's network is IPv4")
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", text, re.ASCII) and re.search(r"\b0[0-9]", text):
        raise RuleError(f"{show(text)} has a number with a leading zero, which some programs read as octal")
    try:
        return IPv4Address(text)
    except ValueError:
        raise RuleError(f"{show(text)} is not an IPv4 address", "write it like 10.0.0.11") from None


def node_address(value: object) -> IPv4Address | Literal["dhcp"]:
    if value == "dhcp":
        return "dhcp"
    try:
        return address(value)
    except NotTextError:
        raise
    except RuleError as wrong:
        raise RuleError(wrong.message, wrong.hint.replace("10.0.0.11", "10.0.0.11, or dhcp")) from None


def network(value: object) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    text = as_text(value)
    if ":" in text and re.fullmatch(r"[0-9a-fA-F:./]+", text):
        raise RuleError(f"{show(text)} is an IPv6 network; the cluster's network is IPv4")
    try:
        found = IPv4Network(text, strict=False)
    except ValueError:
        raise RuleError(f"{show(text)} is not a network", "write it like 10.0.0.0/24") from None
    if "/" in text and text.partition("/")[0] != str(found.network_address):
        raise RuleError(f"{show(text)} is an address within a network", f"write {found}")
    return found


def subnet(value: object) -> IPv4Network:
    """A network that machines can have addresses in: unicast, and from /8 to /30."""
    found = network(value)
    if isinstance(value, str) and "/" not in value:
        raise RuleError(f"{show(value)} has no prefix length", f"write it like {value}/24")
    if not 8 <= found.prefixlen <= 30:
        raise RuleError(f"a /{found.prefixlen} is no subnet for a cluster", "use /8 to /30, most often /24")
    if found.is_multicast or found.is_loopback or found.is_reserved or found.network_address.packed[0] == 0:
        raise RuleError(f"{found} is not for machines", "use a private range, like 10.0.0.0/24")
    return found


def source(value: object) -> IPv4Network | Literal["cluster", "any"]:
    if value == "cluster":
        return "cluster"
    if value == "any":
        return "any"
    try:
        return network(value)
    except NotTextError:
        raise
    except RuleError as wrong:
        if wrong.message.endswith("is not a network"):
            raise RuleError(f"{show(str(value))} is not cluster, any or a network", wrong.hint) from None
        raise


def one_port(number: int) -> int:
    _in_range(number)
    return number


def port(value: object) -> int | str:
    """A port, or a range ``first-last`` as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        _in_range(value)
        return value
    if not isinstance(value, str):
        raise RuleError("must be a port number, or a range like 8000-8010")
    found = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", value, re.ASCII)
    if not found:
        hint = f"write it without quotes: {value}" if re.fullmatch("[0-9]{1,5}", value, re.ASCII) else ""
        raise RuleError(f"{show(value)} is not a port number, nor a range like 8000-8010", hint)
    first, last = int(found[1]), int(found[2])
    _in_range(first)
    _in_range(last)
    if first > last:
        raise RuleError(f"the range {value} is reversed", f"write {last}-{first}")
    return f"{first}-{last}"


def port_range(text: str) -> str:
    """A range ``first-last`` of at least two ports."""
    found = port(text)
    first, _, last = str(found).partition("-")
    if first == last:
        raise RuleError("is one port, and several are wanted", f"write {first}-{min(int(first) + 999, 65535)}")
    return str(found)


def _in_range(number: int) -> None:
    if not 1 <= number <= 65535:
        raise RuleError("is not a port: ports go from 1 to 65535")


def http(text: str) -> str:
    """An http(s) URL without user or password. Messages do not quote it: it may hold a secret."""
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise RuleError("is not a URL", "write it like https://host/path") from None
    if "@" in parts.netloc:
        raise RuleError(
            "holds a user or password, and the medium can be read by anyone", "leave it out of the URL"
        )
    if parts.scheme not in ("http", "https"):
        raise RuleError("is not an http or https URL", "write it like https://host/path")
    if not named or not re.fullmatch(r"[!-~]+", text):
        raise RuleError("is not a URL", "write it like https://host/path")
    return text


def archive(text: str) -> str:
    """The base of a package archive: a URL to which apt adds ``/dists/…``."""
    if "?" in http(text) or "#" in text:
        raise RuleError("must be the archive's base, without ? or #")
    return text


def console(text: str) -> str:
    """As the kernel's ``console=`` takes it: device, speed, parity, bits (Documentation: serial-console)."""
    if not re.fullmatch(r"tty(S|AMA|USB)[0-9]{1,2}(,[0-9]{3,7}([noe][78]?)?)?", text, re.ASCII):
        raise RuleError(f"{show(text)} is not a serial console", "write ttyS0,115200, or null for none")
    return text
