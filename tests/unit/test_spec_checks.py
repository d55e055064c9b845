"""What needs more than one value to judge, each with its exact words; and what is only a warning."""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import Mistake, SpecError
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.spec.warnings import warnings

HEAD = """\
name: demo
network:
  subnet: 10.77.0.0/24
  gateway: 10.77.0.1
  dns: [10.77.0.2]
nodes:
  - name: node1
    match: {mac: "52:54:00:77:00:01", serial: A1, uuid: 4c4c4544-0042-3510-8048-b7c04f4d3433}
    address: 10.77.0.11
"""


UBUNTU = "distribution: {name: ubuntu, release: noble}\n"
TYPED = "use what every keyboard has: letters, digits, blanks and signs of ASCII"
SUBIQUITY = UBUNTU + "media: {installer: subiquity}\n"


def only(text: str) -> Mistake:
    with pytest.raises(SpecError) as caught:
        loads(text)
    (mistake,) = caught.value.mistakes
    return mistake


def node(match: str = "{mac: '52:54:00:77:00:02'}", name: str = "node2", more: str = "") -> str:
    return f"  - name: {name}\n    match: {match}\n{more}"


OTHER = "each node needs an identifier of its own"
SAME = "a machine that is node2 would be node1 as well"
CASES = [
    (node(name="node1"), 10, "nodes[1].name", "the name node1 is also nodes[0]'s", ""),
    (node("{mac: '52-54-00-77-00-01'}"), 11, "nodes[1].match.mac", "the MAC address 52:54:00:77:00:01 is also node1's", OTHER),
    (node("{serial: a1}"), 11, "nodes[1].match.serial", "the serial number a1 is also node1's", OTHER),
    (node("{uuid: 4C4C4544-0042-3510-8048-B7C04F4D3433}"), 11, "nodes[1].match.uuid", "the UUID 4c4c4544-0042-3510-8048-b7c04f4d3433 is also node1's", OTHER),
    (node(more="    address: 10.77.0.11\n"), 12, "nodes[1].address", "the address 10.77.0.11 is also nodes[0]'s", ""),
    (node(more="    address: 10.78.0.11\n"), 12, "nodes[1].address", "10.78.0.11 is outside 10.77.0.0/24", ""),
    (node(more="    address: 10.77.0.0\n"), 12, "nodes[1].address", "10.77.0.0 is the address of the network 10.77.0.0/24 itself", ""),
    (node(more="    address: 10.77.0.255\n"), 12, "nodes[1].address", "10.77.0.255 is the broadcast address of 10.77.0.0/24", ""),
    (node(more="    address: 10.77.0.1\n"), 12, "nodes[1].address", "10.77.0.1 is the gateway's address", ""),
    (node(more="    address: 10.77.0.2\n"), 12, "nodes[1].address", "10.77.0.2 is also a name server, which no node is", ""),
    (node("{serial: B2}", more="    address: 10.77.0.12\n"), 12, "nodes[1].address", "a static address needs to know which network card gets it", "give match.mac, or interface: enp5s0"),
    ("    disk: {serial: D1}\n" + node(more="    disk: {serial: d1}\n"), 13, "nodes[1].disk.serial", "this disk is also nodes[0]'s", ""),
    ("    disk: {wwn: '0x5'}\n" + node(more="    disk: {wwn: '5'}\n"), 13, "nodes[1].disk.wwn", "this disk is also nodes[0]'s", ""),
    (node() + "storage: {disk: {serial: D1}}\n", 12, "storage.disk.serial", "names one disk, and 2 nodes would use it", "give each node its own disk"),
    ("distribution: {name: ubuntu, release: '24.04'}\nmedia: {installer: subiquity}\nstorage: {models: {size: 5G, keep: true}}\n", 12, "storage.models.keep", "subiquity makes the models partition anew", "leave it out, or write installer: direct"),
    ("storage: {models: {size: rest, keep: true}}\n", 10, "storage.models", "root and models cannot both take the rest of the disk", "give one of them a size; root is rest unless it has one"),
    ("storage: {root: rest, models: rest}\n", 10, "storage.models", "root and models cannot both take the rest of the disk", "give one of them a size; root is rest unless it has one"),
    ("storage: {models: rest}\n", 10, "storage.models", "root and models cannot both take the rest of the disk", "give one of them a size; root is rest unless it has one"),
    ("storage: {root: 512M}\n", 10, "storage.root", "a node needs at least 1G", ""),
    ("storage: {root: 20G, models: 20G, disk: {largest: true, min_size: 30G}}\n", 10, "storage.disk.min_size", "is less than storage.root and storage.models need together", ""),
    ("models: [{name: a, url: 'https://h/1'}, {name: a, url: 'https://h/2'}]\n", 10, "models[1].name", "the name a is also models[0]'s", ""),
    ("distribution: {packages: [htop, htop]}\n", 10, "distribution.packages[1]", "htop is given twice", ""),
    ("distribution: {release: bookworm}\n", 10, "distribution.release", "debian bookworm is not known", 'known: "13" (trixie)'),
    ("distribution: {security_mirror: 'https://h/s'}\n", 10, "distribution.security_mirror", "is given without mirror", "give both, or neither"),
    ("firewall: {allow: [{port: 80}, {port: 80}]}\n", 10, "firewall.allow[1].port", "tcp is opened to the same machines by firewall.allow[0] already", "name each port once"),
    ("firewall: {allow: [{port: 80-90}, {port: 85}]}\n", 10, "firewall.allow[1].port", "tcp is opened to the same machines by firewall.allow[0] already", "name each port once"),
    ("firewall: {allow: [{port: 85}, {port: 80-90, from: 10.77.0.0/24}]}\n", 10, "firewall.allow[1].port", "tcp is opened to the same machines by firewall.allow[0] already", "name each port once"),
    ("firewall: {allow: [{port: 80-90, from: any}, {port: 85}]}\n", 10, "firewall.allow[1].port", "is open to any by firewall.allow[0] already", ""),
    ("firewall: {allow: [{port: 85}, {port: 80-90, from: 0.0.0.0/0}]}\n", 10, "firewall.allow[0].port", "is open to any by firewall.allow[1] already", ""),
    ("distribution: {name: ubuntu}\n", 10, "distribution.release", "ubuntu 13 is not known", 'known: "24.04" (noble), "26.04" (resolute)'),
    ("distribution: {kernel: hwe}\n", 10, "distribution.kernel", "debian has no hwe kernel", "take generic or cloud"),
    ("media: {installer: subiquity}\n", 10, "media.installer", "subiquity installs Ubuntu, and the nodes are to run debian", "write distribution.name: ubuntu, or installer: direct"),
    ("storage: {layout: lvm}\n", 10, "storage.layout", "the direct installer knows nothing of lvm", "write media.installer: subiquity, or leave it out"),
    ("media: {base_iso: '24.04'}\n", 10, "media.base_iso", "the direct installer knows nothing of an official ISO", "write media.installer: subiquity, or leave it out"),
    (UBUNTU + "media: {installer: subiquity, base_iso: '26.04'}\n", 11, "media.base_iso.release", "26.04 is not the nodes' release, which is noble", 'write "noble", or leave it out: it is the default'),
    (UBUNTU + "media: {installer: subiquity, base_iso: {release: jammy}}\n", 11, "media.base_iso.release", "jammy is not the nodes' release, which is noble", 'write "noble", or leave it out: it is the default'),
    (UBUNTU + "media: {installer: subiquity, base_iso: 24.04.3}\n", 11, "media.base_iso.release", '"24.04.3" is a point release', 'write "24.04", of which the newest is taken, or give a url or path'),
    (UBUNTU + "media: {installer: subiquity, base_iso: 24.04}\n", 11, "media.base_iso.release", "YAML read 24.04 as a number, and text is wanted", 'quote it: "24.04"'),
    (UBUNTU + "media: {installer: subiquity, base_iso: 'ftp://h/x.iso'}\n", 11, "media.base_iso.url", "is not an http or https URL", "write it like https://host/path"),
    (UBUNTU + "media: {installer: subiquity, base_iso: no.iso}\n", 11, "media.base_iso.path", "no.iso does not exist", "the path starts at the spec's folder"),
    (UBUNTU + "media: {installer: subiquity, base_iso: {path: /etc}}\n", 11, "media.base_iso.path", "/etc is not a file", "name the .iso file"),
    (UBUNTU + "media: {installer: subiquity, base_iso: {release: '24.04', url: 'https://h/x'}}\n", 11, "media.base_iso", "has release and url, but only one of release, url or path can be meant", ""),
    (UBUNTU + "media: {installer: subiquity, base_iso: {sha256: %s}}\n" % ("a" * 64), 11, "media.base_iso", "needs one of release, url or path", ""),
    (UBUNTU + "media: {installer: subiquity, base_iso: [a]}\n", 11, "media.base_iso", "must be a group of keys, not a list", "its keys are: release, url, path, sha256"),
    ("firewall: {allow: [{port: 22}]}\n", 10, "firewall.allow[0].port", "includes port 22, which is always open", "say from where under firewall.ssh"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "line", "path", "message", "hint"), CASES)
