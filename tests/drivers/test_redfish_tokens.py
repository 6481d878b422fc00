"""What opens a run's medium, the token in its URL, stays between the run and the BMC that was given it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.drivers.redfish import media
from mulligan.activities.errors import Leftover, MulliganError
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

SIGNATURE = "Zm9yLXRoaXMtcnVuLW9ubHkh"
TOKEN = f"m-1-1-deploy.1.1796045031.{SIGNATURE}"
MEDIA = f"http://boot.test/v1/media/{TOKEN}/run-1.iso"


@pytest.fixture
def bmc(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingBmc]:
    """A BMC; the driver looks for a moment only whether a drive does as it was told."""
    monkeypatch.setattr(media, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(media, "_LOOK_SECONDS", 0.02)
    with LyingBmc(Machine("1")).listening() as running:
        yield running


async def test_what_opens_a_medium_is_in_no_message(bmc: LyingBmc, tmp_path: Path) -> None:
    """The run and the server are named; the token in the URL opens what the run serves."""
    bmc.machine.image, bmc.lies.sticky_media = "http://boot.test/v1/media/job.1.99.secret/run-1.iso", True
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Leftover, match=r"still names http://boot.test/v1/media/\*\*\*/run-1.iso") as error:
            await driver.insert_media(a_mark(), MEDIA, soon())
        assert "secret" not in f"{error.value.message} {error.value.metadata}"
        told = await driver.remains(a_mark().machine_id, soon())
        assert told and "secret" not in " ".join(told)


@pytest.mark.parametrize(
    "spelled",
    [
        "//boot.test/v1/media/{}/run-1.iso (CIFS)",
        "HTTP://BOOT.TEST/V1/MEDIA/{}/run-1.iso",
        "share/boot.test%2Fv1%2Fmedia%2F{}%2Frun-1.iso",
    ],
    ids=["cut", "in-capitals", "quoted"],
)
async def test_a_drive_that_spells_a_medium_in_its_own_way_tells_no_token(
    bmc: LyingBmc, tmp_path: Path, spelled: str
) -> None:
    """It is taken for another medium; what it names is said, as far as that opens nothing."""

    def respell(_method: str, _path: str, body: dict[str, Any]) -> None:
        if "Image" in body:
            body["Image"] = spelled.format(TOKEN)

    bmc.plot = respell
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(
            Leftover, match=r"drive Cd was given the run's image, and names .*\*\*\*.*run-1.iso"
        ) as error:
            await driver.insert_media(a_mark(), MEDIA, soon())
    assert SIGNATURE not in f"{error.value.message} {error.value.metadata}"


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
async def test_a_refusal_that_repeats_the_url_of_a_medium_tells_no_token(
    bmc: LyingBmc, tmp_path: Path, status: int
) -> None:
    """The BMC's words are told, and where the medium is, without what opens it."""
    bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, status, f"the value {MEDIA} of Image is not taken"
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(MulliganError, match=r"http://boot.test/v1/media/\*\*\*/run-1.iso of Image") as error:
            await driver.insert_media(a_mark(), MEDIA, soon())
    assert SIGNATURE not in f"{error.value!r} {error.value.message} {error.value.metadata}"
