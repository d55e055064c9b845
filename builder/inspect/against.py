"""Whether a medium is what a spec would make now, and if not, what differs, in words. Pure.

Both sides are payloads: what the medium carries, and what the plan would put there. What a plan cannot know before
it is built (the bytes of a layer) is left out; the plan's id, which covers everything, tells whether it matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from builder.console import human
from builder.inspect.installed import address_of
from builder.inspect.show import disk_words
from builder.media import payload
from builder.media.payload import Payload
from builder.plan import Plan

_SPECIAL = ("base_iso", "files", "layers", "made_of", "models", "nodes", "packages", "plan")
_UNLISTED = (
    "what differs is nothing that this medium lists: the archive's date, a rendered file of the site layer, a "
    "package of the engine, or the builder's own code or templates"
)
_PARTS = {
    "base": "the layer below",
    "code": "the builder's own code",
    "epoch": "the archive's date",
    "templates": "the builder's own templates",
}
_ABSENT = "nothing"
_SHOWN = 40  # differences
_KEYS = 6  # of a document that differs
_ID = 12  # digits of a plan's id that are shown


def wanted(plan: Plan) -> Payload:
    """What the plan would put on a medium, as far as it is known without a build."""
    files = plan.texts
    entries = [
        {"path": path, "size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        for path, text in sorted(files.items())
    ]
    models = {f"models/{model.sha256}": model for model in plan.models}
    entries += [{"path": path, "size": model.size, "sha256": model.sha256} for path, model in models.items()]
    return Payload(payload.manifest(plan, entries), files)


def differences(there: Payload | None, now: Payload) -> tuple[str, ...]:
    """Every difference, one a line; empty if the medium is what would be built. ``there``: None if not ours."""
    if there is None:
        return ("it is not a medium that this builder made",)
    old, new = there.manifest, now.manifest
    found = [
        *_values(_plain(old, _SPECIAL), _plain(new, _SPECIAL)),
        *_base_iso(old.get("base_iso"), new.get("base_iso")),
        *_nodes(there, now),
        *_packages(old.get("packages", []), new["packages"]),
        *_models(there, now),
        *_layers(old["layers"], new["layers"]),
        *_made_of(old.get("made_of", {}), new["made_of"]),
    ]
    if old["plan"] != new["plan"]:
        found.insert(0, f"plan: {old['plan'][:_ID]} on the medium, {new['plan'][:_ID]} now")
        if len(found) == 1:
            found.append(_UNLISTED)
    return tuple(found)


def table(spec: str, differs: Sequence[str]) -> str:
    """The differences for a person, below an inspection's table."""
    verdict = "is not what it would build now" if differs else "is what it would build now"
    shown = differs[:_SHOWN]
    more = [f"  … and {len(differs) - _SHOWN} more; --json has all"] if len(differs) > _SHOWN else []
    return "\n".join((f"against   {spec}: the medium {verdict}", *(f"  {text}" for text in shown), *more))


