"""`dxray serve`: what it runs, whom it answers, and the page in a web browser."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image

from diffusion_xray.tracer.cli import command_parser, main
from diffusion_xray.viewer.serve import Serve, ServeError, check_host, child_command, find_port
from diffusion_xray.viewer.web.messages import page_size

from .chromium import CHROMIUM, open_page
from .terminal import strangers

ODD = "a $(touch ran) `touch ran`;touch ran&'\"[red]\n#.zarr"


@contextlib.asynccontextmanager
async def served(path: Path, *options: str, host: str = "localhost") -> AsyncIterator[str]:
    """Serve a trace; the address of its page. What the command printed is checked when it ends."""
    port = find_port(host, 0)
    words = [sys.executable, "-m", "diffusion_xray.tracer.cli", "serve", *options, "--port", str(port), "--", path.name]
    process = await asyncio.create_subprocess_exec(
        *words, cwd=path.parent, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        first = await asyncio.wait_for(process.stdout.readline(), 60)
        assert f"http://{host}:{port}" in first.decode(), await process.communicate()
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                break
            await asyncio.sleep(0.05)
        yield f"http://{host}:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (0, b""), errors.decode()
    assert errors.decode().splitlines()[-1] == "ended"
    assert strangers(first + errors) == []


async def asked(address: str, request: str) -> bytes:
    """What the server answers to bytes of one's own, until it closes or pauses."""
    reader, writer = await asyncio.open_connection(*address.removeprefix("http://").split(":"))
    writer.write(request.encode())
    answer = await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    return answer


