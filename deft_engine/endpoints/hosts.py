"""Which hosts may be asked. A job must not reach what only this machine's network can (server-side forgery).

A name must be listed, and every address that it resolves to must be public, or listed itself. The connection
then goes to the address that was checked, so that a second DNS answer changes nothing (rebinding).
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self
from urllib.parse import urlsplit

from deft_engine.errors import EndpointError, EndpointUnavailable

HOSTS_VARIABLE = "DEFT_ENDPOINT_HOSTS"
EVERYTHING = "*"
"""The entry that allows any host and address."""

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOCALHOST = "localhost"
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """A parsed list of hosts; a port of None stands for any."""

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()
    everything: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``api.example.com, vllm:8000, 10.0.0.0/8, localhost:8080, [::1]:8000`` or ``*``.

        Raises:
            ValueError: an entry is none of these; the message quotes it.
        """
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        entries = [entry for part in text.split(",") if (entry := part.strip())]
        for entry in entries:
            if entry == EVERYTHING:
                return cls(everything=True)
            network, name, port = _parse_entry(entry)
            if network is not None:
                networks.append((network, port))
            else:
                names.add((name, port))
            if name == _LOCALHOST:
                networks += [(loopback, port) for loopback in _LOOPBACK]
        return cls(frozenset(names), tuple(networks))

    @classmethod
    def from_environment(cls, default: str = "") -> Self:
        """From ``DEFT_ENDPOINT_HOSTS``; unset, what ``default`` allows: nothing.

        Raises:
            EndpointError: the variable holds an entry that is no host.
        """
        try:
            return cls.parse(os.environ.get(HOSTS_VARIABLE, default))
        except ValueError as error:
            raise _not_allowed(
                str(error), "correct the variable; operations.md says what it may hold"
            ) from error

    def check(self, host: str, port: int) -> None:
        """Refuse a host that is not listed, before any name is resolved.

        Raises:
            EndpointError: code ``endpoint_not_allowed``.
        """
        literal = _literal(host)
        if self.everything or (literal is not None and self._lists(literal, port)):
            return
        wanted = _normal(host)
        if literal is None and not self.names.isdisjoint({(wanted, port), (wanted, None)}):
            return
        raise _not_allowed(
            f"the host {host!r} (port {port}) is not one that endpoints may have",
            f"ask the operator to add it to {HOSTS_VARIABLE}",
        )

    def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses to connect to, all of them checked.

        Raises:
            EndpointError: the host, or an address that its name stands for, is not allowed.
            EndpointUnavailable: the name cannot be resolved.
        """
        self.check(host, port)
        literal = _literal(host)
        if literal is not None:
            return [literal]
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise EndpointUnavailable(
                f"the host {host!r} cannot be resolved: {error}",
                hint="check endpoint.url",
                code="endpoint_unreachable",
            ) from error
        addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
        for address in addresses:
            if not (self.everything or _is_public(address) or self._lists(address, port)):
                raise _not_allowed(
                    f"the host {host!r} stands for {address}, which is no public address",
                    f"ask the operator to add that address or its network to {HOSTS_VARIABLE} as well",
                )
        return addresses

    def _lists(self, address: Address, port: int) -> bool:
        plain = _unwrapped(address)
        return any(
            plain in network and allowed in (None, port)
            for network, allowed in self.networks
            if network.version == plain.version
        )


def _parse_entry(entry: str) -> tuple[Network | None, str, int | None]:
    """(network, "", port) of an address or a network, (None, name, port) of a name."""
    try:
        return ip_network(entry), "", None
    except ValueError:
        pass
    try:
        parts = urlsplit(f"//{entry}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{HOSTS_VARIABLE}: {entry!r} is no host: {error}") from error
    if not host or parts.path or parts.username is not None or parts.query or "/" in entry:
        raise ValueError(f"{HOSTS_VARIABLE}: {entry!r} is no host; write host, host:port or a network")
    literal = _literal(host)
    return (ip_network(literal), "", port) if literal is not None else (None, _normal(host), port)


def _literal(host: str) -> Address | None:
    """The address that a host is, in the forms that every reader reads alike."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _normal(host: str) -> str:
    return host.lower().rstrip(".")


def _is_public(address: Address) -> bool:
    plain = _unwrapped(address)
    return plain.is_global and not plain.is_multicast


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address


def _not_allowed(message: str, hint: str) -> EndpointError:
    return EndpointError(message, hint=hint, code="endpoint_not_allowed")