def _base_iso(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[str]:
    """Two ISOs of one name may differ: Ubuntu's daily ones, or a file that was replaced."""
    if old != new:
        was, is_now = (f"{one['name']}, {one['sha256'][:_ID]}" if one else _ABSENT for one in (old, new))
        yield f"base ISO: {was} on the medium, {is_now} now"


def _nodes(there: Payload, now: Payload) -> Iterator[str]:
    old = {node["name"]: node for node in there.manifest["nodes"]}
    new = {node["name"]: node for node in now.manifest["nodes"]}
    before, after = _digests(there), _digests(now)
    yield from (f"{name}: on the medium, not in the spec" for name in old if name not in new)
    for name in new:
        if name not in old:
            yield f"{name}: in the spec, not on the medium"
            continue
        yield from (f"{name}: {change}" for change in _node(there, now, old[name], new[name]))
        was, now_is = before.get(old[name]["seed"], {}), after.get(new[name]["seed"], {})
        changed = sorted(file for file in was.keys() | now_is.keys() if was.get(file) != now_is.get(file))
        if changed:
            told = [f"{file}{_where(there, now, f'seeds/{name}/{file}')}" for file in changed]
            yield f"{name}: its seed differs: {', '.join(told)}"
        if before.get("autoinstall", {}).get(f"{name}.json") != after.get("autoinstall", {}).get(f"{name}.json"):
            yield f"{name}: its autoinstall document differs{_where(there, now, f'autoinstall/{name}.json')}"


def _node(there: Payload, now: Payload, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old["match"] != new["match"]:
        yield f"match {_pairs(old['match'])} on the medium, {_pairs(new['match'])} now"
    if old["disk"] != new["disk"]:
        yield f"{disk_words(old['disk'])} on the medium, {disk_words(new['disk'])} now"
    yield from _values(_plain(old, ("name", "match", "disk")), _plain(new, ("name", "match", "disk")))
    addresses = address_of(there, old["seed"]), address_of(now, new["seed"])
    if addresses[0] != addresses[1]:
        yield f"address {addresses[0]} on the medium, {addresses[1]} now"


def _where(there: Payload, now: Payload, path: str) -> str:
    """Which keys of a document differ; never their values, of which some are secrets."""
    texts = there.files.get(path), now.files.get(path)
    try:
        old, new = (yaml.safe_load(text) if isinstance(text, bytes) else None for text in texts)
    except (yaml.YAMLError, UnicodeDecodeError):
        return ""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ""
    keys = list(_keys(old, new))
    return f" ({', '.join(keys[:_KEYS])}{', …' if len(keys) > _KEYS else ''})" if keys else ""


def _keys(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The dotted paths at which two documents differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _keys(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{path}.{key}".lstrip("."))
    elif old != new:
        yield path


def _digests(side: Payload) -> dict[str, dict[str, str]]:
    """Folder of the payload → file name → digest."""
    found: dict[str, dict[str, str]] = {}
    for entry in side.manifest["files"]:
        folder, _, name = entry["path"].rpartition("/")
        found.setdefault(folder, {})[name] = entry["sha256"]
    return found


def _packages(old: list[dict[str, str]], new: list[dict[str, str]]) -> Iterator[str]:
    before = {(p["name"], p["architecture"]): p["version"] for p in old}
    after = {(p["name"], p["architecture"]): p["version"] for p in new}
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            yield f"package {key[0]}: {before[key]} on the medium, none now"
        elif key not in before:
            yield f"package {key[0]}: none on the medium, {after[key]} now"
        elif before[key] != after[key]:
            yield f"package {key[0]}: {before[key]} on the medium, {after[key]} now"


def _models(there: Payload, now: Payload) -> Iterator[str]:
    before, after = _blobs(there), _blobs(now)
    yield from (f"model {name}: on the medium, not in the lock" for name in before if name not in after)
    for name, (sha256, size) in after.items():
        if name not in before:
            yield f"model {name}: in the lock, not on the medium"
        elif before[name] != (sha256, size):
            was, had = before[name]
            yield f"model {name}: {human(had)}, {was[:_ID]} on the medium, {human(size)}, {sha256[:_ID]} now"


def _blobs(side: Payload) -> dict[str, tuple[str, int]]:
    entries = {entry["path"]: (entry["sha256"], entry["size"]) for entry in side.manifest["files"]}
    return {model["name"]: entries.get(model["path"], ("", 0)) for model in side.manifest["models"]}


def _layers(old: list[str], new: list[str]) -> Iterator[str]:
    if old != new:
        yield f"layers: {_names(old)} on the medium, {_names(new)} now"


def _made_of(old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What went into each layer, and into the medium besides. Packages of the base layer are told by version, the
    archive's date once; an older builder's medium says nothing of it."""
    for layer in new if old else ():
        was, is_now = old.get(layer, {}), new[layer]
        told = {"packages"} if layer == "base" else {"epoch"}
        parts = [
            part
            for part in dict.fromkeys((*is_now, *was))
            if was.get(part) != is_now.get(part) and part not in told
        ]
        if layer in old and parts:
            yield f"{layer}: made with other {', '.join(_PARTS.get(part, part) for part in parts)}"


def _names(paths: list[str]) -> str:
    return " < ".join(path.rpartition("/")[2] for path in paths)


def _plain(data: Mapping[str, Any], special: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in special}


def _values(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every value that differs, by its dotted path; whatever keys a manifest may get."""
    for key in sorted(old.keys() | new.keys()):
        path = f"{prefix}{key}"
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _values(before, after, f"{path}.")
        elif before != after:
            yield f"{path}: {_shown(path, before)} on the medium, {_shown(path, after)} now"


def _shown(path: str, value: Any) -> str:
    """Partitions are sizes in bytes, and None there is the rest of the disk."""
    if path.startswith("storage.") and not isinstance(value, bool):
        if value is None:
            return "the rest"
        if isinstance(value, int):
            return f"{human(value)} ({value:,} bytes)"
    return str(value)


def _pairs(match: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in match.items())
