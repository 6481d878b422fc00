"""The smallest guest there is: a boot sector that says one line on the serial port.

It proves that an accelerator really runs guests (see `accelerator`), and it is what the driver's own tests boot.
"""

from __future__ import annotations

ORIGIN = 0x7C00
"""Where the firmware loads a boot sector."""

_PRINT = bytes.fromhex(
    "31 c0"  # xor  ax, ax
    "8e d8"  # mov  ds, ax
    "be 00 00"  # mov  si, message       (patched below)
    "ac"  # next: lodsb
    "84 c0"  # test al, al
    "74 12"  # jz   done
    "88 c3"  # mov  bl, al
    "ba fd 03"  # mov  dx, 0x3fd         COM1's line status
    "ec"  # wait: in   al, dx
    "a8 20"  # test al, 0x20             ready to take a byte?
    "74 fb"  # jz   wait
    "88 d8"  # mov  al, bl
    "ba f8 03"  # mov  dx, 0x3f8         COM1's data
    "ee"  # out  dx, al
    "eb e9"  # jmp  next
)
_TRY_NEXT_DEVICE = bytes.fromhex("cd 18 f4 eb fd")  # done: int 0x18; halt: hlt; jmp halt


def boot_sector(line: str) -> bytes:
    """A boot sector of 512 bytes that writes `line` (at most 400 ASCII characters) to COM1, then lets the firmware try
    the next boot device."""
    message = line.encode("ascii") + b"\r\n\0"
    if len(message) > 403:
        raise ValueError(f"the line has {len(line)} characters; a boot sector has room for 400")
    code = bytearray(_PRINT + _TRY_NEXT_DEVICE)
    code[5:7] = (ORIGIN + len(code)).to_bytes(2, "little")
    return (bytes(code) + message).ljust(510, b"\0") + b"\x55\xaa"
