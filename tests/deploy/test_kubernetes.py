"""deploy/kubernetes: valid, guarded, and in step with the services and with compose."""

import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

from common.cli.container import CLOSING_S
from common.container.machine import Card, Machine
from common.container.preflight import Level, findings
from common.service import find, load
from common.settings import Settings
from tests.deploy.cluster import (
    BUILT,
    OTHERS,
    SCALERS,
    SERVICES,
    container,
    environment,
    of,
    pod,
)
from tests.deploy.crds import SCHEMAS
from tests.deploy.kustomized import FOLDER, build, without_hashes
from tests.deploy.test_compose import GPU, setting_names
from tests.live import both

GIB = 2**30

# The oldest that still had fixes when this was written, and the newest that is known.
VERSIONS = ["1.32", kubernetes_validate.latest_version()]


def all_objects():
    """Yield every object with where it is from."""
    for group, built in (("services", BUILT), ("autoscaling", SCALERS), ("", OTHERS)):
        for name, objects in built.items():
            for one in objects:
                yield pytest.param(one, id=f"{group}/{name}-{one['kind']}")


class TestFiles:
    @pytest.mark.parametrize("kind", ["services", "autoscaling"])
    def test_each_service_has_a_folder(self, kind):
        """Under its own name, and there are no others."""
        found = {path.parent.name for path in (FOLDER / kind).glob("*/*.yaml")}

        assert found - {"base"} == set(SERVICES)

    @pytest.mark.parametrize("one", list(all_objects()))
    def test_kubernetes_would_take_it(self, one):
        """By the schemas of two releases, in which a misspelt field is an error."""
        if one["kind"] in SCHEMAS:
            jsonschema.Draft202012Validator(SCHEMAS[one["kind"]]).validate(one)
            return
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)

    @pytest.mark.parametrize("kind", SCHEMAS)
    def test_a_misspelt_field_is_refused(self, kind):
        """Also of resources that Kubernetes itself does not know."""
        objects = SCALERS[SERVICES[0]] + OTHERS["monitoring"]
        wrong = yaml.safe_load(yaml.safe_dump(of(kind, objects)))
        wrong["spec"]["triggerz"] = wrong["spec"].pop("triggers", [])

        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(SCHEMAS[kind]).validate(wrong)

    @pytest.mark.skipif(
        shutil.which("kubectl") is None, reason="there is no kubectl to compare with"
    )
    @pytest.mark.parametrize(
        "folder",
        [path.parent for path in sorted(FOLDER.rglob("kustomization.yaml"))],
        ids=lambda path: str(path.relative_to(FOLDER)),
    )
    def test_kubectl_makes_the_same_of_it(self, folder):
        """What the other tests look at is what a cluster would get."""
        done = subprocess.run(
            ["kubectl", "kustomize", str(folder)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "deprecated" not in done.stderr
        real = list(yaml.safe_load_all(without_hashes(done.stdout)))

        def order(one):
            return one["kind"], one["metadata"]["name"]

        assert sorted(build(folder), key=order) == sorted(real, key=order)


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_it_runs_the_image_that_compose_runs(self, name):
        """And goes by the same name."""
        image = container(name)["image"]
        (known,) = [key for key, one in GPU.items() if one["image"] == image]

        assert of("StatefulSet", BUILT[name])["metadata"]["name"] == f"wan-{known}"
        assert pod(name)["metadata"]["labels"] == {
            "app.kubernetes.io/name": "wan",
            "app.kubernetes.io/instance": known,
        }

    def test_it_can_do_no_more_than_it_must(self, name):
        """What the namespace's Pod Security level, restricted, asks for, and more."""
        spec = pod(name)["spec"]

        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container(name)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["automountServiceAccountToken"] is False
        assert not any("hostPath" in volume for volume in spec["volumes"])
        assert spec["enableServiceLinks"] is False

    def test_what_it_is_told_is_a_setting(self, name):
        """A misspelt variable would be ignored without a word."""
        assert environment(name).keys() - {"POD_NAME"} <= setting_names()

    def test_it_takes_its_settings(self, name, monkeypatch, tmp_path):
        """The values are ones it knows; keys come from the file and for Prometheus."""
        told = environment(name)
        keys = tmp_path / "api-keys"
        keys.write_text("one\ntwo\n")
        secret = [v for v in pod(name)["spec"]["volumes"] if v["name"] == "keys"]
        mounted = [m for m in container(name)["volumeMounts"] if m["name"] == "keys"]
        (item,) = secret[0]["secret"]["items"]
        assert told["WAN_API_KEYS_FILE"] == f"{mounted[0]['mountPath']}/{item['path']}"
        told |= {"WAN_API_KEYS_FILE": str(keys), "WAN_API_KEYS": "metrics"}
        for variable, value in told.items():
            if value is not None:
                monkeypatch.setenv(variable, value)
        settings = Settings.read()

        assert settings.public
        assert settings.root_path == f"/{told['POD_NAME']}"
        found = [key.get_secret_value() for key in settings.api_keys]
        assert found == ["metrics", "one", "two"]
        (port,) = container(name)["ports"]
        assert port["containerPort"] == settings.port

    def test_it_has_a_gpu_and_the_memory_it_wants(self, name, tmp_path):
        """By the same rule that its first process checks when it starts."""
        limits = container(name)["resources"]["limits"]
        memory = int(limits["memory"].removesuffix("Gi")) * GIB
        card = Card("one", 24 * GIB, (8, 9))
        settings = Settings.read(
            engine="comfyui", comfyui_dir=tmp_path, data=tmp_path, models=tmp_path
        )
        said = [
            one
            for one in findings(
                load(find(name)), settings, Machine(memory, (card,), (12, 8))
            )
            if "of memory" in one.what
        ]

        assert limits["nvidia.com/gpu"] == "1"
        assert all(one.level is Level.FINE for one in said), said
        assert said or name.startswith("qwen")  # which says 32 GB in its README
        assert memory >= 32e9 or not name.startswith("qwen")
        assert container(name)["resources"]["requests"]["memory"] == limits["memory"]

    def test_it_has_time_to_stop(self, name):
        """More than its drain and what the supervisor adds to it."""
        told = environment(name)
        drain_s = float(
            told.get("WAN_DRAIN_S") or Settings.model_fields["drain_s"].default
        )

        assert pod(name)["spec"]["terminationGracePeriodSeconds"] > drain_s + CLOSING_S

    def test_its_data_is_its_own_and_the_weights_are_shared(self, name):
        """But where the image holds the weights."""
        wanted = of("StatefulSet", BUILT[name])["spec"]
        (own,) = wanted["volumeClaimTemplates"]
        mounts = {m["name"]: m["mountPath"] for m in container(name)["volumeMounts"]}
        claims = [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod(name)["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        ]
        shared = of("PersistentVolumeClaim", OTHERS["shared"])
        packed = name.endswith("-packed")

        assert mounts["data"] == environment(name)["WAN_DATA"]
        assert own["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert shared["spec"]["accessModes"] == ["ReadWriteMany"]
        assert claims == ([] if packed else [shared["metadata"]["name"]])
        assert mounts.get("models") == environment(name).get("WAN_MODELS")
        assert mounts.keys() == {"data"} | {
            volume["name"] for volume in pod(name)["spec"]["volumes"]
        }

    def test_what_selects_it_selects_it_alone(self, name):
        """Its Services, its policy and its budget."""
        labels = pod(name)["metadata"]["labels"]
        objects = BUILT[name]
        selectors = [service["spec"]["selector"] for service in of("Service", objects)]
        selectors.append(
            of("NetworkPolicy", objects)["spec"]["podSelector"]["matchLabels"]
        )
        for kind in ("StatefulSet", "PodDisruptionBudget"):
            selectors.append(of(kind, objects)["spec"]["selector"]["matchLabels"])

        assert all(one == labels for one in selectors)
        assert all(one["metadata"]["namespace"] == "wan" for one in objects)

    def test_its_services_lead_to_its_port(self, name):
        """One for callers, one that names each replica, one that lists the ready."""
        by = {
            one["metadata"]["name"]: one["spec"] for one in of("Service", BUILT[name])
        }
        wanted = of("StatefulSet", BUILT[name])
        known = wanted["metadata"]["name"].removeprefix("wan-")
        any_, each = by.pop(f"wan-{known}"), by.pop(f"wan-pods-{known}")
        ready = by.pop(f"wan-ready-{known}")

        assert not by
        assert wanted["spec"]["serviceName"] == f"wan-pods-{known}"
        assert any_["sessionAffinity"] == "ClientIP"
        assert each["clusterIP"] == ready["clusterIP"] == "None"
        assert each["publishNotReadyAddresses"] is True
        assert "publishNotReadyAddresses" not in {**any_, **ready}
        for spec in (any_, each, ready):
            (port,) = spec["ports"]
            assert (port["port"], port["targetPort"]) == (8189, "http")

    def test_no_private_address_can_be_reached(self, name):
        """Only names are asked for inside the cluster."""
        rules = of("NetworkPolicy", BUILT[name])["spec"]["egress"]
        (net,) = [rule for rule in rules if "to" in rule]
        blocks = [one["ipBlock"] for one in net["to"]]

        assert {
            port["port"] for rule in rules if "to" not in rule for port in rule["ports"]
        } == {53}
        assert "169.254.0.0/16" in blocks[0]["except"]
        assert "10.0.0.0/8" in blocks[0]["except"]


async def test_the_probes_are_answered(tmp_path):
    """Without a key, and where the service answers to some names only."""
    options = {
        "api_keys": ("k",),
        "allowed_hosts": ("video.lan", "localhost"),
        "root_path": "/wan-fastwan-0",
    }
    spec = container(SERVICES[0])
    async with both(tmp_path, **options) as live:
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = spec[kind]["httpGet"]
            heads = {one["name"]: one["value"] for one in asked["httpHeaders"]}
            async with live.http.get(live.url + asked["path"], headers=heads) as answer:
                assert answer.status == 200, kind
    assert spec["livenessProbe"]["httpGet"]["path"] == "/health"
    assert spec["readinessProbe"]["httpGet"]["path"] == "/ready"
