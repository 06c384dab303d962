"""docker-compose.yml: valid, guarded, and in step with the services it starts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import AliasChoices

from common.container.settings import Container
from common.service import folders
from common.settings import Settings
from tests.deploy.composed import FILE, ROOT, Missing, document, services, variables
from tests.live import both

KEYS = {"WAN_API_KEYS": "k"}
CADDYFILE = (ROOT / "Caddyfile").read_text()
DASHBOARD = ROOT / "docker/grafana/dashboards/wan.json"
GRAFANA = ROOT / "docker/grafana/provisioning"

# Read by CUDA and torch alone.
NOT_SETTINGS = {"CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF"}
# Of common/models; they are there once a service has weights to fetch.
OF_WEIGHTS = {
    "model_downloads_total",
    "model_download_duration_seconds_count",
    "model_download_duration_seconds_sum",
    "model_errors_total",
    "model_storage_bytes_used",
}


def ours(kind):
    """Return the services that are ours: on the GPU, or of the profile cpu."""
    found = {}
    for name, service in services(KEYS).items():
        if "/wan-" in service["image"]:
            cpu = service["profiles"] == ["cpu"]
            if cpu == (kind == "cpu"):
                found[name] = service
    return found


GPU, CPU = ours("gpu"), ours("cpu")


def setting_names():
    """Return the variables that a service and its container's start-up know."""
    found = set()
    fields = {**Settings.model_fields, **Container.model_fields}
    for name, field in fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [f"wan_{name}"]
        found |= {str(one).upper() for one in names}
    return found


