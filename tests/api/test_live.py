"""Live images through the API: what is registered, what is refused before anything is done, and what a plan says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.values import Erase, Inspection, Kind, MachineState
from mulligan.api.releases import usual_erase
from mulligan.api.validate import Faults
from mulligan.api.validate_spec import check_image
from mulligan.v1 import images_pb2, inventory_pb2, machine_pb2, provisioning_pb2
from tests.api.serving import Api, events, everything, refusal, spec, violations
from tests.workflows.stack import Stack, is_clean

ROOT = Path("/srv/images")
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ISO, KERNEL = images_pb2.IMAGE_FORMAT_ISO, images_pb2.IMAGE_FORMAT_KERNEL
DISKLESS = machine_pb2.Resources(vcpu=1, memory_mib=512)
POWER, GUEST = machine_pb2.VERIFY_LEVEL_POWER, machine_pb2.VERIFY_LEVEL_GUEST
ADDRESS = machine_pb2.VERIFY_LEVEL_ADDRESS


def faults(**said: Any) -> dict[str, str]:
    """What is wrong with an image, without the name of the message."""
    given = {"name": "rescue", "source": "https://images.example.org/rescue", "digest": DIGEST, "format": KERNEL} | said
    message = images_pb2.AddImageRequest(image=images_pb2.Image(**given))
    found = Faults(message)
    check_image(found, message.image, [ROOT])
    return {field.removeprefix("image."): why for field, why in found.found}


INITRD = {"initrd_source": "https://images.example.org/initrd", "initrd_digest": OTHER}


@pytest.mark.parametrize(
    "said",
    [
        {"format": ISO},
        {"format": ISO, "compression": images_pb2.COMPRESSION_XZ},
        {},
        INITRD,
        {**INITRD, "kernel_arguments": "console=ttyS0,115200 ip=dhcp root=live:http://10.0.0.1/x?y=1&z=2 a;b"},
    ],
    ids=["iso", "compressed-iso", "kernel", "with-initrd", "with-arguments"],
)
def test_a_good_live_image_has_no_faults(said: dict[str, Any]) -> None:
    """With all that it may have."""
    assert faults(**said) == {}


@pytest.mark.parametrize(
    ("said", "field", "why"),
    [
        ({"format": ISO, "initrd_source": "https://x/y"}, "initrd_source", "only for an image of format kernel"),
        ({"format": ISO, "initrd_digest": OTHER}, "initrd_digest", "only for an image of format kernel"),
        ({"format": images_pb2.IMAGE_FORMAT_RAW, "kernel_arguments": "quiet"}, "kernel_arguments", "only for"),
        ({"initrd_source": "https://x/y"}, "initrd_digest", "must be sha256:"),
        ({"initrd_source": "https://x/y", "initrd_digest": "md5:" + "0" * 32}, "initrd_digest", "can be forged"),
        ({"initrd_digest": OTHER}, "initrd_source", "must say where the initrd of this digest is"),
        ({**INITRD, "initrd_source": "file:///etc/shadow"}, "initrd_source", "files are allowed below /srv/images"),
        ({**INITRD, "initrd_source": "ftp://x/y"}, "initrd_source", "ftp"),
        ({"compression": images_pb2.COMPRESSION_GZIP}, "compression", "a kernel unpacks itself"),
        ({"architecture": "aarch64"}, "architecture", "must be x86_64"),
        ({"kernel_arguments": "a='b c'"}, "kernel_arguments", 'holds "\'"'),
        ({"kernel_arguments": "a=${net0/mac}"}, "kernel_arguments", "holds '$'"),
        ({"kernel_arguments": "quiet\nboot"}, "kernel_arguments", r"holds '\n'"),
        ({"kernel_arguments": "quiet || shell"}, "kernel_arguments", "iPXE would act on"),
        ({"kernel_arguments": "quiet #no"}, "kernel_arguments", "iPXE would act on"),
        ({"kernel_arguments": "a" * 1025}, "kernel_arguments", "at most 1024"),
        ({"format": 0}, "format", "IMAGE_FORMAT_KERNEL"),
    ],
    ids=[
        "iso-with-initrd",
        "iso-with-initrd-digest",
        "raw-with-arguments",
        "no-initrd-digest",
        "weak-digest",
        "no-initrd-source",
        "forbidden-file",
        "other-scheme",
        "compressed",
        "other-architecture",
        "quotes",
        "dollar",
        "newline",
        "ipxe-words",
        "comment",
        "too-long",
        "no-format",
    ],
)
def test_what_does_not_belong_together_is_refused(said: dict[str, Any], field: str, why: str) -> None:
    """By the field that is wrong."""
    found = faults(**said)
    assert list(found) == [field]
    assert why in found[field]


async def registered(api: Api, name: str, **said: Any) -> None:
    """A live image of that name, behind simulated sources."""
    image = images_pb2.Image(name=name, source=f"simulated:{name}", **said)
    response = await api.images.AddImage(images_pb2.AddImageRequest(image=image))
    assert response.image.initrd_digest == image.initrd_digest


@pytest.fixture
async def images(api: Api) -> None:
    """An ISO `rescue` and a kernel `diskless`."""
    await registered(api, "rescue", format=ISO, digest=DIGEST)
    more = {"initrd_source": "simulated:initrd", "initrd_digest": "sha256:" + "c" * 64, "kernel_arguments": "quiet"}
    await registered(api, "diskless", format=KERNEL, digest=OTHER, **more)


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("image", "said", "field"),
    [
        ("rescue", {"verify": GUEST}, "spec.verify"),
        ("rescue", {"user_data": "#cloud-config\n{}"}, "spec.user_data"),
        ("rescue", {"network_config": "version: 2\n"}, "spec.network_config"),
        ("diskless", {"network_config": "version: 2\n"}, "spec.network_config"),
        ("diskless", {"root_disk": machine_pb2.RootDisk(serial="S-1")}, "spec.root_disk"),
        ("demo", {"resources": DISKLESS}, "spec.resources.disk_gib"),
    ],
    ids=["iso-guest", "iso-user-data", "iso-network", "kernel-network", "root-disk", "a-disk-image-without-disk"],
)
async def test_what_cannot_be_done_is_refused_when_asked(
    api: Api, stack: Stack, image: str, said: dict[str, Any], field: str
) -> None:
    """Before anything is claimed; it is said which field, and why."""
    project, _ = await stack.hosts()
    error = await refusal(api.provision(spec(project, image=image, **said)))
    assert list(violations(error)) == [field]


@pytest.mark.usefixtures("images")
async def test_a_live_machine_is_planned_made_and_released(api: Api, stack: Stack) -> None:
    """It takes no disk, whatever was asked for, and the plan says that none is touched."""
    project, _ = await stack.hosts(kind="bare-metal")
    wanted = spec(project, image="diskless", verify=GUEST)
    plan = (await api.provisioning.PlanMachine(provisioning_pb2.PlanMachineRequest(spec=wanted))).plan
    assert (list(plan.destroys), list(plan.lacks), plan.spec.resources.disk_gib) == ([], [], 0)
    assert "no disk is touched" in {step.step: step.description for step in plan.steps}["image"]
    told = await everything(api.provision(wanted, plan_hash=plan.hash))
    placed = [event.message for event in events(told) if event.action == "place-disks"]
    assert placed[0] == "Place what it boots, and its seed"
    assert "boots on" in placed[-1]
    machine = stack.inventory.machine(project, "m")
    assert (machine.state, machine.request.resources.disk_gib) == (MachineState.READY, 0)
    assert usual_erase(machine) is Erase.NONE
    again = await everything(api.provision(wanted))
    assert again[0].joined
    await everything(api.release(project))
    assert is_clean(stack, project)
    (provider,) = [each for each in stack.inventory.providers() if each.name.startswith(f"{project}-")]
    assert (provider.kind, provider.dirty) == (Kind.BARE_METAL, False)


@pytest.mark.usefixtures("images")
async def test_an_explanation_names_what_a_live_image_needs(api: Api, stack: Stack) -> None:
    """On providers that cannot boot one: by the capabilities that they lack."""
    project, (host,) = await stack.hosts()
    provider = stack.inventory.provider(host.name)
    fewer = [each for each in provider.capabilities if each not in ("boot.live-iso", "console.serial")]
    stack.inventory.put_provider(
        host.name,
        "default",
        provider.url,
        "",
        Inspection(provider.kind, provider.inventory, tuple(fewer)),
        dict(provider.settings),
    )
    asked = inventory_pb2.ExplainClaimRequest(spec=spec(project, image="rescue", provider=host.name, verify=ADDRESS))
    found = (await api.inventory.ExplainClaim(asked)).explanation
    (miss,) = [each for each in found.near_misses if each.provider == host.name]
    assert set(miss.failing) == {"requires.boot.live-iso", "requires.console.serial"}
