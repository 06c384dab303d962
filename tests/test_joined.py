"""Parts of a film become one, each frame where it belongs, with sound under all."""

import wave
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from common.engine.encode import write_mp4
from common.engine.values import Video
from common.job import Expected
from common.joined import join
from common.outputs import BadOutput, publish

FPS = 25
RATE = 16_000


def part(path, shades, *, side=64, fps=FPS):
    """Write a film of grey frames, as bright as the numbers say."""
    frames = [np.full((side, side, 3), shade, np.uint8) for shade in shades]
    held = SimpleNamespace(width=side, height=side, count=len(frames))
    write_mp4(path, Video(held, Fraction(fps), None), frames, {})
    return path


def recording(path, samples):
    """Write a recording as ours are written."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.astype(np.int16).tobytes())
    return path


def decoded(path):
    """Return the frames' brightness, their times, and the sound."""
    with av.open(str(path)) as film:
        pictures = list(film.decode(video=0))
    with av.open(str(path)) as film:
        sound = [frame.to_ndarray()[0] for frame in film.decode(audio=0)]
    shades = [int(picture.to_ndarray(format="rgb24").mean()) for picture in pictures]
    return shades, [picture.time for picture in pictures], np.concatenate(sound)


@pytest.fixture
def parts(tmp_path):
    """Three parts: 40 frames that grow brighter, 30 and 7."""
    shades = list(range(20, 97))
    cuts = [(0, 40), (40, 70), (70, 77)]
    return [part(tmp_path / f"{a}.mp4", shades[a:b]) for a, b in cuts]


def test_each_frame_keeps_its_place(tmp_path, parts):
    """In order, evenly spaced, none lost and none twice; a checked film comes of it."""
    silence = recording(tmp_path / "a.wav", np.zeros(RATE * 4))
    join(parts, [silence], tmp_path / "film.mp4")

    shades, times, _ = decoded(tmp_path / "film.mp4")
    assert shades == pytest.approx(list(range(20, 97)), abs=3)
    assert times == pytest.approx([n / FPS for n in range(77)], abs=1e-3)
    expected = Expected("video", 64, 64, 77, FPS, audio=True)
    assert publish(tmp_path / "film.mp4", tmp_path / "out", expected).frames == 77


def test_recordings_follow_one_another_without_a_gap(tmp_path, parts):
    """The second begins where the first ends, and is cut where the pictures end."""
    high = np.sin(np.arange(RATE) * 2 * np.pi * 880 / RATE) * 20_000
    low = np.sin(np.arange(RATE * 9) * 2 * np.pi * 220 / RATE) * 20_000
    sounds = [
        recording(tmp_path / "a.wav", high), recording(tmp_path / "b.wav", low)
    ]  # fmt: skip
    join(parts, sounds, tmp_path / "film.mp4")

    _, _, heard = decoded(tmp_path / "film.mp4")
    crossings = [
        int((np.diff(np.signbit(heard[int(a * RATE) : int(b * RATE)])) != 0).sum())
        for a, b in ((0.1, 0.9), (1.1, 2.9))
    ]
    assert crossings == pytest.approx([880 * 2 * 0.8, 220 * 2 * 1.8], rel=0.02)
    assert len(heard) / RATE == pytest.approx(77 / FPS, abs=0.2)
    assert np.abs(heard[int(0.99 * RATE) : int(1.01 * RATE)]).max() > 0.3


def test_pictures_and_sound_come_by_turns(tmp_path, parts):
    """A player that reads from the start finds both."""
    sound = recording(tmp_path / "a.wav", np.ones(RATE * 4) * 9_000)
    join(parts, [sound], tmp_path / "film.mp4")

    with av.open(str(tmp_path / "film.mp4")) as film:
        at = {"video": [], "audio": []}
        for packet in film.demux():
            if packet.size:
                at[packet.stream.type].append(packet.pos)
    assert min(at["audio"]) < max(at["video"])
    assert min(at["video"]) < max(at["audio"])


@pytest.mark.parametrize(
    "wrong",
    [{"side": 96}, {"fps": 24}],
    ids=["size", "rate"],
)
def test_a_part_unlike_the_first_is_refused(tmp_path, parts, wrong):
    """It would be shown wrongly, or not at all."""
    other = part(tmp_path / "other.mp4", [1, 2, 3], **wrong)

    with pytest.raises(BadOutput, match="unlike"):
        join([*parts, other], [], tmp_path / "film.mp4")


@pytest.mark.parametrize("rest", [0, 100], ids=["empty", "cut off"])
def test_a_broken_part_is_refused(tmp_path, parts, rest):
    """Whichever it is."""
    parts[1].write_bytes(parts[1].read_bytes()[:rest])

    with pytest.raises(BadOutput, match="cannot be read"):
        join(parts, [], tmp_path / "film.mp4")
