"""
A Hugging Face Hub on loopback, and the CDN that it sends its readers to.

It answers HEAD and GET of /ORG/NAME/resolve/REVISION/PATH with the headers that
huggingface_hub reads. Large files are redirected to a signed URL of the CDN, which is
another host ("localhost") at another port, and refuses without the signature.
"""

import contextlib
import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_of_the_test"
SMALL = 1000  #: bytes; what is smaller is in git, and the Hub answers it itself


@dataclass
class FakeHub:
    """What it has and how it behaves; change it while it runs."""

    files: dict = field(default_factory=dict)  #: {(repo, path): bytes}
    gated: set = field(default_factory=set)  #: repositories whose terms nobody accepted
    private: set = field(default_factory=set)  #: repositories that want TOKEN
    branches: dict = field(default_factory=lambda: {"main": COMMIT})
    status: int | None = None  #: every question is answered with it
    busy: dict = field(default_factory=dict)  #: and with these headers
    life_s: float = 3600.0  #: how long a signed URL works
    expired: bool = False  #: the CDN refuses each signed URL made until now
    asked: list = field(default_factory=list)  #: (who, method, path, Authorization)
    url: str = ""
    cdn_url: str = ""

    def put(self, repo, path, data):
        """Publish a file."""
        self.files[repo, path] = data

    def asked_by(self, who, method=None):
        """Return the paths that "hub" or "cdn" was asked for."""
        return [
            path
            for asked, how, path, _ in self.asked
            if asked == who and method in (None, how)
        ]

    def answer(self, path, token):
        """Return (status, headers, body) of the Hub."""
        if self.status is not None:
            return self.status, self.busy, b""
        org, name, _, revision, *rest = unquote(path).strip("/").split("/")
        repo, file = f"{org}/{name}", "/".join(rest)
        if repo not in {repo for repo, _ in self.files}:
            return 401, error("RepoNotFound"), b""
        if token is not None and token != TOKEN:
            words = "Invalid credentials in Authorization header"
            return 401, {"X-Error-Message": words}, b""
        if repo in self.gated:
            return 403 if token else 401, error("GatedRepo"), b""
        if repo in self.private and token is None:
            return 401, error("RepoNotFound"), b""
        commit = self.branches.get(revision, revision)
        if commit not in self.branches.values():
            return 404, error("RevisionNotFound"), b""
        if (repo, file) not in self.files:
            return 404, error("EntryNotFound"), b""
        return self._found(commit, self.files[repo, file])

    def _found(self, commit, data):
        heads = {"X-Repo-Commit": commit}
        sha256 = hashlib.sha256(data).hexdigest()
        if len(data) < SMALL:
            return 200, heads | {"ETag": f'"{sha256[:40]}"'}, data
        until = int(time.time() + self.life_s)
        return (
            302,
            heads
            | {
                "X-Linked-Size": str(len(data)),
                "X-Linked-ETag": f'"{sha256}"',
                "Location": f"{self.cdn_url}/{sha256}?Expires={until}"
                f"&Signature=s{until}",
            },
            b"",
        )

    def deliver(self, url):
        """Return (status, headers, body) of the CDN."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        until = query.get("Expires", ["0"])[0]
        signed = query.get("Signature") == [f"s{until}"]
        if not signed or self.expired or float(until) < time.time():
            return 403, {}, b"<Error>expired</Error>"
        for data in self.files.values():
            if hashlib.sha256(data).hexdigest() == parts.path.strip("/"):
                return 200, {"Accept-Ranges": "bytes"}, data
        return 404, {}, b""


def error(code):
    return {"X-Error-Code": code, "X-Error-Message": f"no: {code}"}


@contextlib.contextmanager
def fake_hub():
    """Run the Hub and its CDN until the block ends."""
    hub = FakeHub()

    def ask(method, path, headers):
        authorization = headers.get("Authorization")
        hub.asked.append(("hub", method, path, authorization))
        token = authorization and authorization.removeprefix("Bearer ")
        return hub.answer(urlsplit(path).path, token)

    def deliver(method, path, headers):
        authorization = headers.get("Authorization")
        hub.asked.append(("cdn", method, path, authorization))
        # A real CDN refuses a request that is signed and authorized at once.
        return (400, {}, b"") if authorization else hub.deliver(path)

    with serving(ask) as port, serving(deliver) as cdn_port:
        hub.url = f"http://127.0.0.1:{port}"
        hub.cdn_url = f"http://localhost:{cdn_port}"
        yield hub


@contextlib.contextmanager
def serving(answer):
    """Answer with `answer(method, path, headers) -> (status, headers, body)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, heads, body = answer(self.command, self.path, self.headers)
            if status == 200 and (wanted := self.headers.get("Range")):
                start, _, end = wanted.removeprefix("bytes=").partition("-")
                last = min(int(end or len(body) - 1), len(body) - 1)
                span = f"bytes {start}-{last}/{len(body)}"
                status, heads = 206, heads | {"Content-Range": span}
                body = body[int(start) : last + 1]
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | heads).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
