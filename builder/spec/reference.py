"""``docs/spec.md``: every key of a spec, made from the model so that it cannot go out of date."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from builder.engines import ENGINES
from builder.spec.model import Cluster
from builder.spec.section import Section
from builder.spec.slots import Slot, slots

HEAD = """# The spec: `cluster.yaml`

<!-- Made from builder/spec/model.py by `make golden`; edit the descriptions there. -->

One file says what the cluster is. Unknown keys are refused, every mistake is reported at once with its line,
and nothing is guessed. `builder init` writes a commented one to start from; `builder schema` prints the JSON
Schema.

YAML reads some values differently from how they look: `13` is a number and `no` is false. Text that looks
like something else goes in quotes: `release: "13"`.

A **size** is text like `20G`, `512M` or `1.5T`: powers of 1024, with a unit (K, M, G, T).
"""


# The rule that a value must pass → what the type is called.
WORDS = {
    "label": "host name",
    "user": "user name",
    "password_hash": "crypt(5) hash",
    "public_key": "public key lines",
    "mac": "MAC address",
    "serial": "text",
    "uuid": "UUID",
    "interface": "interface name or glob",
    "disk_text": "text",
    "disk_path": "name or glob",
    "size": "size",
    "root_size": "size or `rest`",
    "models_size": "size, `rest` or `fit`",
    "address": "IPv4 address",
    "node_address": "IPv4 address or `dhcp`",
    "subnet": "IPv4 network",
    "source": "`cluster`, `any` or IPv4 network",
    "port": "port or range",
    "http": "URL",
    "archive": "URL",
    "package": "package names",
    "requirement": "requirements",
    "release": "text",
    "base_release": "text",
    "file_name": "file name",
    "model_path": "name of a model's file",
    "repo": "`org/name`",
    "revision": "text",
    "file_glob": "glob",
    "variable": "variable name",
    "local_path": "path",
    "place": "URL or path of a git repository",
    "word": "text",
    "override": "`NAME==VERSION` or `-NAME`",
    "sha256": "64 hex digits",
    "image": "`HOST/NAME:TAG`",
    "digest": "`sha256:` and 64 hex digits",
    "console": "console",
    "countdown": "0 to 300",
    "volume": "label",
    "one_port": "port",
    "port_range": "range of ports",
    "layers": "1 to 9999",
    "context": "128 to 1048576",
    "bool": "`true` or `false`",
    "gpu_model": "name of a card",
    "gpu_count": "1 to 16",
    "driver": "driver branch",
    "cuda": "version of CUDA, or `none`",
    "fingerprint": "40 hex digits",
}
_PLURALS = {"IPv4 address": "IPv4 addresses", "path": "paths", "glob": "globs"}


def reference() -> str:
    """Markdown of every key: type, default, meaning, example."""
    return "\n".join([HEAD, *_section(Cluster, "", "The whole file")])


def _section(cls: type[Section], path: str, title: str) -> Iterator[str]:
    yield f"## {title}\n"
    text = " ".join((cls.__doc__ or "").split("\n\n", 1)[0].replace("``", "`").split())
    yield f"{text}\n"
    if cls.choice:
        words = ", ".join(f"`{key}`" for key in cls.choice.keys)
        yield f"{'Exactly one' if cls.choice.exactly else 'At least one'} of {words} is required.\n"
    yield "| Key | Type | Default | Meaning | Example |\n|---|---|---|---|---|"
    for key, slot in slots(cls).items():
        info = cls.model_fields[slot.attribute]
        cells = (
            f"`{key}`",
            _type(slot, path + key),
            _default(slot, info.default, cls.unless.get(key)),
            info.description or "",
            " or ".join(f"`{json.dumps(one, ensure_ascii=False)}`" for one in info.examples or ()),
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    if cls is Cluster:
        for kind in ENGINES.values():
            if slots(kind.options).keys() != {"name"}:
                yield from _section(kind.options, "engine.", f"`engine: {kind.name}`")
    for key, slot in slots(cls).items():
        if slot.section and path + key not in ("nodes[].disk", "engine"):
            mark = "[]" if slot.many else ""
            yield from _section(slot.section, f"{path}{key}{mark}.", f"`{path}{key}{mark}`")


def _type(slot: Slot, path: str) -> str:
    if path == "engine":
        word = f"{' or '.join(f'`{name}`' for name in ENGINES)}, or group"
    elif slot.section:
        target = "storage.disk" if path == "nodes[].disk" else path
        anchor = target.replace("[]", "").replace(".", "")
        word = f"[{'list of groups' if slot.many else 'group'}](#{anchor})"
        if slot.section.short and slot.section.choice:
            *words, last = slot.section.choice.keys
            word = f"{', '.join(words)} or {last}, or {word}"
        elif slot.section.short:
            word = f"{WORDS[next(iter(slots(slot.section).values())).rule]}, or {word}"
    elif slot.choices:
        word = " or ".join(f"`{choice}`" for choice in slot.choices)
    else:
        word = WORDS[slot.rule]
        word = f"list of {_PLURALS.get(word, word)}" if slot.many else word
    return f"{word} or `null`" if slot.nullable and path == "media.serial" else word


def _default(slot: Slot, default: Any, unless: str | None) -> str:
    if slot.required:
        return "**required**"
    if unless:
        return f"**required** without `{unless}`"
    if default is None:
        return ""
    if isinstance(default, Section):
        given = default.model_dump(exclude_defaults=True)
        return f"`{json.dumps(given)}`" if given else "each key's own"
    if default == ():
        return "none"
    return f"`{json.dumps(default)}`"
