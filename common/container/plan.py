"""
What to start in a container, from settings alone. Pure.

The service starts and watches its ComfyUI itself, so the programs here are the service,
which decides how the container ends, and helpers, which do not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from common.container.settings import Container
from common.settings import Settings

#: ComfyUI as a part of a service: no node but its own and those that are named, none
#: that calls a paid service, nobody's browser.
SAFE_FLAGS = ("--disable-all-custom-nodes", "--disable-api-nodes")

#: Where platforms mount a volume. RunPod shows the same bytes as the one to serverless
#: workers and as the other to pods.
VOLUMES = (Path("/runpod-volume"), Path("/workspace"))

#: Of RunPod's load balancer, where PORT is not set. Source: its documentation.
BALANCER_PORT = 80

# What Jupyter may know: it runs whatever its user types.
_JUPYTER_ENV = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
_JUPYTER_PREFIX = "NVIDIA_"
# What only one helper is to see.
_HELPERS_OWN = ("JUPYTER_TOKEN", "TAILSCALE_AUTHKEY")

# What a blank line of .env would set to nothing at all: no card.
_BLANK_IS_NONE = ("CUDA_VISIBLE_DEVICES",)


class Kind(Enum):
    """What a program's end means."""

    SERVICE = auto()  #: the container ends with it, unless it crashed
    HELPER = auto()  #: it is started again
    TASK = auto()  #: it is started again until it succeeds


@dataclass(frozen=True)
class Program:
    """One command to keep up."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # it may hold secrets
    kind: Kind = Kind.HELPER


def defaults(
    container: Container,
    environ: Mapping[str, str],
    volumes: Sequence[Path],
    sealed: Sequence[Path] = (),
) -> dict[str, str]:
    """
    Return the variables that a container sets because nobody else did.

    Args:
        volumes: those of `VOLUMES` that can be written, the best one first.
        sealed: those that can only be read.
    """
    nodes = [one.strip() for one in container.comfyui_custom_nodes.split(",")]
    allowed = [one for one in nodes if one]
    flags = [*SAFE_FLAGS]
    if allowed:
        flags += ["--whitelist-custom-nodes", *allowed]
    theirs = environ.get("COMFY_LAUNCH_ARGS", "").split()
    found = {
        # Theirs come last, so they win.
        "COMFY_LAUNCH_ARGS": " ".join((*flags, *theirs)),
        # Long clips of changing size fragment the card's memory without it.
        "PYTORCH_CUDA_ALLOC_CONF": environ.get("PYTORCH_CUDA_ALLOC_CONF")
        or "expandable_segments:True",
    }
    if not (environ.get("WAN_MODELS") or environ.get("MODELS_ROOT")):
        if volumes:
            found["WAN_MODELS"] = str(volumes[0])
        if sealed:  # filled by root, perhaps: what is there need not be fetched
            lower = [environ.get("WAN_MODELS_LAYERS", ""), *map(str, sealed)]
            found["WAN_MODELS_LAYERS"] = os.pathsep.join(filter(None, lower))
    if container.behind_balancer:
        port = container.platform_port or BALANCER_PORT
        found["WAN_PORT"] = environ.get("WAN_PORT", str(port))
    return found


def programs(
    service: str,
    settings: Settings,
    container: Container,
    environ: Mapping[str, str],
    scratch: Path,
) -> tuple[Program, ...]:
    """
    Return what is to run, the service first.

    Args:
        environ: with `defaults` in it.
        scratch: a folder of ours for sockets and short-lived files.
    """
    verb = ("runpod", "worker") if container.takes_queue else ("serve",)
    wan = (sys.executable, "-m", "common.cli.main", *verb, service)
    env = {
        name: value
        for name, value in environ.items()
        if name not in _HELPERS_OWN and (value or name not in _BLANK_IS_NONE)
    }
    found = [Program("service", wan, env, Kind.SERVICE)]
    if container.enable_jupyter:
        found.append(_jupyter(settings, container, environ))
    if container.enable_tailscale:
        found += _tailscale(container, environ, scratch)
    return tuple(found)


def authkey_file(scratch: Path) -> Path:
    """Return where the key for Tailscale is put: a command line can be read by all."""
    return scratch / "tailscale-authkey"


def _jupyter(
    settings: Settings, container: Container, environ: Mapping[str, str]
) -> Program:
    assert container.jupyter_token is not None
    env = {
        name: value
        for name, value in environ.items()
        if name in _JUPYTER_ENV or name.startswith(_JUPYTER_PREFIX)
    }
    env["JUPYTER_TOKEN"] = container.jupyter_token.get_secret_value()
    command = (
        *("jupyter", "lab", "--no-browser", f"--ip={container.jupyter_host}"),
        f"--port={container.jupyter_port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={settings.weights_root}",
    )
    return Program("jupyter", command, env)


def _tailscale(
    container: Container, environ: Mapping[str, str], scratch: Path
) -> list[Program]:
    """Return the daemon, in user space since it needs no rights then, and the login."""
    env = {name: environ[name] for name in ("PATH", "HOME") if name in environ}
    socket = f"--socket={scratch / 'tailscaled.sock'}"
    daemon = (
        *("tailscaled", "--tun=userspace-networking", "--state=mem:", socket),
        f"--statedir={scratch}",
    )
    login = (
        *("tailscale", socket, "up", "--timeout=60s"),
        f"--auth-key=file:{authkey_file(scratch)}",
        f"--hostname={container.tailscale_hostname}",
    )
    return [
        Program("tailscale", daemon, env),
        Program("tailscale-login", login, env, Kind.TASK),
    ]
