"""An image's health check."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from common.container.health import ready


@pytest.fixture
def service():
    """Serve /ready as told; `.asked` has what was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, self.headers["Host"]))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.status = [], 200
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
def test_ready(service, status, well):
    """Ready is well, and nothing else is."""
    service.status = status

    assert ready({"WAN_PORT": str(service.server_port)}) is well
    assert service.asked == [("/ready", "127.0.0.1")]


def test_name_and_prefix(service):
    """It asks under a name and a prefix that the service answers to."""
    port = str(service.server_port)
    names = {"WAN_ALLOWED_HOSTS": "api.example.org, b", "WAN_ROOT_PATH": "/fastwan"}

    assert ready({"WAN_PORT": port, **names})
    assert service.asked == [("/fastwan/ready", "api.example.org")]


def test_nobody_there(service):
    """A service that does not answer is not well."""
    service.server_close()

    assert not ready({"WAN_PORT": str(service.server_port)})
