import contextlib
import dataclasses
import errno
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common import disk
from common.errors import NoSpace
from common.outputs import BadOutput, Expected, publish

CANARY = "canary-8f3a"
ASKED = Expected("video", width=128, height=96, frames=9, fps=24)


def film(
    path, *, size=(128, 96), frames=9, fps=24, audio=False, codec="libx264", **options
):
    """A clip of noise, with the prompt in its metadata as ComfyUI writes it."""
    chance = random.Random(1)
    with av.open(path, "w", options=options) as container:
        container.metadata["comment"] = f'{{"prompt": "{CANARY}"}}'
        container.metadata["title"] = CANARY
        video = container.add_stream(codec, rate=fps)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.metadata["title"] = CANARY
        opus = path.suffix in (".webm", ".mkv")
        sound = None
        if audio:
            sound = container.add_stream("libopus" if opus else "aac", rate=48000)
        for n in range(frames):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane in frame.planes:
                plane.update(chance.randbytes(plane.buffer_size))
            frame.pts = n
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for n in range(20 if sound else 0):
            frame = av.AudioFrame("s16", "stereo", 960)
            frame.rate = 48000
            frame.pts = n * 960
            frame.planes[0].update(chance.randbytes(frame.planes[0].buffer_size))
            container.mux(sound.encode(frame))
        if sound:
            container.mux(sound.encode())
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return film(tmp_path_factory.mktemp("engine") / "ComfyUI_00001_.mp4")


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """A clip whose index comes first, so that a cut one still opens."""
    path = tmp_path_factory.mktemp("engine") / "front.mp4"
    return film(path, movflags="+faststart")


def test_a_clip_is_published(clip, folder):
    """A good file is there under its name, and described to the byte."""
    output = publish(clip, folder, ASKED)

    assert names(folder) == ["video.mp4"]
    data = (folder / "video.mp4").read_bytes()
    assert dataclasses.asdict(output) == {
        "name": "video.mp4",
        "kind": "video",
        "content_type": "video/mp4",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 128,
        "height": 96,
        "frames": 9,
        "fps": 24.0,
        "duration_s": 0.375,
        "audio": False,
        "poster": "poster.jpg",
    }
    assert clip.exists()


@pytest.mark.parametrize(
    ("suffix", "codec", "audio", "fps"),
    [
        (".mp4", "libx264", True, 24),
        (".mp4", "libx264", False, Fraction(24000, 1001)),
        (".mov", "libx264", True, 16),
        (".mkv", "libx264", True, 24),
        (".webm", "libvpx-vp9", True, 30),
    ],
    ids=["mp4", "ntsc", "mov", "mkv", "webm"],
)
def test_packets_are_copied_as_they_are(tmp_path, folder, suffix, codec, audio, fps):
    """Each container becomes an MP4 that plays at once, with its frames and sound."""
    source = film(tmp_path / f"made{suffix}", codec=codec, audio=audio, fps=fps)

    output = publish(source, folder, dataclasses.replace(ASKED, fps=float(fps)))

    published = folder / output.name
    data = published.read_bytes()
    assert CANARY.encode() in source.read_bytes()
    assert CANARY.encode() not in data
    assert data.index(b"moov") < data.index(b"mdat")
    assert output.fps == round(float(fps), 3)
    with av.open(source) as before, av.open(published) as after:
        assert len(after.streams.audio) == len(before.streams.audio) == audio
        assert after.metadata.keys() <= {
            "major_brand", "minor_version", "compatible_brands",
        }  # fmt: skip
        assert pixels(before) == pixels(after)
    if audio:
        with av.open(source) as before, av.open(published) as after:
            # MP4 has no word for the padding at the end of the last Opus packet.
            assert 0 <= samples(after) - samples(before) < 960


def pixels(container):
    return [bytes(frame.planes[0]) for frame in container.decode(video=0)]


def samples(container):
    return sum(frame.samples for frame in container.decode(audio=0))


