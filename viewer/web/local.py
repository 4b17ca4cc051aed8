"""Which names and addresses are of this computer alone. Needs no server."""

from __future__ import annotations

import ipaddress

__all__ = ["is_local"]


def is_local(host: str) -> bool:
    """Whether a name or address is one of this computer alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
