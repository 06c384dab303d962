"""Whether the service in this container is ready: an image's health check."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping

from common.container.settings import environment

LIMIT_S = 8.0


def ready(environ: Mapping[str, str]) -> bool:
    """Ask `/ready`, under a name that the service answers to."""
    port = int(environ.get("WAN_PORT") or 8189)
    names = environ.get("WAN_ALLOWED_HOSTS", "").split(",")
    host = names[0].strip() or "127.0.0.1"
    path = environ.get("WAN_ROOT_PATH", "") + "/ready"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not ready(environment()))
