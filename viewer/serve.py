"""``dxray serve``."""

from __future__ import annotations

import argparse
import shlex
import socket
import sys
from pathlib import Path
from typing import Final

from diffusion_xray.tracer.errors import DxrayError
from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.trace import open_trace

from .web.local import is_local

__all__ = ["Serve", "ServeError"]

_PORT: Final = 8000
_SERVER_PACKAGES: Final = {"textual_serve", "aiohttp", "aiohttp_jinja2", "jinja2"}
_TRIED: Final = 20
"""Ports from the first that are tried where none was asked for."""


class ServeError(DxrayError, RuntimeError):
    """The browser cannot be served as it was asked to be."""


class Serve:
    """Browse a trace in a web browser.

    Serves the terminal browser as a web page of this computer, until Ctrl-C. Every page that is opened has its own
    selection, and what is exported there is downloaded there. Over ssh, forward the port: ssh -L 8000:localhost:8000
    HOST, then open http://localhost:8000.

    There is no password: whoever reaches the page sees everything in the trace, its prompts and pictures too. So only
    this computer does, unless --allow-remote says otherwise.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the trace, where to open it, and where to serve it."""
        parser.add_argument("trace", metavar="TRACE", help="the trace: a folder such as run.zarr, a zip file, or a URL")
        parser.add_argument("--layer", metavar="GLOB", default="", help="open at a layer, as dxray view does")
        parser.add_argument("--step", type=int, metavar="N", help="open at a step, from 0; negative from the end")
        parser.add_argument("--tab", metavar="NAME", default="overview", help="open in a view, as dxray view does")
        parser.add_argument(
            "--port", type=_port, metavar="N", help=f"port of the page; without it the first free one from {_PORT}"
        )
        parser.add_argument(
            "--host",
            default="localhost",
            metavar="ADDRESS",
            help="interface to listen on (%(default)s); any other than this computer needs --allow-remote",
        )
        parser.add_argument(
            "--allow-remote",
            action="store_true",
            help="let other computers see the trace: there is no password and no encryption",
        )

    def run(self, options: argparse.Namespace) -> int:
        """Serve until Ctrl-C."""
        check_host(options.host, allow_remote=options.allow_remote)
        _check_opening(options)
        try:
            from .web.server import PageServer
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _SERVER_PACKAGES:
                raise
            raise ServeError("dxray serve needs textual-serve: pip install 'diffusion-xray[serve]'") from error
        command = child_command(options.trace, layer=options.layer, step=options.step, tab=options.tab)
        port = find_port(options.host, options.port)
        name = printable(Path(options.trace).name)
        print(f"{name} at http://{_in_url(options.host)}:{port}  (Ctrl-C ends it)", flush=True)
        if not is_local(options.host):
            print("dxray: other computers can open this page, without a password", file=sys.stderr)
        server = PageServer(command, host=options.host, port=port, title=f"dxray {name}", remote=options.allow_remote)
        try:
            server.run()
        except OSError as error:
            raise ServeError(f"cannot serve at {options.host}, port {port}: {error.strerror or error}") from error
        print("ended", file=sys.stderr)
        return 0


def child_command(trace: str, *, layer: str = "", step: int | None = None, tab: str = "") -> str:
    """The command line that draws one page, for a shell to run: every word of it quoted, whatever the trace is called.

    It is run by this interpreter, so that it needs no ``dxray`` on the path.
    """
    from .export.text import full_path, view_arguments

    words = view_arguments(full_path(trace), layer=layer, step=step, tab=tab)
    return "exec " + shlex.join([sys.executable, "-m", "diffusion_xray.tracer.cli", *words])


def check_host(host: str, *, allow_remote: bool) -> None:
    """Refuse an interface that other computers reach.

    Raises:
        ServeError: It is not of this computer alone, and `allow_remote` is false.
    """
    if not allow_remote and not is_local(host):
        raise ServeError(
            f"--host {host} lets other computers see this trace, its prompts and pictures, and there is no password; "
            "use ssh -L to reach it from elsewhere, or add --allow-remote"
        )


def find_port(host: str, wanted: int | None) -> int:
    """The port to listen on.

    Raises:
        ServeError: It is taken, or the interface does not exist.
    """
    for port in [wanted] if wanted is not None else range(_PORT, _PORT + _TRIED):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return int(probe.getsockname()[1])
        except OSError as error:
            reason = error.strerror or error
    asked = f"port {wanted}" if wanted is not None else f"ports {_PORT} to {_PORT + _TRIED - 1}"
    raise ServeError(f"cannot listen on {host}, {asked}: {reason}; choose with --port and --host")


def _check_opening(options: argparse.Namespace) -> None:
    """Tell a wrong trace, layer, step or view here, rather than on every page."""
    from .loader import Loader
    from .opening import find_opening

    snapshot = Loader(open_trace(options.trace)).snapshot()
    find_opening(snapshot, layer=options.layer, step=options.step, tab=options.tab)


def _in_url(host: str) -> str:
    return f"[{host.strip('[]')}]" if ":" in host else host


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 1 to 65535")
    return int(text)
