"""When a signed URL stops working, read from the URL itself."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit


def expires_at(url: str) -> float | None:
    """
    Return when a URL expires, in seconds since 1970; None where it does not say.

    Knows the queries of AWS and Google (a date and a life), CloudFront (a moment in
    seconds) and Azure (a moment in ISO 8601).

    >>> expires_at("https://cdn/x?Expires=1800000000&Signature=s")
    1800000000.0
    """
    query = {
        key.lower(): values[-1] for key, values in parse_qs(urlsplit(url).query).items()
    }
    try:
        for by in ("x-amz", "x-goog"):
            if f"{by}-expires" in query:
                made = datetime.strptime(query[f"{by}-date"], "%Y%m%dT%H%M%SZ")
                life_s = float(query[f"{by}-expires"])
                return made.replace(tzinfo=UTC).timestamp() + life_s
        if "expires" in query:
            return float(query["expires"])
        if "se" in query and "sig" in query:
            moment = datetime.fromisoformat(query["se"])
            return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (KeyError, ValueError):
        pass
    return None
