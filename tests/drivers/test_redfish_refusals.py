"""What a Redfish BMC says when it refuses: in its makers' words, with its reason where the standard puts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.errors import Busy, Unsupported
from mulligan.activities.values import Firmware
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

GENERIC = "A general error has occurred. See ExtendedInfo for more information"


@pytest.fixture
def bmc() -> Iterator[LyingBmc]:
    """A BMC with one machine."""
    with LyingBmc(Machine("1")).listening() as running:
        yield running


def an_error(*info: dict[str, Any], message: str = GENERIC, code: str = "Base.1.8.GeneralError") -> dict[str, Any]:
    """The body of a refusal, whose reason is in the extended information."""
    return {"code": code, "message": message, "@Message.ExtendedInfo": list(info)}


IN_POST = an_error(
    {"MessageArgs": ["BootSourceOverrideTarget"], "MessageId": "iLO.2.37.UnableToModifyDuringSystemPOST"},
    message="See @Message.ExtendedInfo for more information.",
    code="iLO.0.10.ExtendedInfo",
)
STANDBY = an_error({"MessageId": "Base.1.8.ResourceInStandby", "Message": "The resource is in standby."})
NO_SESSION = an_error({"MessageId": "Base.1.8.SessionLimitExceeded", "Message": "The number exceeds the limit."})
NO_ROOM = an_error(message="It has reached the limit.", code="Base.1.8.CreateLimitReachedForResource")
WRONG = an_error(
    {
        "MessageId": "IDRAC.2.8.RAC0720",
        "Message": "Unable to locate the ISO in the network share location.",
        "Resolution": "Make sure that the path and credentials are correct and retry the operation.",
    }
)


ODD = {
    "text": b'{"error": "Unauthorized"}',
    "null": b'{"error": null}',
    "empty": b'{"error": {}}',
    "list": b"[]",
    "no-list": b'{"error": {"message": "no", "@Message.ExtendedInfo": "log in"}}',
    "no-entries": b'{"error": {"message": "no", "@Message.ExtendedInfo": [null, "log in"]}}',
    "string": b'"gone"',
    "page": b"<html>Unauthorized</html>",
    "deep": b"[" * 100_000,
}
"""Bodies of refusals that are of no form that Redfish gives them."""


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_a_session_that_is_over_is_begun_anew_whatever_the_refusal_looks_like(
    bmc: LyingBmc, tmp_path: Path, body: bytes
) -> None:
    """The status says what it is."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.lies.body = body
        bmc.expire_sessions()
        await driver.power(a_mark(), soon())
    assert bmc.opened == 2


@pytest.mark.parametrize(("body", "reason"), [(b'{"error": "not now"}', "not now"), (b"[]", "without a reason")])
async def test_a_refusal_of_an_odd_form_is_told_by_its_status(
    bmc: LyingBmc, tmp_path: Path, body: bytes, reason: str
) -> None:
    """With its reason, where that is a text."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.body, bmc.lies.busy, bmc.lies.busy_status = body, 1, 503
        with pytest.raises(Busy, match=f"HTTP 503: {reason}"):
            await driver.power_on(a_mark(), soon())


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_a_worker_ends_whatever_a_bmc_says_to_that(bmc: LyingBmc, tmp_path: Path, body: bytes) -> None:
    """The sessions with all others are ended."""
    kept = Kept()
    with LyingBmc(Machine("1")).listening() as other:
        for each in (bmc, other):
            async with opened(each, tmp_path, kept=kept) as driver:
                await driver.power(a_mark(), soon())
        bmc.lies.body, bmc.lies.keeps_sessions = body, True
        await kept.close()
        assert bmc.sessions and not other.sessions


class Breaks:
    """Something whose end is an error."""

    async def close(self) -> None:
        """Raise it."""
        raise ValueError("broken")


async def test_what_breaks_at_its_end_keeps_nothing_else_from_it(bmc: LyingBmc, tmp_path: Path) -> None:
    """Whatever it is."""
    kept = Kept()
    kept.get("breaks", Breaks)
    async with opened(bmc, tmp_path, kept=kept) as driver:
        await driver.power(a_mark(), soon())
    await kept.close()
    assert not bmc.sessions


@pytest.mark.parametrize("error", [IN_POST, STANDBY], ids=["in-post", "standby"])
async def test_a_bmc_that_is_not_ready_is_understood_in_its_makers_words(
    bmc: LyingBmc, tmp_path: Path, error: dict[str, Any]
) -> None:
    """It answers 400 with an identifier only, and is given time; then it works."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.error, bmc.lies.busy, bmc.lies.busy_status = error, 1, 400
        with pytest.raises(Busy) as refused:
            await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
        assert error["@Message.ExtendedInfo"][0]["MessageId"] in refused.value.message
        assert (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())).agrees


@pytest.mark.parametrize("error", [NO_SESSION, NO_ROOM], ids=["limit-exceeded", "limit-reached"])
async def test_a_bmc_whose_sessions_are_all_in_use_is_given_time(
    bmc: LyingBmc, tmp_path: Path, error: dict[str, Any]
) -> None:
    """Also where it answers 400 instead of 503."""
    bmc.lies.error, bmc.lies.refuses_sessions = error, 400
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy, match="limit"):
            await driver.power(a_mark(), soon())
        bmc.lies.refuses_sessions = 0
        await driver.power(a_mark(), soon())


async def test_a_wrong_value_is_final_whatever_is_advised_against_it(bmc: LyingBmc, tmp_path: Path) -> None:
    """Its maker advises to "retry the operation"; the reason is said, which only the extended information has."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.error, bmc.lies.busy, bmc.lies.busy_status = WRONG, 1, 400
        with pytest.raises(Unsupported, match=r"HTTP 400: IDRAC.2.8.RAC0720: Unable to locate the ISO") as refused:
            await driver.power_on(a_mark(), soon())
    assert "general error" not in refused.value.message


async def test_a_name_in_a_url_is_no_wish_for_patience(bmc: LyingBmc, tmp_path: Path) -> None:
    """A medium may be called `busybox`; that the BMC cannot use it stays so."""
    said = "The value http://boot.test/busybox/retry.iso for the parameter Image is of a different format."
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, 400, said
        with pytest.raises(Unsupported, match="busybox"):
            await driver.power_on(a_mark(), soon())