def test_cross_checks(more: str, line: int, path: str, message: str, hint: str) -> None:
    assert only(HEAD + more) == Mistake(line, path, message, hint)


def test_a_match_that_is_part_of_another_says_what_would_happen() -> None:
    text = HEAD.replace(
        '{mac: "52:54:00:77:00:01", serial: A1, uuid: 4c4c4544-0042-3510-8048-b7c04f4d3433}', "{serial: A1}"
    )
    text = text.replace("    address: 10.77.0.11\n", "")
    assert only(text + node("{serial: A1, mac: '52:54:00:77:00:02'}")).hint == SAME


NETWORKS = [
    ("  gateway: 10.78.0.1", 4, "network.gateway", "10.78.0.1 is outside 10.77.0.0/24"),
    ("  gateway: 10.77.0.255", 4, "network.gateway", "10.77.0.255 is the broadcast address of 10.77.0.0/24"),
    ("  dns: [9.9.9.9]", 4, "network.dns[0]", "9.9.9.9 is outside 10.77.0.0/24 and there is no gateway to reach it by"),
    ("  gateway: 10.77.0.1\n  dns: [127.0.0.53]", 5, "network.dns[0]", "127.0.0.53 cannot be a name server on the network"),
    ("  gateway: 10.77.0.1\n  dns: [10.77.0.1, 10.77.0.1]", 5, "network.dns[1]", "10.77.0.1 is given twice"),
    ("  dns: [10.77.0.0]", 4, "network.dns[0]", "10.77.0.0 is the address of the network 10.77.0.0/24 itself"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "line", "path", "message"), NETWORKS)
