"""One boot of the deploy agent: reach the run, do what it says, report, and end as it orders.

Ends with the status that the first process acts on: `POWER_OFF`, `REBOOT`; anything else is a fault of this program.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import network
from .arguments import BadArguments, read_arguments
from .ata import take_all_back
from .deploy import deploy
from .erase import erase
from .hardware import DEV, SYS, disks, hardware
from .home import Home, Refused
from .reporter import Ordered, Reporter
from .tools import Failed

POWER_OFF, REBOOT = 10, 11


def main() -> int:
    """Do it; the exit status."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--command-line", type=Path, default=Path("/proc/cmdline"))
    options.add_argument("--sys", type=Path, default=SYS)
    options.add_argument("--dev", type=Path, default=DEV)
    given = options.parse_args()
    try:
        arguments = read_arguments(given.command_line.read_text())
    except BadArguments as bad:
        _say(f"{bad}; powering off")
        return POWER_OFF
    way = network.reach(arguments, given.sys)
    _say(f"network: the boot server {arguments.place[0]} is reached from {way}")
    try:
        _work(Home(arguments.url, _say, way.card), given.sys, given.dev)
    except Refused as refused:
        _say(f"the boot server refuses this boot: {refused}; nothing more is done, powering off")
    except Ordered as ordered:
        _say(f"told to {ordered}")
        return REBOOT if str(ordered) == "reboot" else POWER_OFF
    return POWER_OFF


def _work(home: Home, system: Path, dev: Path) -> None:
    """Returns never: it ends by an order, or by being refused."""
    asked = home.configuration()
    reporter = Reporter(home)
    reporter.at("hardware", f"job {asked.get('job')}: to {asked.get('kind')}", hardware=hardware(system, dev))
    home.patiently(reporter.told)
    reporter.start()
    take_all_back(disks(system, dev))
    try:
        reporter.at("waiting", "done; waiting for orders", result=_do(home, reporter, asked, system, dev))
    except (Refused, Ordered):
        raise
    except Failed as failed:
        reporter.at("failed", str(failed), error={"name": failed.name, "message": str(failed)})
    except Exception as error:  # noqa: BLE001 - the end of the program: whoever booted it must hear why it did nothing
        traceback.print_exc()
        reporter.at("failed", f"{type(error).__name__}: {error}", error={"name": "BROKEN", "message": repr(error)})
    reporter.wait_for_orders()


def _do(home: Home, reporter: Reporter, asked: Mapping[str, Any], system: Path, dev: Path) -> dict[str, Any]:
    work = {"deploy": deploy, "erase": erase}.get(str(asked.get("kind")))
    if work is None:
        raise Failed(
            "UNSUPPORTED", f"this agent knows no job {asked.get('kind')!r}; build it again: `mulligan agent build`"
        )
    return work(home, reporter, asked, system, dev)


def _say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
