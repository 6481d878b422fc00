"""A BMC in a process of its own: virtualbmc over a libvirt domain, or one that lies on demand.

    python -m tests.drivers.ipmi_server

Everything it needs comes as one line of JSON on its input: port, password, and either `domain` and `uri`, or `lies` and
`log`, the file in which every change that it makes is written down; beside it lies a file `.closed` once a session was
closed. While there is a file `.off` it says off, whatever is so; while there is a file `.mute` it says nothing. It ends
when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pyghmi.ipmi.bmc import Bmc
from pyghmi.ipmi.private.serversession import ServerSession

USER = "mulligan"
LATE_SECONDS = 1.0


class LyingBmc(Bmc):  # type: ignore[misc]  # pyghmi has no types
    """A chassis in memory, behind pyghmi's own server, which virtualbmc is made of too."""

    def __init__(self, port: int, password: str, lies: list[str], log: str) -> None:
        super().__init__({USER: password}, port=port, address="127.0.0.1")
        self.lies, self.log = lies, Path(log)
        self.wanted, self.since, self.on, self.device = False, 0.0, False, 0
        self.dropped = False
        self.codes = [int(lie.removeprefix("code-"), 16) for lie in lies if lie.startswith("code-")]
        """With what it refuses the next orders for power."""

    def handle_raw_request(self, request: Any, session: Any) -> None:
        asked = (request["netfn"], request["command"])
        if self.codes and asked == (0, 2):
            session.send_ipmi_response(code=self.codes.pop(0))
        elif "loses" in self.lies and not self.dropped and asked == (0, 2) and not request["data"][0]:
            self.dropped = True  # the first order to switch off: neither done nor answered
        elif "forbidden" in self.lies and asked == (0, 2):
            session.send_ipmi_response(code=0xD4)
        elif "no-boot-flags" in self.lies and asked in {(0, 8), (0, 9)}:
            session.send_ipmi_response(code=0xC1)
        elif "short" in self.lies and asked == (0, 1):
            session.send_ipmi_response(data=[])
        elif "drops" in self.lies and asked == (0, 2) and not self.dropped:
            self.dropped = True
            self.switch(on=bool(request["data"][0]))
            self.lies = [*self.lies, "mute"]
        elif "mute" not in self.lies and not self.log.with_suffix(".mute").exists():
            super().handle_raw_request(request, session)

    def switch(self, *, on: bool) -> int:
        if "busy" in self.lies:
            return 0xC0
        with self.log.open("a") as file:
            file.write(f"power {'on' if on else 'off'}\n")
        if "stuck" not in self.lies:
            self.wanted, self.since = on, time.monotonic()
        return 0xCF if "duplicate" in self.lies else 0

    def power_on(self) -> int:
        return self.switch(on=True)

    def power_off(self) -> int:
        return self.switch(on=False)

    def get_power_state(self) -> int:
        if "shows-when-told" in self.lies and not self.log.with_suffix(".shows").exists():
            return int(self.on)
        if "late" not in self.lies or time.monotonic() - self.since > LATE_SECONDS:
            self.on = self.wanted
        return int(self.on and not self.log.with_suffix(".off").exists())

    def get_boot_device(self) -> int:
        return self.device << 2

    def set_boot_device(self, bootdevice: Any) -> None:
        number = {"network": 1, "hd": 2, "default": 0}[bootdevice]
        with self.log.open("a") as file:
            file.write(f"boot {bootdevice}\n")
        if "forgets" not in self.lies and ("sticky" not in self.lies or number == 1):
            self.device = number


def main() -> None:
    """Serve until the input ends."""
    said = json.loads(sys.stdin.readline())
    if "domain" in said:
        from virtualbmc.vbmc import VirtualBMC  # noqa: PLC0415 - the lying BMC does without libvirt

        served = VirtualBMC(USER, said["password"], said["port"], "127.0.0.1", said["domain"], said["uri"])
    else:
        ServerSession.close_server_session = lambda _self: Path(said["log"]).with_suffix(".closed").touch()
        served = LyingBmc(said["port"], said["password"], said["lies"], said["log"])
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    served.listen(timeout=0.05)  # pyghmi's server may not notice a packet before it looks again


if __name__ == "__main__":
    main()
