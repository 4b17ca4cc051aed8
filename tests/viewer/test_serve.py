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

from .chromium import CHROMIUM, open_page
from .terminal import strangers

ODD = "a $(touch ran) `touch ran`;touch ran&'\"[red]\n#.zarr"


@contextlib.asynccontextmanager
async def served(path: Path, *options: str, host: str = "localhost") -> AsyncIterator[str]:
    """Serve a trace; the address of its page. What the command printed is checked when it ends."""
    port = find_port(host, None)
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
