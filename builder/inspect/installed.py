"""What a payload makes of a machine: its nodes, their partitions, who may log in. Pure.

Read from what is on the medium, the seeds and documents themselves: a spec may say something else by now.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from builder.media.payload import Payload


@dataclass(frozen=True)
class NodeRow:
    """A node that the medium installs; ``address`` from its seed, None if that is not there or says none."""

    name: str
    match: Mapping[str, Any]
    disk: Mapping[str, Any]
    address: str | None


@dataclass(frozen=True)
class Partitions:
    """Sizes in bytes: None takes the rest of the disk, 0 is no partition."""

    root: int | None
    models: int | None
    lvm: bool
    encrypted: bool
    keeps_models: bool


@dataclass(frozen=True)
class Key:
    """A key that opens an account: its type, its fingerprint as ``ssh-keygen -l`` shows it, its comment."""

    kind: str
    fingerprint: str
    comment: str


@dataclass(frozen=True)
class Account:
    """An account on every node; ``password``: whether it has one, for the console."""

    name: str
    keys: tuple[Key, ...]
    password: bool


def nodes(payload: Payload) -> tuple[NodeRow, ...]:
    """The nodes that a payload installs, in its order."""
    return tuple(
        NodeRow(node["name"], node["match"], node["disk"], address_of(payload, node["seed"]))
        for node in payload.manifest["nodes"]
    )


def address_of(payload: Payload, seed: str) -> str | None:
    """The first address in a seed's network-config (netplan), or ``dhcp``; None if that says neither."""
    text = payload.files.get(f"{seed}/network-config")
    try:
        cards = _load(text)["ethernets"].values() if isinstance(text, bytes) else ()
        for card in cards:
            if card.get("addresses"):
                return str(card["addresses"][0]).partition("/")[0]
            if card.get("dhcp4") is True:
                return "dhcp"
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None
    return None


def storage(payload: Payload) -> Partitions:
    """The partitions of the nodes, which are all cut alike."""
    sizes = payload.manifest["storage"]
    kinds = {action.get("type") for action in _actions(payload)}
    return Partitions(
        root=sizes.get("root"),
        models=sizes.get("models"),
        lvm="lvm_volgroup" in kinds,
        encrypted="dm_crypt" in kinds,
        keeps_models=sizes.get("keep") is True,
    )


def accounts(payload: Payload) -> tuple[Account, ...]:
    """Who may log in to the nodes, by the seed of the first: they are alike."""
    return tuple(
        Account(
            name=str(user.get("name")),
            keys=tuple(key(str(line)) for line in user.get("ssh_authorized_keys") or ()),
            password=_has_password(user),
        )
        for user in _users(payload)
    )


def secrets(payload: Payload) -> tuple[str, ...]:
    """What of this medium is nobody else's business, in words."""
    found = ["the passphrase of the nodes' disks"] if storage(payload).encrypted else []
    found += [f"the hash of {user.get('name')}'s password" for user in _users(payload) if _has_password(user)]
    return tuple(found)


def key(line: str) -> Key:
    """A public key line taken apart. Pure; what is none has no fingerprint."""
    words = line.split(None, 2)
    try:
        digest = hashlib.sha256(b64decode(words[1], validate=True)).digest()
    except (IndexError, Error):
        return Key(words[0] if words else "", "", "")
    return Key(words[0], f"SHA256:{b64encode(digest).decode().rstrip('=')}", words[2] if len(words) > 2 else "")


def _has_password(user: Mapping[str, Any]) -> bool:
    return bool(user.get("hashed_passwd") or user.get("passwd")) and user.get("lock_passwd") is False


def _users(payload: Payload) -> Iterator[Mapping[str, Any]]:
    found = _first(payload, "seed", "/user-data").get("users")
    yield from (user for user in (found if isinstance(found, list) else ()) if isinstance(user, dict))


def _actions(payload: Payload) -> Iterator[Mapping[str, Any]]:
    """What curtin does to the disk, where Ubuntu's installer is on the medium."""
    found = _first(payload, "autoinstall").get("storage")
    config = found.get("config") if isinstance(found, dict) else None
    yield from (action for action in (config if isinstance(config, list) else ()) if isinstance(action, dict))


def _first(payload: Payload, what: str, name: str = "") -> Mapping[str, Any]:
    """A document of the first node; empty if it is not there or cannot be read."""
    nodes = payload.manifest["nodes"]
    text = payload.files.get(f"{nodes[0].get(what)}{name}") if nodes else None
    try:
        found = _load(text) if isinstance(text, bytes) else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _load(text: bytes) -> Any:
    """There may be a thousand of them, and the loader in C is ten times faster."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
