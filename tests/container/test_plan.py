"""What a container starts."""

import os
import sys
from pathlib import Path

import pytest

from common.container import settings as environment
from common.container.plan import VOLUMES, Kind, defaults, programs
from common.settings import BadSettings, Settings

SERVICE = "wan2.2-14b-loras"
SCRATCH = Path("/scratch")


@pytest.fixture
def planned(monkeypatch):
    """Return the programs for an environment, with its defaults in it."""

    def plan(volumes=(), read_only=(), **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        container = environment.read()
        added = defaults(container, environment.environment(), volumes, read_only)
        for name, value in added.items():
            monkeypatch.setenv(name, value)
        settings = Settings.read()
        return programs(
            SERVICE, settings, container, environment.environment(), SCRATCH
        )

    return plan


def names(found):
    return [one.name for one in found]


def test_service_alone(planned):
    """Nothing runs beside the service unless it is asked for."""
    (service,) = planned()

    assert service.kind is Kind.SERVICE
    assert service.command == (
        *(sys.executable, "-m", "common.cli.main", "serve", SERVICE),
    )


def test_comfyui_is_started_safely(planned):
    """No custom node runs that nobody named, no paid one; the user's word is last."""
    (service,) = planned(
        COMFY_LAUNCH_ARGS="--lowvram", COMFYUI_CUSTOM_NODES="GGUF, KJNodes"
    )
    flags = service.env["COMFY_LAUNCH_ARGS"].split()

    assert "--disable-api-nodes" in flags
    assert "--disable-all-custom-nodes" in flags
    assert flags[flags.index("--whitelist-custom-nodes") :] == [
        *("--whitelist-custom-nodes", "GGUF", "KJNodes", "--lowvram")
    ]
    assert not {"--listen", "--enable-manager", "--enable-cors-header"} & set(flags)


@pytest.mark.parametrize(
    ("variables", "volumes", "root"),
    [
        ({}, VOLUMES, "/runpod-volume"),
        ({}, VOLUMES[1:], "/workspace"),
        ({"WAN_MODELS": "/mnt/weights"}, VOLUMES, "/mnt/weights"),
        ({"WAN_MODELS": ""}, VOLUMES, "/runpod-volume"),
        ({}, (), None),
    ],
    ids=["serverless", "pod", "named", "named empty", "none"],
)
def test_weights_lie_on_the_volume(planned, variables, volumes, root):
    """A volume that a platform mounts is used, whatever it calls it."""
    (service,) = planned(volumes, **variables)

    assert service.env.get("WAN_MODELS") == root


@pytest.mark.parametrize(
    ("variables", "layers"),
    [
        ({}, "/runpod-volume"),
        ({"WAN_MODELS_LAYERS": "/opt/weights"}, "/opt/weights:/runpod-volume"),
        ({"WAN_MODELS": "/mnt/weights"}, None),
    ],
    ids=["alone", "over an image's", "another is named"],
)
@pytest.mark.skipif(os.name != "posix", reason="paths of a container")
def test_a_volume_that_takes_no_writes_is_read(planned, variables, layers):
    """Weights that root put there are not fetched again."""
    (service,) = planned(VOLUMES[1:], VOLUMES[:1], **variables)

    assert service.env.get("WAN_MODELS_LAYERS") == layers
    assert service.env["WAN_MODELS"] == variables.get("WAN_MODELS", "/workspace")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, "expandable_segments:True"),
        ("", "expandable_segments:True"),
        ("backend:native", "backend:native"),
    ],
    ids=["default", "left blank", "the user's"],
)
def test_allocator(planned, given, used):
    """Torch's allocator is set up against fragmentation unless somebody chose."""
    variables = {} if given is None else {"PYTORCH_CUDA_ALLOC_CONF": given}
    (service,) = planned(**variables)

    assert service.env["PYTORCH_CUDA_ALLOC_CONF"] == used


@pytest.mark.parametrize("given", ["", "1"], ids=["left blank", "the second"])
def test_a_card_that_nobody_named_is_not_none(planned, given):
    """To CUDA a blank line of .env would mean no card at all."""
    (service,) = planned(CUDA_VISIBLE_DEVICES=given)

    assert service.env.get("CUDA_VISIBLE_DEVICES", "") == given
    assert ("CUDA_VISIBLE_DEVICES" in service.env) is bool(given)


def test_runpod_queue(planned):
    """A worker of a queue takes jobs from it instead of serving HTTP."""
    (service,) = planned(RUNPOD_ENDPOINT_ID="e1", RUNPOD_WEBHOOK_GET_JOB="https://x/y")

    assert service.command[-3:] == ("runpod", "worker", SERVICE)


@pytest.mark.parametrize(
    ("variables", "port"),
    [({}, "80"), ({"PORT": "5000"}, "5000"), ({"WAN_PORT": "7", "PORT": "5"}, "7")],
    ids=["RunPod's default", "PORT", "WAN_PORT wins"],
)
def test_runpod_balancer(planned, variables, port):
    """Behind RunPod's load balancer it serves where that looks."""
    (service,) = planned(RUNPOD_ENDPOINT_ID="e1", **variables)

    assert service.command[-2:] == ("serve", SERVICE)
    assert service.env["WAN_PORT"] == port


def test_port_elsewhere(planned):
    """PORT means nothing away from RunPod."""
    (service,) = planned(PORT="5000")

    assert "WAN_PORT" not in service.env


def test_secrets_stay_with_whom_they_are_for(planned):
    """No secret is on a command line, and none is told to a program it is not for."""
    found = planned(
        ENABLE_JUPYTER="1",
        JUPYTER_TOKEN="tok-en",
        ENABLE_TAILSCALE="true",
        TAILSCALE_AUTHKEY="tskey-auth-1",
        WAN_API_KEYS="a-key",
        HF_TOKEN="hf_secret",
    )
    secrets = ("tok-en", "tskey-auth-1", "a-key", "hf_secret")
    known = {one.name: set(secrets) & set(one.env.values()) for one in found}

    assert names(found) == ["service", "jupyter", "tailscale", "tailscale-login"]
    assert known == {
        "service": {"a-key", "hf_secret"},
        "jupyter": {"tok-en"},
        "tailscale": set(),
        "tailscale-login": set(),
    }
    for one in found:
        assert not any(secret in word for word in one.command for secret in secrets)
        assert not any(secret in repr(one) for secret in secrets)
    assert f"--auth-key=file:{SCRATCH / 'tailscale-authkey'}" in found[3].command
    assert found[3].kind is Kind.TASK


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ENABLE_JUPYTER": "1"}, "JUPYTER_TOKEN"),
        ({"ENABLE_JUPYTER": "1", "JUPYTER_TOKEN": ""}, "JUPYTER_TOKEN"),
        ({"ENABLE_TAILSCALE": "1"}, "TAILSCALE_AUTHKEY"),
        ({"ENABLE_JUPYTER": "perhaps"}, "ENABLE_JUPYTER"),
        ({"TAILSCALE_HOSTNAME": "a b --ssh"}, "TAILSCALE_HOSTNAME"),
    ],
    ids=["no token", "empty token", "no key", "nonsense", "a flag in a name"],
)
def test_refused(monkeypatch, variables, named):
    """Neither helper starts without its secret; what is wrong is said by name."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(BadSettings, match=named):
        environment.read()
