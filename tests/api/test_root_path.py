"""A service under a path of a proxy's: its links lead back through the proxy."""

import pytest

from common.client import Client
from tests.live import SMALL, both
from tests.threaded import served

ROOT = "/fastwan"


@pytest.fixture
async def live(tmp_path):
    """FastWan that is told its path, asked as a proxy asks that strips it."""
    async with both(tmp_path, root_path=ROOT) as running:
        yield running


async def test_every_link_of_a_job_begins_with_the_path(live):
    """In the answer, in its Location header and in the event stream."""
    async with live.http.post(f"{live.url}/generate", json=SMALL) as answer:
        job, location = await answer.json(), answer.headers["Location"]
    found = [data async for event, _, data in live.events(job["id"])]
    done = found[-1]
    _, old = await live.get(f"/status/{job['id']}")

    assert location == f"{ROOT}/jobs/{job['id']}" == job["urls"]["self"]
    links = [*done["urls"].values(), old["download_url"]]
    links += [one[k] for one in done["outputs"] for k in ("url", "poster_url")]
    assert len(links) == 6
    assert all(link.startswith(f"{ROOT}/") for link in links), links


@pytest.mark.parametrize("prefix", ["", ROOT], ids=["stripped", "kept"])
async def test_links_work_with_the_path_and_without(live, prefix):
    """So a link can be followed through the proxy and at the service itself."""
    _, card = await live.get(f"{prefix}/")
    for name, link in card["urls"].items():
        assert link.startswith(f"{ROOT}/"), name
        path = prefix + link.removeprefix(ROOT)
        async with live.http.get(live.url + path) as answer:
            assert answer.status == (405 if name == "generate" else 200), path


async def test_the_documentation_finds_its_document(live):
    """The page asks for it under the path, and it says where calls go."""
    async with live.http.get(f"{live.url}/docs") as answer:
        page = await answer.text()
    _, document = await live.get("/openapi.json")

    assert f"'{ROOT}/openapi.json'" in page
    assert f'src="{ROOT}/docs/swagger-ui-bundle.js"' in page
    assert document["servers"] == [{"url": ROOT}]


async def test_a_redirect_stays_under_the_path(live):
    """A slash too many leads to the address without it."""
    async with live.http.get(f"{live.url}/jobs/", allow_redirects=False) as answer:
        assert answer.status == 307
        assert answer.headers["Location"] == f"{live.url}{ROOT}/jobs"


@pytest.mark.parametrize("prefix", ["", ROOT], ids=["stripped", "kept"])
async def test_what_needs_no_key_needs_none_under_the_path(tmp_path, prefix):
    """Probes come through the proxy and past it."""
    async with both(tmp_path, root_path=ROOT, api_keys="k1") as live:
        for path, status in (("/health", 200), ("/jobs", 401)):
            async with live.http.get(live.url + prefix + path) as answer:
                assert answer.status == status, path


@pytest.mark.parametrize("root", [ROOT, ""], ids=["told", "not told"])
def test_the_client_follows_links_under_a_path(tmp_path, root):
    """Whether the service knows its path or not."""
    with (
        served(tmp_path, root_path=ROOT) as service,
        Client(service.url + root) as client,
    ):
        job = client.submit(SMALL)
        *_, job = client.watch(job["id"])
        saved = client.download(job, tmp_path / "fox.mp4")

        assert saved.stat().st_size == job["outputs"][0]["size_bytes"]
        assert client.address_of("/jobs/1") == f"{service.url}{root}/jobs/1"
