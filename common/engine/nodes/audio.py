"""Sound: load, cut, join, listen; and the node that lets a picture speak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import av
import numpy as np

from common.engine import files
from common.engine.nodes.images import stamp_file
from common.engine.nodes.latents import CELL_21, empty
from common.engine.nodes.loaders import load_file
from common.engine.run import Node, Run
from common.engine.settings import EngineSettings
from common.engine.values import (
    Conditioning,
    Frames,
    Guides,
    Mask,
    Model,
    Sound,
    Speaking,
    Vae,
    Voice,
)

#: Frames per second that a voice is cut into. Source: `WanInfiniteTalkToVideo`.
PACE = 25

#: Root mean square of a sample, of 1, at which a mouth is wide open.
LOUD = 0.25

#: Where a mouth is in a portrait: shares of width and height.
MOUTH = (0.5, 0.62)


def load_audio(run: Run, audio: str) -> tuple[Any, ...]:
    """Load a sound of the input folder, mixed into one channel."""
    parts = []
    rate = 0
    with av.open(str(files.named_file(run.settings, audio)), "r") as opened:
        resampler = av.AudioResampler("flt", "mono")
        for frame in opened.decode(audio=0):
            rate = frame.sample_rate
            parts += [one.to_ndarray()[0] for one in resampler.resample(frame)]
    return (Sound(np.concatenate(parts), rate),)


def trim(
    run: Run, audio: Sound, start_index: float, duration: float
) -> tuple[Any, ...]:
    """Cut a part out of a sound."""
    count = len(audio.samples)
    start = round(start_index * audio.rate) + (count if start_index < 0 else 0)
    start = max(0, min(start, count))
    end = max(0, min(start + round(duration * audio.rate), count))
    if start >= end:
        raise ValueError(
            "AudioTrim: Start time must be less than end time and be within the audio"
            " length."
        )
    return (Sound(audio.samples[start:end], audio.rate),)


def concat(run: Run, audio1: Sound, audio2: Sound, direction: str) -> tuple[Any, ...]:
    """Put one sound behind another; both are of one rate here."""
    parts = [audio1.samples, audio2.samples]
    if direction == "before":
        parts.reverse()
    return (Sound(np.concatenate(parts), audio1.rate),)


def load_encoder(run: Run, audio_encoder_name: str) -> tuple[Any, ...]:
    """Load an audio encoder."""
    load_file(run, "audio_encoders", audio_encoder_name)
    return (audio_encoder_name,)


def load_patch(run: Run, name: str) -> tuple[Any, ...]:
    """Load what is put on a model so that it hears."""
    load_file(run, "model_patches", name)
    return (name,)


def listen(run: Run, audio_encoder: str, audio: Sound) -> tuple[Any, ...]:
    """Return how loud a sound is at each frame."""
    size = audio.rate // PACE
    padded = np.pad(audio.samples, (0, -len(audio.samples) % size))
    power = np.mean(padded.reshape(-1, size) ** 2, axis=1)
    levels = np.minimum(1.0, np.sqrt(power) / LOUD)
    return (Voice(tuple(float(level) for level in levels)),)


def infinite_talk(
    run: Run,
    mode: str,
    model: Model,
    model_patch: str,
    positive: Conditioning,
    negative: Conditioning,
    vae: Vae,
    width: int,
    height: int,
    length: int,
    audio_encoder_output_1: Voice,
    motion_frame_count: int,
    audio_scale: float,
    start_image: Frames | None = None,
    previous_frames: Frames | None = None,
    clip_vision_output: object = None,
    **second: Any,
) -> tuple[Any, ...]:
    """Return a model, conditioning and a latent of one window that speaks."""
    voices = [(audio_encoder_output_1, second.get("mode.mask_1"))]
    if mode == "two_speakers":
        voices.append(
            (second["mode.audio_encoder_output_2"], second.get("mode.mask_2"))
        )
    offset = began = trimmed = 0
    if previous_frames is not None:
        if previous_frames.count < motion_frame_count:
            raise ValueError("Not enough previous frames provided.")
        offset = previous_frames.count - motion_frame_count
        began = getattr(previous_frames, "began", 0) + offset
        trimmed = motion_frame_count
    heard = [
        (level * audio_scale, _mouth(mask))
        for voice, mask in voices
        for level in voice.levels
    ]
    silence = (0.0, heard[-1][1])
    heard = heard[offset : offset + length]
    heard += [silence] * (length - len(heard))
    start = None if start_image is None else next(iter(start_image))
    guides = Guides(start, speaking=Speaking(tuple(heard), began))
    return (
        model.changed(f"{model_patch}:{audio_scale}"),
        replace(positive, guides=guides),
        replace(negative, guides=guides),
        empty(width, height, length, CELL_21),
        trimmed,
    )


def _mouth(mask: Mask | None) -> tuple[float, float]:
    """Return where a mouth is: in the lower part of what the mask shows."""
    if mask is None or not mask.any():
        return MOUTH
    rows, columns = np.nonzero(mask > 127)
    if not len(rows):
        return MOUTH
    down = rows.min() + (rows.max() - rows.min()) * MOUTH[1]
    return float(columns.mean() / mask.shape[1]), float(down / mask.shape[0])


NODES: dict[str, Node] = {
    "LoadAudio": load_audio,
    "TrimAudioDuration": trim,
    "AudioConcat": concat,
    "AudioEncoderLoader": load_encoder,
    "AudioEncoderEncode": listen,
    "ModelPatchLoader": load_patch,
    "WanInfiniteTalkToVideo": infinite_talk,
}

STAMPS: dict[str, Callable[[EngineSettings, Mapping[str, Any]], str]] = {
    "LoadAudio": lambda settings, inputs: stamp_file(settings, inputs.get("audio", ""))
}
