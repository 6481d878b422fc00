"""Whose BMC it is: certificates of an authority, pinned ones, and none that are checked."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric import rsa as rsas
from cryptography.x509.oid import NameOID

from mulligan.activities.errors import AccessDenied, HostNotReady, Unreachable, Unsupported
from mulligan.activities.values import PowerState, Target
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon


@dataclass(frozen=True)
class Secure:
    """A BMC behind TLS, with a certificate that signed itself."""

    bmc: LyingBmc
    certificate: Path
    fingerprint: str


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A BMC whose certificate is for its address."""
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    with _shown(tmp_path_factory.mktemp("tls"), address) as secure:
        yield secure


@contextlib.contextmanager
def _shown(
    folder: Path, subject: x509.GeneralName, tune: Callable[[ssl.SSLContext], None] = lambda _: None, rsa: bool = False
) -> Iterator[Secure]:
    """Certificate and key as files, and a BMC that shows them, over TLS that is tuned so."""
    private = rsas.generate_private_key(65537, 2048) if rsa else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([subject]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(private, hashes.SHA256())
    )
    path, key_path = folder / "bmc.pem", folder / "bmc.key"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    tune(context)
    with LyingBmc(Machine("1")).listening(context) as bmc:
        yield Secure(bmc, path, certificate.fingerprint(hashes.SHA256()).hex())


@pytest.mark.parametrize("how", ["ca", "fingerprint", "colons", "off"])
async def test_a_bmc_is_trusted_as_the_provider_says(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By an authority, by its very certificate, or without a look; never by what the environment says."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    settings = {
        "ca": {"ca": str(secure.certificate)},
        "fingerprint": {"fingerprint": secure.fingerprint},
        "colons": {"fingerprint": bytes.fromhex(secure.fingerprint).hex(":").upper()},
        "off": {"verify": "off"},
    }[how]
    async with opened(secure.bmc, tmp_path, a_target(secure.bmc, **settings)) as driver:
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF


@pytest.mark.parametrize("settings", [{}, {"fingerprint": "ab" * 32}])
async def test_a_strange_certificate_ends_it_before_a_password_is_sent(
    secure: Secure, tmp_path: Path, settings: dict[str, str]
) -> None:
    """The error tells what the BMC showed, so that it can be compared and pinned."""
    before = secure.bmc.opened
    async with opened(secure.bmc, tmp_path, a_target(secure.bmc, **settings)) as driver:
        with pytest.raises(AccessDenied, match=f"{secure.fingerprint}.*--set fingerprint=") as error:
            await driver.inspect(soon())
    assert error.value.metadata["certificate"] == secure.fingerprint
    assert secure.bmc.opened == before


async def test_an_authority_that_is_not_there_is_named(secure: Secure, tmp_path: Path) -> None:
    """The file is looked for on the worker."""
    async with opened(secure.bmc, tmp_path, a_target(secure.bmc, ca="/nonexistent.pem")) as driver:
        with pytest.raises(HostNotReady, match="no file on this worker"):
            await driver.inspect(soon())


async def test_a_certificate_for_another_name_is_refused_before_a_password_is_sent(tmp_path: Path) -> None:
    """The authority is the right one, and what it signed is another BMC's; pinned, it is taken."""
    with _shown(tmp_path, x509.DNSName("other.example.org")) as other:
        async with opened(other.bmc, tmp_path, a_target(other.bmc, ca=str(other.certificate))) as driver:
            with pytest.raises(AccessDenied, match=f"{other.fingerprint}.*--set fingerprint=") as error:
                await driver.inspect(soon())
        assert "127.0.0.1" in error.value.message.partition("not trusted")[2]
        assert other.bmc.opened == 0
        async with opened(other.bmc, tmp_path, a_target(other.bmc, fingerprint=other.fingerprint)) as driver:
            assert (await driver.power(a_mark(), soon())).state is PowerState.OFF


def _old(context: ssl.SSLContext) -> None:
    """As iLO 3, iDRAC 7 and others of their time: nothing newer than TLS 1.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old is the point
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")


def _without_a_cipher(context: ssl.SSLContext) -> None:
    """TLS 1.2, and ciphers that nobody offers."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("NULL-SHA256:@SECLEVEL=0")


@pytest.mark.parametrize(
    ("tune", "kind", "said"),
    [
        (_old, Unsupported, r"no TLS in common \(.*protocol version\); let the BMC offer TLS 1.2"),
        (
            _without_a_cipher,
            Unreachable,
            r"broke off \(.*handshake failure\); .*should it stay so, let the BMC offer TLS 1.2",
        ),
    ],
    ids=["old", "without-a-cipher"],
)
async def test_tls_that_does_not_work_says_why_and_is_final_where_it_never_will(
    tmp_path: Path, tune: Callable[[ssl.SSLContext], None], kind: type[Exception], said: str
) -> None:
    """In OpenSSL's words, with what to do; a BMC that starts may have no certificate yet, which looks the same."""
    with _shown(tmp_path, x509.DNSName("bmc"), tune, rsa=True) as old:
        async with opened(old.bmc, tmp_path, a_target(old.bmc, verify="off")) as driver:
            with pytest.raises(kind, match=said):
                await driver.inspect(soon())


async def test_tls_that_breaks_off_is_tried_again_and_says_why(tmp_path: Path) -> None:
    """A BMC that starts may hang up before it shows anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(4096)

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        target = Target("srv-1", "default", f"redfish://127.0.0.1:{server.getsockname()[1]}", {}, "rack")
        async with opened(LyingBmc(), tmp_path, target) as driver:
            with pytest.raises(Unreachable, match=r"broke off \(.*EOF.*\); it will be tried again"):
                await driver.inspect(soon())
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
