import asyncio
import contextlib
import gzip
import socket

import aiohttp.connector
import pytest

from common.errors import InputUnreachable, PayloadTooLarge
from common.inputs.fetch import fetch

BODY = b"\x89PNG" + bytes(range(256)) * 40


def answer(status="200 OK", body=b"", **headers):
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "content_length" not in headers:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Server:
    """A server on loopback that says what it is told, well-formed or not."""

    def __init__(self):
        self.requests = []  #: (path, headers) as they came
        self.hello = b""  #: of a TLS client
        self.lookups = []  #: (host, port) that the resolver was asked
        self.names = {}  #: host -> one list of addresses for each lookup
        self.sent = 0
        self.open = {}  #: task -> writer

    async def start(self):
        self.server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"

    async def stop(self):
        self.server.close()
        for writer in self.open.values():
            writer.transport.abort()
        await asyncio.gather(*self.open)
        await self.server.wait_closed()

    async def talk(self, reader, writer):
        self.open[asyncio.current_task()] = writer
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.speak(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def speak(self, reader, writer):
        head = await reader.readexactly(1)
        if head == b"\x16":
            self.hello = await reader.read(4096)
            return
        head += await reader.readuntil(b"\r\n\r\n")
        request, *lines = head.decode().split("\r\n")
        path = request.split()[1]
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        self.requests.append((path, headers))
        case, _, rest = path.strip("/").partition("/")
        to = f"{self.base}/{rest}"
        match case.partition("?")[0]:
            case "ok":
                writer.write(answer(body=BODY))
            case "chunked":
                writer.write(
                    answer(content_length="", transfer_encoding="chunked").replace(
                        b"content-length: \r\n", b""
                    )
                )
                writer.write(b"5\r\nabcde\r\n0\r\n\r\n")
            case "hop":
                writer.write(answer("302 Found", location=to, set_cookie="a=b"))
            case "relative":
                writer.write(answer("307 x", location="/ok"))
            case "loop":
                writer.write(answer("301 x", location=f"{self.base}/loop"))
            case "to":
                place = rest.replace("!", ":").replace("PORT", str(self.port))
                writer.write(answer("302 x", location=place))
            case "nowhere":
                writer.write(answer("302 x"))
            case "endless":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
                    self.sent += 65536
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case "drip_headers":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"x-a: b\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case "silent":
                await reader.read()
            case "gzip":
                body = gzip.compress(bytes(1 << 20))
                writer.write(answer(body=body, content_encoding="gzip"))
            case "huge_length":
                writer.write(answer(body=BODY, content_length=str(1 << 40)))
            case "odd_length":
                writer.write(answer(body=BODY, content_length="-1"))
            case "cut":
                writer.write(answer(body=BODY[:40], content_length=str(len(BODY))))
            case "cut_chunk":
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                writer.write(b"ff\r\nabc")
            case "many_headers":
                writer.write(answer(**{f"x-{n}": "a" * 200 for n in range(5000)}))
            case "long_header":
                writer.write(answer(x="a" * (1 << 20)))
            case "garbage":
                writer.write(b"\0\1\2 this is not HTTP\r\n\r\n")
            case "hang_up":
                pass
            case status:
                writer.write(answer(f"{status} x"))
        await writer.drain()

    async def resolve(self, host, port):
        self.lookups.append((host, port))
        if host not in self.names:
            return [host]
        answers = self.names[host]
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0)

    async def fetch(self, url, **more):
        options = {
            "field": "image",
            "max_bytes": 1 << 20,
            "allow_hosts": frozenset({f"127.0.0.1:{self.port}"}),
            "resolve": self.resolve,
        }
        return await fetch(url, **options | more)


