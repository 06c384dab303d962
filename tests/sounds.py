"""Sound files made by PyAV: a voice-like tone that swells and fades."""

import io
from fractions import Fraction

import av
import numpy as np

STRICT = {"strict": "experimental"}

#: What callers send: FFmpeg's container and codec.
FORMS = {
    "wav": ("wav", "pcm_s16le"),
    "mp3": ("mp3", "libmp3lame"),
    "m4a": ("ipod", "aac"),
    "opus": ("ogg", "libopus"),
    "ogg": ("ogg", "vorbis"),
}


def samples(seconds=1.0, rate=48000, channels=1, pitch=220.0):
    """Return floats, one row for each channel."""
    t = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * pitch * t) * (0.5 - 0.5 * np.cos(2 * np.pi * t / 0.5))
    return np.tile((wave * 0.8).astype(np.float32), (channels, 1))


def sound(form="wav", seconds=1.0, *, rate=48000, channels=1, tags=None, **options):
    """Return a sound file of one of the forms."""
    container, codec = FORMS[form]
    if codec == "vorbis":  # FFmpeg's own encoder: experimental, and stereo alone
        channels = 2
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(file, "w", format=container, options=options) as out:
        out.metadata.update(tags or {})
        stream = out.add_stream(codec, rate=rate, layout=layout, options=STRICT)
        kind = stream.codec_context.format.name
        resampler = av.AudioResampler(kind, layout, rate)
        whole = samples(seconds, rate, channels)
        for start in range(0, whole.shape[1], 4800):
            part = np.ascontiguousarray(whole[:, start : start + 4800])
            frame = av.AudioFrame.from_ndarray(part, "fltp", layout)
            frame.sample_rate = rate
            frame.pts, frame.time_base = start, Fraction(1, rate)
            for piece in resampler.resample(frame):
                out.mux(stream.encode(piece))
        for piece in resampler.resample(None):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


def film(seconds=1.0):
    """Return an MP4 with a picture and a sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        video = out.add_stream("libx264", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = out.add_stream("aac", rate=48000, layout="mono")
        for _ in range(round(seconds * 10)):
            out.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(samples(seconds), "fltp", "mono")
        frame.sample_rate = 48000
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return file.getvalue()
