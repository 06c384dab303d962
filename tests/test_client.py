import hashlib
import http.server
import json
import threading
import uuid

import pytest
import requests
import websockets.sync.server
from websockets.datastructures import Headers
from websockets.http11 import Response

from common import client as client_module
from common.client import BadDownload, Client, Refused, Unreachable, over
from common.ports import next_free
from tests.live import SMALL
from tests.pictures import png
from tests.threaded import served

KEY = "key-of-anna"
MISSING = str(uuid.UUID(int=1))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service that runs and asks for a key."""
    with served(tmp_path_factory.mktemp("service"), api_keys=KEY) as running:
        yield running


@pytest.fixture
def client(service):
    """A client that has the key."""
    with Client(service.url, KEY, patience_s=10) as one:
        yield one


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    """Ask again at once: waiting proves nothing."""
    monkeypatch.setattr(client_module, "POLL_S", 0.01)


def names(client):
    """The jobs' ids: what else is listed changes while they run."""
    return [job["id"] for job in client.list(limit=100)["jobs"]]


def test_a_clip_from_request_to_file(client, tmp_path):
    """Submit, watch to the end, download: the file is the one that the job names."""
    job = client.submit(SMALL)
    jobs = list(client.watch(job["id"]))

    path = client.download(jobs[-1], tmp_path / "deep" / "fox.mp4")

    assert jobs[-1]["status"] == "succeeded"
    values = [one["progress"]["value"] for one in jobs]
    assert values == sorted(values)
    wanted = jobs[-1]["outputs"][0]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted["sha256"]
    assert [one.name for one in path.parent.iterdir()] == ["fox.mp4"]


def test_a_watch_of_a_finished_job_yields_its_end(client):
    """Who comes late sees the end."""
    job = client.submit(SMALL)
    assert over(list(client.watch(job["id"]))[-1])

    assert [one["status"] for one in client.watch(job["id"])] == ["succeeded"]


def test_a_file_goes_along_or_ahead(client, tmp_path):
    """A picture is sent as a part of the request, or uploaded and named by its id."""
    picture = tmp_path / "first.png"
    picture.write_bytes(png())

    along = client.submit({**SMALL, "negative_prompt": None}, {"image": picture})
    ahead = client.submit({**SMALL, "image": client.upload(picture)["id"]})

    assert along["request"]["image"]
    assert ahead["request"]["image"]
    assert along["request"]["frames"] == SMALL["frames"]


def test_a_path_may_be_text(client, tmp_path):
    """As the examples write it: a file is sent and saved by its name alone."""
    picture = tmp_path / "first.png"
    picture.write_bytes(png())

    ahead = client.upload(str(picture))
    job = client.submit(SMALL, {"image": str(picture)})
    last = list(client.watch(job["id"]))[-1]
    path = client.download(last, str(tmp_path / "fox.mp4"))

    assert ahead["id"]
    assert path == tmp_path / "fox.mp4"
    assert path.is_file()


def test_an_estimate_makes_no_job(client):
    """What the request would take, and nothing in the list."""
    before = names(client)
    found = client.estimate({"prompt": "a fox", "width": 1280, "height": 704})

    assert found["vram_gb"] > 0
    assert names(client) == before
    with pytest.raises(Refused):
        client.estimate({"prompt": "a fox", "frames": 120})


def test_a_key_makes_a_second_submission_the_same_job(client):
    """Sending again under one key, as a retry does, makes no second job."""
    key = str(uuid.uuid4())

    first = client.submit(SMALL, idempotency_key=key)
    second = client.submit(SMALL, idempotency_key=key)

    assert first["id"] == second["id"]
    assert first["id"] != client.submit(SMALL)["id"]


def test_jobs_are_listed_got_and_canceled(client):
    """A job is found by id and in the list; canceling one that is over is fine."""
    job = list(client.watch(client.submit(SMALL)["id"]))[-1]

    assert client.get(job["id"])["status"] == "succeeded"
    assert job["id"] in [one["id"] for one in client.list(limit=5)["jobs"]]
    assert client.cancel(job["id"])["status"] == "succeeded"


