"""Films as files: exact, repeatable, and nothing left behind."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from common.engine.encode import write_mp4
from common.engine.values import Still, Video


class Counted:
    """Frames of noise."""

    def __init__(self, width, height, count):
        self.width, self.height, self.count = width, height, count

    def __iter__(self):
        rng = np.random.default_rng(1)
        for _ in range(self.count):
            yield rng.integers(0, 255, (self.height, self.width, 3), np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "count", "fps"),
    [(64, 64, 1, 24.0), (34, 50, 5, 16.0), (130, 66, 9, 29.97), (16, 256, 13, 60.0)],
)
def test_exactly_what_was_asked(tmp_path, width, height, count, fps):
    """Width, height, frames and rate are exact, in H.264 with yuv420p."""
    path = tmp_path / "x.mp4"
    frames = Counted(width, height, count)
    rate = Fraction(round(fps * 1000), 1000)

    write_mp4(path, Video(frames, rate), frames, {})

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (width, height)
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert stream.average_rate == rate
        assert sum(1 for _ in container.decode(stream)) == count
        assert "prompt" not in container.metadata


def test_the_same_frames_are_the_same_bytes(tmp_path):
    """No clock and no chance is in a file."""
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path in paths:
        frames = Counted(64, 64, 30)
        write_mp4(path, Video(frames, Fraction(24)), frames, {"prompt": "{}"})

    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_odd_size_is_refused(tmp_path):
    """yuv420p has no odd sizes, and the error says so."""
    frames = Still(np.zeros((5, 4, 3), np.uint8))

    with pytest.raises(ValueError, match="even"):
        write_mp4(tmp_path / "x.mp4", Video(frames, Fraction(24)), frames, {})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_painting_stops(tmp_path):
    """An exception between two frames leaves no half file."""

    def frames():
        yield from Counted(64, 64, 60)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        write_mp4(
            tmp_path / "x.mp4",
            Video(Counted(64, 64, 99), Fraction(24)),
            frames(),
            {},
        )
    assert list(tmp_path.iterdir()) == []


def probe(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        return stream.average_rate, frames, dict(container.metadata)


@pytest.mark.parametrize(
    ("name", "latent", "size", "count"),
    [
        ("fastwan_t2v", {"width": 96, "height": 64, "length": 9}, (64, 96, 3), 9),
        ("fastwan_t2v", {"width": 65, "height": 70, "length": 6}, (64, 64, 3), 5),
        ("fastwan_t2v_tiled", {"width": 64, "height": 96, "length": 1}, (96, 64, 3), 1),
    ],
    ids=["as asked", "rounded down as by the VAE", "tiled"],
)
async def test_films_of_a_workflow(engine, client, workflow, name, latent, size, count):
    """The graph's width, height, length and fps are those of the file."""
    changes = {"55": latent, "57": {"fps": 12.5}}

    await client.run(workflow(name, changes))

    [path] = engine.settings.folder("output").rglob("*.mp4")
    rate, frames, metadata = probe(path)
    assert rate == Fraction(25, 2)
    assert len(frames) == count
    assert frames[0].shape == size
    graph = json.loads(metadata["prompt"])
    assert graph["57"]["inputs"]["fps"] == 12.5


async def test_films_of_a_picture(engine, client, workflow):
    """Image to video begins with the picture, for the 5B and the 14B graph."""
    start = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    start.save(engine.settings.folder("input") / "in.png")

    await client.run(workflow("fastwan_i2v"))
    await client.run(workflow("wan22_i2v_14b"))

    for path in engine.settings.folder("output").rglob("*.mp4"):
        first = probe(path)[1][0][:48].astype(int)
        assert np.abs(first - np.asarray(start)[:48]).mean() < 8


@pytest.mark.parametrize(
    ("node_id", "change"),
    [
        ("3", {"seed": 2}),
        ("3", {"cfg": 2.0}),
        ("3", {"steps": 3}),
        ("3", {"sampler_name": "heun"}),
        ("6", {"text": "a dog"}),
        ("7", {"text": "blurry"}),
        ("48", {"shift": 5.0}),
        ("49", {"strength_model": 0.5}),
    ],
    ids=["seed", "cfg", "steps", "sampler", "prompt", "negative", "shift", "LoRA"],
)
async def test_each_setting_counts(engine, client, workflow, node_id, change):
    """The same request is the same file; any other setting is another file."""
    await client.run(workflow())
    await client.say("/free", unload_models=True)
    graph = workflow()
    await client.run(graph)
    await client.run(workflow(changes={node_id: change}))

    paths = sorted(engine.settings.folder("output").rglob("*.mp4"))
    first, same, other = (probe(path)[1] for path in paths)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert all(np.array_equal(*pair) for pair in zip(first, same, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(first, other, strict=True))
