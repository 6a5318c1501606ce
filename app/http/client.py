"""Which client a request is from, as far as limits and refusals care."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

_MAX_CHARS = 64


class ClientNames:
    """Names clients by the header that a proxy writes; by their address where it is unset or missing."""

    def __init__(self, header: str | None) -> None:
        self._header = header.lower().encode("ascii") if header else None

    def name(self, scope: Scope) -> str:
        """At most 71 characters. Of a header that came twice the last counts: the proxy's is appended."""
        if self._header is not None:
            for name, value in reversed(scope["headers"]):
                if name == self._header and value.strip():
                    return _bounded(value.strip().decode("latin-1"))
        client = scope.get("client")
        return _network(client[0]) if client else "unknown"


def _bounded(name: str) -> str:
    if len(name) <= _MAX_CHARS:
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _network(address: str) -> str:
    """An IPv6 address as its /64, which is what one household has; any other text as it is."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return _bounded(address)