def test_networks(lines: str, line: int, path: str, message: str) -> None:
    text = HEAD.replace("  gateway: 10.77.0.1\n  dns: [10.77.0.2]", lines)
    mistake = only(text)
    assert (mistake.line, mistake.path, mistake.message) == (line, path, message)


def test_a_subnet_with_too_little_room() -> None:
    nodes = "".join(node(f"{{mac: '52:54:00:77:00:0{i}'}}", f"n{i}") for i in range(3))
    text = f"name: a\nnetwork: {{subnet: 10.0.0.0/30, gateway: 10.0.0.1}}\nnodes:\n{nodes}"
    assert only(text).message == "10.0.0.0/30 has room for 1 machines, and there are 3 nodes"


@pytest.mark.parametrize(
    "more",
    [
        "firewall: {allow: [{port: 80}, {port: 80, proto: udp}, {port: 81}, {port: 80, from: 192.168.0.0/16}]}\n",
        "firewall: {allow: [{port: 22, proto: udp}]}\n",
        "storage: {root: 20G, models: rest}\n",
        node("{serial: B2}", more="    address: 10.77.0.12\n    interface: enp*\n"),
        node("{serial: B2}"),
        "    disk: {path: pci-0000*}\n" + node(more="    disk: {path: pci-0000*}\n"),
        UBUNTU,
        "distribution: {name: ubuntu, release: '26.04', kernel: hwe}\n",
        SUBIQUITY,
        SUBIQUITY + "storage: {layout: lvm}\n",
        UBUNTU + "media: {installer: subiquity, base_iso: '24.04'}\n",
        UBUNTU + "media: {installer: subiquity, base_iso: {release: noble, sha256: %s}}\n" % ("a" * 64),
        UBUNTU + "media: {installer: subiquity, base_iso: 'https://h/ubuntu-24.04.3-live-server-amd64.iso'}\n",
    ],
)
def test_what_only_looks_alike_is_accepted(more: str) -> None:
    assert isinstance(loads(HEAD + more), Cluster)


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace("10.77.0.0/24", "nonsense"),
        HEAD.replace("10.77.0.1\n", "nonsense\n").replace("10.77.0.2", "9.9.9.9"),
        HEAD.replace('"52:54:00:77:00:01"', "nonsense"),
        HEAD + node("{serial: B2}", more="    address: 10.77.0.12\n    interface: '*'\n"),
        HEAD + "storage: {root: nonsense, models: rest}\n",
        HEAD + "distribution: {mirror: nonsense, security_mirror: 'https://h/s'}\n",
        HEAD + "distribution: {name: nonsense, release: '24.04', kernel: hwe}\nmedia: {installer: subiquity}\n",
        HEAD + "media: {installer: nonsense, base_iso: '24.04'}\nstorage: {layout: lvm}\n",
    ],
)
def test_no_finding_that_rests_on_a_wrong_value(text: str) -> None:
    only(text)


WARNINGS = [
    ("", "access: there is no ssh key and no password, so nobody can log in to the nodes"),
    (
        "access: {password_hash: '$6$saltsalt$" + "c" * 86 + "'}\n",
        "access.password_hash: the medium holds the hash, so its owner can try passwords on it",
    ),
    ("distribution: {kernel: cloud}\n", "distribution.kernel: cloud lacks the drivers of most real machines"),
    (
        "storage: {disk: {largest: true, overwrite: true}}\n",
        "storage.disk: the largest disk is wiped whatever it holds; naming it by serial is safer",
    ),
    ("join: {mixed_plans: refuse}\n", "join.mixed_plans: without an engine nothing joins, so nothing is refused"),
    (
        UBUNTU + "media: {installer: subiquity, base_iso: 'http://h/x.iso'}\n",
        "media.base_iso: the ISO comes by plain http, and no sha256 guards it",
    ),
    ("models: [{name: x, url: 'http://h/x'}]\n", "models[0]: x comes by plain http, and no sha256 guards it"),
]


