"""The documents for Ubuntu's installer: whole, for every spec, and accepted by Ubuntu's schema and by ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder import autoinstall, nodefacts, seeds
from builder.autoinstall import check, storage
from builder.autoinstall.releases import RELEASES
from builder.distributions.ubuntu import UBUNTU
from builder.installer import commands, disk, guard
from builder.installer import layout as layouts
from builder.installer.model import Storage
from builder.lock import LockedModel
from builder.spec.load import loads
from builder.spec.model import Cluster

SHARED = Path(os.environ.get("BUILDER_SHARED", Path(__file__).parents[2].parent / "shared"))
PASSPHRASE = "correct horse battery staple"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop"
MODELS = (LockedModel("tiny.gguf", "0123456789abcdef" * 4, 3 << 30),)

SPEC = """\
name: lab
network: {{subnet: 192.168.1.0/24, gateway: 192.168.1.1, dns: [192.168.1.1]}}
distribution: {{name: ubuntu, release: "{release}"}}
access: {{ssh_keys: ["{key}"]}}
nodes:
  - name: left
    match: {{mac: "02:00:00:50:70:01"}}
    address: 192.168.1.51
  - name: right
    match: {{serial: MJ0ABCDE}}
storage: {storage}
media: {{installer: subiquity, after: poweroff}}
"""


def spec(folder: Path, release: str = "24.04", storage: str = "{}") -> Cluster:
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    return loads(SPEC.format(release=release, storage=storage, key=KEY), base=folder)


def made(cluster: Cluster, name: str = "left", models: tuple[LockedModel, ...] = MODELS) -> dict[str, Any]:
    node = cluster.node(name)
    seed = seeds.seed(cluster, node, seeds.user_data(cluster))
    return autoinstall.document(cluster, node, seed, nodefacts.storage(cluster, models))


def actions(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {action["id"]: action for action in document["storage"]["config"]}


@cache
def validator(number: str) -> jsonschema.Draft7Validator | None:
    """Ubuntu's own schema, if it is here."""
    path = SHARED / f"data/autoinstall-schema-{number}.json"
    return jsonschema.Draft7Validator(json.loads(path.read_text())) if path.exists() else None


def ubuntu_s_schema(number: str) -> jsonschema.Draft7Validator:
    found = validator(number)
    if found is None:
        pytest.skip(f"Ubuntu's schema of {number} is not here (BUILDER_SHARED)")
    return found


LUKS = "luks: {passphrase_file: passphrase}"
SHAPES = [
    ("24.04-direct", "24.04", "{root: 60G, models: rest}"),
    ("26.04-direct", "26.04", "{}"),
    ("24.04-lvm", "24.04", "{layout: lvm, root: 60G, models: rest}"),
    ("26.04-lvm-luks", "26.04", f"{{layout: lvm, {LUKS}}}"),
    ("24.04-luks", "24.04", f"{{{LUKS}}}"),
]


@pytest.mark.parametrize(("name", "release", "layout"), SHAPES)
def test_documents(
    name: str, release: str, layout: str, tmp_path: Path, golden: Callable[[str, str], None]
) -> None:
    document = made(spec(tmp_path, release, layout))
    golden(f"autoinstall/{name}.yaml", yaml.safe_dump(document, sort_keys=False, width=110))


@pytest.mark.parametrize(("name", "release", "layout"), SHAPES)
def test_ubuntu_s_schema_accepts_them(name: str, release: str, layout: str, tmp_path: Path) -> None:
    schema = ubuntu_s_schema(release)
    cluster = spec(tmp_path, release, layout)
    for document in (made(cluster), made(cluster, "right"), autoinstall.bootstrap(cluster)):
        schema.validate(document)


