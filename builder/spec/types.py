"""The types of the spec's fields: a rule each, and what an editor is told in the JSON Schema."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from builder.containers import reference
from builder.spec import gpurules, netrules, rules
from builder.spec.sizes import PATTERN as SIZE_PATTERN
from builder.spec.sshkeys import TYPES, public_key


def _string(pattern: str = "", **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **({"pattern": pattern} if pattern else {}), **more})


_OCTETS = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"
_SIZE = {"type": "string", "pattern": SIZE_PATTERN}

Label = Annotated[str, AfterValidator(rules.label), _string(rules.LABEL)]
User = Annotated[str, AfterValidator(rules.user), _string(r"^[a-z_][a-z0-9_-]{0,31}$")]
PasswordHash = Annotated[str, AfterValidator(rules.password_hash), _string(r"^\$(y|gy|6|5|2[aby])\$")]
PublicKey = Annotated[str, AfterValidator(public_key), _string(f"^({'|'.join(TYPES)}) ".replace(".", r"\."))]
Mac = Annotated[str, AfterValidator(netrules.mac), _string(r"^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$")]
Serial = Annotated[str, AfterValidator(rules.serial), _string(minLength=1)]
Uuid = Annotated[str, AfterValidator(rules.uuid), _string(r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]
Interface = Annotated[str, AfterValidator(netrules.interface), _string(r"^[A-Za-z0-9_.*?\[\]-]{1,32}$")]
DiskText = Annotated[str, AfterValidator(rules.disk_text), _string(minLength=1)]
DiskPath = Annotated[str, AfterValidator(rules.disk_path), _string(r"^(/dev/disk/by-(id|path)/)?[^/]+$")]
Size = Annotated[int, PlainValidator(rules.size), WithJsonSchema(_SIZE)]
RootSize = Annotated[
    int | Literal["rest"],
    PlainValidator(rules.root_size),
    WithJsonSchema({"anyOf": [{"const": "rest"}, _SIZE]}),
]
ModelsSize = Annotated[
    int | Literal["rest", "fit"],
    PlainValidator(rules.models_size),
    WithJsonSchema({"anyOf": [{"enum": ["rest", "fit"]}, _SIZE]}),
]
Address = Annotated[IPv4Address, PlainValidator(netrules.address), _string(f"^{_OCTETS}$")]
NodeAddress = Annotated[
    IPv4Address | Literal["dhcp"], PlainValidator(netrules.node_address), _string(f"^(dhcp|{_OCTETS})$")
]
Subnet = Annotated[IPv4Network, PlainValidator(netrules.subnet), _string(f"^{_OCTETS}/[0-9]{{1,2}}$")]
Source = Annotated[
    IPv4Network | Literal["cluster", "any"],
    PlainValidator(netrules.source),
    _string(f"^(cluster|any|{_OCTETS}(/[0-9]{{1,2}})?)$"),
]
Port = Annotated[
    int | str,
    PlainValidator(netrules.port),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
            ]
        }
    ),
]
PortRange = Annotated[str, AfterValidator(netrules.port_range), _string("^[0-9]+-[0-9]+$")]
OnePort = Annotated[
    int, AfterValidator(netrules.one_port), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})
]
Context = Annotated[
    int, AfterValidator(rules.context), WithJsonSchema({"type": "integer", "minimum": 128, "maximum": 1 << 20})
]
Layers = Annotated[
    int, AfterValidator(rules.layers), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 9999})
]
Url = Annotated[str, AfterValidator(netrules.http), _string(netrules.HTTP)]
Archive = Annotated[str, AfterValidator(netrules.archive), _string(netrules.HTTP)]
Package = Annotated[str, AfterValidator(rules.package), _string(rules.PACKAGE)]
Requirement = Annotated[str, AfterValidator(rules.requirement), _string(rules.REQUIREMENT)]
Release = Annotated[str, AfterValidator(rules.release), _string(r"^([a-z]+|[0-9]+(\.[0-9]+)?)$")]
BaseRelease = Annotated[str, AfterValidator(rules.base_release), _string(r"^([a-z]+|[0-9]+\.[0-9]+)$")]
FileName = Annotated[str, AfterValidator(rules.file_name), _string(rules.FILE_NAME)]
ModelPath = Annotated[str, AfterValidator(rules.model_path), _string(rules.MODEL_PATH)]
Repo = Annotated[str, AfterValidator(rules.repo), _string(rules.REPO)]
Revision = Annotated[str, AfterValidator(rules.revision), _string(r"^[A-Za-z0-9_][A-Za-z0-9_./+-]*$")]
FileGlob = Annotated[str, AfterValidator(rules.file_glob), _string(minLength=1)]
Variable = Annotated[str, AfterValidator(rules.variable), _string("^[A-Z_][A-Z0-9_]{0,63}$")]
LocalPath = Annotated[str, AfterValidator(rules.local_path), _string(minLength=1)]
Place = Annotated[str, AfterValidator(rules.place), _string(minLength=1)]
Word = Annotated[str, AfterValidator(rules.word), _string(rules.WORD)]
Override = Annotated[str, AfterValidator(rules.override), _string(rules.OVERRIDE)]
Sha256 = Annotated[str, AfterValidator(rules.sha256), _string("^[0-9a-fA-F]{64}$")]
ImageName = Annotated[str, AfterValidator(reference.image), _string(reference.PATTERN)]
ImageDigest = Annotated[str, AfterValidator(reference.digest), _string(reference.DIGEST)]
Console = Annotated[str, AfterValidator(netrules.console), _string(r"^tty(S|AMA|USB)[0-9]")]
Countdown = Annotated[
    int, AfterValidator(rules.countdown), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 300})
]
Volume = Annotated[str, AfterValidator(rules.volume), _string("^[A-Z0-9_]{1,32}$")]
GpuModel = Annotated[str, AfterValidator(gpurules.gpu_model), _string(minLength=1)]
GpuCount = Annotated[
    int, AfterValidator(gpurules.gpu_count), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 16})
]
Driver = Annotated[str, AfterValidator(gpurules.driver), _string("^[0-9]{3}$")]
Cuda = Annotated[str, AfterValidator(gpurules.cuda), _string(r"^(none|[0-9]{2}(\.[0-9])?)$")]
Fingerprint = Annotated[str, AfterValidator(gpurules.fingerprint), _string("^([0-9A-Fa-f] ?){40}$")]
