"""The gateway: the real Caddy in front of services on the embedded engine."""

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
from base64 import b64encode

import pytest

from common.service import find, load
from tests.deploy.gateway import CADDYFILE, command, gateway, trusting, validate
from tests.live import SMALL, both
from tests.pictures import chunk, png

pytestmark = [
    pytest.mark.skipif(
        shutil.which("caddy") is None, reason="there is no caddy: apt-get install caddy"
    )
]

# "s3cret", by `caddy hash-password`.
HASH = "$2a$14$hkT8Mi0/DDpjXOOihbXopuhFtxF1A/gcZTtcpGnQM61.SBYXpsY9a"
TWO_MINUTES = 0.02  #: an engine's speed at which no test sees a job's end
MIB = 1 << 20


@contextlib.asynccontextmanager
async def fastwan(folder, speed=0.0, settings=None, **environment):
    """Serve FastWan behind the gateway; yield both."""
    settings = {"root_path": "/fastwan", **(settings or {})}
    async with (
        both(folder, speed=speed, **settings) as live,
        gateway(folder, {"FASTWAN_UPSTREAM": live.url}, **environment) as front,
    ):
        front.live = live
        live.url = f"{front.url}/fastwan"  # whatever a test does, it does in front
        yield front


async def get(front, path, **options):
    """GET an address of the gateway and return (status, headers, body)."""
    async with front.http.get(front.url + path, **options) as answer:
        return answer.status, answer.headers, await answer.read()


class TestFile:
    async def test_it_is_written_as_caddy_writes_it(self):
        """`caddy fmt` would change nothing."""
        code, said = await command({}, "fmt", str(CADDYFILE))

        assert code == 0
        assert said == CADDYFILE.read_text()

    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"SITE_ADDRESS": "video.example.com"},
            {"SITE_ADDRESS": "video.lan", "SITE_TLS": "internal"},
            {"SITE_ADDRESS": "http://video.lan"},
            {"ENABLE_COMFYUI_UI": "true", "COMFYUI_UI_PASSWORD_HASH": HASH},
        ],
        ids=["defaults", "public", "lan", "plain", "comfyui"],
    )
    async def test_caddy_takes_it(self, environment):
        """Under every kind of setting."""
        code, said = await validate(**environment)

        assert code == 0, said

    @pytest.mark.parametrize(
        "environment",
        [
            {"ENABLE_COMFYUI_UI": "true"},
            {"ENABLE_COMFYUI_UI": "perhaps"},
            {"SITE_TLS": "none"},
        ],
        ids=["no password", "no such switch", "no such way"],
    )
    async def test_nonsense_stops_the_start(self, environment):
        """Above all, ComfyUI's pages are not opened without a password."""
        code, _ = await validate(**environment)

        assert code != 0


