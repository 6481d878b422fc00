"""BMCs on the command line: listed with how they answer, and beside the provider that is behind one."""

from __future__ import annotations

import json
import time
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from mulligan.v1 import inventory_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi
from tests.cli.test_commands import provider


def at(seconds: int) -> Timestamp:
    """So many seconds ago."""
    return Timestamp(seconds=int(time.time()) - seconds)


def bmc(**more: Any) -> inventory_pb2.Bmc:
    """One that answers."""
    known: dict[str, Any] = {
        "name": "bmc-1",
        "protocols": ["redfish"],
        "partition": "default",
        "providers": ["srv-1"],
        "state": inventory_pb2.BMC_STATE_ANSWERS,
        "answered_at": at(120),
        "asked": 40,
        "failed": 1,
        "counted_since": at(1800),
    }
    return inventory_pb2.Bmc(**{**known, **more})


DEAD = {"state": inventory_pb2.BMC_STATE_SILENT, "silent_since": at(7200), "error": "no answer from https://bmc-2"}
UNKNOWN = {"state": inventory_pb2.BMC_STATE_NOT_KNOWN, "error": "no worker", "answered_at": None, "counted_since": None}


def serve(api: ScriptedApi, *bmcs: inventory_pb2.Bmc) -> None:
    """Have the API list these."""
    api.handlers["ListBmcs"] = lambda request, context: iter(inventory_pb2.ListBmcsResponse(bmc=one) for one in bmcs)


def test_bmcs_are_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Each with its providers, when it answered, since when not, and why; what is asked for reaches the API."""
    serve(api, bmc(), bmc(name="bmc-2", providers=["srv-2", "srv-3"], **DEAD), bmc(name="bmc-3", **UNKNOWN))
    head, answers, silent, unknown = mulligan("bmc", "list").stdout.splitlines()
    columns = ["BMC", "PARTITION", "PROVIDERS", "STATE", "ANSWERED", "SILENT", "ASKED", "FAILED", "ERROR"]
    assert head.split() == columns
    assert answers.split() == ["bmc-1", "default", "srv-1", "answers", "2m", "-", "40", "1", "-"]
    assert " ".join(silent.split()) == ("bmc-2 default srv-2, srv-3 silent 2m 2h 40 1 no answer from https://bmc-2")
    assert " ".join(unknown.split()) == "bmc-3 default srv-1 not-known - - - - no worker"
    shown = mulligan("bmc", "list", "--partition", "site-b", "--probe", "--output", "json")
    assert [json.loads(line)["state"] for line in shown.stdout.splitlines()] == [
        "BMC_STATE_ANSWERS",
        "BMC_STATE_SILENT",
        "BMC_STATE_NOT_KNOWN",
    ]
    assert api.last("ListBmcs") == inventory_pb2.ListBmcsRequest(partition="site-b", probe=True)


def test_a_cool_down_is_told(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Until when the BMC wants to be left alone."""
    until = Timestamp(seconds=4_102_444_800)
    serve(api, bmc(state=inventory_pb2.BMC_STATE_BUSY, busy_until=until, error="HTTP 503"))
    listed = mulligan("bmc", "list", "--provider", "srv-1").stdout.splitlines()[1]
    assert "busy until 2100-01-01T00:00:00Z" in " ".join(listed.split())
    assert api.last("ListBmcs").provider == "srv-1"


def test_a_server_is_shown_with_its_bmc(api: ScriptedApi, mulligan: Mulligan) -> None:
    """In a line for people, whole for programs. Where the API does not say, the rest is shown all the same."""
    found = inventory_pb2.Provider(name="srv-2", kind=inventory_pb2.PROVIDER_KIND_SERVER, enabled=True)
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=found)
    serve(api, bmc(name="bmc-2", **DEAD))
    shown = mulligan("provider", "show", "srv-2").stdout
    (line,) = [each for each in shown.splitlines() if each.startswith("bmc")]
    assert "bmc-2 silent since 20" in line
    assert line.endswith(", answered 2m ago: no answer from https://bmc-2")
    assert json.loads(mulligan("provider", "show", "srv-2", "--output", "json").stdout)["bmc"]["name"] == "bmc-2"
    assert api.last("ListBmcs") == inventory_pb2.ListBmcsRequest(provider="srv-2")

    def away(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "Temporal does not answer")

    api.handlers["ListBmcs"] = away
    without = mulligan("provider", "show", "srv-2")
    assert (without.returncode, "srv-2" in without.stdout) == (0, True)
    assert not [each for each in without.stdout.splitlines() if each.startswith("bmc")]


def test_a_hypervisor_has_none(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Nothing is asked for it."""
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=provider())
    assert "bmc" not in json.loads(mulligan("provider", "show", "hyp-1", "--output", "json").stdout)
    assert "ListBmcs" not in [method for method, _ in api.asked]
