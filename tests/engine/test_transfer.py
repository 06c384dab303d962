"""Files in and out over HTTP."""

import aiohttp
import pytest
from PIL import Image


@pytest.fixture
def saved(engine):
    """Put a file into the output folder."""
    path = engine.settings.folder("output") / "video" / "x.mp4"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * 4)
    return {"filename": "x.mp4", "subfolder": "video", "type": "output"}


async def view(client, params, **headers):
    async with client.http.get("/view", params=params, headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_a_whole_file(client, saved):
    """/view sends the bytes, their type, and what a cache and a seeker need."""
    status, headers, body = await view(client, saved)

    assert status == 200
    assert body == bytes(range(256)) * 4
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Disposition"] == 'filename="x.mp4"'
    async with client.http.head("/view", params=saved) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "1024")


@pytest.mark.parametrize(
    ("asked", "status", "size"),
    [
        ("bytes=0-99", 206, 100),
        ("bytes=1000-", 206, 24),
        ("bytes=-50", 206, 50),
        ("bytes=5000-", 416, 0),
    ],
    ids=["first", "from", "last", "beyond"],
)
async def test_ranges(client, saved, asked, status, size):
    """/view sends parts of a file."""
    answered, _, body = await view(client, saved, Range=asked)

    assert (answered, len(body)) == (status, size)


async def test_an_unchanged_file_is_not_sent_again(client, saved):
    """The ETag of a file spares its body."""
    _, headers, _ = await view(client, saved)

    status, _, body = await view(client, saved, **{"If-None-Match": headers["Etag"]})

    assert (status, body) == (304, b"")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 404),
        ({"filename": "absent.mp4"}, 404),
        ({"filename": "../../etc/passwd"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "x.mp4", "type": "models"}, 400),
        ({"filename": "x.mp4", "subfolder": "../.."}, 403),
        ({"filename": "x.mp4", "subfolder": "/etc"}, 403),
        ({"filename": "video"}, 404),
        ({"filename": "a\0b"}, 403),
    ],
    ids=[
        "none",
        "absent",
        "up",
        "root",
        "kind",
        "folder up",
        "folder root",
        "folder",
        "NUL",
    ],
)
async def test_what_is_not_shown(client, saved, params, status):
    """/view shows nothing outside its folders."""
    answered, _, _ = await view(client, params)

    assert answered == status


async def test_active_content_is_plain_bytes(client, engine):
    """A page among the outputs is downloaded, not run."""
    (engine.settings.folder("output") / "x.html").write_text("<script>")

    _, headers, _ = await view(client, {"filename": "x.html"})

    assert headers["Content-Type"] == "application/octet-stream"


async def upload(client, data, name="in.png", **fields):
    form = aiohttp.FormData()
    form.add_field("image", data, filename=name, content_type="image/png")
    for key, value in fields.items():
        form.add_field(key, value)
    async with client.http.post("/upload/image", data=form) as answer:
        return answer.status, await answer.json() if answer.status == 200 else None


async def test_names_of_uploads(client, engine):
    """Same bytes keep their name, others get a number, unless told to overwrite."""
    names = [
        (await upload(client, data, **fields))[1]["name"]
        for data, fields in [
            (b"one", {}),
            (b"one", {}),
            (b"two", {}),
            (b"two", {}),
            (b"three", {"overwrite": "true"}),
        ]
    ]

    folder = engine.settings.folder("input")
    assert names == ["in.png", "in.png", "in (1).png", "in (1).png", "in.png"]
    assert (folder / "in.png").read_bytes() == b"three"
    assert (folder / "in (1).png").read_bytes() == b"two"


async def test_uploads_into_a_subfolder(client, engine, workflow):
    """A subfolder is made, and LoadImage finds the file in it."""
    path = engine.settings.data / "x.png"
    Image.new("RGB", (64, 64), "navy").save(path)

    status, said = await upload(client, path.read_bytes(), subfolder="jobs/1")
    graph = workflow("fastwan_i2v", {"56": {"image": "jobs/1/in.png"}})
    frames = await client.run(graph)

    assert (status, said) == (
        200,
        {"name": "in.png", "subfolder": "jobs/1", "type": "input"},
    )
    assert "execution_success" in [frame.get("type") for frame in frames]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("x.png", {"subfolder": "../.."}),
        ("x.png", {"subfolder": "/tmp"}),
        ("x.png", {"type": "models"}),
    ],
    ids=["up", "root", "kind"],
)
async def test_uploads_stay_inside(client, name, fields):
    """An upload cannot leave its folder."""
    status, _ = await upload(client, b"x", name, **fields)

    assert status == 400


async def test_an_upload_without_a_file(client):
    """An upload needs a file."""
    async with client.http.post("/upload/image", data={"type": "input"}) as answer:
        assert answer.status == 400
