"""What the servers and boot loaders are told: golden files, and what no address or name may do to them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.netboot import configs
from builder.netboot.configs import Dhcp
from builder.netboot.live import Live
from builder.spec.model import Cluster
from tests.sites import site_of

TOP = Path("/srv/out/quickstart")
ORDER = "0123456789abcdef" * 2
CARD = "52:54:00:77:00:01"


@pytest.mark.parametrize("dhcp", ["full", "proxy"])
def test_every_file_is_as_it_was(quickstart: Cluster, golden: Callable[[str, str], None], dhcp: Dhcp) -> None:
    for name, text in configs.rendered(site_of(quickstart, TOP, dhcp=dhcp)).items():
        golden(f"netboot/{dhcp}/{name}", text)


def test_without_dhcp_there_is_no_dnsmasq(quickstart: Cluster) -> None:
    assert "dnsmasq.conf" not in configs.rendered(site_of(quickstart, TOP, dhcp="none"))


@pytest.mark.parametrize("loader", ["ipxe", "grub"])
def test_the_boot_scripts_are_as_they_were(
    quickstart: Cluster, golden: Callable[[str, str], None], loader: configs.Loader
) -> None:
    site = site_of(quickstart, TOP)
    golden(f"netboot/install.{loader}", configs.install_script(site, loader, "node1", ORDER, CARD))
    golden(f"netboot/local.{loader}", configs.local_script(loader, "node1 is not to be installed"))


def test_only_the_script_of_an_ordered_node_starts_the_installer(quickstart: Cluster) -> None:
    for loader in ("grub", "ipxe"):
        assert "boot=builder" not in configs.local_script(loader, "x")
    arguments = configs.kernel_arguments(site_of(quickstart, TOP), ORDER, CARD)
    assert f"builder.order={ORDER}" in arguments and "BOOTIF=01-52-54-00-77-00-01" in arguments


@pytest.mark.parametrize("loader", ["ipxe", "grub"])
def test_ubuntu_s_installer_is_started_as_on_its_medium(
    quickstart: Cluster, golden: Callable[[str, str], None], loader: configs.Loader
) -> None:
    site = site_of(quickstart, TOP, live=Live("quickstart.iso", 3_000_000_001))
    script = configs.install_script(site, loader, "node1", ORDER, CARD)
    golden(f"netboot/install-ubuntu.{loader}", script)
    words = configs.kernel_arguments(site, ORDER, CARD)
    assert {f"iso-url={site.web}/quickstart.iso", "builder.memory=4910", "autoinstall"} <= set(words)
    # A ";" ends a command of GRUB's, and all that follows would be lost; to iPXE it is a letter.
    seed = f"s={site.control}/v1/seed/{ORDER}/"
    assert (f"ds=nocloud\\;{seed} " if loader == "grub" else f"ds=nocloud;{seed} ") in script
    # What followed a "---" would go into the node's own boot menu (curtin/commands/install_grub.py).
    assert "---" not in words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("52:54:00:77:00:01", "52:54:00:77:00:01"),
        ("52-54-00-AB-00-01", "52:54:00:ab:00:01"),
        ("", ""),
        ("52:54:00:77:00", ""),
        ("52:54:00:77:00:01\n", "52:54:00:77:00:01"),
        ("52:54:00:77:00:01 init=/bin/sh", ""),
        ("52:54:00:77:00:0g", ""),
        ("٥2:54:00:77:00:01", ""),
    ],
)
def test_a_mac_address_comes_from_the_network(text: str, wanted: str) -> None:
    assert configs.mac(text) == wanted


NET = IPv4Network("10.77.0.0/24")


def test_the_pool_is_the_longest_free_run() -> None:
    taken = [IPv4Address(f"10.77.0.{last}") for last in (1, 11, 12, 200)]
    assert configs.pool(NET, taken) == configs.Pool(IPv4Address("10.77.0.72"), IPv4Address("10.77.0.199"))
    small = IPv4Network("10.0.0.0/30")
    assert configs.pool(small, [IPv4Address("10.0.0.1")]).first == IPv4Address("10.0.0.2")
    with pytest.raises(BuilderError, match="no free address"):
        configs.pool(small, [IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")])


@given(st.sets(st.integers(0, 255), max_size=200))
def test_the_pool_gives_nobody_s_address_away(taken: set[int]) -> None:
    addresses = [NET[last] for last in taken]
    try:
        pool = configs.pool(NET, addresses)
    except BuilderError:
        assert {NET[last] for last in range(1, 255)} <= set(addresses)
        return
    given_out = {IPv4Address(number) for number in range(int(pool.first), int(pool.last) + 1)}
    assert given_out and len(given_out) <= configs.POOL
    assert not given_out & {*addresses, NET.network_address, NET.broadcast_address}
    assert given_out <= set(NET.hosts())
