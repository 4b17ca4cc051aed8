"""Whom the server answers: pages of its own, asked for by a name of its own."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from .local import is_local

__all__ = ["guard"]

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
"""A name or an address, and a port."""
_POLICY: Final = (
    # Nothing from elsewhere: textual-serve's page asks another company for a font, which would tell it of the visit.
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "object-src 'none'",
    "frame-ancestors 'none'",
)
_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def guard(port: int, *, remote: bool) -> Middleware:
    """Refuse requests of other web sites, and those that ask for another computer.

    Args:
        port: Where the page is, for the message.
        remote: Whether the server may be called by a name that is not of this computer.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not _HOST.fullmatch(host):
            raise web.HTTPBadRequest(text="the header Host is no name with a port")
        if not remote and not is_local(host.removesuffix(f":{_port_of(host)}")):
            raise web.HTTPForbidden(text=f"not served under this name; open http://localhost:{port}")
        origin = request.headers.get("Origin")
        if origin is not None and not _is_own(origin, request.scheme, host):
            raise web.HTTPForbidden(text="not served to other web sites")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return answer


def _port_of(host: str) -> str:
    """The port in a `Host`, "" where there is none; the colons of an address are none of it."""
    return host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""


def _is_own(origin: str, scheme: str, host: str) -> bool:
    try:
        found = urlsplit(origin)
    except ValueError:
        return False
    return (found.scheme, found.netloc) == (scheme, host)
