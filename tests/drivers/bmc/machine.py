"""One server behind the lying BMC: what it is, and the documents that tell of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

ROOT = "/redfish/v1"
FIRST, ONCE = "ServerBoot.1.FirstBootDevice", "ServerBoot.1.BootOnce"
"""Attributes of a Dell's manager."""
_numbers = itertools.count(1)


def a_mac() -> str:
    """The address of a network card that no other machine of this process has."""
    number = next(_numbers)
    return f"52:54:00:01:{number >> 8:02x}:{number & 0xFF:02x}"


@dataclass
class Machine:
    """The truth, whatever the BMC says of it."""

    identity: str
    serial: str = "SN-4711-A"
    uuid: str = ""
    """Empty for one by its id."""
    mac: str = "52:54:00:00:00:01"
    mac_of_bmc: str = ""
    """Of the card by which the server reaches its BMC; empty where it has none."""
    power: str = "Off"
    target: str = "None"
    enabled: str = "Disabled"
    mode: str = "UEFI"
    image: str = ""
    version: int = 1
    """Grows with every change; the ETag is made of it."""
    told_at: float = 0.0
    """When the BMC will tell of the last change of power, on the monotonic clock."""
    shown_power: str = "Off"
    """What the BMC tells of the power, where that comes late."""
    post_until: float = 0.0
    """When the machine's own test of itself ends, on the monotonic clock."""
    drives_under: str = "Managers"
    progress: dict[str, str] = field(default_factory=dict)
    """What it says of its boot; nothing where it says nothing."""
    ejects_by_action: bool = True
    """Without the action, its drive is emptied by a PATCH."""
    inserts_by_action: bool = True
    """Without the action, its drive is filled by a PATCH; one that comes first refuses that, as Lenovo's RDOC ones."""
    storage: dict[str, int] = field(default_factory=dict)
    """Bytes of each drive of its Storage, by model; without any it has SimpleStorage only."""
    accelerators: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What else it lists among its processors, by name."""
    sources: list[str] = field(default_factory=lambda: ["None", "Pxe", "Cd", "Hdd"])
    """What it says that it can be told to boot from."""

    stale_names: bool = False
    """Its drive goes on naming what was ejected, and says that nothing is connected, as Supermicro's do."""
    ejected: str = ""
    """What it names then."""
    has_proxy: bool = False
    """Another drive comes first, which takes no URL, as OpenBMC's for media of the operator's own do."""
    spells: Callable[[str], str] = str
    """What its drive calls a URL."""
    has_drives: bool = True
    lists_backwards: bool = False
    """Its drives, the last one first."""
    pending: dict[str, str] | None = None
    """What its settings resource says of the next boot, where it has one, as AMI's have: overrides go there, and the
    system says so from its next start on."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else its document tells, or in the place of what it does."""
    fixed_mode: bool = False
    """Its boot mode cannot be written, as HPE's."""
    attributes: dict[str, str] | None = None
    """Those of its manager, where it is Dell's: "Cd" is its physical drive then, in which nothing is."""
    links_attributes: bool = True
    """Whether the manager tells where they are."""

    @property
    def path(self) -> str:
        return f"{ROOT}/Systems/{self.identity}"

    @property
    def drive(self) -> str:
        return f"{ROOT}/{self.drives_under}/{self.identity}/VirtualMedia/Cd"

    @property
    def manager(self) -> str:
        return f"{ROOT}/Managers/{self.identity}"

    @property
    def attributes_path(self) -> str:
        return f"{self.manager}/{'Oem/Dell/DellAttributes/iDRAC.Embedded.1' if self.links_attributes else 'Attributes'}"

    @property
    def boots(self) -> str:
        """What its firmware boots next, in Redfish's words, where "Cd" is the virtual drive."""
        target = self.target if self.enabled != "Disabled" else "None"
        if self.attributes is None:
            return target
        return "Cd" if self.attributes.get(FIRST) == "VCD-DVD" else "None" if target == "Cd" else target

    def has_booted(self) -> None:
        """What holds for one boot is over."""
        if self.enabled == "Once":
            self.target, self.enabled = "None", "Disabled"
        if self.attributes is not None and self.attributes.get(ONCE) == "Enabled":
            self.attributes = {**self.attributes, FIRST: "Normal"}

    @property
    def changed_below(self) -> tuple[str, ...]:
        """How the paths begin by which it is changed."""
        return self.path, self.drive, self.proxy, self.attributes_path

    @property
    def proxy(self) -> str:
        return f"{ROOT}/{self.drives_under}/{self.identity}/VirtualMedia/A"

    @property
    def etag(self) -> str:
        return f'"v{self.version}"'

    @property
    def in_post(self) -> bool:
        """Whether it tests itself; the BMC takes no change meanwhile."""
        return self.power == "On" and time.monotonic() < self.post_until

    def would_stay(self, path: str, body: dict[str, Any]) -> bool:
        """Whether it is already what this change asks for."""
        would = replace(self)
        would.act(path, body)
        return replace(would, version=self.version) == self

    def system(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "@odata.id": self.path, "Id": self.identity, "Name": f"System {self.identity}",
            "SerialNumber": self.serial, "Model": "R-1",
            "Manufacturer": "Contoso" if self.attributes is None else "Dell Inc.",
            "UUID": self.uuid or f"uuid-{self.identity}",
            "BiosVersion": "2.1", "PowerState": self.shown_power,
            "MemorySummary": {"TotalSystemMemoryGiB": 64.0},
            "ProcessorSummary": {"Count": 2, "LogicalProcessorCount": 32},
            "Processors": {"@odata.id": f"{self.path}/Processors"},
            "EthernetInterfaces": {"@odata.id": f"{self.path}/EthernetInterfaces"},
            "SimpleStorage": {"@odata.id": f"{self.path}/SimpleStorage"},
            "SecureBoot": {"@odata.id": f"{self.path}/SecureBoot"},
            "Links": {"ManagedBy": [{"@odata.id": f"{ROOT}/Managers/{self.identity}"}]},
            "Boot": {
                "BootSourceOverrideTarget": self.target, "BootSourceOverrideEnabled": self.enabled,
                "BootSourceOverrideMode": self.mode,
                "BootSourceOverrideTarget@Redfish.AllowableValues": self.sources,
                "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"],
            },
            "Actions": {"#ComputerSystem.Reset": {
                "target": f"{self.path}/Actions/ComputerSystem.Reset",
                "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
            }},
        }  # fmt: skip
        if self.pending is not None:
            document["@Redfish.Settings"] = {"SettingsObject": {"@odata.id": f"{self.path}/SD"}}
        if self.progress:
            document["BootProgress"] = self.progress
        if self.storage:
            document["Storage"] = {"@odata.id": f"{self.path}/Storage"}
        if self.drives_under == "Systems":
            document["VirtualMedia"] = {"@odata.id": f"{self.path}/VirtualMedia"}
        return document | self.more

    def documents(self) -> dict[str, dict[str, Any]]:
        """Every resource of the machine, by path."""
        found = {self.path: self.system()}
        found |= _collection(f"{self.path}/Processors", {
            str(n): {"Model": "Xeon", "ProcessorArchitecture": "x86", "InstructionSet": "x86-64", "TotalCores": 8,
                     "TotalThreads": 16} for n in (1, 2)
        } | self.accelerators)  # fmt: skip
        found |= _collection(f"{self.path}/EthernetInterfaces", {
            name: {"MACAddress": mac} for name, mac in {"nic1": self.mac, "ToManager": self.mac_of_bmc}.items() if mac
        })  # fmt: skip
        found |= _collection(f"{self.path}/SimpleStorage", {"s1": {"Devices": [
            {"Name": "disk", "Model": "SSD-1", "CapacityBytes": 480 << 30},
            {"Name": "other", "CapacityBytes": 960 << 30},
        ]}})  # fmt: skip
        found[f"{self.path}/SecureBoot"] = {"Id": "SecureBoot", "Name": "SecureBoot", "SecureBootEnable": True}
        found[self.manager] = {
            "@odata.id": self.manager, "Id": self.identity, "Name": "BMC", "FirmwareVersion": "1.9",
            "VirtualMedia": {"@odata.id": f"{self.manager}/VirtualMedia"},
        }  # fmt: skip
        found |= self._dell(found[self.manager])
        drives = self.drive.rpartition("/")[0]
        found |= _collection(f"{self.manager}/VirtualMedia", {})
        found |= _collection(drives, self._drives())
        if self.pending is not None:
            found[f"{self.path}/SD"] = {"Id": "SD", "Name": "Settings", "Boot": self.pending}
        return found | self._storage()

    def _dell(self, manager: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """A Dell manager's attributes, and others', which its document links."""
        if self.attributes is None:
            return {}
        others = f"{self.manager}/Oem/Dell/DellAttributes/System.Embedded.1"
        if self.links_attributes:
            linked = [{"@odata.id": each} for each in (others, self.attributes_path)]
            manager["Links"] = {"Oem": {"Dell": {"DellAttributes": linked}}}
        return {
            others: {"Id": "System.Embedded.1", "Name": "Attributes", "Attributes": {"LCD.1.UserDefinedString": ""}},
            self.attributes_path: {"Id": "Attributes", "Name": "Attributes", "Attributes": self.attributes},
        }

    def _drives(self) -> dict[str, dict[str, Any]]:
        """Its virtual drives, by name."""
        proxy: dict[str, Any] = {"MediaTypes": ["CD"], "Image": None, "Inserted": False}
        drive = proxy | {
            "MediaTypes": ["CD", "DVD"], "Image": self.spells(self.image or self.ejected) or None,
            "Actions": {f"#VirtualMedia.{verb}Media": {"target": f"{self.drive}/Actions/VirtualMedia.{verb}Media"}
                        for verb, there in (("Insert", self.inserts_by_action), ("Eject", self.ejects_by_action))
                        if there},
        }  # fmt: skip
        if self.stale_names:
            drive["ConnectedVia"] = "URI" if self.image else "NotConnected"
        drives = ({"A": proxy} if self.has_proxy else {}) | ({"Cd": drive} if self.has_drives else {})
        return dict(reversed(drives.items())) if self.lists_backwards else drives

    def _storage(self) -> dict[str, dict[str, Any]]:
        """A controller, and each of its drives."""
        if not self.storage:
            return {}
        drives = {f"{self.path}/Storage/1/Drives/{model}": size for model, size in self.storage.items()}
        found = _collection(f"{self.path}/Storage", {"1": {"Drives": [{"@odata.id": each} for each in drives]}})
        return found | {
            path: {"@odata.id": path, "Id": (model := path.rpartition("/")[2]), "Name": "Drive", "Model": model,
                   "CapacityBytes": size} for path, size in drives.items()
        }  # fmt: skip

    def act(self, path: str, body: dict[str, Any]) -> None:
        """Do what a change asks for."""
        self.version += 1
        verb = path.rpartition("/")[2]
        if verb == "ComputerSystem.Reset":
            self.power = "On" if body["ResetType"] == "On" else "Off"
            if self.power == "On" and self.pending:
                self._override(self.pending)
        elif verb == "VirtualMedia.InsertMedia" or (path == self.drive and body.get("Image")):
            self.image = body["Image"]
        elif verb == "VirtualMedia.EjectMedia" or (path == self.drive and body.get("Image", "") is None):
            self.image, self.ejected = "", self.image if self.stale_names else ""
        elif "Attributes" in body:
            self.attributes = {**(self.attributes or {}), **body["Attributes"]}
        elif verb == "SD":
            self.pending = {**(self.pending or {}), **body["Boot"]}
        elif path != self.proxy:
            self._override(body["Boot"])

    def _override(self, boot: dict[str, str]) -> None:
        self.target = boot.get("BootSourceOverrideTarget", self.target)
        self.enabled = boot.get("BootSourceOverrideEnabled", self.enabled)
        self.mode = boot.get("BootSourceOverrideMode", self.mode)


@dataclass
class Lies:
    """How the BMC misbehaves. Numbers count down: so many times, then it is honest."""

    drops_changes: int = 0
    """It acts, and closes the connection without an answer."""
    loses_changes: int = 0
    """It closes the connection before it acts."""
    drops_reads: int = 0
    busy: int = 0
    """It refuses changes with `busy_status`, without acting."""
    busy_reads: int = 0
    """It refuses to be read, with 503."""
    busy_status: int = 503
    busy_text: str = "Service temporarily unavailable"
    error: dict[str, Any] = field(default_factory=dict)
    """What its refusals say in place of a code and a text; nothing where they say those."""
    body: bytes = b""
    """What its refusals are in place of a document; nothing where they are one."""
    keeps_sessions: bool = False
    """It refuses to end a session, as if it did not know it."""
    retry_after: str = ""
    silent: int = 0
    """It takes requests for the machine and never answers, until the server ends."""
    fails_acting: int = 0
    """It acts, and its gateway answers 504."""
    slow: int = 0
    """It acts, and answers only when the server ends."""
    late_power: int = 0
    """So many reads of a system tell of the power before the change."""
    late_power_seconds: float = 0.0
    """It tells of the next change of power only so much later."""
    late_media: int = 0
    """So many reads of a drive tell nothing of what was inserted."""
    sticky_media: bool = False
    ignores_ejects: int = 0
    """So many orders to eject are taken, and nothing is ejected."""
    ignores_inserts: int = 0
    """So many orders to insert likewise."""
    forgets_override: int = 0
    refuses_continuous: bool = False
    """It takes an override for one boot, and answers 400 to one that stays."""
    loses_override: int = 0
    """It says of the override what it was told, and when the machine is switched on it is gone."""
    post_seconds: float = 0.0
    """How long a machine tests itself once it is switched on; it takes no change meanwhile."""
    garbage: list[bytes] = field(default_factory=list)
    """Bodies that it sends in place of the next documents of the machine."""
    needs_etag: bool = False
    wrong_etag: bool = False
    """The ETag that it tells of is never the one that it wants; without one it takes a change."""
    no_sessions: bool = False
    drops_logins: int = 0
    """It begins a session, and closes the connection without saying so."""
    refuses_logins: int = 0
    """It refuses the right password."""
    refuses_sessions: int = 0
    """The status with which it refuses to begin one, before it looks at the password; 0 where it does not."""
    absent_until: float = 0.0
    """Until then, on the monotonic clock, it lists no system, and what belongs to one is not there."""
    lacks: str = ""
    """How the paths end that it does not know."""
    refuses_session: int = 0
    """It takes a session for expired, and keeps it open all the same."""
    forbids: bool = False
    echoes: bool = False
    """Its refusals repeat the password."""
    redirects_to: str = ""
    slash: str = ""
    """A slash at the end of what is read is `needed`, `refused`, or `never right`: else it sends to the other path."""
    foreign_links: bool = False
    """Its session is told as a URL on another host."""


def _collection(path: str, members: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A collection and its members, by path."""
    found = {f"{path}/{name}": {"@odata.id": f"{path}/{name}", "Id": name, "Name": name} | more
             for name, more in members.items()}  # fmt: skip
    return {path: {"Name": "Collection", "Members": [{"@odata.id": each} for each in found]}} | found