@pytest.fixture
async def server():
    server = Server()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def dialled(server, monkeypatch):
    """Record who would be dialled on the internet; connect to the server instead."""
    seen = []

    async def connect(addr_infos, **_):
        seen.append([info[4][0] for info in addr_infos])
        sock = socket.socket()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        return sock

    monkeypatch.setattr(aiohttp.connector.aiohappyeyeballs, "start_connection", connect)
    return seen


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("ok", BODY),
        ("ok?X-Amz-Signature=a%2Fb+c", BODY),
        ("chunked", b"abcde"),
        ("hop/ok", BODY),
        ("hop/hop/hop/ok", BODY),
        ("relative", BODY),
    ],
)
async def test_what_the_url_answers_comes_back(server, path, body):
    """A listed host is fetched, over three redirects at most."""
    assert await server.fetch(f"{server.base}/{path}") == body


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("hop/hop/hop/hop/ok", "redirects over 3"),
        ("loop", "redirects over 3"),
        ("nowhere", "redirects over 3"),
        ("to/http!//127.0.0.1!1/x", "port"),
        ("to/http!//127.0.0.1/", "not on the public"),
        ("to/http!//169.254.169.254/latest/meta-data/", "not on the public"),
        ("to/file!///etc/passwd", "http://HOST"),
        ("to/http!//u!p@127.0.0.1!PORT/ok", "user name"),
        ("to///169.254.169.254/", "not on the public"),
        ("to/http!//[", "whole answer"),
        ("gzip", "encoding"),
        ("cut", "whole answer"),
        ("cut_chunk", "whole answer"),
        ("odd_length", "whole answer"),
        ("many_headers", "whole answer"),
        ("long_header", "whole answer"),
        ("garbage", "whole answer"),
        ("hang_up", "whole answer"),
        ("204", "status 204"),
        ("206", "status 206"),
        ("304", "status 304"),
        ("404", "status 404"),
        ("500", "status 500"),
    ],
)
async def test_no_proper_answer(server, path, says):
    """Whatever is wrong is a refusal of the field; it names no URL and no address."""
    with pytest.raises(InputUnreachable) as refusal:
        await server.fetch(f"{server.base}/{path}?token=canary")

    (error,) = refusal.value.errors
    assert error.field == "image"
    assert says in error.message
    text = f"{refusal.value.detail} {error.message} {error.hint}"
    assert not any(
        word in text for word in ("canary", "127.0.0.1", "169.254", "http://1")
    )
    assert all(path != "/meta-data/" for path, _ in server.requests)


@pytest.mark.parametrize("path", ["drip", "drip_headers", "silent", "hop/drip"])
async def test_one_deadline_for_everything(server, path):
    """A server that keeps sending, or nothing, is left when the time is up."""
    with pytest.raises(InputUnreachable, match="in time"):
        await server.fetch(f"{server.base}/{path}", total_s=0.2)


async def test_slow_lookups_have_a_deadline(server):
    """A resolver that never answers is left too."""

    async def never(host, port):
        await asyncio.Event().wait()

    with pytest.raises(InputUnreachable, match="in time"):
        await server.fetch("http://example.com/", connect_s=0.05, resolve=never)


@pytest.mark.parametrize("path", ["endless", "huge_length"])
async def test_bytes_are_counted(server, path):
    """A body over the limit is cut off, whether it says so or not."""
    with pytest.raises(PayloadTooLarge) as refusal:
        await server.fetch(f"{server.base}/{path}", max_bytes=200_000)

    assert refusal.value.errors[0].field == "image"
    assert server.sent < 20 << 20


async def test_a_body_of_just_the_limit_passes(server):
    """The limit is the largest body that passes."""
    url = f"{server.base}/ok"

    assert await server.fetch(url, max_bytes=len(BODY)) == BODY
    with pytest.raises(PayloadTooLarge):
        await server.fetch(url, max_bytes=len(BODY) - 1)


async def test_rebinding_finds_no_second_lookup(server, dialled):
    """A name is resolved once a hop, and what was judged is what is dialled."""
    server.names["evil.example.com"] = [["93.184.216.34"], ["127.0.0.1"]]

    body = await server.fetch("http://evil.example.com/ok")

    assert body == BODY
    assert server.lookups == [("evil.example.com", 80)]
    assert dialled == [["93.184.216.34"]]
    assert server.requests[0][1]["host"] == "evil.example.com"


