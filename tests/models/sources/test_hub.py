import hashlib
import time

import pytest
import requests

from common.models.errors import AuthNeeded
from common.models.sources import NotThere, SourceTrouble
from common.models.sources.address import SourceBusy
from common.models.sources.hub import HubSource
from common.source_urls import parse
from tests.fake_hub import COMMIT, TOKEN, fake_hub

REPO = "ORG/REPO"
DATA = bytes(range(256)) * 20


@pytest.fixture
def hub():
    with fake_hub() as running:
        running.put(REPO, "deep/x.safetensors", DATA)
        running.put(REPO, "config.json", b"{}")
        yield running


def source(hub, path="deep/x.safetensors", revision=COMMIT, token=None, repo=REPO):
    label = f"hf://{repo}@{revision}/{path}"
    return HubSource(label, parse(label), hub.url, token, 5.0)


def test_a_large_file_is_at_the_cdn(hub):
    """The Hub says its size and sha256, and where it is for now."""
    address = source(hub).resolve()

    assert address.url.startswith(hub.cdn_url)
    assert address.size == len(DATA)
    assert address.sha256 == hashlib.sha256(DATA).hexdigest()
    assert 3500 < address.expires_at - time.time() <= 3600
    assert requests.get(address.url, timeout=5).content == DATA
    assert hub.asked_by("hub", "GET") == []


def test_a_token_goes_to_the_hub_alone(hub):
    """The CDN is another host; what goes there is signed already."""
    hub.private.add(REPO)

    address = source(hub, token=TOKEN).resolve()
    requests.get(address.url, headers=address.headers, timeout=5).raise_for_status()
    authorizations = {who: authorization for who, *_, authorization in hub.asked}
    assert authorizations == {"hub": f"Bearer {TOKEN}", "cdn": None}
    assert TOKEN not in repr(address)
    assert TOKEN not in repr(source(hub, token=TOKEN))


def test_a_small_file_is_at_the_hub(hub):
    """The Hub wants the token for the bytes, too."""
    hub.private.add(REPO)

    address = source(hub, "config.json", token=TOKEN).resolve()
    got = requests.get(address.url, headers=address.headers, timeout=5)
    assert got.content == b"{}"
    assert (address.size, address.sha256, address.expires_at) == (2, None, None)


def test_each_answer_is_signed_anew(hub):
    """What has expired is asked for again."""
    hub.life_s = -1
    late = source(hub).resolve()
    hub.life_s = 60
    fresh = source(hub).resolve()

    assert requests.get(late.url, timeout=5).status_code == 403
    assert requests.get(fresh.url, timeout=5).status_code == 200


def test_a_branch_is_asked_for_as_it_is(hub):
    """A file that is not verified may come from a branch."""
    assert source(hub, revision="main").resolve().size == len(DATA)


@pytest.mark.parametrize("token", [None, TOKEN], ids=["no token", "a token"])
def test_a_gated_repository_names_its_page(hub, token):
    """Somebody has to accept the terms there."""
    hub.gated.add(REPO)

    with pytest.raises(AuthNeeded, match="terms") as caught:
        source(hub, token=token).resolve()
    assert f"{hub.url}/{REPO}" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint


@pytest.mark.parametrize(
    ("token", "says"),
    [(None, "a token is needed"), ("hf_wrong", "the token is refused")],
    ids=["none", "wrong"],
)
def test_a_private_repository_needs_a_token(hub, token, says):
    """The message says which of the two it is, and never the token."""
    hub.private.add(REPO)

    with pytest.raises(AuthNeeded, match=says) as caught:
        source(hub, token=token).resolve()
    assert "hf_wrong" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"path": "nope.safetensors"}, "no such file"),
        ({"revision": "f" * 40}, "no such revision"),
        ({"repo": "ORG/.."}, "no name"),
    ],
    ids=["file", "revision", "name"],
)
def test_what_the_hub_does_not_have_is_not_there(hub, asked, says):
    """The next source is asked."""
    with pytest.raises(NotThere, match=says):
        source(hub, **asked).resolve()


@pytest.mark.parametrize("token", [None, TOKEN])
def test_no_such_repository_may_be_a_private_one(hub, token):
    """The Hub does not tell them apart."""
    with pytest.raises(AuthNeeded):
        source(hub, repo="ORG/NOPE", token=token).resolve()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_in_trouble_is_no_answer(hub, status):
    """It may have the file all the same."""
    hub.status = status

    with pytest.raises(SourceTrouble, match=str(status)):
        source(hub).resolve()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "7"}, 7), ({"RateLimit": '"api";r=0;t=9'}, 9), ({}, None)],
    ids=["Retry-After", "RateLimit", "says nothing"],
)
def test_a_busy_hub_says_when_to_ask_again(hub, headers, seconds):
    """Its limit is per address: a worker's very first question may meet it."""
    hub.status, hub.busy = 429, headers

    with pytest.raises(SourceBusy) as caught:
        source(hub).resolve()

    assert caught.value.seconds == seconds


def test_a_hub_that_is_not_there_is_no_answer(hub):
    """No network is no proof that a file is missing."""
    hub.url = "http://127.0.0.1:9"

    with pytest.raises(SourceTrouble, match="Connect"):
        source(hub).resolve()


def test_the_environment_s_token_is_not_taken(hub, monkeypatch):
    """The settings say which token there is, and nobody else."""
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    source(hub).resolve()
    assert [authorization for *_, authorization in hub.asked] == [None]
