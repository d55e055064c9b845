"""Ubuntu's menus, patched: the real texts of the releases, and texts that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from builder.errors import BuilderError, Exit
from builder.media import grubconfig
from builder.media.grubconfig import Menu, patch, with_arguments
from builder.nodefacts import Console
from tests import liveserver

SHA = "0123456789abcdef" * 4
MENU = Menu(
    cluster="lab",
    plan="PLAN-ID",
    nodes=("node1", "node2"),
    countdown=5,
    serial=Console(0, 115200),
    arguments=grubconfig.arguments(SHA, "console=tty0 console=ttyS0,115200"),
)
STOCK = {
    "grub-24.04.cfg": (liveserver.menu(release="24.04"), False),
    "grub-24.04.3-hwe.cfg": (liveserver.menu(release="24.04.3", hwe=True), False),
    "grub-26.04.cfg": (liveserver.menu(release="26.04"), False),
    "loopback-24.04.3-hwe.cfg": (liveserver.loopback_menu(release="24.04.3", hwe=True), True),
    "loopback-26.04.cfg": (liveserver.loopback_menu(release="26.04"), True),
}
every_stock_menu = pytest.mark.parametrize(("stock", "loopback"), STOCK.values(), ids=STOCK)


def kernel_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.split()[:1] == ["linux"]]


def entry(text: str, name: str) -> str:
    """The entry with this --id, up to its closing brace."""
    return text.partition(f"--id {name} {{\n")[2].partition("\n}")[0]


@pytest.mark.parametrize("name", STOCK)
def test_goldens(name: str, golden: Callable[[str, str], None]) -> None:
    text, loopback = STOCK[name]
    golden(f"ubuntu/{name}", patch(text, MENU, loopback=loopback))


@every_stock_menu
def test_patching_twice_changes_nothing(stock: str, loopback: bool) -> None:
    once = patch(stock, MENU, loopback=loopback)
    assert patch(once, MENU, loopback=loopback) == once


@every_stock_menu
def test_another_plan_takes_the_place_of_the_first(stock: str, loopback: bool) -> None:
    other = replace(MENU, plan="OTHER", nodes=("other",), serial=None)
    again = patch(patch(stock, MENU, loopback=loopback), other, loopback=loopback)
    assert again == patch(stock, other, loopback=loopback)


@every_stock_menu
def test_every_kernel_either_installs_or_asks(stock: str, loopback: bool) -> None:
    lines = kernel_lines(patch(stock, MENU, loopback=loopback))
    assert len(lines) == 2 * len(kernel_lines(stock)) + len(MENU.nodes)
    for line in lines:
        before, separator, after = line.partition(" ---")
        assert separator and not after.strip()
        asks = f"subiquity.autoinstallpath={grubconfig.BY_HAND}" in before.split()
        installs = "autoinstall" in before.split()
        assert asks != installs
        assert installs == (f"builder.manifest={SHA}" in before.split())
        assert installs == (r"ds=nocloud\;s=/cdrom/builder/live/" in before.split())
        assert loopback == ("iso-scan/filename=${iso_path}" in before.split())


@every_stock_menu
def test_what_does_not_start_the_live_system_is_kept(stock: str, loopback: bool) -> None:
    text = patch(stock, MENU, loopback=loopback)
    for line in stock.splitlines():
        if "linux" not in line and "set timeout" not in line:
            assert line in text.splitlines()


def test_only_the_default_entry_installs_unasked() -> None:
    text = patch(liveserver.menu(hwe=True), MENU)
    assert text.count("set timeout=") == 1 and "set timeout=5\n" in text
    assert text.index("set default=install") < text.index("set default=disk") < text.index("menuentry")
    by_hand = text.index("submenu \"Ubuntu's own installer")
    assert text.index('menuentry "Try or Install Ubuntu Server"') > by_hand
    assert text.index("--id install {") < text.index("--id by-name") < by_hand


def test_a_stick_that_was_left_in_boots_the_disk() -> None:
    text = patch(liveserver.menu(), MENU)
    assert "search --no-floppy --file --set=installed /EFI/builder/PLAN-ID\n" in text
    assert "chainloader /EFI/ubuntu/shimx64.efi" in entry(text, "disk")


def test_started_from_a_file_nothing_installs_by_itself() -> None:
    text = patch(liveserver.loopback_menu(), MENU, loopback=True)
    assert "set timeout=-1\n" in text
    assert "set default" not in text and "search" not in text


def test_a_node_by_name() -> None:
    text = patch(liveserver.menu(), MENU)
    for node in MENU.nodes:
        assert f" builder.node={node} ---" in entry(text, f"node-{node}")
    assert "builder.node" not in entry(text, "install")


def test_the_newer_kernel_comes_first_where_it_is_wanted_and_there() -> None:
    wanted = replace(MENU, hwe=True)
    text = patch(liveserver.menu(hwe=True), wanted)
    assert "/casper/hwe-vmlinuz autoinstall" in entry(text, "install")
    assert "/casper/hwe-initrd" in entry(text, "node-node1")
    assert "/casper/vmlinuz autoinstall" in entry(text, "install-generic")
    assert "/casper/vmlinuz autoinstall" in entry(patch(liveserver.menu(), wanted), "install")


def test_no_serial_console_no_serial_menu() -> None:
    assert "serial --unit" not in patch(liveserver.menu(), replace(MENU, serial=None))
    assert "serial --unit=1 --speed=9600" in patch(liveserver.menu(), replace(MENU, serial=Console(1, 9600)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\tlinux\t/casper/vmlinuz  ---", "\tlinux\t/casper/vmlinuz a=1 b ---"),
        ("\tlinux\t/casper/vmlinuz", "\tlinux\t/casper/vmlinuz a=1 b ---"),
        ("linux /casper/vmlinuz quiet --- splash", "linux /casper/vmlinuz quiet a=1 b --- splash"),
        ("linux /casper/vmlinuz b --- a=1", "linux /casper/vmlinuz b a=1 --- a=1"),
        ("linuxefi ($root)/casper/hwe-vmlinuz ---", "linuxefi ($root)/casper/hwe-vmlinuz a=1 b ---"),
        ("linux /casper/vmlinuz foo---bar ---", "linux /casper/vmlinuz foo---bar a=1 b ---"),
    ],
)
def test_arguments_go_before_the_dashes(line: str, expected: str) -> None:
    assert with_arguments(line, ("a=1", "b")) == expected
    assert with_arguments(expected, ("a=1", "b")) == expected


@pytest.mark.parametrize(
    ("argument", "expected"),
    [("ds=nocloud;s=/x/", r"ds=nocloud\;s=/x/"), ("a=b c", r"a=b\ c"), ("a=$b", r"a=\$b"), ("a|b&c", r"a\|b\&c")],
)
def test_what_grub_would_take_for_itself_is_escaped(argument: str, expected: str) -> None:
    assert grubconfig.escaped(argument) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "neither an entry nor a kernel"),
        ("set timeout=30\n", "nothing here starts /casper/vmlinuz"),
        ('menuentry "Debian" {\n\tlinux /live/vmlinuz\n}\n', "linux /live/vmlinuz"),
        ("linux /casper/vmlinuz ---\n", "not known: 'linux /casper/vmlinuz ---'"),
        ('if true; then\nmenuentry "x" {\n\tlinux /casper/vmlinuz ---\n}\nfi\n', "not known"),
        ('menuentry "x" {\n\tlinux /casper/vmlinuz ---\n', "not known"),
        ('menuentry "x" { linux /casper/vmlinuz --- }\n', "nothing here starts"),
        ('menuentry "x" {\n linux /casper/vmlinuz\n linux /casper/hwe-vmlinuz\n}\n', "not known"),
    ],
)
def test_a_menu_that_is_not_known_is_refused_with_what_was_found(text: str, says: str) -> None:
    with pytest.raises(BuilderError) as caught:
        patch(text, MENU)
    assert caught.value.code == Exit.MEDIUM
    assert says in caught.value.message
    assert "live-server" in caught.value.hint
