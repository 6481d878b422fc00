"""Draws the picture of `mulligan top` for the docs, from a real stack with simulated hosts:

.venv/bin/python -m tests.cli.draw_top docs/top.svg
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from mulligan.api.cli.client import Session
from mulligan.api.cli.top.app import TopApp
from tests.services.stack import Stack

SIZE = (118, 40)
DISK = b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (2 << 20)
HOSTS = {
    "hyp-1": "simulated://dc/hyp-1?speed=0&vcpu=32&memory_mib=131072&disk_gib=1600",
    "hyp-2": "simulated://dc/hyp-2?speed=0&vcpu=16&memory_mib=65536&disk_gib=800&hold=place_base:*:600",
    "rack-7": "simulated://dc/rack-7?speed=0&kind=bare-metal&fail=power_on:*:Busy",
    "rack-8": "simulated://dc/rack-8?speed=0&kind=bare-metal&fail=power_on:*:Unsupported",
}
ENDING = ("--image", "demo", "--ssh-key", "none")
SHOWN = ("image slow", "boot retries", "boot held", "try    mulligan run")


def call(stack: Stack, *words: str) -> None:
    """Run a command, which must work."""
    done = stack.run(*words)
    if done.returncode:
        raise SystemExit(done.stderr)


def furnish(stack: Stack) -> None:
    """Hosts, machines on one of them, and a run on each of the others: slow, busy, and held."""
    images = stack.state_dir / "images"
    images.mkdir(exist_ok=True)
    (images / "disk.raw").write_bytes(DISK)
    call(stack, "image", "add", "demo", str(images / "disk.raw"), "--login", "demo")
    for name, url in HOSTS.items():
        call(stack, "provider", "add", name, url)
    for number in range(4):
        sizes = ("--vcpu", "4", "--memory", "12G", "--disk", "100G")
        call(stack, "machine", "provision", f"web-{number}", *ENDING, "--provider", "hyp-1", *sizes)
    call(stack, "machine", "provision", "held-1", *ENDING, "--provider", "rack-8", "--on-failure", "hold", "--detach")
    call(stack, "machine", "provision", "db-1", *ENDING, "--provider", "rack-7", "--detach")
    call(stack, "machine", "provision", "web-4", *ENDING, "--provider", "hyp-2", "--detach")


async def draw(stack: Stack) -> str:
    """The screen as an SVG, once every run shows its trouble; the details of the busy one are open."""
    with Session(stack.api) as session:
        app = TopApp(session)
        async with app.run_test(size=SIZE) as pilot, asyncio.timeout(300):
            await pilot.pause(1)
            await pilot.press("down", "enter")
            while True:
                picture = app.export_screenshot(title="mulligan top")
                text = re.sub(r"<[^>]*>", "", picture).replace("&#160;", " ")
                if all(each in text for each in SHOWN):
                    return re.sub(
                        r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL
                    )  # nothing is fetched to show it
                await pilot.pause(0.5)


def main() -> None:
    """Draw it to the file that was named."""
    with tempfile.TemporaryDirectory() as directory, Stack(Path(directory)) as stack:
        stack.up()
        furnish(stack)
        Path(sys.argv[1]).write_text(asyncio.run(draw(stack)))


if __name__ == "__main__":
    main()
