"""Single values: what is accepted, and the exact words for what is not."""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.spec import netrules, rules
from builder.spec.sizes import LIMIT, RuleError, format_size, parse_size
from builder.spec.sshkeys import public_key

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop"
YESCRYPT = "$y$j9T$" + "a" * 22 + "$" + "b" * 43
SHA512 = "$6$saltsalt$" + "c" * 86


@given(st.integers(1, LIMIT >> 10))
def test_size_round_trip(kib: int) -> None:
    assert parse_size(format_size(kib << 10)) == kib << 10


@given(st.text(max_size=30))
def test_size_is_a_number_or_a_rule_error(text: str) -> None:
    try:
        assert 0 < parse_size(text) <= LIMIT
    except RuleError as error:
        assert error.message


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1K", 1024), ("512M", 512 << 20), ("20G", 20 << 30), ("20g", 20 << 30), ("20GiB", 20 << 30),
        ("20Gi", 20 << 30), ("1.5T", 3 << 39), ("1024T", LIMIT), ("0.5K", 512),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("20", "20 has no unit", "write 20G, or K, M, T: powers of 1024"),
        ("20GB", "GB counts in 1000 or in 1024", "write 20G: powers of 1024"),
        ("big", "is not a size", "write it like 20G, 512M or 1.5T"),
        ("-1G", "is not a size", "write it like 20G, 512M or 1.5T"),
        ("1e3G", "is not a size", "write it like 20G, 512M or 1.5T"),
        ("20G\n", "is not a size", "write it like 20G, 512M or 1.5T"),
        ("0G", "a size of zero is no size", "write it like 20G, or leave the key out"),
        ("1025T", "1025T is over 1024T", "check the unit"),
    ],
)
def test_wrong_sizes(text: str, message: str, hint: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse_size(text)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_format_size_wants_whole_kib() -> None:
    with pytest.raises(ValueError, match="whole number of KiB"):
        format_size(1000)


ACCEPTED = [
    (rules.label, "node-1", "node-1"), (rules.label, "3com", "3com"), (rules.label, "a" * 63, "a" * 63),
    (netrules.mac, "52:54:00:AB:00:01", "52:54:00:ab:00:01"),
    (netrules.mac, "52-54-00-AB-00-01", "52:54:00:ab:00:01"),
    (rules.uuid, "4C4C4544-0042-3510-8048-B7C04F4D3433", "4c4c4544-0042-3510-8048-b7c04f4d3433"),
    (rules.password_hash, YESCRYPT, YESCRYPT), (rules.password_hash, SHA512, SHA512),
    (rules.disk_path, "nvme-X*", "nvme-X*"), (rules.disk_path, "/dev/disk/by-path/pci-*", "/dev/disk/by-path/pci-*"),
    (netrules.port, "8000-8010", "8000-8010"), (netrules.port, 1, 1), (rules.package, "g++", "g++"),
    (rules.sha256, "A" * 64, "a" * 64), (netrules.console, "ttyS1", "ttyS1"),
    (netrules.console, "ttyAMA0,115200n8", "ttyAMA0,115200n8"), (netrules.interface, "enp*", "enp*"),
    (netrules.http, "https://h:8080/a?b=c", "https://h:8080/a?b=c"), (public_key, f" {ED25519}\n", ED25519),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "given_", "kept"), ACCEPTED)
def test_accepted_and_twice(rule, given_, kept) -> None:  # type: ignore[no-untyped-def]
    assert rule(given_) == kept
    assert rule(kept) == kept


