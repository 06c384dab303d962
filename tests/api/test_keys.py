"""API keys: who may call, and that nobody sees what is another's."""

import asyncio
import contextlib
import http.client
import io

import aiohttp
import pytest

from common.api.app import create
from common.runtime import Runtime
from common.settings import BadSettings, Settings
from tests.api.conftest import call, caller
from tests.live import both, fastwan
from tests.pictures import png


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer key-of-ann"},
            {"authorization": "Bearer"},
            {"authorization": "Basic a2V5LW9mLWFubmE="},
            {"authorization": "key-of-anna"},
            {"x-api-key": "key-of-anna,key-of-bert"},
            {"x-api-key": "Schlüssel"},
            {"cookie": "x-api-key=key-of-anna"},
        ],
        ids=str,
    )
    async def test_no_key_no_answer(self, keyed, headers):
        """401, and how to send a key."""
        *_, anybody = keyed
        for path in ("/jobs", "/", "/metrics", "/system", "/nowhere"):
            status, answered, body = await call(anybody, "GET", path, **headers)
            assert (status, body["code"]) == (401, "unauthorized")
            assert answered["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "path", ["/health", "/ready", "/docs", "/docs/swagger-ui.css", "/openapi.json"]
    )
    async def test_probes_and_documents_need_none(self, keyed, path):
        """A load balancer has no key."""
        *_, anybody = keyed

        assert (await call(anybody, "GET", path))[0] == 200

    async def test_either_header_carries_a_key(self, keyed):
        """`Authorization: Bearer` in any case, and `X-API-Key`."""
        *_, anybody = keyed
        for headers in (
            {"authorization": "bearer key-of-bert"},
            {"Authorization": "Bearer  key-of-anna"},
            {"x-api-key": "key-of-anna"},
        ):
            assert (await call(anybody, "GET", "/jobs", **headers))[0] == 200

    async def test_a_key_may_have_any_letters(self, tmp_path):
        """Compared as the bytes that came."""
        async with both(tmp_path, api_keys="Schlüssel-狐") as live:
            sent = {"x-api-key": "Schlüssel-狐"}
            assert (await call(live, "GET", "/jobs", **sent))[0] == 200
            sent = {"x-api-key": "Schlüssel-猫"}
            assert (await call(live, "GET", "/jobs", **sent))[0] == 401

    async def test_the_body_of_a_stranger_is_not_read(self, keyed):
        """Forty megabytes are announced; the answer comes before the first."""
        *_, anybody = keyed
        port = int(anybody.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "POST /generate HTTP/1.1\r\nhost: localhost\r\ncontent-length: 40000000"
        writer.write(f"{head}\r\ncontent-type: application/json\r\n\r\n".encode())
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()

        assert answer.startswith(b"HTTP/1.1 401")

    async def test_a_sender_of_much_hears_why_it_is_refused(self, keyed):
        """The rest of the body passes by; a reset would lose the answer."""
        *_, anybody = keyed

        def send(size, key):
            # It reads only when all is sent, as many programs do.
            talk = http.client.HTTPConnection(anybody.url.partition("//")[2])
            with contextlib.closing(talk):
                body = io.BytesIO(bytes(size << 20))
                heads = {"X-API-Key": key, "Content-Type": "application/json"}
                talk.request("POST", "/generate", body, heads)
                return talk.getresponse().status

        assert await asyncio.to_thread(send, 30, "no") == 401
        assert await asyncio.to_thread(send, 60, "key-of-anna") == 413

    def test_a_service_for_others_needs_a_key(self, tmp_path):
        """It does not start without one."""
        settings = Settings.read(host="0.0.0.0", data=tmp_path)
        with pytest.raises(BadSettings, match="WAN_API_KEYS"):
            create(Runtime(fastwan(), settings))


class TestOwners:
    async def test_what_belongs_to_another_key_is_not_there(self, keyed):
        """Every address of a job and an upload; and the owner still has them."""
        anna, bert, _ = keyed
        form = aiohttp.FormData()
        form.add_field("file", png(256, 256), filename="x.png")
        upload = (await anna.post("/uploads", data=form))[1]["id"]
        job = await anna.finished((await anna.job(image=upload))["id"])
        here = f"/jobs/{job['id']}"
        for method, path in [
            ("GET", here),
            ("GET", f"{here}/events"),
            ("GET", f"{here}/preview"),
            ("GET", f"{here}/outputs/video.mp4"),
            ("HEAD", f"{here}/outputs/video.mp4"),
            ("GET", f"{here}/outputs/poster.jpg"),
            ("POST", f"{here}/cancel"),
            ("POST", f"{here}/retry"),
            ("DELETE", here),
            ("GET", f"/status/{job['id']}"),
            ("GET", f"/download/{job['id']}"),
        ]:
            status, _, body = await call(bert, method, path)
            assert status == 404, path
            assert method == "HEAD" or body["code"] == "not_found"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await bert.http.ws_connect(f"{bert.url}{here}/ws")
        status, body = await bert.submit(image=upload)

        assert refused.value.status == 404
        assert (status, body["errors"][0]["field"]) == (422, "image")
        assert (await bert.get("/jobs"))[1]["jobs"] == []
        assert (await anna.get(here))[1] == job

    async def test_running_jobs_are_hidden_too(self, tmp_path):
        """Not only those that are looked up in the store."""
        async with (
            both(tmp_path, api_keys="key-of-anna,key-of-bert") as live,
            caller(live, authorization="Bearer key-of-anna") as anna,
            caller(live, authorization="Bearer key-of-bert") as bert,
        ):
            await live.fault(zombie=True)
            job = await anna.job()
            for path in ("", "/events", "/preview"):
                assert (await bert.get(f"/jobs/{job['id']}{path}"))[0] == 404
            assert (await bert.post(f"/jobs/{job['id']}/cancel"))[0] == 404
            assert (await anna.get(f"/jobs/{job['id']}"))[0] == 200