async def test_each_hop_is_resolved_and_judged_again(server, dialled):
    """A redirect back to the same name meets the guard again, and is refused there."""
    server.names["evil.example.com"] = [["93.184.216.34"], ["10.0.0.1"]]

    with pytest.raises(InputUnreachable, match="not on the public"):
        await server.fetch("http://evil.example.com/to/http!//evil.example.com/ok")

    assert server.lookups == [("evil.example.com", 80)] * 2
    assert dialled == [["93.184.216.34"]]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "10.0.0.1"],
        ["2606:4700:4700::1111", "::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%eth0"],
        ["100.64.0.1"],
    ],
)
async def test_one_private_answer_refuses_all(server, dialled, addresses):
    """A name with any address that is not public is not dialled at all."""
    server.names["mixed.example.com"] = [addresses]

    with pytest.raises(InputUnreachable) as refusal:
        await server.fetch("https://mixed.example.com/")

    assert dialled == []
    assert not any(address in str(refusal.value) for address in addresses)


async def test_absent_and_inside_names_read_alike(server):
    """Nobody can ask us which names exist in our network."""
    server.names = {"gone.example.com": [], "db.example.com": [["10.0.0.1"]]}
    said = []
    for host in server.names:
        with pytest.raises(InputUnreachable) as refusal:
            await server.fetch(f"http://{host}/")
        said.append(refusal.value.detail)

    assert said[0] == said[1]


async def test_all_judged_addresses_may_be_dialled(server, dialled):
    """IPv4 and IPv6 answers go to the connector together."""
    server.names["both.example.com"] = [["2606:4700:4700::1111", "93.184.216.34"]]

    assert await server.fetch("http://both.example.com/ok") == BODY
    assert sorted(dialled[0]) == ["2606:4700:4700::1111", "93.184.216.34"]


async def test_addresses_in_urls_are_dialled_as_written(server, dialled):
    """An IPv6 address in the URL is judged and dialled without any name."""
    assert await server.fetch("http://[2606:4700:4700::1111]/ok") == BODY
    assert dialled == [["2606:4700:4700::1111"]]
    assert server.requests[0][1]["host"] == "[2606:4700:4700::1111]"


async def test_tls_names_the_host(server):
    """The certificate is asked for by the URL's name, at the judged address."""
    server.names["photos.test"] = [["127.0.0.1"]]

    with pytest.raises(InputUnreachable, match="whole answer"):
        await server.fetch(
            f"https://photos.test:{server.port}/x",
            allow_hosts=frozenset({"photos.test"}),
        )

    assert b"photos.test" in server.hello
    assert server.requests == []


async def test_nothing_of_ours_goes_along(server, monkeypatch):
    """No proxy, cookie, referrer or compression; the host is the URL's own."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert await server.fetch(f"{server.base}/hop/ok") == BODY

    for _, headers in server.requests:
        assert headers.keys() == {
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "connection",
        }
        assert headers["accept-encoding"] == "identity"
        assert headers["host"] == f"127.0.0.1:{server.port}"


async def test_the_query_is_sent_as_it_was_signed(server):
    """A presigned query arrives byte for byte; the fragment stays here."""
    query = "?X-Amz-Credential=A%2Fb%2fc&x=%7E~+%20'\"(){}|^`<>"

    await server.fetch(f"{server.base}/ok{query.replace(' ', '')}#part")

    assert server.requests[0][0] == f"/ok{query}"


async def test_the_system_resolver_is_judged(server):
    """What the machine itself resolves is judged: localhost passes only when listed."""
    url = f"http://localhost:{server.port}/ok"
    with pytest.raises(InputUnreachable):
        await fetch(url, field="image", max_bytes=1 << 20, allow_hosts=frozenset())

    allow = frozenset({"localhost"})
    assert await fetch(url, field="image", max_bytes=1 << 20, allow_hosts=allow) == BODY