WRONG = [
    (rules.label, "Node1", '"Node1" has upper-case letters'),
    (rules.label, "node_1", '"node_1" is not a host name'),
    (rules.label, "-node", '"-node" is not a host name'),
    (rules.label, "a" * 64, f'"{"a" * 60}…" is not a host name'),
    (rules.label, "", '"" is not a host name'),
    (rules.label, "node1\n", '"node1�" is not a host name'),
    (rules.label, "node.lan", '"node.lan" has a dot: it must be the short name, without a domain'),
    (rules.label, "10", '"10" has no letter: programs would read an address'),
    (rules.label, "localhost", "localhost is every machine's own name"),
    (rules.user, "root", "root is an account of the system"),
    (rules.user, "1st", '"1st" is not a user name'),
    (netrules.mac, "52:54:00:12:34", '"52:54:00:12:34" is not a MAC address'),
    (netrules.mac, "ff:ff:ff:ff:ff:ff", '"ff:ff:ff:ff:ff:ff" is not the address of one network card'),
    (netrules.mac, "00:00:00:00:00:00", '"00:00:00:00:00:00" is not the address of one network card'),
    (rules.serial, "Default string", '"Default string" is a placeholder that many boards share'),
    (rules.serial, "0000000", '"0000000" is a placeholder that many boards share'),
    (rules.serial, " X1", '" X1" is not a serial number'),
    (rules.uuid, "nope", '"nope" is not a UUID'),
    (
        rules.uuid,
        "03000200-0400-0500-0006-000700080009",
        '"03000200-0400-0500-0006-000700080009" is a placeholder that many boards share',
    ),
    (netrules.interface, "*", '"*" would take more than network cards'),
    (netrules.interface, "lo", '"lo" would take more than network cards'),
    (netrules.interface, "en p", '"en p" is not a network interface name'),
    (netrules.interface, "a" * 16, '"aaaaaaaaaaaaaaaa" is not a network interface name'),
    (rules.disk_path, "/dev/sda", '"/dev/sda" may be another disk at the next boot'),
    (rules.disk_path, "/dev/disk/by-uuid/x", '"/dev/disk/by-uuid/x" is not below /dev/disk/by-id or /dev/disk/by-path'),
    (rules.disk_path, "*", '"*" would take any disk'),
    (rules.disk_path, "/dev/disk/by-id/", '"/dev/disk/by-id/" would take any disk'),
    (netrules.address, "10.77.0", '"10.77.0" is not an IPv4 address'),
    (netrules.address, "10.77.0.1/24", '"10.77.0.1/24" is a network, not an address'),
    (netrules.address, "fe80::1", "\"fe80::1\" is an IPv6 address; the cluster's network is IPv4"),
    (netrules.address, "10.77.0.01", '"10.77.0.01" has a number with a leading zero, which some programs read as octal'),
    (netrules.subnet, "10.77.0.0", '"10.77.0.0" has no prefix length'),
    (netrules.subnet, "10.77.0.1/24", '"10.77.0.1/24" is an address within a network'),
    (netrules.subnet, "10.77.0.0/31", "a /31 is no subnet for a cluster"),
    (netrules.subnet, "0.0.0.0/0", "a /0 is no subnet for a cluster"),
    (netrules.subnet, "239.0.0.0/24", "239.0.0.0/24 is not for machines"),
    (netrules.subnet, "fd00::/64", "\"fd00::/64\" is an IPv6 network; the cluster's network is IPv4"),
    (netrules.source, "everyone", '"everyone" is not cluster, any or a network'),
    (netrules.port, 0, "is not a port: ports go from 1 to 65535"),
    (netrules.port, 65536, "is not a port: ports go from 1 to 65535"),
    (netrules.port, "8010-8000", "the range 8010-8000 is reversed"),
    (netrules.port, "http", '"http" is not a port number, nor a range like 8000-8010'),
    (netrules.port, True, "must be a port number, or a range like 8000-8010"),
    (netrules.http, "ftp://h/x", "is not an http or https URL"),
    (netrules.http, "hf://a/b", "is not an http or https URL"),
    (netrules.http, "https:///x", "is not a URL"),
    (netrules.http, "https://h:99999/", "is not a URL"),
    (netrules.http, "https://[::1", "is not a URL"),
    (netrules.http, "https://h/a b", "is not a URL"),
    (netrules.http, "https://me:pw@h/", "holds a user or password, and the medium can be read by anyone"),
    (netrules.archive, "https://h/debian?x", "must be the archive's base, without ? or #"),
    (rules.package, "htop=3.2", '"htop=3.2" is more than a package\'s name'),
    (rules.package, "htop-", '"htop-" is not the name of a package'),
    (rules.package, "Htop", '"Htop" is not the name of a package'),
    (rules.release, "13 ", '"13 " is not a release'),
    (rules.file_name, "a/b", '"a/b" must be a file name, without folders'),
    (rules.file_name, "..", '".." must be a file name, without folders'),
    (rules.file_name, "-rf", '"-rf" is not a plain file name'),
    (rules.sha256, "abc", "is not a SHA-256 of 64 hex digits: it has 3 characters"),
    (rules.sha256, "g" * 64, "is not a SHA-256 of 64 hex digits: a character is no hex digit"),
    (netrules.console, "COM1", '"COM1" is not a serial console'),
    (rules.countdown, 301, "must be 0 to 300 seconds"),
    (rules.volume, "my-disc", '"my-disc" is not a volume label'),
    (rules.volume, "A" * 33, f'"{"A" * 33}" is not a volume label'),
    (rules.password_hash, "hunter2", "is not a password hash; a password itself must not stand here"),
    (rules.password_hash, "$1$salt$" + "a" * 22, "is a hash of an old kind that is quickly broken"),
    (rules.password_hash, SHA512[:-1], "is not a whole password hash of a kind that Debian knows"),
    (rules.password_hash, YESCRYPT + "\n", "is not a whole password hash of a kind that Debian knows"),
    (public_key, "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "is a PRIVATE key, which must never leave your machine"),
    (public_key, "b3BlbnNzaC1rZXktdjEAAAA", "is a PRIVATE key, which must never leave your machine"),
    (public_key, ED25519[:60], "is a damaged public key: part of the line is missing or changed"),
    (public_key, ED25519.replace("ssh-ed25519", "ssh-rsa", 1), "is a damaged public key: part of the line is missing or changed"),
    (public_key, "ssh-ed25519", "is a damaged public key: part of the line is missing or changed"),
    (public_key, "ssh-dss AAAA", "is a DSA key, which OpenSSH no longer accepts"),
    (public_key, "ssh-ed25519-cert-v01@openssh.com AAAA", "is a certificate, not a public key"),
    (public_key, "~/.ssh/id.pub", "is not a public key line"),
    (public_key, f"{ED25519}\n{ED25519}", "is more than one line"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "value", "message"), WRONG)
def test_wrong(rule, value, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RuleError) as caught:
        rule(value)
    assert caught.value.message == message
