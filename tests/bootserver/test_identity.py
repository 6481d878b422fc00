"""Whether the deploy agent runs on the server that was booted, by what its firmware and its BMC tell."""

from __future__ import annotations

import pytest

from mulligan.activities.bootserver.identity import mistaken
from mulligan.activities.values import Identity, Kind

UUID, OTHER = "4c4c4544-0031-3510-8052-b4c04f4a3132", "4c4c4544-0031-3510-8052-b4c04f4a3133"
SWAPPED = "44454c4c-3100-1035-8052-b4c04f4a3132"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Identity("ABC1234"), {"serial": " abc1234 "}),
        (Identity("CN-7475-53"), {"serial": "ABC1234", "board_serial": "CN747553"}),
        (Identity("", UUID), {"uuid": UUID.upper()}),
        (Identity("", UUID), {"uuid": SWAPPED}),
        (Identity("CN747553", UUID), {"serial": "ABC1234", "uuid": UUID}),
        (Identity("ABC1234"), {"serial": "To Be Filled By O.E.M.", "board_serial": "XYZ9876"}),
        (Identity("ABC1234"), {"serial": "XYZ9876"}),
        (Identity("ABC1234"), {"serial": "Not Specified", "board_serial": "Default string"}),
        (Identity("System Serial Number"), {"serial": "ABC1234"}),
        (Identity("0000000000"), {"serial": "ABC1234"}),
        (Identity("", "00000000-0000-0000-0000-000000000000"), {"uuid": UUID}),
        (Identity("", UUID), {"uuid": "ffffffff-ffff-ffff-ffff-ffffffffffff"}),
        (Identity("", UUID), {"uuid": "03000200-0400-0500-0006-000700080009"}),
        (Identity("", "no uuid"), {"uuid": UUID}),
        (Identity("ABC1234", UUID), {}),
        (Identity("ABC1234", UUID), {"serial": 7, "uuid": ["x"]}),
        (Identity(), {"serial": "ABC1234", "uuid": UUID}),
    ],
    ids=[
        "serial", "board", "uuid", "swapped-uuid", "uuid-decides", "board-only", "older-agent", "not-specified",
        "placeholder-known",
        "zeros", "uuid-of-zeros", "uuid-of-ones", "uuid-of-many-boards", "no-uuid", "nothing-said", "nonsense",
        "nothing-known",
    ],
)  # fmt: skip
def test_a_server_is_itself_unless_it_is_known_not_to_be(known: Identity, said: dict[str, object]) -> None:
    """What is missing, and what makers leave in its place, tells nothing."""
    assert mistaken(known, said) == ""


@pytest.mark.parametrize(
    ("known", "said", "both"),
    [
        (Identity("ABC1234"), {"serial": "XYZ9876", "board_serial": ""}, ("serial number XYZ9876", "has ABC1234")),
        (Identity("ABC1234"), {"serial": "XYZ9876", "board_serial": "B-77551"}, ("XYZ9876", "ABC1234")),
        (Identity("", UUID), {"uuid": OTHER}, (OTHER, UUID)),
        (Identity("ABC1234", UUID), {"serial": "ABC1234", "uuid": OTHER}, (OTHER, UUID)),
        (Identity("ABC1234", "none"), {"serial": "XYZ9876", "board_serial": "", "uuid": UUID}, ("XYZ9876", "ABC1234")),
        (Identity("ABC1234"), {"serial": "XYZ\n9876" + "y" * 500, "board_serial": ""}, ("XYZ9876", "ABC1234")),
    ],
    ids=["serial", "board", "uuid", "uuid-decides", "one-uuid-only", "text-without-end"],
)
def test_another_server_is_told_apart_and_both_are_named(
    known: Identity, said: dict[str, object], both: tuple[str, str]
) -> None:
    """In one line of bounded length."""
    why = mistaken(known, said)
    assert all(each in why for each in both) and why.isprintable() and len(why) < 400


def test_only_a_servers_bmc_tells_who_it_is() -> None:
    """IPMI's GUID need not be that of the SMBIOS, so it is its BMC's; and a hypervisor boots no agent."""
    facts = {"serial": "ABC1234", "uuid": UUID, "model": "R-1"}
    assert Identity.of(Kind.BARE_METAL, "redfish://bmc", facts) == Identity("ABC1234", UUID)
    assert Identity.of(Kind.BARE_METAL, "ipmi://bmc", facts) == Identity("ABC1234", guid=UUID)
    assert Identity.of(Kind.VIRTUAL, "qemu:///system", facts) == Identity()