def test_the_live_system_s_files(tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    cluster = spec(tmp_path)
    files = autoinstall.live_seed(cluster)
    assert set(files) == {"user-data", "meta-data", "failed.sh"}
    golden("autoinstall/live-user-data", files["user-data"].decode())
    assert files["user-data"].startswith(b"#cloud-config\n")
    user_data = yaml.safe_load(files["user-data"])
    assert user_data["autoinstall"] == autoinstall.bootstrap(cluster)
    assert user_data["ssh_authorized_keys"] == [KEY]
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": "lab-live"}
    without = cluster.model_copy(update={"access": cluster.access.model_copy(update={"ssh_keys": ()})})
    assert "ssh_authorized_keys" not in yaml.safe_load(autoinstall.live_seed(without)["user-data"])


@pytest.mark.parametrize("codename", RELEASES)
def test_the_table_has_the_keys_of_the_release(codename: str) -> None:
    schema = ubuntu_s_schema(UBUNTU.numbers[codename]).schema
    assert isinstance(schema, Mapping)
    assert set(RELEASES[codename].keys) == set(schema["properties"])


def test_every_release_of_ubuntu_is_in_the_table() -> None:
    assert set(RELEASES) == set(UBUNTU.numbers)


def test_a_document_is_json(tmp_path: Path) -> None:
    """It is stored as JSON, which is YAML, so that the picker needs the standard library only."""
    document = made(spec(tmp_path, "26.04", "{layout: lvm}"))
    assert json.loads(json.dumps(document)) == document
    assert yaml.safe_load(json.dumps(document)) == document


def test_the_kernel_is_named_where_the_release_would_choose_its_own(tmp_path: Path) -> None:
    assert "kernel" not in made(spec(tmp_path, "24.04"))
    assert made(spec(tmp_path, "26.04"))["kernel"] == {"package": "linux-generic"}
    hwe = spec(tmp_path, "26.04")
    hwe = hwe.model_copy(update={"distribution": hwe.distribution.model_copy(update={"kernel": "hwe"})})
    assert made(hwe)["kernel"] == {"package": "linux-generic-hwe-26.04"}


def test_a_node_is_the_same_however_it_is_installed(tmp_path: Path) -> None:
    cluster = spec(tmp_path)
    seed = seeds.seed(cluster, cluster.node("left"), seeds.user_data(cluster))
    document = made(cluster)
    assert document["user-data"] == yaml.safe_load(seed["user-data"])
    assert document["network"] == yaml.safe_load(seed["network-config"])
    assert document["shutdown"] == "poweroff"


def test_a_stored_document_can_install_nowhere(tmp_path: Path) -> None:
    found = actions(made(spec(tmp_path)))
    assert found["disk"]["match"] == {"path": "chosen-by-the-picker"}
    assert not any("grub_device" in action for action in found.values())


def names(document: Mapping[str, Any]) -> list[tuple[str, int]]:
    parts = [one for one in document["storage"]["config"] if one["type"] in ("partition", "lvm_partition")]
    return [(one.get("partition_name", one.get("name")), one["size"]) for one in parts]


GIB = 1 << 30
FIT, FIT_LVM = 3290 << 20, 3292 << 20  # bytes: what MODELS need, in whole MiB and in whole extents of LVM


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("{}", [("builder-models", FIT), ("builder-root", -1)]),
        ("{root: 60G, models: rest}", [("builder-root", 60 * GIB), ("builder-models", -1)]),
        ("{root: 60G, models: 10G}", [("builder-root", 60 * GIB), ("builder-models", 10 * GIB)]),
        (f"{{{LUKS}}}", [("builder-boot", GIB), ("builder-models", FIT), ("builder-root", -1)]),
        ("{layout: lvm}", [("builder-root", -1), ("models", FIT_LVM), ("root", -1)]),
        ("{layout: lvm, root: 60G, models: rest}", [("builder-root", -1), ("root", 60 * GIB), ("models", -1)]),
        (
            f"{{layout: lvm, {LUKS}}}",
            [("builder-boot", GIB), ("builder-root", -1), ("models", FIT_LVM), ("root", -1)],
        ),
    ],
)
def test_what_takes_the_rest_comes_last(layout: str, expected: list[tuple[str, int]], tmp_path: Path) -> None:
    document = made(spec(tmp_path, storage=layout))
    assert names(document) == [("builder-bios", 1 << 20), ("builder-esp", 256 << 20), *expected]


def test_without_models_there_is_no_partition_for_them(tmp_path: Path) -> None:
    for layout in ("{}", "{layout: lvm}"):
        found = actions(made(spec(tmp_path, storage=layout), models=()))
        assert not any("models" in name for name in found)


def test_partition_names_are_those_that_the_guard_knows(tmp_path: Path) -> None:
    found = [name for name, _ in names(made(spec(tmp_path)))]
    assert sorted(found) == sorted(guard.PARTITIONS)


def test_encryption_leaves_a_boot_partition_that_grub_can_read(tmp_path: Path) -> None:
    direct = actions(made(spec(tmp_path, storage=f"{{{LUKS}}}")))
    assert direct["crypt"]["volume"] == "root"
    assert direct["root-format"]["volume"] == "crypt"
    assert direct["models-format"]["volume"] == "models"
    assert direct["boot-mount"]["path"] == "/boot"
    lvm = actions(made(spec(tmp_path, storage=f"{{layout: lvm, {LUKS}}}")))
    assert (lvm["crypt"]["volume"], lvm["vg"]["devices"]) == ("pv", ["crypt"])
    assert (lvm["root-format"]["volume"], lvm["models-format"]["volume"]) == ("root", "models")
    assert lvm["crypt"]["key"] == PASSPHRASE