def test_it_fits_the_specification():
    """By the schema of the Compose specification."""
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [sys.executable, *command, str(FILE)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_service_folder_is_started_by_a_profile_of_its_own():
    """From the image that has its folder's name."""
    images = {
        service["image"].rpartition("/wan-")[2].partition(":")[0]
        for service in GPU.values()
    }

    assert images == {folder.name for folder in folders()}
    assert all(service["profiles"] == [name] for name, service in GPU.items())


def test_the_profile_cpu_starts_all_of_them():
    """On the embedded engine, each under the name that the gateway knows."""
    started = {service["command"][2] for service in CPU.values()}
    aliases = {
        service["networks"]["services"]["aliases"][0]: service["environment"]
        for service in CPU.values()
    }

    assert started == {folder.name for folder in folders()}
    assert aliases.keys() == GPU.keys()
    for name, environment in aliases.items():
        assert environment["WAN_ENGINE"] == "embedded"
        path = GPU[name]["environment"]["WAN_ROOT_PATH"]
        assert environment["WAN_ROOT_PATH"] == path
    assert not any("deploy" in service for service in CPU.values())


@pytest.mark.parametrize("name", GPU)
def test_the_gateway_leads_to_it(name):
    """By the path that the service is told, to the port it listens on."""
    service = GPU[name]
    path = service["environment"]["WAN_ROOT_PATH"]
    route = CADDYFILE.partition(f"handle_path {path}/* {{")[2].partition("}\n\t}")[0]

    assert path == f"/{name}"
    assert f":{name}:8189}}" in route
    assert f"redir {path} {path}/ 308" in CADDYFILE
    assert service["expose"] == ["8189"]


def test_the_gateway_leads_nowhere_else():
    """Every route of it has a service behind it."""
    assert set(re.findall(r"\n\thandle_path /([\w-]+)/\*", CADDYFILE)) >= GPU.keys()
    upstreams = set(re.findall(r":([\w-]+):81(?:88|89)\}", CADDYFILE))
    assert upstreams == GPU.keys()


def test_only_the_gateway_is_published():
    """And Grafana, on this machine alone; never ComfyUI."""
    published = {
        name: service["ports"]
        for name, service in services(KEYS).items()
        if "ports" in service
    }

    assert published.keys() == {"caddy", "grafana"}
    assert all(port.startswith("127.0.0.1:") for port in published["grafana"])
    assert "8188" not in str(published)


@pytest.mark.parametrize("name", services())
def test_a_container_can_do_no_more_than_it_must(name):
    """Read-only roots, no new privileges, no capabilities, no Docker socket."""
    service = services(KEYS)[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (
        ["NET_BIND_SERVICE"] if name == "caddy" else []
    )
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "network_mode" not in service
    assert not [v for v in service["volumes"] if "docker.sock" in v]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    sources = [one.split(":") for one in service["volumes"]]
    assert all(
        len(one) == 3 and one[2] == "ro" for one in sources if one[0].startswith(".")
    )


@pytest.mark.parametrize("name", GPU)
def test_a_service_has_a_gpu_its_own_data_and_the_shared_weights(name):
    """Weights are on one volume for all, but where the image holds them."""
    service = GPU[name]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    packed = name.endswith("-packed")

    assert device == {
        "driver": "nvidia",
        "device_ids": ["0"],
        "capabilities": ["gpu"],
    }
    assert f"{name}-data:/data" in service["volumes"]
    assert ("models:/workspace" in service["volumes"]) is not packed
    assert service["environment"]["WAN_MODELS"] == (None if packed else "/workspace")
    assert service["environment"]["WAN_DATA"] == "/data"


def test_every_volume_is_declared_and_used():
    """None is left over."""
    used = {
        volume.split(":")[0]
        for service in services(KEYS).values()
        for volume in service["volumes"]
        if not volume.startswith(".")
    }

    assert used == document()["volumes"].keys()


def test_files_that_are_mounted_exist():
    """A path that does not would be made, as an empty folder."""
    for service in services(KEYS).values():
        for volume in service["volumes"]:
            if volume.startswith("."):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_it_does_not_start_without_a_key():
    """Services listen beyond their containers."""
    with pytest.raises(Missing, match="WAN_API_KEYS"):
        services({})


@pytest.mark.parametrize("name", [*GPU, *CPU])
def test_what_a_service_is_told_is_a_setting(name):
    """A misspelt variable would be ignored without a word."""
    told = services(KEYS)[name]["environment"]

    assert told.keys() - NOT_SETTINGS <= setting_names()


@pytest.mark.parametrize("name", [*GPU, *CPU])
def test_a_service_takes_its_settings(name, monkeypatch):
    """The values that stand in the file are values that it knows."""
    for variable, value in services(KEYS)[name]["environment"].items():
        if value is not None:
            monkeypatch.setenv(variable, str(value))
    settings = Settings.read()

    assert settings.public
    assert [key.get_secret_value() for key in settings.api_keys] == ["k"]
    assert settings.root_path == f"/{name.removesuffix('-cpu')}"
    if name.endswith("-cpu"):
        assert settings.engine_kind == "embedded"


def test_the_example_names_every_variable():
    """And none that nothing reads; without its marks it is a whole .env."""
    text = (ROOT / ".env.example").read_text()
    named = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)

    assert len(named) == len(set(named))
    assert set(named) == variables() - {"WAN_MODELS"}
    assert re.findall(r"^([A-Z]\w+)=(.*)$", text, re.MULTILINE) == [
        ("WAN_API_KEYS", "")
    ]


def test_the_examples_defaults_are_those_of_the_file():
    """Where compose has a default, the example says that one."""
    text = (ROOT / ".env.example").read_text()
    stated = dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    for name, default in re.findall(r"\$\{(\w+):-([^}]+)\}", FILE.read_text()):
        if name != "WAN_REGISTRY":  # an owner's own
            assert stated[name] == default, name


def test_images_that_are_not_ours_are_pinned():
    """By digest: a tag can be moved."""
    for service in services(KEYS).values():
        if "/wan-" not in service["image"]:
            assert re.search(r":v?\d[\w.]+@sha256:[0-9a-f]{64}$", service["image"])


class TestMonitoring:
    def test_prometheus_asks_every_service(self):
        """By the names that they have on the network, on their port."""
        path = ROOT / "docker/prometheus/prometheus.yml"
        (job,) = yaml.safe_load(path.read_text())["scrape_configs"]
        (found,) = job["dns_sd_configs"]

        assert set(found["names"]) == GPU.keys()
        assert found["port"] == 8189
        assert job["metrics_path"] == "/metrics"
        started = services(KEYS)["prometheus"]["command"][0]
        assert job["authorization"]["credentials_file"] in started

    async def test_the_dashboard_shows_figures_that_there_are(self, tmp_path):
        """Every metric it asks for is one that a service tells."""
        async with both(tmp_path) as live:
            await live.finished((await live.job())["id"])
            async with live.http.get(f"{live.url}/metrics") as answer:
                text = await answer.text()
        told = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
        asked = expressions()
        metrics = set(re.findall(r"\b((?:wan|model)_\w+)\{", " ".join(asked)))

        assert len(asked) > 15
        assert metrics - OF_WEIGHTS <= told
        assert {"wan_jobs_total", "wan_queue_depth"} <= metrics

    def test_the_dashboard_is_whole(self):
        """Ids are unique, panels do not overlap, and all ask the one data source."""
        board = json.loads(DASHBOARD.read_text())
        ids = [panel["id"] for panel in board["panels"]]
        cells = [
            (x, y)
            for panel in board["panels"]
            for x in range(panel["gridPos"]["x"], sum_of(panel, "x", "w"))
            for y in range(panel["gridPos"]["y"], sum_of(panel, "y", "h"))
        ]
        text = (GRAFANA / "datasources/prometheus.yml").read_text()
        provisioned = yaml.safe_load(text)

        assert len(set(ids)) == len(ids)
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24
        (source,) = provisioned["datasources"]
        uids = set(re.findall(r'"uid": "(\w+)"', DASHBOARD.read_text()))
        assert uids - {"wan-services"} == {source["uid"]}

    def test_grafana_finds_the_dashboard(self):
        """Where it is mounted is where its provider looks."""
        mounted = [v.split(":")[1] for v in services(KEYS)["grafana"]["volumes"]]
        text = (GRAFANA / "dashboards/wan.yml").read_text()
        (provider,) = yaml.safe_load(text)["providers"]

        assert provider["options"]["path"] in mounted

    @pytest.mark.parametrize(
        ("name", "variable"),
        [("prometheus", "KEY"), ("grafana", "GF_SECURITY_ADMIN_PASSWORD")],
        ids=["prometheus", "grafana"],
    )
    @pytest.mark.skipif(sys.platform == "win32", reason="runs a shell")
    def test_it_does_not_start_without_its_secret(self, name, variable):
        """An empty one would be a well-known one, or none."""
        service = services(KEYS)[name]
        shell = ["/bin/sh", *service["entrypoint"][1:], service["command"][0]]
        done = subprocess.run(
            shell, env={variable: ""}, capture_output=True, text=True, cwd=Path("/")
        )

        assert done.returncode != 0
        assert "in .env" in done.stderr


def expressions():
    """Return every query of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    return [
        target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def sum_of(panel, at, size):
    """Return where a panel ends."""
    return panel["gridPos"][at] + panel["gridPos"][size]