def test_same_file_same_bytes(clip, tmp_path):
    """Nothing of the day or of our libraries' versions is written into a file."""
    first, second = (publish(clip, tmp_path / n, ASKED) for n in "ab")

    assert first == second
    assert b"Lavf" not in (tmp_path / "a" / "video.mp4").read_bytes()


def test_further_files_have_further_names(clip, folder):
    """The second video of a job stands beside the first, with a poster's own name."""
    publish(clip, folder, ASKED)
    output = publish(clip, folder, ASKED, name="video-2.mp4")

    assert (output.name, output.poster) == ("video-2.mp4", "poster-2.jpg")
    assert names(folder) == ["video-2.mp4", "video.mp4"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": 13}, "frames 9, not 13"),
        ({"frames": 5}, "frames 9, not 5"),
        ({"width": 256}, "width 128, not 256"),
        ({"height": 100}, "height 96, not 100"),
        ({"fps": 16}, "24 fps, not 16"),
    ],
)
def test_not_what_was_asked_for(clip, folder, change, says):
    """A file of another length, size or rate is bad, and nothing of it stays."""
    with pytest.raises(BadOutput, match=says):
        publish(clip, folder, dataclasses.replace(ASKED, **change))

    assert names(folder) == []


def test_nothing_asked_nothing_compared(clip, folder):
    """Without expectations a file only has to be whole."""
    assert publish(clip, folder, Expected()).frames == 9


def cut(part):
    return lambda data: data[: int(len(data) * part)]


def blank(data):
    """Lose the later half of the frames, as a hole in a sparse file does."""
    middle = (data.index(b"mdat") + len(data)) // 2
    return data[:middle] + bytes(20_000) + data[middle + 20_000 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"half",
        cut(0.01),
        cut(0.3),
        cut(0.5),
        cut(0.9),
        cut(0.99),
        blank,
        lambda data: b"v=0\nc=IN IP4 127.0.0.1\nm=video 18777 RTP/AVP 96\n",
        lambda data: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        lambda data: b"ffconcat version 1.0\nfile /etc/passwd\n",
        lambda data: data[:4] + b"ftyp" + bytes(100),
        lambda data: b"\x1a\x45\xdf\xa3" + bytes(100),
    ],
    ids=[
        "zero",
        "text",
        "1%",
        "30%",
        "50%",
        "90%",
        "99%",
        "hole",
        "sdp",
        "hls",
        "concat",
        "box",
        "ebml",
    ],
)
@pytest.mark.parametrize("index", ["first", "last"])
def test_broken_files_are_not_published(request, tmp_path, folder, damage, index):
    """Half a file, none or another one is bad; the text has no path; nothing stays."""
    whole = request.getfixturevalue("front" if index == "first" else "clip")
    source = tmp_path / "half.mp4"
    source.write_bytes(damage(whole.read_bytes()))

    with pytest.raises(BadOutput) as bad:
        publish(source, folder, ASKED)

    assert str(tmp_path) not in str(bad.value)
    assert names(folder) == []


def test_one_missing_byte_is_noticed(front, tmp_path, folder):
    """A clip whose last frame lacks its last byte is bad."""
    source = tmp_path / "half.mp4"
    source.write_bytes(front.read_bytes()[:-1])

    with pytest.raises(BadOutput, match=r"cut off|decoded"):
        publish(source, folder, ASKED)


def test_frames_that_the_index_lists_must_be_there(front, tmp_path, folder):
    """A clip that ends just between two frames is bad, also when nothing is asked."""
    with av.open(front) as container:
        end = max(packet.pos for packet in container.demux(video=0) if packet.size)
    source = tmp_path / "half.mp4"
    source.write_bytes(front.read_bytes()[:end])

    with pytest.raises(BadOutput, match="8 of its 9 frames"):
        publish(source, folder, Expected())


def test_painted_over_damage_is_noticed(front, tmp_path, folder):
    """A frame that the decoder could only repair makes the clip bad."""
    with av.open(front) as container:
        last = max(
            (packet for packet in container.demux(video=0) if packet.size),
            key=lambda packet: packet.pos,
        )
        middle = last.pos + last.size // 2
    data = bytearray(front.read_bytes())
    data[middle : middle + 400] = random.Random(2).randbytes(400)
    source = tmp_path / "scratched.mp4"
    source.write_bytes(data)

    with pytest.raises(BadOutput, match=r"damaged|decoded"):
        publish(source, folder, Expected())


