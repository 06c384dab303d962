"""The real Caddy with our Caddyfile, in front of services that run already."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

ROOT = Path(__file__).parents[2]
CADDYFILE = ROOT / "Caddyfile"


def caddy():
    """Return where Caddy is, or skip."""
    found = shutil.which("caddy")
    if found is None:
        pytest.skip("there is no caddy: apt-get install caddy")
    return found


def free_ports(count):
    """Return ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Gateway:
    """What a test holds of a running Caddy."""

    def __init__(self, http, ports, environment, config):
        self.http_port, self.https_port, self._admin_port = ports
        self.url = f"http://localhost:{self.http_port}"
        self.http = http
        self.config = config
        self._environment = environment

    async def command(self, *arguments):
        """Run a command of Caddy's and return its exit code and all it said."""
        return await command(self._environment, *arguments)

    async def reload(self):
        """Make the running Caddy read its file again."""
        admin = f"localhost:{self._admin_port}"
        options = ("--config", str(self.config), "--adapter", "caddyfile")
        return await self.command("reload", *options, "--address", admin, "--force")


async def command(environment, *arguments):
    """Run a command of Caddy's and return its exit code and all it said."""
    process = await asyncio.create_subprocess_exec(
        caddy(),
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, said.decode()


async def validate(**environment):
    """Return whether Caddy takes our file under these settings, and what it said."""
    options = ("--config", str(CADDYFILE), "--adapter", "caddyfile")
    return await command(environment, "validate", *options)


@contextlib.asynccontextmanager
async def gateway(folder, upstreams, **environment):
    """Run Caddy on ports of its own; `upstreams` are addresses by setting."""
    ports = free_ports(3)
    config = folder / "Caddyfile"
    config.write_bytes(CADDYFILE.read_bytes())
    environment = {
        "HTTP_PORT": str(ports[0]),
        "HTTPS_PORT": str(ports[1]),
        "CADDY_ADMIN": f"localhost:{ports[2]}",
        "SITE_ADDRESS": "http://localhost",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "share"),
        **{name: url.removeprefix("http://") for name, url in upstreams.items()},
        **environment,
    }
    said = folder / "caddy.log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            caddy(),
            "run",
            *("--config", str(config), "--adapter", "caddyfile"),
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession() as http:
            running = Gateway(http, ports, environment, config)
            async with asyncio.timeout(30):
                while not await answers(http, running.url):
                    assert process.returncode is None, said.read_text()
                    await asyncio.sleep(0.02)
            yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def answers(http, url):
    """Tell whether anything does; whatever it says."""
    try:
        async with http.get(url, allow_redirects=False):
            return True
    except aiohttp.ClientConnectionError:
        return False


def trusting():
    """Return a TLS context for a certificate that nobody knows."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
