"""An inspection for a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder.console import human
from builder.inspect import Blob, Inspection
from builder.inspect.installed import Account, NodeRow, Partitions


def table(found: Inspection) -> str:
    """The inspection for a person. Pure."""
    lines = [
        f"medium    {found.medium}: {human(found.size)}, label {found.volume or '(none)'}",
        *([f"system    {found.system}"] if found.system else []),
        f"does      {found.does}",
        *([f"cluster   {found.cluster}: {len(found.nodes)} nodes"] if found.cluster else []),
        *([f"plan      {found.plan}"] if found.plan else []),
        *(f"from      {line}" for line in _blobs([found.base_iso] if found.base_iso else [])),
        *([f"disk      {_partitions(found.storage)}"] if found.storage else []),
        *(f"access    {_account(account)}" for account in found.accounts),
        *([f"after     {_AFTER.get(found.after, found.after)}"] if found.after else []),
        *(f"secret    {secret} is on it, for anyone who holds it" for secret in found.secrets),
        *_section("kernels", [f"{e.title}\n    {' '.join((e.kernel, *e.arguments))}" for e in found.kernels]),
        *_section("seeds", [f"{seed.place}: {_HERE[seed.here]}" for seed in found.seeds]),
        *_section("autoinstall", [f"{document.place}: {document.says}" for document in found.documents]),
        *_section("nodes", [_node(node) for node in found.nodes], most=None),
        *_section("sources", [f"{_mark(s.default)} {s.id:22} {s.path}" for s in found.sources]),
        *_section("layers", _blobs(found.layers)),
        *_section("models", _blobs(found.models), most=None),
        *_section("packages", [f"{found.packages} of the base layer"] if found.packages else []),
        *_section("problems", found.problems, most=None),
    ]
    # An ISO of anybody's may hold what a terminal would obey.
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in "\n".join(lines))


_AFTER = {"reboot": "the machine starts from its disk", "poweroff": "the machine powers off"}
_HERE = {True: "there", False: "not there", None: "not a place on the medium"}


def _section(title: str, rows: Sequence[str], most: int | None = 12) -> list[str]:
    if not rows:
        return []
    shown = [f"  {row}" for row in rows[:most]]
    return [title, *shown, *([f"  … and {len(rows) - len(shown)} more"] if len(rows) > len(shown) else [])]


def _partitions(storage: Partitions) -> str:
    sizes = [("root", storage.root), ("models", storage.models)]
    words = [f"{name} {'the rest' if size is None else human(size)}" for name, size in sizes if size != 0]
    words += ["logical volumes"] if storage.lvm else []
    words += ["encrypted"] if storage.encrypted else []
    words += ["models of an earlier install are kept"] if storage.keeps_models else []
    return ", ".join(words)


def _account(account: Account) -> str:
    keys = [" ".join(filter(None, (one.fingerprint or one.kind, one.comment))) for one in account.keys]
    return f"{account.name}: {', '.join(keys) or 'no ssh key'}; {'a' if account.password else 'no'} password"


def _node(node: NodeRow) -> str:
    match = " ".join(f"{key}={value}" for key, value in node.match.items())
    return f"{node.name:16} {node.address or '-':16} {match}; {disk_words(node.disk)}"


def disk_words(disk: Mapping[str, Any]) -> str:
    """A disk rule of a manifest in words."""
    words = ["the largest disk"] if disk.get("largest") else []
    words += [f"the disk with {key} {disk[key]}" for key in ("serial", "wwn", "path") if disk.get(key)]
    if disk.get("min_size"):
        words.append(f"of {human(disk['min_size'])} or more")
    return " ".join(words) + (", whatever is on it" if disk.get("overwrite") else "")


def _mark(default: bool) -> str:
    return "*" if default else " "


def _blobs(blobs: Sequence[Blob]) -> list[str]:
    width = max((len(blob.name) for blob in blobs), default=0)
    sizes = [human(blob.size) if blob.size is not None else "not listed" for blob in blobs]
    return [
        f"{blob.name:{width}} {size:>10}  {(blob.sha256 or '')[:16]}".rstrip()
        for blob, size in zip(blobs, sizes, strict=True)
    ]