@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_cut_matroska_is_noticed(tmp_path, folder, part):
    """A cut WebM lacks frames, which counting finds."""
    source = film(tmp_path / "half.webm", codec="libvpx-vp9")
    source.write_bytes(cut(part)(source.read_bytes()))

    with pytest.raises(BadOutput):
        publish(source, folder, ASKED)

    assert names(folder) == []


def test_sound_alone_is_no_video(tmp_path, folder):
    """A file without a video stream is bad."""
    source = tmp_path / "sound.mp4"
    with av.open(source, "w") as container:
        sound = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame("fltp", "stereo", 1024)
        frame.rate = 48000
        frame.pts = 0
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(sound.encode(frame))
        container.mux(sound.encode())

    with pytest.raises(BadOutput, match="0 video streams"):
        publish(source, folder, Expected())


def test_a_failed_retry_keeps_what_was_published(clip, folder, tmp_path):
    """A bad second attempt does not take away what the first one published."""
    output = publish(clip, folder, ASKED)
    (tmp_path / "bad.mp4").write_bytes(b"")

    with pytest.raises(BadOutput):
        publish(tmp_path / "bad.mp4", folder, ASKED)

    data = (folder / output.name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == output.sha256
    assert names(folder) == ["video.mp4"]


def test_readers_see_whole_files_only(clip, folder):
    """Whoever looks while files are published finds none or the whole one."""
    seen = set()
    done = threading.Event()

    def look():
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                seen.add(digest(folder / "video.mp4"))

    reader = threading.Thread(target=look)
    reader.start()
    outputs = {publish(clip, folder, ASKED).sha256 for _ in range(30)}
    done.set()
    reader.join()

    assert seen == outputs
    assert len(outputs) == 1


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("after", [0, 1])
def test_a_killed_process_leaves_no_half_file(clip, folder, after):
    """A process that dies at any flush leaves hidden parts, which a start removes."""
    script = f"""
        import itertools, os, sys
        from pathlib import Path
        from common.outputs import Expected, publish
        calls = itertools.count()
        fsync = os.fsync
        os.fsync = lambda fd: os._exit(9) if next(calls) == {after} else fsync(fd)
        publish(Path(sys.argv[1]), Path(sys.argv[2]), Expected())
    """
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", textwrap.dedent(script), str(clip), str(folder)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": root})

    assert killed.returncode == 9
    if after < 1:  # flushing the folder comes last, when the files are in place
        assert all(name.endswith(".part") for name in names(folder))
    disk.remove_parts(folder)
    for name in names(folder):
        with av.open(folder / name) as whole:
            assert sum(1 for _ in whole.decode(video=0)) in (1, 9)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", [1, 2])
def test_a_failing_disk_leaves_nothing(clip, folder, monkeypatch, code, call):
    """Whichever flush fails, a full disk is called that, and nothing stays."""
    calls = []

    def fail(fd):
        calls.append(fd)
        if len(calls) == call:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NoSpace if code == errno.ENOSPC else OSError):
        publish(clip, folder, ASKED)

    assert names(folder) == []


