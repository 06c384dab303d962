"""Several replicas of a service: when there are more, and who leads callers to them."""

import asyncio
import contextlib
import os
import re

import pytest

from tests.deploy import composed
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
from tests.deploy.gateway import caddy, command, free_ports
from tests.deploy.kustomized import FOLDER
from tests.live import both, engine, wrapper


@pytest.mark.parametrize("name", SERVICES)
class TestScaler:
    def test_it_scales_its_service(self, name):
        """And asks for the figures of that service's pods alone."""
        scaler = of("ScaledObject", SCALERS[name])
        wanted = of("StatefulSet", BUILT[name])
        target = scaler["spec"]["scaleTargetRef"]
        (trigger,) = scaler["spec"]["triggers"]
        query = trigger["metadata"]["query"]
        selectors = set(re.findall(r"\{([^}]*)\}", query))
        (selector,) = selectors
        namespace, pods = re.fullmatch(
            r'namespace="(.*)",pod=~"(.*)"', selector
        ).groups()
        fits = [
            other
            for other, objects in BUILT.items()
            if re.fullmatch(pods, f"{of('StatefulSet', objects)['metadata']['name']}-3")
        ]

        assert (target["apiVersion"], target["kind"], target["name"]) == (
            wanted["apiVersion"],
            wanted["kind"],
            wanted["metadata"]["name"],
        )
        assert scaler["metadata"] == {
            "name": wanted["metadata"]["name"],
            "namespace": namespace,
        }
        assert fits == [name]
        assert query.count("(") == query.count(")")

    def test_it_never_goes_to_nothing(self, name):
        """A job that nobody takes would wait in no queue."""
        spec = of("ScaledObject", SCALERS[name])["spec"]

        assert spec["minReplicaCount"] >= 1
        assert spec["triggers"][0]["metadata"]["ignoreNullValues"] == "false"


async def test_the_scalers_figures_are_ones_that_a_service_tells(tmp_path):
    """A name that is wrong would be no error, and would never scale."""
    async with both(tmp_path) as live, live.http.get(f"{live.url}/metrics") as answer:
        text = await answer.text()
    told = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    for objects in SCALERS.values():
        (trigger,) = of("ScaledObject", objects)["spec"]["triggers"]
        assert "sum(wan_queue_depth{" in trigger["metadata"]["query"]
        assert set(re.findall(r"\bwan_\w+(?=\{)", trigger["metadata"]["query"])) <= told


def test_prometheus_finds_every_service_and_has_a_key():
    """By the labels of its pods; /metrics asks for a key."""
    monitor = of("PodMonitor", OTHERS["monitoring"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    credentials = endpoint["authorization"]["credentials"]
    for name in SERVICES:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= pod(name)["metadata"]["labels"].items()
        assert container(name)["ports"][0]["name"] == endpoint["port"]
        (keys,) = [e for e in container(name)["env"] if e["name"] == "WAN_API_KEYS"]
        given = keys["valueFrom"]["secretKeyRef"]
        assert (given["name"], given["key"]) == (
            credentials["name"],
            credentials["key"],
        )


class TestGateway:
    def test_it_is_guarded(self):
        """As the services are; its Caddy is the one of compose."""
        spec = of("Deployment", OTHERS["gateway"])["spec"]["template"]["spec"]
        (one,) = spec["containers"]

        assert (
            one["image"] == composed.services({"WAN_API_KEYS": "k"})["caddy"]["image"]
        )
        assert one["securityContext"] == container(SERVICES[0])["securityContext"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False

    @pytest.mark.parametrize("name", SERVICES)
    def test_it_leads_to_each_service(self, name):
        """By the names that its replicas and their Service have."""
        text = (FOLDER / "gateway/Caddyfile").read_text()
        pattern = re.search(r"path_regexp replica (\S+)", text)[1]
        names = {one["metadata"]["name"] for one in of("Service", BUILT[name])}
        match = re.match(pattern, f"{environment(name)['WAN_ROOT_PATH']}/jobs/1")

        assert {f"wan-pods-{match[2]}", f"wan-ready-{match[2]}"} <= names
        assert match[1] == environment(name)["POD_NAME"]
        assert "{re.replica.1}.wan-pods-{re.replica.2}:8189" in text
        assert "dynamic a wan-ready-{re.service.1} 8189" in text

    async def test_a_jobs_links_lead_to_the_replica_that_has_it(self, tmp_path):
        """Through the real Caddy, whichever replica took the job."""
        caddy()
        text = (FOLDER / "gateway/Caddyfile").read_text()
        (port,) = free_ports(1)
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(engine(tmp_path / "engine"))
            lives = [
                await stack.enter_async_context(
                    wrapper(tmp_path / str(n), url, root_path=f"/wan-fastwan-{n}")
                )
                for n in range(2)
            ]
            addresses = [live.url.removeprefix("http://") for live in lives]
            # Names are the cluster's; here each is an address.
            replicas = "\n".join(
                f"@r{n} path /wan-fastwan-{n}/*\nreverse_proxy @r{n} {address}"
                for n, address in enumerate(addresses)
            )
            before = text
            text = re.sub(
                r"reverse_proxy \{re\.replica.*?\n\t\t\}",
                replicas,
                text,
                flags=re.DOTALL,
            )
            text = text.replace(
                "dynamic a wan-ready-{re.service.1} 8189", f"to {' '.join(addresses)}"
            )
            assert text != before
            text = text.replace(":8080 {", f"http://127.0.0.1:{port} {{")
            file = tmp_path / "Caddyfile"
            file.write_text(text)
            process = await asyncio.create_subprocess_exec(
                *(caddy(), "run", "--config", str(file), "--adapter", "caddyfile"),
                env={**os.environ, "HOME": str(tmp_path)},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await _through(lives[0].http, f"http://127.0.0.1:{port}")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def test_the_file_is_one_that_caddy_takes(self):
        """As it is, and written as `caddy fmt` would."""
        caddy()
        file = str(FOLDER / "gateway/Caddyfile")
        code, said = await command(
            {}, "validate", "--config", file, "--adapter", "caddyfile"
        )
        assert code == 0, said
        _, written = await command({}, "fmt", file)

        assert written == (FOLDER / "gateway/Caddyfile").read_text()


async def _through(http, url):
    """Submit until both replicas have a job, and follow every link."""
    small = {"prompt": "a fox", "width": 256, "height": 256, "frames": 5, "steps": 1}
    http.cookie_jar.clear()
    took = {}
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                async with http.get(f"{url}/health") as answer:
                    if answer.status == 200:
                        break
            await asyncio.sleep(0.05)
        while len(took) < 2:
            async with http.post(f"{url}/fastwan/generate", json=small) as answer:
                assert answer.status == 202, await answer.text()
                job = await answer.json()
            http.cookie_jar.clear()
            took[job["urls"]["self"].split("/")[1]] = job
        for replica, job in took.items():
            async with http.get(url + job["urls"]["self"]) as answer:
                assert (await answer.json())["id"] == job["id"]
            other = ({"wan-fastwan-0", "wan-fastwan-1"} - {replica}).pop()
            async with http.get(f"{url}/{other}/jobs/{job['id']}") as answer:
                assert answer.status == 404
        async with http.get(f"{url}/nothing") as answer:
            assert answer.status == 404