@pytest.mark.parametrize(("more", "warning"), WARNINGS)
def test_warnings(more: str, warning: str) -> None:
    assert warning in warnings(loads(HEAD + more))


# ---- the passphrase


def encrypted(file: str = "passphrase") -> str:
    return HEAD + SUBIQUITY + f"storage: {{luks: {{passphrase_file: {file}}}}}\n"


def test_a_passphrase_is_read_and_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    cluster = loads(encrypted(), base=tmp_path)
    assert cluster.storage.luks is not None
    assert cluster.storage.luks.passphrase is not None
    assert cluster.storage.luks.passphrase.get_secret_value() == "correct horse battery"
    assert cluster.storage.features == ("luks",)
    shown = f"{cluster!r} {cluster} {cluster.model_dump()} {cluster.model_dump_json()}"
    assert "correct horse" not in shown
    assert [text for text in warnings(cluster) if text.startswith("storage.luks")] == [
        "storage.luks: the medium holds the passphrase, so its owner can open the disks",
        "storage.luks: a node waits at every boot until somebody types the passphrase at its console",
    ]


PASSPHRASES = [
    (b"", "{base}/passphrase is empty", "write the passphrase there, in one line"),
    (b"\n", "{base}/passphrase is empty", "write the passphrase there, in one line"),
    (b"hunter2", "{base}/passphrase holds a passphrase of 7 characters", "take 8 to 512"),
    (b"hunter2" * 80, "{base}/passphrase holds a passphrase of 560 characters", "take 8 to 512"),
    (b"hunter2 hunter2\n\n", "{base}/passphrase holds more than one line", "the passphrase is one line"),
    (
        b"hunter2 hunter2 ",
        "{base}/passphrase begins or ends with a blank, which nobody sees",
        "take the blank away",
    ),
    ("hunter2 h\u00fcnter".encode(), "{base}/passphrase holds a character that cannot be typed at boot", TYPED),
    (b"hunter2\x00hunter2", "{base}/passphrase holds a character that cannot be typed at boot", TYPED),
    (b"hunter2\xff\xfe", "{base}/passphrase is not a text file", TYPED),
]


@pytest.mark.parametrize(("content", "message", "hint"), PASSPHRASES)
def test_wrong_passphrases_are_not_repeated(content: bytes, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        loads(encrypted(), base=tmp_path)
    path = "storage.luks.passphrase_file"
    assert caught.value.mistakes == (Mistake(12, path, message.format(base=tmp_path), hint),)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none", "{base}/none does not exist"),
        ("folder", "{base}/folder cannot be read: Is a directory"),
        ("'pass*'", "pass* is a glob, and one file is wanted"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x: the home folder is not known"),
        ("''", "is not the path of a file"),
    ],
)
def test_wrong_passphrase_files(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SpecError) as caught:
        loads(encrypted(file), base=tmp_path)
    (mistake,) = caught.value.mistakes
    assert (mistake.path, mistake.message) == ("storage.luks.passphrase_file", message.format(base=tmp_path))


def test_a_passphrase_in_the_spec_itself_is_refused() -> None:
    text = HEAD + SUBIQUITY + "storage: {luks: {passphrase: hunter2 hunter2}}\n"
    with pytest.raises(SpecError) as caught:
        loads(text)
    assert [str(mistake) for mistake in caught.value.mistakes] == [
        "line 12: storage.luks.passphrase: a passphrase must not stand here: the spec is no place for secrets "
        "(write it in a file; see storage.luks.passphrase_file)",
        'line 12: storage.luks.passphrase_file: is missing (for example: passphrase_file: "secrets/passphrase")',
    ]


def test_encryption_needs_ubuntu_s_installer(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    with pytest.raises(SpecError) as caught:
        loads(HEAD + "storage: {luks: {passphrase_file: passphrase}}\n", base=tmp_path)
    assert [mistake.message for mistake in caught.value.mistakes] == [
        "the direct installer knows nothing of encryption"
    ]


def test_the_iso_of_the_release_is_the_default() -> None:
    assert loads(HEAD).base_iso is None
    iso = loads(HEAD + SUBIQUITY).base_iso
    assert iso is not None
    assert (iso.release, iso.url, iso.path) == ("noble", None, None)
    iso = loads(HEAD + UBUNTU + "media: {installer: subiquity, base_iso: 'https://h/x.iso'}\n").base_iso
    assert iso is not None
    assert (iso.release, iso.url, iso.path) == (None, "https://h/x.iso", None)