def test_a_refusal_carries_the_problem(client):
    """A wrong field comes back as code, detail and field errors."""
    with pytest.raises(Refused) as caught:
        client.submit({**SMALL, "frames": 120})

    assert (caught.value.status, caught.value.code) == (422, "invalid_input")
    assert caught.value.errors[0]["field"] == "frames"
    assert caught.value.request_id
    assert "4n + 1" in caught.value.detail


def test_an_unknown_job_is_not_found(client):
    """Watching a job that is not there says so and does not wait."""
    with pytest.raises(Refused) as caught:
        list(client.watch(MISSING))

    assert caught.value.status == 404


def test_without_its_key_the_service_says_no(service):
    """A missing key is a refusal, not an absence."""
    with Client(service.url, patience_s=0) as stranger:
        with pytest.raises(Refused) as caught:
            stranger.card()

        assert caught.value.code == "unauthorized"
        assert stranger.ready()["ready"]


def test_nothing_answers():
    """Where nobody listens, that is what is said."""
    with Client(f"http://127.0.0.1:{next_free('127.0.0.1', 0)}", patience_s=0) as none:
        with pytest.raises(Unreachable, match="no service answers at"):
            none.card()
        with pytest.raises(Unreachable):
            none.submit(SMALL)


# ---- a service that fails on purpose


class Script(http.server.BaseHTTPRequestHandler):
    """Answers with what the test wrote down, in turn; the last one for ever."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        script, seen = self.server.script, self.server.seen
        length = int(self.headers.get("Content-Length", 0))
        seen.append((self.path, dict(self.headers), self.rfile.read(length)))
        status, headers, body, cut = script[min(len(seen), len(script)) - 1]
        self.close_connection = cut
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    do_POST = do_GET  # noqa: N815 - the base class looks for this name

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def scripted():
    """Serve a script; yield what starts a client of it and what the server saw."""
    servers = []

    def serve(*script):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Script)
        server.script = [(*step, False)[:4] for step in script]
        server.seen = []
        server.handle_error = lambda *_: None  # we hang up on it
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        one = Client(f"http://127.0.0.1:{server.server_port}", patience_s=5)
        servers.append((server, thread, one))
        return one, server.seen

    yield serve
    for server, thread, one in servers:
        one.close()
        server.shutdown()
        thread.join(10)
        server.server_close()


JOB = {"id": MISSING, "status": "queued"}
BUSY = b'{"code": "queue_full", "detail": "100 jobs wait already", "errors": []}'


def as_json(value):
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "trouble",
    [(429, {"Retry-After": "0"}, BUSY), (503, {}, b"<html>"), (202, {}, b"{ }", True)],
    ids=["full", "a proxy's page", "cut short"],
)
def test_a_submission_is_tried_again_under_its_key(scripted, trouble):
    """A busy or broken answer is followed by the same request with the same key."""
    client, seen = scripted(trouble, (202, {}, as_json(JOB)))

    job = client.submit(SMALL)

    assert job == JOB
    (_, first, body), (_, second, again) = seen
    assert first["Idempotency-Key"] == second["Idempotency-Key"]
    assert body == again


def test_patience_ends_with_the_refusal(scripted):
    """A queue that stays full is said as such, and not as an absence."""
    client, seen = scripted((429, {"Retry-After": "60"}, BUSY))

    with pytest.raises(Refused) as caught:
        client.submit(SMALL)

    assert caught.value.code == "queue_full"
    assert caught.value.retry_after_s == 60
    assert len(seen) == 1


def test_what_is_no_service_is_not_taken_for_one(scripted):
    """An answer that is not a JSON object comes from something else."""
    client, _ = scripted((200, {}, b"<html>hello</html>"))

    with pytest.raises(Unreachable):
        client.card()


def test_a_refused_socket_is_replaced_by_asking(scripted):
    """Where no WebSocket passes, the job is asked for until it is over."""
    ends = {**JOB, "status": "succeeded"}
    no_socket = (403, {}, b"")
    client, _ = scripted(
        no_socket, (200, {}, as_json(JOB)), no_socket, (200, {}, as_json(ends))
    )

    assert list(client.watch(MISSING)) == [JOB, ends]


DATA = bytes(range(256)) * 4096


def output_of(data):
    digest = hashlib.sha256(data).hexdigest()
    return {
        "outputs": [
            {
                "name": "video.mp4",
                "url": "/jobs/x/outputs/video.mp4",
                "size_bytes": len(data),
                "sha256": digest,
            }
        ]
    }


def test_a_broken_download_goes_on_where_it_broke(scripted, tmp_path):
    """The rest is asked for by range, of the same file, and the whole is checked."""
    half = len(DATA) // 2
    client, seen = scripted(
        (200, {}, DATA, True),
        (206, {"Content-Range": f"bytes {half}-{len(DATA)}"}, DATA[half:]),
    )
    job = output_of(DATA)

    client.download(job, tmp_path / "a.mp4")

    assert (tmp_path / "a.mp4").read_bytes() == DATA
    assert seen[1][1]["Range"] == f"bytes={half}-"
    assert seen[1][1]["If-Range"] == f'"{job["outputs"][0]["sha256"]}"'


@pytest.mark.parametrize(
    "script",
    [
        [(200, {}, DATA[::-1])],
        [(200, {}, DATA, True), (200, {}, DATA)],
    ],
    ids=["other bytes", "no range"],
)
def test_a_wrong_download_leaves_nothing(scripted, tmp_path, script):
    """Bytes that are not the output's are thrown away."""
    client, _ = scripted(*script)

    with pytest.raises(BadDownload):
        client.download(output_of(DATA), tmp_path / "a.mp4")

    assert list(tmp_path.iterdir()) == []


