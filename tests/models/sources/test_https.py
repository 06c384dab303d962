import pytest

from common.models.errors import AuthNeeded
from common.models.sources import NotThere, SourceTrouble
from common.models.sources.address import SourceBusy
from common.models.sources.https import HttpSource
from common.source_urls import parse
from tests.fake_hub import serving

KEY = {"127.0.0.1": {"Authorization": "Bearer topsecret", "X-Key": "topsecret"}}


def source(port, path="x.safetensors", headers=KEY):
    label = f"http://127.0.0.1:{port}/{path}"
    return HttpSource(label, parse(label), headers, 5.0)


def test_the_size_is_asked_for():
    """With the headers of the host, which go with the address."""
    asked = []

    def answer(method, path, headers):
        asked.append((method, path, headers.get("Authorization")))
        return 200, {"Content-Length": "10"}, b""

    with serving(answer) as port:
        address = source(port, "x.safetensors?download=true").resolve()

    path = "/x.safetensors?download=true"
    assert asked == [("HEAD", path, "Bearer topsecret")]
    assert (address.url, address.size) == (f"http://127.0.0.1:{port}{path}", 10)
    assert address.headers == KEY["127.0.0.1"]
    assert "topsecret" not in repr(address) + repr(source(port))


def test_headers_are_those_of_the_host():
    """Another host's are not sent."""
    with serving(lambda *_: (200, {}, b"")) as port:
        address = source(port, headers={"example.com": {"X-Key": "k"}}).resolve()

    assert address.headers == {}


def test_headers_go_over_nothing_that_others_read(monkeypatch, caplog):
    """A token for a host that is asked over http:// stays here; that is said once."""
    asked = []

    def answer(method, path, headers):
        asked.append(set(headers) & {"Authorization", "X-Key"})
        return 401 if len(asked) > 2 else 200, {"Content-Length": "10"}, b""

    keys = {"models.example.com": KEY["127.0.0.1"]}
    label = "http://models.example.com/x.safetensors"
    plain = HttpSource(label, parse(label), keys, 5.0)
    with serving(answer) as port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
        addresses = [plain.resolve(), plain.resolve()]
        with pytest.raises(AuthNeeded) as caught:
            plain.resolve()

    assert asked == [set()] * 3
    assert [one.headers for one in addresses] == [{}, {}]
    assert "https://" in caught.value.hint
    [said] = [one.getMessage() for one in caplog.records if "http://" in one.msg]
    assert "models.example.com" in said
    assert "topsecret" not in said


@pytest.mark.parametrize(
    "host", ["https://h.example", "http://localhost", "http://[::1]"]
)
def test_headers_go_over_https_and_to_this_machine(host):
    """Where nobody on the way can read them."""
    url = parse(f"{host}/x.safetensors")
    name = host.partition("://")[2].strip("[]")
    assert HttpSource("", url, {name: {"X-Key": "k"}}, 5.0)._headers() == {"X-Key": "k"}


def test_headers_do_not_follow_a_redirect():
    """They are for the URL's own host, whatever they are called."""
    asked = []

    def elsewhere(method, path, headers):
        asked.append(set(headers) & {"Authorization", "X-Key"})
        return 200, {"Content-Length": "10"}, b""

    with serving(elsewhere) as other:
        to = {"Location": f"http://localhost:{other}/y"}
        with serving(lambda *_: (302, to, b"")) as port:
            address = source(port).resolve()

    assert asked == [set()]
    assert (address.url, address.size) == (f"http://127.0.0.1:{port}/x.safetensors", 10)


def test_the_size_is_asked_for_by_way_of_the_proxy(monkeypatch):
    """Where only a proxy reaches the net, HEAD goes its way as GET does."""
    asked = []

    def proxy(method, path, headers):
        asked.append((method, path, headers.get("Proxy-Authorization")))
        return 200, {"Content-Length": "10"}, b""

    url = "http://weights.invalid/x.safetensors"
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(proxy) as port:
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
        address = HttpSource(url, parse(url), {}, 5.0).resolve()

    assert asked == [("HEAD", url, "Basic bWU6c2VjcmV0")]
    assert address.size == 10


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_may_refuse_to_be_asked(status):
    """Some answer GET alone; the size is not known then."""
    with serving(lambda *_: (status, {}, b"")) as port:
        assert source(port).resolve().size is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_ask_again(status):
    """Whoever asks waits, and not the library, which would give up."""
    with (
        serving(lambda *_: (status, {"Retry-After": "7"}, b"")) as port,
        pytest.raises(SourceBusy, match=f"status {status}") as caught,
    ):
        source(port).resolve()

    assert (caught.value.status, caught.value.seconds) == (status, 7)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthNeeded),
        (404, NotThere),
        (410, NotThere),
        (429, SourceTrouble),
        (503, SourceTrouble),
    ],
)
def test_a_refusal_says_whose_fault_it_is(status, error):
    """Ours, the manifest's or the server's."""
    with (
        serving(lambda *_: (status, {}, b"")) as port,
        pytest.raises(error, match=r"x\.safetensors"),
    ):
        source(port).resolve()


def test_a_server_that_is_not_there_is_no_answer():
    """No network is no proof that a file is missing."""
    with pytest.raises(SourceTrouble):
        source(9).resolve()
