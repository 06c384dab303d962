from pathlib import Path

import av
import pytest
from PIL import Image

from common.poster import make_poster


def steps(path: Path, size=(1600, 400), codec="libx264", **options):
    """A clip that grows brighter by 50 with each of its five frames."""
    with av.open(path, "w", format="mp4") as container:
        video = container.add_stream(codec, rate=8, options=options)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        for n in range(5):
            grey = Image.new("RGB", size, (n * 50,) * 3)
            container.mux(video.encode(av.VideoFrame.from_image(grey)))
        container.mux(video.encode())
    return path


def near(pixel, value):
    return all(abs(channel - value) < 10 for channel in pixel)


@pytest.mark.parametrize("options", [{}, {"g": "1"}, {"g": "2", "bf": "0"}], ids=str)
def test_a_poster_is_of_the_middle_and_not_huge(tmp_path, options):
    """It shows the middle of the clip, at most 1280 pixels wide, wherever keys lie."""
    make_poster(steps(tmp_path / "video.mp4", **options), tmp_path / "poster.jpg")

    with Image.open(tmp_path / "poster.jpg") as poster:
        assert (poster.format, poster.size) == ("JPEG", (1280, 320))
        assert near(poster.getpixel((640, 160)), 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["poster.jpg", "video.mp4"]


def test_a_small_clip_is_not_blown_up(tmp_path):
    """A poster is no larger than its clip."""
    make_poster(steps(tmp_path / "video.mp4", (64, 32)), tmp_path / "poster.jpg")

    with Image.open(tmp_path / "poster.jpg") as poster:
        assert poster.size == (64, 32)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"no film at all",
        lambda data: data[: len(data) // 2],
    ],
    ids=["empty", "text", "cut"],
)
def test_a_spoiled_video_has_no_poster(tmp_path, spoil):
    """What cannot be decoded is an OSError, and nothing is left."""
    video = steps(tmp_path / "video.mp4")
    video.write_bytes(spoil(video.read_bytes()))

    with pytest.raises(OSError, match=r"video\.mp4"):
        make_poster(video, tmp_path / "poster.jpg")

    assert [p.name for p in tmp_path.iterdir()] == ["video.mp4"]


def test_a_video_that_is_gone_is_an_os_error(tmp_path):
    """So a caller can tell people that the file is gone."""
    with pytest.raises(OSError, match="video"):
        make_poster(tmp_path / "video.mp4", tmp_path / "poster.jpg")