def test_a_key_is_not_taken_along_to_another_host(scripted, monkeypatch):
    """A redirect elsewhere does not carry the key."""
    other, seen = scripted((200, {}, b"{}"))
    elsewhere = other.url.replace("127.0.0.1", "localhost")
    client, _ = scripted((307, {"Location": f"{elsewhere}/"}, b""))
    client._calls.api_key = KEY

    client.card()

    assert "Authorization" not in seen[0][1]


# ---- a socket that drops


def test_a_dropped_socket_is_opened_again_from_the_last_change():
    """After a drop nothing is missed: the job is asked for, and the rest follows."""
    first = {**JOB, "status": "running"}
    second = {**JOB, "status": "running", "attempt": 1}
    ends = {**JOB, "status": "succeeded"}
    paths = []

    def frame(number, job):
        return json.dumps({"event": "job", "id": number, "data": job})

    def talk(connection):
        paths.append(connection.request.path)
        if len(paths) == 1:
            connection.send(json.dumps({"event": "preview", "id": None, "data": {}}))
            connection.send(frame(4, first))
            connection.socket.close()  # no farewell
        else:
            connection.send(frame(6, ends))

    def answer(connection, request):
        if request.path.endswith("/ws") or "/ws?" in request.path:
            return None
        body = as_json(second)
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close"})
        return Response(200, "OK", headers, body)

    with websockets.sync.server.serve(
        talk, "127.0.0.1", 0, process_request=answer
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}", patience_s=5) as client:
            seen = list(client.watch(MISSING))
        server.shutdown()
        thread.join(10)

    assert seen == [first, second, ends]
    assert paths == [f"/jobs/{MISSING}/ws", f"/jobs/{MISSING}/ws?last_event_id=4"]


def test_a_proxy_is_not_asked_for_this_machine(scripted, monkeypatch):
    """A company's proxy variable does not keep us from a service on loopback."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    client, _ = scripted((200, {}, b"{}"))

    assert client.card() == {}
    assert requests.utils.get_environ_proxies("http://example.com")
