"""libvirt's own daemons on this host: started when none run, by systemd where there is one, and waited for.

For `mulligan doctor --mend`, the demo and the tests. Everything here blocks, and needs root to change anything.
"""

from __future__ import annotations

import grp
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import libvirt

from mulligan.activities.drivers.libvirt.faults import quiet, speaking
from mulligan.activities.errors import HostNotReady

RUNTIME = Path("/run/libvirt")
KVM = Path("/dev/kvm")
SYSTEM = "qemu:///system"
START_SECONDS = 30.0
OTHERS_SECONDS = 5.0
_HYPERVISOR_SOCKETS = ("libvirt-sock", "virtqemud-sock")
_LOG_SOCKETS = ("virtlogd-sock",)
_UNITS = ("virtlogd.socket", "libvirtd.service")
_MODULAR_UNITS = ("virtlogd.socket", "virtqemud.socket", "virtnetworkd.socket", "virtstoraged.socket")


def ensure_daemons() -> list[str]:
    """Start what does not run, let QEMU open /dev/kvm, and wait until libvirt answers. Each change made is one line of
    the result; nothing to do gives an empty list.

    Raises `HostNotReady` when libvirt is not installed, root is needed, or the daemons do not come up.
    """
    done = mend_kvm()
    if not (_answers(_HYPERVISOR_SOCKETS) and _answers(_LOG_SOCKETS)):
        _need_root("start libvirt's daemons")
        done += _start_units() if Path("/run/systemd/system").is_dir() else _start_processes()
    _wait_for("virtlogd", lambda: _answers(_LOG_SOCKETS))
    _wait_for("libvirt", lambda: _answers(_HYPERVISOR_SOCKETS))
    quiet()
    with speaking(f"connecting to {SYSTEM}", "this host"):
        libvirt.open(SYSTEM).close()
    return done


def kvm_is_closed() -> bool:
    """Whether /dev/kvm is there, but only root may open it: QEMU, which runs as another user, then cannot, and libvirt
    probes it anew at every definition."""
    if not KVM.exists():
        return False
    found = KVM.stat()
    return found.st_uid == 0 and found.st_gid == 0 and not found.st_mode & stat.S_IRWXO


def mend_kvm() -> list[str]:
    """Give /dev/kvm the group and mode that udev's rule would."""
    if not kvm_is_closed():
        return []
    try:
        group = grp.getgrnam("kvm").gr_gid
    except KeyError:
        raise _not_ready("the group kvm does not exist, so QEMU is not installed", "make system") from None
    _need_root(f"give {KVM} to the group kvm")
    os.chown(KVM, 0, group)
    KVM.chmod(0o660)
    return [f"{KVM}: group kvm, mode 0660, so that QEMU may open it"]


def _answers(names: tuple[str, ...]) -> bool:
    """Whether some daemon listens on one of the sockets."""
    for name in names:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
            client.settimeout(2)
            if client.connect_ex(str(RUNTIME / name)) == 0:
                return True
    return False


def _start_units() -> list[str]:
    units = _UNITS if shutil.which("libvirtd") else _MODULAR_UNITS
    found = subprocess.run(["systemctl", "start", *units], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise _not_ready(f"systemctl could not start {', '.join(units)}: {found.stderr.strip()[:500]}", "make system")
    return [f"started {unit} by systemd" for unit in units]


def _start_processes() -> list[str]:
    done = []
    for name, sockets in (("virtlogd", _LOG_SOCKETS), ("libvirtd", _HYPERVISOR_SOCKETS)):
        if _answers(sockets):
            continue
        program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            raise _not_ready(f"{name} is not installed", "make system")
        quietly = subprocess.DEVNULL
        found = subprocess.run([program, "-d"], stdin=quietly, stdout=quietly, stderr=quietly, check=False)
        if found.returncode != 0:
            if not _comes_up(sockets):
                raise _not_ready(f"`{name} -d` ended with status {found.returncode}", f"{name} --verbose")
            continue
        done.append(f"started {name} (there is no systemd)")
    return done


def _comes_up(sockets: tuple[str, ...]) -> bool:
    """Whether somebody else's, which was started at the same moment, answers soon: of two only one can be."""
    return _within(OTHERS_SECONDS, lambda: _answers(sockets))


def _wait_for(what: str, ready: Callable[[], bool]) -> None:
    if not _within(START_SECONDS, ready):
        raise _not_ready(f"{what} did not answer within {START_SECONDS:.0f} s", "make system")


def _within(seconds: float, ready: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _need_root(doing: str) -> None:
    if os.geteuid() != 0:
        raise _not_ready(f"only root may {doing}", "sudo mulligan doctor --mend")


def _not_ready(found: str, remedy: str) -> HostNotReady:
    return HostNotReady(f"this host cannot run virtual machines: {found}. Try `{remedy}`", remedy=remedy)
