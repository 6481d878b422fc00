"""What counts as a change that was sent twice, on logs written by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.drivers.bmc.once import sent_twice


@dataclass(frozen=True)
class Line:
    """A line of a log."""

    asks: str = ""
    part: str = "power"
    at: float = 0.0
    acted: bool = False
    already: bool = False
    refused: bool = False
    answered: bool = True

    @property
    def parts(self) -> frozenset[str]:
        """As the helper wants them."""
        return frozenset({self.part})


ON = Line("on", acted=True)
AGAIN = replace(ON, already=True, at=1.0)
OFF = Line("off", acted=True)
LOST = Line("on", answered=False)
LOOK = Line()
ELSEWHERE = Line(part="media")


@pytest.mark.parametrize(
    "log",
    [
        [ON, AGAIN],
        [ON, LOOK, AGAIN],
        [replace(ON, answered=False), LOOK, AGAIN],
        [ON, replace(AGAIN, acted=False, refused=True)],
        [LOST, ON],
        [LOST, replace(LOOK, answered=False), ON],
        [LOST, ELSEWHERE, ON],
        [Line("on"), ON],
    ],
    ids=["at-once", "after-a-look", "after-a-lost-answer", "and-refused", "blindly", "after-a-lost-look",
         "after-a-look-elsewhere", "after-an-idle-yes"],
)  # fmt: skip
def test_these_are_sent_twice(log: list[Line]) -> None:
    """Done and asked for again, or not refused and asked for again without a look."""
    assert len(sent_twice(log, 45)) == 1


@pytest.mark.parametrize(
    "log",
    [
        [ON, OFF, ON],
        [LOST, LOOK, ON],
        [Line("on", refused=True), ON],
        [Line("on"), LOOK, ON],
        [ON, LOOK, replace(AGAIN, at=46.0)],
        [ON, LOOK, replace(ON, at=1.0)],
        [ON, Line("eject", "media", acted=True)],
    ],
    ids=["undone-between", "after-a-look", "refused-before", "after-an-idle-yes-and-a-look", "after-all-patience",
         "undone-by-itself", "another-part"],
)  # fmt: skip
def test_these_are_not(log: list[Line]) -> None:
    """What is asked for anew, or was looked at."""
    assert sent_twice(log, 45) == []