class TestJobs:
    async def test_two_services_stand_side_by_side(self, tmp_path):
        """Each under its own path, with its own jobs."""
        other = load(find("wan2.2-14b-loras"))
        async with (
            both(tmp_path / "a", root_path="/fastwan") as one,
            both(tmp_path / "b", root_path="/wan14b", service=other) as two,
            gateway(
                tmp_path, {"FASTWAN_UPSTREAM": one.url, "WAN14B_UPSTREAM": two.url}
            ) as front,
        ):
            names = []
            for path in ("/fastwan", "/wan14b/"):  # the first is led to the second form
                status, _, body = await get(front, path)
                assert status == 200
                names.append(json.loads(body)["name"])

        assert names == [one.runtime.service.name, two.runtime.service.name]

    async def test_links_lead_back_through_the_gateway(self, tmp_path):
        """From the card to the job, its events, its file and its poster."""
        async with fastwan(tmp_path) as front:
            _, _, card = await get(front, "/fastwan/")
            urls = json.loads(card)["urls"]
            async with front.http.post(
                front.url + urls["generate"], json=SMALL
            ) as answer:
                assert answer.status == 202
                location = answer.headers["Location"]
            _, _, body = await get(front, location)
            done = await front.live.finished(json.loads(body)["id"])
            (output,) = done["outputs"]
            status, _, film = await get(front, output["url"])
            _, heads, _ = await get(front, output["poster_url"])
            _, _, page = await get(front, urls["docs"])
            _, _, document = await get(front, urls["openapi"])

        assert status == 200
        assert hashlib.sha256(film).hexdigest() == output["sha256"]
        assert heads["Content-Type"] == "image/jpeg"
        assert urls["openapi"].encode() in page
        assert json.loads(document)["servers"] == [{"url": "/fastwan"}]

    async def test_a_download_can_be_resumed(self, tmp_path):
        """A range of the file comes as that range."""
        async with fastwan(tmp_path) as front:
            done = await front.live.finished((await front.live.job())["id"])
            (output,) = done["outputs"]
            _, _, whole = await get(front, output["url"])
            headers = {"Range": "bytes=100-"}
            status, heads, rest = await get(front, output["url"], headers=headers)

        assert status == 206
        assert heads["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
        assert rest == whole[100:]

    async def test_events_come_while_the_job_runs(self, tmp_path):
        """The first is here long before the stream ends: nothing holds it back."""
        async with fastwan(tmp_path, speed=TWO_MINUTES) as front:
            job = await front.live.job(frames=81, steps=50)
            stream = front.live.events(job["id"])
            async with asyncio.timeout(30):
                _, _, first = await anext(stream)
            _, _, body = await get(front, f"/fastwan/jobs/{job['id']}")
            await front.live.post(f"/jobs/{job['id']}/cancel")
            rest = [data async for event, _, data in stream if event == "job"]

        assert first["status"] in ("queued", "running")
        assert json.loads(body)["status"] in ("queued", "running")
        assert rest[-1]["status"] == "canceled"

    async def test_a_socket_stands_through_it(self, tmp_path):
        """The same frames over a WebSocket, to the end of the job."""
        async with fastwan(tmp_path, speed=3) as front:
            job = await front.live.job(steps=4)
            url = f"{front.url}/fastwan/jobs/{job['id']}/ws"
            async with front.http.ws_connect(url) as socket:
                frames = [json.loads(message.data) async for message in socket]

        assert socket.close_code == 1000
        jobs = [one["data"] for one in frames if one["event"] == "job"]
        assert len(jobs) > 2
        assert jobs[-1]["status"] == "succeeded"

    async def test_a_reload_drops_no_stream(self, tmp_path):
        """Who watched goes on watching; who comes new meets the new settings."""
        async with fastwan(tmp_path, speed=TWO_MINUTES) as front:
            job = await front.live.job(frames=81, steps=50)
            stream = front.live.events(job["id"])
            await anext(stream)
            front.config.write_text(
                CADDYFILE.read_text().replace("max-age=15552000", "max-age=77")
            )
            code, said = await front.reload()
            _, heads, _ = await get(front, "/fastwan/health")
            await front.live.post(f"/jobs/{job['id']}/cancel")
            async with asyncio.timeout(30):
                rest = [data async for event, _, data in stream if event == "job"]

        assert code == 0, said
        assert heads["Strict-Transport-Security"] == "max-age=77"
        assert rest[-1]["status"] == "canceled"

    async def test_a_watcher_who_goes_is_gone_behind_the_gateway(self, tmp_path):
        """The service keeps no stream open for nobody."""
        async with fastwan(tmp_path, speed=TWO_MINUTES) as front:
            job = await front.live.job(frames=81, steps=50)
            stream = front.live.events(job["id"])
            await anext(stream)
            watchers = front.live.runtime.bus.watchers
            assert watchers() == 1
            await stream.aclose()
            async with asyncio.timeout(30):
                while watchers():
                    await asyncio.sleep(0.01)

    async def test_a_service_that_is_away_is_a_problem_with_a_time_to_come_again(
        self, tmp_path
    ):
        """In the form of the services' own problems, so that clients try again."""
        away = {"FASTWAN_UPSTREAM": "http://127.0.0.1:1"}
        async with gateway(tmp_path, away) as front:
            status, heads, body = await get(front, "/fastwan/jobs")

        problem = json.loads(body)
        assert status == problem["status"] == 502
        assert heads["Content-Type"] == "application/problem+json"
        assert heads["Retry-After"] == "5"
        assert problem["code"] == "gateway"


class TestLimits:
    @pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
    async def test_an_upload_over_the_limit_is_refused(self, tmp_path, chunked):
        """100 MiB against the default of 50, whether its size is told or not."""
        async with fastwan(tmp_path) as front:
            status, body = await sent(front, 100 * MIB, chunked)

        assert status == 413, body

    async def test_an_upload_within_the_limit_passes(self, tmp_path):
        """100 MiB arrive whole where the settings say so, and the service judges."""
        allowed = {"max_upload_mb": 120}
        async with fastwan(tmp_path, settings=allowed, MAX_BODY="130MB") as front:
            status, body = await sent(front, 100 * MIB)

        assert status == 413
        assert json.loads(body)["detail"] == "file: is over 16 MiB"  # for a picture

    @pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
    async def test_the_gateway_has_a_limit_of_its_own(self, tmp_path, chunked):
        """The service never sees more than MAX_BODY."""
        async with fastwan(tmp_path, MAX_BODY="1MB") as front:
            status, body = await sent(front, 2 * MIB, chunked)

        assert status in (413, 502), body  # 2.6.2 may call it a bad gateway

    async def test_an_answer_may_be_waited_for(self, tmp_path):
        """`Prefer: wait` holds the answer, and the gateway waits as well."""
        async with fastwan(tmp_path, speed=3) as front:
            wait = {"Prefer": "wait=60"}
            status, job = await front.live.submit(headers=wait)

        assert (status, job["status"]) == (200, "succeeded")


async def sent(front, size, chunked=False):
    """Upload a picture that is padded to a size; return (status, text)."""
    edge = "edge"
    head = (
        f"--{edge}\r\nContent-Disposition: form-data; name=file; filename=a.png\r\n"
        "Content-Type: image/png\r\n\r\n"
    )
    picture = png(extra=chunk(b"paDd", bytes(size)))
    data = head.encode() + picture + f"\r\n--{edge}--\r\n".encode()

    async def pieces():
        for start in range(0, len(data), MIB):
            yield data[start : start + MIB]

    async with front.http.post(
        f"{front.url}/fastwan/uploads",
        data=pieces() if chunked else io.BytesIO(data),
        headers={"Content-Type": f"multipart/form-data; boundary={edge}"},
    ) as answer:
        return answer.status, await answer.text()


class TestSafety:
    @pytest.mark.parametrize(
        ("path", "host", "status"),
        [
            ("/fastwan/health", "localhost", 200),
            ("/fastwan/health", "evil.example", 421),
            ("/fastwan/health", "127.0.0.1", 421),
            ("/", "localhost", 404),
            ("/fastwanx/health", "localhost", 404),
            ("/prompt", "localhost", 404),
            ("/comfyui/fastwan/system_stats", "localhost", 404),
        ],
        ids=["ours", "other", "number", "root", "near", "engine", "pages"],
    )
    async def test_only_what_is_named_is_served(self, tmp_path, path, host, status):
        """Other names get 421, other paths 404, and ComfyUI's pages are closed."""
        async with fastwan(tmp_path) as front:
            answer = await get(front, path, headers={"Host": host})

        assert answer[0] == status

    @pytest.mark.parametrize("path", ["/fastwan/health", "/nothing"])
    async def test_answers_carry_security_headers(self, tmp_path, path):
        """A service's own and Caddy's alike, each once; nobody says what they run."""
        async with fastwan(tmp_path) as front:
            _, heads, _ = await get(front, path)

        for name in (
            "X-Content-Type-Options",
            "X-Frame-Options",
            "Referrer-Policy",
            "Permissions-Policy",
            "Strict-Transport-Security",
        ):
            assert len(heads.getall(name, [])) == 1, name
        assert heads["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in heads

    async def test_a_lan_has_https_with_a_certificate_of_its_own(self, tmp_path):
        """Plain HTTP leads there, and other names are refused there too."""
        lan = {"SITE_ADDRESS": "localhost", "SITE_TLS": "internal"}
        async with fastwan(tmp_path, **lan) as front:
            options = {"allow_redirects": False}
            status, heads, _ = await get(front, "/fastwan/health", **options)
            secure = f"https://localhost:{front.https_port}"
            assert (status, heads["Location"]) == (
                308,
                "https://localhost/fastwan/health",
            )

            front.url = secure
            options = {"ssl": trusting()}
            found = []
            for host in (f"localhost:{front.https_port}", "evil.example"):
                headers = {"Host": host}
                found.append(
                    (await get(front, "/fastwan/health", headers=headers, **options))[0]
                )

        assert found == [200, 421]

    async def test_comfyuis_pages_open_by_password(self, tmp_path):
        """When asked for; and its password is not handed on."""
        ask = {"ENABLE_COMFYUI_UI": "true", "COMFYUI_UI_PASSWORD_HASH": HASH}
        path = "/comfyui/fastwan/system_stats"
        async with both(tmp_path) as live:
            engine = {"FASTWAN_COMFYUI": live.engine_url}
            async with gateway(tmp_path, engine, **ask) as front:
                found = []
                for given in (None, "wrong", "s3cret"):
                    login = b64encode(f"admin:{given}".encode()).decode()
                    headers = {"Authorization": f"Basic {login}"} if given else {}
                    status, _, body = await get(front, path, headers=headers)
                    found.append(status)

        assert found == [401, 401, 200]
        assert "system" in json.loads(body)

    async def test_the_log_holds_no_key(self, tmp_path):
        """Of any header that a key travels in."""
        keys = {"X-API-Key": "canary-a", "Authorization": "Bearer canary-b"}
        keys["Host"] = "localhost"  # 2.6.2 logs no request whose Host names a port
        async with fastwan(tmp_path) as front:
            await get(front, "/fastwan/jobs", headers=keys)
            log = tmp_path / "caddy.log"
            async with asyncio.timeout(10):
                while "/fastwan/jobs" not in log.read_text():
                    await asyncio.sleep(0.01)

            assert "canary" not in log.read_text()