def children(address: str) -> list[int]:
    """Processes of pages of the server at an address."""
    port = address.rpartition(":")[2]
    rows = subprocess.run(["ps", "-wweo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    found = [row.split(None, 2) for row in rows.splitlines()]
    servers = {pid for pid, _, words in found if " serve " in words and f"--port {port}" in words}
    return [int(pid) for pid, parent, words in found if parent in servers and "defunct" not in words]


async def no_children(address: str) -> None:
    """Wait until no page of a server has a process any more."""
    for _ in range(600):
        if not children(address):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{children(address)} go on without a page")


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody asked for."""
    row = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(row.strip()) and not row.strip().startswith("Z")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_other_interfaces_are_refused(host: str) -> None:
    """An interface that others reach needs a flag of its own, and the message says why."""
    with pytest.raises(ServeError, match=r"prompts and pictures.*no password.*--allow-remote"):
        check_host(host, allow_remote=False)
    check_host(host, allow_remote=True)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_this_computer_is_allowed(host: str) -> None:
    """All names of this computer alone are allowed."""
    check_host(host, allow_remote=False)


def test_refusal_is_one_line(traces: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line the refusal is one line, and exit code 2."""
    options = command_parser().parse_args(["serve", str(traces["normal"]), "--host", "0.0.0.0"])
    with pytest.raises(ServeError):
        options.command.run(options)
    assert main(["serve", str(traces["normal"]), "--host", "0.0.0.0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_wishes_are_told_at_once(traces: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A trace, layer, step, view or port that is not there ends the command before it serves."""
    path = str(traces["normal"])
    for words in (["none.zarr"], [path, "--layer", "no"], [path, "--step", "99"], [path, "--tab", "no"]):
        assert main(["serve", *words]) == 2
        assert capsys.readouterr().err.startswith("dxray: ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", path, "--host", "127.0.0.1", "--port", str(taken.getsockname()[1])]) == 2
        assert "choose with --port" in capsys.readouterr().err


def test_missing_server_is_named(traces: dict[str, Path], tmp_path: Path) -> None:
    """Without textual-serve the message says what to install."""
    (tmp_path / "textual_serve").mkdir()
    (tmp_path / "textual_serve" / "__init__.py").write_text("raise ModuleNotFoundError(name='textual_serve')")
    places = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_xray.tracer.cli", "serve", str(traces["normal"])],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "dxray: dxray serve needs textual-serve: pip install 'diffusion-xray[serve]'\n"


@pytest.mark.parametrize("trace", [ODD, "--help", "s3://bucket/$(touch ran).zarr"])
def test_the_command_of_a_page_is_quoted(tmp_path: Path, trace: str) -> None:
    """A shell gets the trace as one word, whatever it is called, and runs nothing of it."""
    command = child_command(trace, layer="-x;touch ran", step=-1, tab="image")
    assert command.startswith("exec ")
    printing = command.removeprefix("exec ").replace("-m diffusion_xray.tracer.cli", f"{tmp_path}/show", 1)
    (tmp_path / "show").write_text("import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))")
    (tmp_path / "empty").mkdir()
    out = subprocess.run(printing, shell=True, cwd=tmp_path / "empty", capture_output=True, check=True)
    options = command_parser().parse_args(out.stdout.decode().split("\0"))
    assert options.trace == (trace if "://" in trace else str(Path.cwd() / trace))
    assert (options.layer, options.step, options.tab) == ("-x;touch ran", -1, "image")
    assert not list((tmp_path / "empty").iterdir())


def test_help_tells_the_danger(capsys: pytest.CaptureFixture[str]) -> None:
    """The help says that there is no password."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert "There is no password" in capsys.readouterr().out
    assert Serve.__doc__


async def test_whom_it_answers(traces: dict[str, Path]) -> None:
    """Other web sites and other names of the computer get nothing, and the page asks nobody else for anything."""
    async with served(traces["normal"]) as address, aiohttp.ClientSession() as session:
        async with session.get(address) as page:
            assert page.status == 200 and "default-src 'self'" in page.headers["Content-Security-Policy"]
            assert f"{address.replace('http', 'ws')}/ws" in await page.text()
        tunnel = "localhost:9999"  # the page as it is behind ssh -L 9999:localhost:8000
        async with session.get(address, headers={"Host": tunnel}) as page:
            assert f"ws://{tunnel}/ws" in await page.text()
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
            async with session.get(f"{address}/ws", headers=headers) as page:
                assert page.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"{address}/ws", headers=headers)


async def test_what_is_no_host_is_refused(traces: dict[str, Path]) -> None:
    """A header Host that cannot be one is a bad request, and nothing is said of it on the terminal."""
    async with served(traces["normal"]) as address:
        for host in ("[::1", "a b", "localhost:port", "localhost:1:2", 'local"host', "]:[", "x/../y"):
            answer = await asked(address, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400"), host


async def test_the_scheme_of_an_origin_counts(traces: dict[str, Path]) -> None:
    """A page of the same name that came another way, and an origin that is none, get nothing."""
    async with served(traces["normal"]) as address, aiohttp.ClientSession() as session:
        for origin in (address.replace("http", "https"), address.replace("http", "ftp"), "http://[::1", "null", ""):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await session.ws_connect(f"{address}/ws", headers={"Origin": origin})
        async with session.ws_connect(f"{address}/ws", headers={"Origin": address}) as page:
            assert (await page.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY


ODD_MESSAGES: list[str | bytes] = [
    "",
    "{",
    "3",
    "[]",
    '["stdin"]',
    '["stdin", 3]',
    '["resize", 3]',
    '["ping", {"a": [1]}]',
    '["quit"]',
    "[" * 100_000,
    b"bytes",
]


async def test_odd_messages_end_the_page_quietly(traces: dict[str, Path]) -> None:
    """What no page says closes the socket, and the process of the page ends; no traceback is shown."""
    async with served(traces["normal"]) as address, aiohttp.ClientSession() as session:
        for message in ODD_MESSAGES:
            page = await session.ws_connect(f"{address}/ws")
            assert (await page.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY
            if isinstance(message, bytes):
                await page.send_bytes(message)
            else:
                await page.send_str(message)
            while (await page.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY:
                pass
            assert page.close_code == 1008, message[:20]
        await no_children(address)


async def test_malformed_frames_are_quiet(traces: dict[str, Path]) -> None:
    """Bytes that are no frames of a web socket end the connection and the page's process; no traceback is shown."""
    async with served(traces["normal"]) as address:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\n{key}"
        host = address.removeprefix("http://")
        for frame in (b"\xff\xff\xff\xff", b"\x81\xff" + b"\xff" * 8, b"\x81\x05hello", b"\x83\x80"):
            reader, writer = await asyncio.open_connection(*host.split(":"))
            writer.write(f"GET /ws HTTP/1.1\r\nHost: {host}\r\n{upgrade}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 101")
            writer.write(frame)
            await asyncio.wait_for(reader.read(), 60)
            writer.close()
        await no_children(address)


@pytest.mark.parametrize(("asked_for", "given"), [("10" * 9, (500, 30)), ("-3", (80, 30)), ("100", (100, 30))])
def test_a_page_asks_for_its_size(asked_for: str, given: tuple[int, int]) -> None:
    """Within bounds a page gets what it asks for; what is no number is the default."""
    assert page_size(asked_for, "30") == given


async def test_the_size_of_a_page_has_bounds(traces: dict[str, Path]) -> None:
    """However large a page says it is, at once or later, what is drawn for it stays small."""
    async with (
        served(traces["normal"]) as address,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{address}/ws?width={'9' * 30}&height=30") as page,
    ):
        await page.send_json(["resize", {"width": 10**9, "height": 10**9}])
        await page.send_json(["resize", {"width": -1, "height": "x"}])
        await page.send_json(["resize", {"width": 120, "height": 40}])
        await page.send_json(["ping", "123"])
        drawn, heard = 0, []
        with contextlib.suppress(TimeoutError):
            while True:
                received = await page.receive(timeout=3)
                heard += [received.data] if received.type is aiohttp.WSMsgType.TEXT else []
                drawn += len(received.data or b"")
        assert 1000 < drawn < 10_000_000
        assert heard == ['["pong", "123"]']


async def test_the_process_of_a_page_ends_with_its_socket(traces: dict[str, Path]) -> None:
    """A page that is closed, or whose connection breaks, leaves no process behind."""
    async with served(traces["normal"]) as address, aiohttp.ClientSession() as session:
        for breaks in (False, True):
            page = await session.ws_connect(f"{address}/ws")
            assert (await page.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY
            assert len(children(address)) == 1
            if breaks:
                connection = page.get_extra_info("socket")
                connection.shutdown(socket.SHUT_RDWR)
            else:
                await page.close()
            await no_children(address)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_the_processes_of_pages_end_with_the_server(how: signal.Signals, traces: dict[str, Path]) -> None:
    """However the server ends, its pages' processes do too."""
    port = find_port("localhost", 0)
    words = ["-m", "diffusion_xray.tracer.cli", "serve", str(traces["normal"]), "--port", str(port)]
    server = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=-3, stderr=-3)
    async with aiohttp.ClientSession() as session:
        for _ in range(600):
            with contextlib.suppress(aiohttp.ClientError):
                page = await session.ws_connect(f"http://localhost:{port}/ws")
                break
            await asyncio.sleep(0.1)
        assert (await page.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY
        (child,) = children(f"http://localhost:{port}")
        server.send_signal(how)
        await asyncio.wait_for(server.wait(), 60)
        for _ in range(600):
            if not is_running(child):
                break
            await asyncio.sleep(0.1)
        assert not is_running(child)
        await page.close()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
async def test_page(traces: dict[str, Path], tmp_path: Path) -> None:
    """In a web browser the page shows the place asked for in colours and obeys keys; the trace's name runs nothing."""
    path = tmp_path / "served" / ODD
    path.parent.mkdir()
    path.symlink_to(traces["normal"], target_is_directory=True)
    where = ["--layer", "unet.down_blocks.0", "--step", "2", "--tab", "image"]
    async with served(path, *where) as address, open_page(address, tmp_path / "profile") as page:
        await page.until(lambda: "feature map" in page.text and "step 2" in page.text)
        assert "unet.down_blocks.0" in page.text
        await page.press("]")
        await page.until(lambda: "step 3" in page.text)
        await page.press("1")
        await page.until(lambda: "std over steps" in page.text)
        await page.press("4")
        await page.until(lambda: "feature map" in page.text)
        assert strangers(page.received) == []
        assert {address for address in page.fetched.values() if not address.startswith("http://localhost:")} == set()
        (tmp_path / "page.png").write_bytes(await page.picture())
        pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 60
        await page.press("q")
        for _ in range(200):
            if "-closed" in await page.evaluate("document.body.className"):
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("the page does not say that the browser was left")
    assert [entry.name for entry in path.parent.iterdir()] == [ODD]
