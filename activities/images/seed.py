"""The NoCloud seed: a small ISO 9660 image, labelled `cidata`, that tells cloud-init who the machine is.

    meta-data       instance id, host name and SSH keys: they hold whatever the user data is
    user-data       the user's own; else a #cloud-config with host name and keys
    vendor-data     a script that calls home after cloud-init has ended
    network-config  only when the request has one; otherwise cloud-init asks DHCP on the first interface

The file names and the keys of meta-data are those of cloud-init's NoCloud data source.
"""

from __future__ import annotations

import io
import json
from importlib import resources
from typing import Any

import pycdlib
import yaml

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.images.checked_yaml import Unfit, nodes_of, value_of
from mulligan.activities.values import MachineRequest, Mark

USER_DATA_BYTES = 64 * 1024
NETWORK_CONFIG_BYTES = 64 * 1024

USER_DATA_HEADS = (
    "#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "## template: jinja",
    "Content-Type:", "MIME-Version:",
)  # fmt: skip
"""How user data may begin; cloud-init only warns about, and ignores, anything else."""


def check_user_data(user_data: str) -> None:
    """Raise `InvalidRequest` for user data that is too large or that cloud-init would ignore; empty is none."""
    if not user_data:
        return
    _check_size("user_data", user_data, USER_DATA_BYTES)
    if not user_data.startswith(USER_DATA_HEADS):
        raise _invalid(
            "user_data", f"must begin with one of {', '.join(USER_DATA_HEADS)}: cloud-init ignores anything else"
        )
    first = user_data.split("\n", 1)[0].strip()
    if first != "#cloud-config":
        return
    content = _parse("user_data", user_data)
    empty = content is None or (isinstance(content, yaml.ScalarNode) and not content.value)
    if not empty and not isinstance(content, yaml.MappingNode):
        raise _invalid("user_data", "a #cloud-config must be a YAML mapping")


def check_network_config(network_config: str) -> None:
    """Raise `InvalidRequest` unless it is a network configuration of version 1 or 2 in YAML; empty is none."""
    if not network_config:
        return
    _check_size("network_config", network_config, NETWORK_CONFIG_BYTES)
    content = _parse("network_config", network_config)
    version = value_of(value_of(content, "network") or content, "version")
    if not isinstance(version, yaml.ScalarNode) or version.style or version.value not in ("1", "2"):
        raise _invalid("network_config", "must be a YAML mapping with 'version: 1' or 'version: 2'")


def build_seed(
    request: MachineRequest, mark: Mark, *, user_data: str, call_home_url: str, call_home_token: str
) -> bytes:
    """The seed as an ISO 9660 image; see `seed_files`. Blocks for milliseconds."""
    return _iso(
        seed_files(request, mark, user_data=user_data, call_home_url=call_home_url, call_home_token=call_home_token)
    )


def seed_files(
    request: MachineRequest, mark: Mark, *, user_data: str, call_home_url: str, call_home_token: str
) -> dict[str, str]:
    """The seed's files, by name. `user_data` is plain. Without a `call_home_url` the guest does not call home.

    Raises `InvalidRequest` for user data or a network configuration that cannot work.
    """
    check_user_data(user_data)
    check_network_config(request.network_config)
    files = {
        "meta-data": _meta_data(request, mark, call_home_url, call_home_token),
        "user-data": user_data or _default_user_data(request),
    }
    if call_home_url:
        files["vendor-data"] = call_home_script(mark.machine_id, call_home_url, call_home_token)
    if request.network_config:
        files["network-config"] = request.network_config
    return files


def call_home_script(instance_id: str, url: str, token: str) -> str:
    """The script that calls home, with its settings filled in."""
    template = resources.files(__package__).joinpath("call_home.py.txt").read_text()
    settings = json.dumps({"instance_id": instance_id, "url": url, "token": token})
    return template.replace("@SETTINGS@", repr(settings), 1)


def _meta_data(request: MachineRequest, mark: Mark, url: str, token: str) -> str:
    content: dict[str, Any] = {
        "instance-id": mark.machine_id,
        "local-hostname": request.hostname or request.name,
    }
    if request.ssh_keys:
        content["public-keys"] = list(request.ssh_keys)
    if url:
        content["mulligan_call_home_url"] = url
        content["mulligan_call_home_token"] = token
    return _yaml(content)


def _default_user_data(request: MachineRequest) -> str:
    name = request.hostname or request.name
    content: dict[str, Any] = {"hostname": name.partition(".")[0]}
    if "." in name:
        content["fqdn"] = name
    if request.ssh_keys:
        content["ssh_authorized_keys"] = list(request.ssh_keys)
    content["ssh_pwauth"] = False
    return "#cloud-config\n" + _yaml(content)


def _yaml(content: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, width=1_000_000, allow_unicode=True)
    return text


def _iso(files: dict[str, str]) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for name, text in files.items():
        content = text.encode()
        short = name.replace("-", "_").upper()
        iso.add_fp(io.BytesIO(content), len(content), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
    target = io.BytesIO()
    iso.write_fp(target)
    iso.close()
    return target.getvalue()


def _check_size(field: str, text: str, limit: int) -> None:
    size = len(text.encode())
    if size > limit:
        raise _invalid(field, f"has {size} bytes and may have {limit}")


def _parse(field: str, text: str) -> yaml.Node | None:
    try:
        return nodes_of(text)
    except Unfit as unfit:
        raise _invalid(field, str(unfit)) from None


def _invalid(field: str, found: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {found}; correct it", violations=[(field, found)])