@pytest.mark.root
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a tmpfs"
)
@pytest.mark.parametrize("kib", [8, 40, 68])
@pytest.mark.parametrize("audio", [False, True])
def test_a_full_disk_is_no_space(tmp_path, folder, kib, audio):
    """A disk that fills up while we write is `no_space`, at whatever byte."""
    source = film(tmp_path / "made.mp4", audio=audio)
    assert source.stat().st_size > 70 << 10
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        with pytest.raises(NoSpace):
            publish(source, folder, ASKED)
        assert names(folder) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB")],
)
def test_images_are_published_without_their_graph(tmp_path, folder, kind, mode):
    """An image becomes a PNG of the same pixels, without prompt or workflow."""
    image = Image.effect_noise((80, 48), 90).convert(mode)
    text = PngInfo()
    text.add_text("prompt", CANARY)
    exif = Image.Exif()
    exif[0x010E] = CANARY
    more = {"exif": exif, "icc_profile": CANARY.encode() * 20}
    if kind == "PNG":
        more["pnginfo"] = text
    source = tmp_path / "made"
    image.save(source, kind, **more)

    output = publish(source, folder, Expected("image", width=80, height=48))

    assert names(folder) == ["image.png"]
    data = (folder / "image.png").read_bytes()
    assert CANARY.encode() not in data
    assert b"iCCP" not in data
    assert output.content_type == "image/png"
    assert (output.width, output.height) == (80, 48)
    assert output.frames is output.fps is output.duration_s is output.poster is None
    assert hashlib.sha256(data).hexdigest() == output.sha256
    with Image.open(source) as before, Image.open(io.BytesIO(data)) as after:
        assert after.mode == ("RGBA" if mode == "RGBA" else "RGB")
        assert before.convert(after.mode).tobytes() == after.tobytes()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"GIF89a"),
        lambda path: Image.effect_noise((80, 48), 90).save(path, "GIF"),
        lambda path: Image.new("L", (64, 48)).save(path, "PNG"),
        lambda path: (
            Image.effect_noise((80, 48), 90).save(path, "PNG"),
            os.truncate(path, 2000),
        ),
        lambda path: Image.new("L", (80, 48)).save(
            path, "WEBP", save_all=True, append_images=[Image.new("L", (80, 48), 9)]
        ),
    ],
    ids=["empty", "header", "kind", "size", "cut", "animated"],
)
def test_bad_images_are_not_published(tmp_path, folder, make):
    """A broken image, another kind or another size is bad, and nothing stays."""
    source = tmp_path / "made"
    make(source)

    with pytest.raises(BadOutput):
        publish(source, folder, Expected("image", width=80, height=48))

    assert names(folder) == []


def test_the_folder_is_made(clip, tmp_path):
    """A job's folder comes into being with its first output."""
    publish(clip, tmp_path / "jobs" / "1", ASKED)

    assert names(tmp_path / "jobs" / "1") == ["video.mp4"]
    shutil.rmtree(tmp_path / "jobs")


def test_importing_is_light():
    """A service that waits has not loaded FFmpeg, Pillow or numpy for this."""
    heavy = {"av", "PIL", "numpy"}
    script = f"import sys, common.outputs; print({heavy} & {{*sys.modules}})"
    root = str(Path(__file__).parents[1])
    told = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        check=True,
    )

    assert told.stdout.strip() == b"set()"


def talk(path, seconds, frames=24):
    """A clip of a second with a sound of some length."""
    with av.open(path, "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(frames):
            container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(video.encode())
        frame = av.AudioFrame("fltp", "mono", round(seconds * 16000))
        frame.sample_rate = 16000
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


HEARD = Expected("video", width=64, height=64, frames=24, fps=24, audio=True)


def test_a_talking_clip_is_heard(tmp_path, folder):
    """Its sound is kept, and the output says so."""
    output = publish(talk(tmp_path / "talk.mp4", 1.0), folder, HEARD)

    assert output.audio
    with av.open(folder / "video.mp4") as film_:
        heard = sum(frame.samples for frame in film_.decode(audio=0))
    assert heard / 16000 == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("seconds", [0.5, 2.0], ids=["short", "long"])
def test_a_sound_of_another_length_is_refused(tmp_path, folder, seconds):
    """Somebody would be cut off, or lips move in silence."""
    with pytest.raises(BadOutput, match="sound lasts"):
        publish(talk(tmp_path / "talk.mp4", seconds), folder, HEARD)
    assert names(folder) == []


def test_a_talking_clip_without_sound_is_refused(clip, folder):
    """The picture alone is not what was asked for."""
    with pytest.raises(BadOutput, match="no sound"):
        publish(clip, folder, dataclasses.replace(ASKED, audio=True))