@pytest.mark.parametrize("layout", ["direct", "lvm"])
@pytest.mark.parametrize("luks", ["", f", {LUKS}"], ids=["plain", "luks"])
def test_the_smallest_disk_that_the_guard_takes_holds_it(layout: str, luks: str, tmp_path: Path) -> None:
    cluster = spec(tmp_path, storage=f"{{layout: {layout}, root: 20G, models: fit{luks}}}")
    sizes = nodefacts.storage(cluster, MODELS)
    need = layouts.need(Storage(nodefacts.ESP_SIZE, 20 * GIB, sizes["models"], sizes.get("besides") or 0), 0)
    found = [size for name, size in names(made(cluster)) if (layout, name) != ("lvm", "builder-root")]
    volume_group = 1 << 20 if layout == "lvm" else 0  # LVM's metadata
    takes = (2 << 20) + sum(found) + volume_group + (16 << 20 if luks else 0)
    assert takes <= need <= takes + (16 << 20)


def test_a_spec_without_its_passphrase_is_not_rendered(tmp_path: Path) -> None:
    cluster = spec(tmp_path, storage=f"{{{LUKS}}}")
    assert cluster.storage.luks is not None
    luks = cluster.storage.luks.model_copy(update={"passphrase": None})
    blank = cluster.model_copy(update={"storage": cluster.storage.model_copy(update={"luks": luks})})
    with pytest.raises(ValueError, match="the passphrase is missing"):
        made(blank)


def test_models_get_the_file_system_that_the_direct_installer_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def note(argv: list[str], **_options: object) -> str:
        seen.append(argv)
        return ""

    monkeypatch.setattr(commands, "run", note)
    disk.make_models("/dev/x")
    options = list(storage.MODELS_OPTIONS)
    assert " ".join(options) in " ".join(seen[0])


# ---- any spec

SIZES = st.integers(1, 900).map(lambda gib: f"{gib}G")
STORAGE = st.fixed_dictionaries(
    {"root": st.one_of(st.just("rest"), SIZES), "layout": st.sampled_from(["direct", "lvm"])},
    optional={
        "models": st.one_of(st.just("fit"), SIZES),
        "luks": st.just({"passphrase_file": "passphrase"}),
    },
)
NODE = st.fixed_dictionaries(
    {
        "match": st.sampled_from([{"mac": "52:54:00:77:00:01"}, {"serial": "A1"}]),
        "address": st.sampled_from(["dhcp", "10.77.0.11"]),
        "interface": st.just("enp*"),
    }
)
SPECS = st.fixed_dictionaries(
    {
        "name": st.just("any"),
        "network": st.sampled_from(
            [{"subnet": "10.77.0.0/24"}, {"subnet": "10.77.0.0/24", "gateway": "10.77.0.1", "dns": ["10.77.0.1"]}]
        ),
        "distribution": st.fixed_dictionaries(
            {
                "name": st.just("ubuntu"),
                "release": st.sampled_from(sorted(UBUNTU.releases)),
                "kernel": st.sampled_from(sorted(UBUNTU.kernels)),
            },
            optional={"mirror": st.just("https://mirror.example/ubuntu")},
        ),
        "access": st.sampled_from([{}, {"ssh_keys": [KEY]}, {"password_hash": "$6$saltsalt$" + "c" * 86}]),
        "nodes": NODE.map(lambda node: [{"name": "n1", **node}]),
        "storage": STORAGE,
        "media": st.fixed_dictionaries(
            {"installer": st.just("subiquity"), "after": st.sampled_from(["reboot", "poweroff"])},
            optional={"serial": st.sampled_from([None, "ttyS1,9600"])},
        ),
    }
)
LOCKED = st.lists(st.integers(1, 1 << 40), max_size=3).map(
    lambda sizes: tuple(LockedModel(f"m{i}", f"{i:064x}", size) for i, size in enumerate(sizes))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specs")
    (folder / "passphrase").write_text(PASSPHRASE)
    return folder


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(text=SPECS.map(yaml.safe_dump), models=LOCKED)
def test_any_spec_gives_a_document_that_both_checks_accept(
    text: str, models: tuple[LockedModel, ...], folder: Path
) -> None:
    cluster = loads(text, base=folder)
    document = made(cluster, "n1", models)  # raises if our check refuses it
    codename = UBUNTU.releases[cluster.distribution.release]
    schema = validator(UBUNTU.numbers[codename])
    if schema is not None:  # test_ubuntu_s_schema_accepts_them says so when it is not here
        schema.validate(document)
    for place in ("disk", "esp"):
        finished = json.loads(json.dumps(document))
        found = actions(finished)
        found["disk"]["match"]["path"] = "/dev/nvme0n1"
        found[place]["grub_device"] = True
        check.document(finished, codename, what="the finished document", finished=True)
