"""Is a document sound? Held against what we mean, since Ubuntu's own schema lets most mistakes through.

It has no opinion on ``storage`` at all, nor on nested keys of most sections; a misspelt layout is taken for
another one without a word. All that is wrong is told at once, each with its path. No message quotes a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from builder.autoinstall import actions
from builder.autoinstall.releases import RELEASES
from builder.autoinstall.shapes import ANYTHING, Group, complaints
from builder.errors import BuilderError, Exit

Complaint = tuple[str, str]

_BOOTSTRAP = ("version", "early-commands", "error-commands", "reporting")
# What a node's document must say. early-commands would never run: they are over when it is put in place.
_NODE = (
    *("version", "error-commands", "late-commands", "reporting", "refresh-installer", "locale", "keyboard"),
    *("timezone", "source", "network", "proxy", "apt", "storage", "user-data", "ssh", "packages", "snaps"),
    *("codecs", "drivers", "oem", "debconf-selections", "updates", "shutdown"),
)


def document(made: Mapping[str, Any], codename: str, *, what: str, finished: bool = False) -> None:
    """Judge a node's document. ``what`` names it; ``finished``: a picker has filled in disk and boot loader.

    Raises BuilderError (BUG) with every complaint.
    """
    _raise(node_complaints(made, codename, finished=finished), what)


def bootstrap(made: Mapping[str, Any], codename: str, *, what: str) -> None:
    """Judge the document that runs the picker. Raises BuilderError (BUG) with every complaint."""
    keys = RELEASES[codename].keys
    shape = Group({key: keys[key] for key in _BOOTSTRAP})
    _raise((*complaints(made, shape, ""), *_commands(made)), what)


def node_complaints(made: Mapping[str, Any], codename: str, *, finished: bool = False) -> Iterator[Complaint]:
    """(path, what is wrong) of everything in a node's document."""
    accepts = RELEASES[codename]
    keys = dict(accepts.keys)
    for never, why in _NEVER.items():
        keys.pop(never, None)
        if never in made:
            yield never, why
    if accepts.keeps_kernel:
        keys.pop("kernel", None)
    optional = {key: shape for key, shape in keys.items() if key not in _NODE and shape is not ANYTHING}
    if not accepts.keeps_kernel and "kernel" not in made:
        yield "kernel", "is missing: the release would install its own and purge the one of the layers"
    known = {key: value for key, value in made.items() if key not in _NEVER}
    layout = isinstance(made.get("storage"), dict) and "layout" in made["storage"]
    for path, complaint in complaints(known, Group({key: keys[key] for key in _NODE}, optional), ""):
        if path != "storage.layout":
            yield path, complaint
    if layout:
        yield "storage.layout", "must not be there: a name that subiquity does not know makes another layout"
    yield from _commands(made)
    yield from _accounts(made)
    yield from _cards(made)
    if isinstance(made.get("storage"), dict) and isinstance(made["storage"].get("config"), list):
        yield from actions.complaints(made["storage"]["config"], finished=finished)


_NEVER = {
    "early-commands": "never run in a node's document: they are over when it is put in place",
    "identity": "would make an account besides those of user-data",
    "interactive-sections": "would wait for a person",
}


def _commands(made: Mapping[str, Any]) -> Iterator[Complaint]:
    for key in ("early-commands", "late-commands", "error-commands"):
        commands = made.get(key, [[""]])
        if commands == []:
            yield key, "is empty"
        for index, argv in enumerate(commands if isinstance(commands, list) else []):
            if argv == []:
                yield f"{key}[{index}]", "is an empty command"


def _accounts(made: Mapping[str, Any]) -> Iterator[Complaint]:
    user_data = made.get("user-data")
    if isinstance(user_data, dict) and not user_data.get("users"):
        yield "user-data.users", "is missing: without an identity section, nobody could log in"


def _cards(made: Mapping[str, Any]) -> Iterator[Complaint]:
    network = made.get("network")
    if isinstance(network, dict) and network.get("ethernets") == {}:
        yield "network.ethernets", "is empty"


def _raise(found: Iterable[Complaint], what: str) -> None:
    lines = [f"  {path or '(document)'}: {complaint}" for path, complaint in found]
    if lines:
        raise BuilderError(
            "\n".join([f"{what} is not sound", *lines]),
            hint="this is a mistake of the builder's, not of the spec",
            code=Exit.BUG,
        )
