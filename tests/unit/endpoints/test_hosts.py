import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deft_engine.endpoints.chat import ChatRequest
from deft_engine.endpoints.hosts import AllowedHosts
from deft_engine.errors import EndpointError, EndpointUnavailable
from deft_engine.types import Message
from tests.chat_server import serving
from tests.unit.endpoints.conftest import Opened

FORBIDDEN = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "localhost",
    "0.0.0.0",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[fe80::1]",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "metadata.google.internal",
    "10.0.0.1",
    "192.168.1.1",
    "100.100.100.200",
    "api.example.com.evil.test",
    "evil.test",
]
"""Loopback, link-local, metadata and private addresses in every form, and names nobody listed."""


def _answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name stand for these addresses; returns the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *more: Any, **named: Any) -> list[Any]:
        if host in addresses:  # to connect to it
            return real(host, port, *more, **named)
        asked.append(host)
        return [(None, None, None, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize("host", FORBIDDEN)
@pytest.mark.parametrize("listed", ["", "api.example.com, 8.8.8.8"])
def test_what_is_not_listed_is_never_resolved_or_asked(
    host: str, listed: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _answers(monkeypatch, "93.184.216.34")
    with opened(f"http://{host}:8080/v1", hosts=listed) as client, pytest.raises(EndpointError) as caught:
        client.ask(ChatRequest((Message("user", "hi"),), 4, 0.0))
    assert caught.value.error_code == "endpoint_not_allowed"
    assert asked == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
     "2002:7f00:1::", "224.0.0.1", "0.0.0.0", "100.64.0.1"],
)  # fmt: skip
def test_a_listed_name_must_stand_for_public_addresses_only(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(monkeypatch, "93.184.216.34", address)
    with pytest.raises(EndpointError, match="no public address") as caught:
        AllowedHosts.parse("api.example.com").resolve("api.example.com", 443)
    assert caught.value.error_code == "endpoint_not_allowed"


def test_a_private_address_is_allowed_where_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "10.1.2.3")
    allowed = AllowedHosts.parse("vllm:8000, 10.0.0.0/8")
    assert [str(a) for a in allowed.resolve("VLLM.", 8000)] == ["10.1.2.3"]
    with pytest.raises(EndpointError):
        allowed.resolve("vllm", 8001)
    with pytest.raises(EndpointError):
        AllowedHosts.parse("vllm:8000, 10.0.0.0/24").resolve("vllm", 8000)


def test_entries_with_ports_networks_and_brackets() -> None:
    allowed = AllowedHosts.parse(" [::1]:8080 ,192.0.2.7:80, localhost:9000,")
    allowed.check("::1", 8080)
    allowed.check("192.0.2.7", 80)
    allowed.check("localhost", 9000)
    allowed.check("127.0.0.1", 9000)  # localhost stands for it
    for host, port in (("::1", 80), ("192.0.2.7", 443), ("localhost", 80), ("127.0.0.1", 8080)):
        with pytest.raises(EndpointError):
            allowed.check(host, port)
    assert AllowedHosts.parse("*").everything


@pytest.mark.parametrize("entry", ["http://a.test", "a.test/path", "10.0.0.1/8", "a:b", "u@a.test", "a?b"])
def test_an_entry_that_is_no_host_is_told(entry: str) -> None:
    with pytest.raises(ValueError, match="DEFT_ENDPOINT_HOSTS"):
        AllowedHosts.parse(f"fine.test, {entry}")


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    with pytest.raises(EndpointUnavailable) as caught:
        AllowedHosts.parse("no-such-host.invalid").resolve("no-such-host.invalid", 80)
    assert caught.value.error_code == "endpoint_unreachable"


def test_the_connection_goes_to_the_address_that_was_checked(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as server:
        port = server.url.split(":")[2].split("/")[0]
        asked = _answers(monkeypatch, "127.0.0.1")
        with opened(f"http://model.test:{port}/v1", hosts="model.test,127.0.0.0/8") as client:
            answer = client.ask(ChatRequest((Message("user", "hi"),), 4, 0.0))
        assert answer.text == "answer to hi"
        assert server.seen_headers[0]["Host"] == f"model.test:{port}"
        assert asked == ["model.test"]  # once: no second answer of the DNS is believed


def test_tls_is_checked_against_the_name_although_an_address_is_connected_to(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=model.test", "-addext", "subjectAltName=DNS:model.test",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    request = ChatRequest((Message("user", "hi"),), 4, 0.0)
    with serving(tls=server_side) as server:
        port = server.url.split(":")[2].split("/")[0]
        _answers(monkeypatch, "127.0.0.1")
        with opened(f"https://model.test:{port}/v1", hosts="model.test,127.0.0.1") as client:
            assert client.ask(request).text == "answer to hi"
        other = opened(f"https://other.test:{port}/v1", hosts="other.test,127.0.0.1")
        with other as client, pytest.raises(EndpointUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            client.ask(request)


def test_localhost_and_ipv6_literals_can_be_asked(opened: Opened) -> None:
    with (
        serving() as server,
        opened(server.url.replace("127.0.0.1", "localhost"), hosts="localhost") as client,
    ):
        assert client.ask(ChatRequest((Message("user", "hi"),), 4, 0.0)).text == "answer to hi"
