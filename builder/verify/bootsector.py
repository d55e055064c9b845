"""A guest of 512 bytes: writes one line to COM1, then leaves or falls silent.

Small enough to tell in a second whether an accelerator runs a guest at all, and to test the watching code
against a real QEMU.
"""

from __future__ import annotations

from typing import Literal

SIZE = 512
IMAGE_SIZE = 1024 * 1024
LOAD_ADDRESS = 0x7C00  # where a PC BIOS puts the first sector of the disk that it boots
EXIT_PORT = 0xF4  # of QEMU's isa-debug-exit device
EXIT_VALUE = 0x20
EXIT_STATUS = (EXIT_VALUE << 1) | 1  # what isa-debug-exit makes of EXIT_VALUE as QEMU's exit status

_COM1 = 0x3F8
_LINE_STATUS = _COM1 + 5
_TRANSMIT_EMPTY = 0x20


def bootable(sector: bytes) -> bytes:
    """A disk image that starts with ``sector``; SeaBIOS does not boot a disk of a few sectors."""
    return sector.ljust(IMAGE_SIZE, b"\0")


def boot_sector(text: bytes, then: Literal["exit", "halt", "reset"]) -> bytes:
    """The sector that writes ``text`` to COM1 and then exits QEMU, halts for ever or resets the machine.

    To exit it needs an ``isa-debug-exit`` device. ``text`` holds no zero byte (it ends the text) and has to
    fit beside the code; raises ValueError if not.
    """
    if 0 in text:
        raise ValueError("the text ends at the first zero byte, so it cannot hold one")
    # Stores to ports: mov al, value; out port, al. 0xfe to the keyboard controller pulses the reset line.
    leave = {
        "exit": bytes([0xB0, EXIT_VALUE, 0xE6, EXIT_PORT]),
        "reset": bytes([0xB0, 0xFE, 0xE6, 0x64]),
        "halt": b"",
    }[then]
    tail = leave + bytes.fromhex("fa f4 eb fd")  # cli; hlt; jmp to the hlt

    status, com1 = _LINE_STATUS.to_bytes(2, "little"), _COM1.to_bytes(2, "little")
    body = b"".join(
        (
            b"\x88\xc4",  # mov ah, al
            b"\xba" + status,  # mov dx, line status
            b"\xec",  # in al, dx
            bytes([0xA8, _TRANSMIT_EMPTY]),  # test al, transmitter empty
            b"\x74\xfb",  # jz back to the in
            b"\x88\xe0",  # mov al, ah
            b"\xba" + com1,  # mov dx, COM1
            b"\xee",  # out dx, al
        )
    )
    loop = b"\xac\x84\xc0"  # lodsb; test al, al
    loop += b"\x74" + bytes([len(body) + 2]) + body  # jz past the body and its jump
    loop += b"\xeb" + bytes([256 - (len(loop) + 2)])  # jmp back to the lodsb

    start = b"\x31\xc0\x8e\xd8\xfc\xbe"  # xor ax, ax; mov ds, ax; cld; mov si, text
    text_address = LOAD_ADDRESS + len(start) + 2 + len(loop) + len(tail)
    code = start + text_address.to_bytes(2, "little") + loop + tail + text + b"\0"
    if len(code) > SIZE - 2:
        raise ValueError(f"the text is {len(code) - SIZE + 2} bytes too long for a boot sector")
    return code.ljust(SIZE - 2, b"\0") + b"\x55\xaa"
