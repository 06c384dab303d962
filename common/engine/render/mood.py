"""
Read a prompt for what a painter can use: place, time of day, weather, colours.

Words that it does not know still count: their hash chooses where the prompt leaves the
choice open, so that every prompt has a look of its own.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[Any]  #: RGB, 0 … 1


def colour(text: str) -> Colour:
    """Return the colour of six hexadecimal digits."""
    return np.array(list(bytes.fromhex(text)), np.float32) / 255


@dataclass(frozen=True)
class Palette:
    """The colours of a picture, from far to near."""

    top: Colour  #: zenith
    middle: Colour
    low: Colour  #: sky at the horizon, and the haze between the layers
    glow: Colour  #: sun or moon, and what they light
    cloud: Colour  #: clouds in the shade
    far: Colour
    near: Colour


def _palette(*texts: str) -> Palette:
    return Palette(*(colour(text) for text in texts))


PALETTES = {
    "day": _palette(
        "2a62ab", "76b0de", "e3eef0", "fff6dc", "b9cbd9", "93b1c4", "1f4350"
    ),
    "dawn": _palette(
        "2e3f78", "b983a6", "ffd6ae", "fff1cf", "8f7ba3", "ab8fae", "26274a"
    ),
    "sunset": _palette(
        "241a4d", "a23f63", "ff9a55", "ffe6a8", "6b2f5a", "9a4f69", "160e2b"
    ),
    "night": _palette(
        "040818", "0e1f48", "31548a", "e4edff", "1a2c55", "27436f", "03060f"
    ),
    "storm": _palette(
        "2c3640", "59686f", "a9b5b3", "dfe6e0", "49565e", "73838a", "1a2428"
    ),
    "winter": _palette(
        "48729f", "9dbfd8", "eef3f6", "fff7ec", "c3d3de", "b3c9d8", "3d5a70"
    ),
}

_TIMES = {
    "night": "night midnight moon moonlight star stars starry dark neon firefly "
    "fireflies aurora",
    "sunset": "sunset dusk evening twilight golden autumn fire lava candle",
    "dawn": "dawn sunrise morning spring cherry blossom pastel",
    "day": "day noon sunny summer daylight bright afternoon",
    "storm": "storm stormy rain rainy fog foggy cloudy thunder grey gray gloomy",
    "winter": "snow snowy winter ice icy frozen frost arctic",
}

_PLACES = {
    "city": "city street streets town building buildings skyline car cars road cafe "
    "shop tokyo paris london york cyberpunk apartment neon robot train",
    "sea": "sea ocean lake river water beach boat ship wave waves harbor harbour coast "
    "island sail sailing fish whale dolphin surf swim",
    "forest": "forest tree trees wood woods jungle pine garden park leaves bamboo deer "
    "fox bear wolf owl",
    "space": "space galaxy planet nebula cosmos universe astronaut comet spaceship "
    "rocket orbit",
    "desert": "desert dune dunes sand sahara savanna mars field fields meadow camel "
    "horse grass prairie",
    "mountain": "mountain mountains hill hills valley cliff peak alps landscape canyon "
    "eagle castle dragon village",
    "silk": "abstract dream dreams silk smoke energy magic music dance dancer portrait "
    "woman man face fashion flower flowers ink paint liquid",
}

_COLOURS = {
    "red": "d8262c",
    "crimson": "b3122f",
    "scarlet": "e63222",
    "orange": "f07f1d",
    "amber": "f5a623",
    "gold": "e9b72f",
    "golden": "e9b72f",
    "yellow": "f2d13a",
    "green": "2f9e57",
    "emerald": "12a06a",
    "teal": "159a9c",
    "turquoise": "2cc4c0",
    "cyan": "25c3e0",
    "blue": "2563d9",
    "azure": "3d8bef",
    "indigo": "4338b8",
    "purple": "7d3cc4",
    "violet": "8a4fd8",
    "magenta": "d02c9c",
    "pink": "ec7fb0",
    "rose": "e56a8a",
    "brown": "8a5a33",
    "white": "eef2f5",
    "silver": "b9c4cf",
    "black": "15171c",
}

#: Places that a prompt may get that names none.
_ANYWHERE = ("mountain", "sea", "desert", "forest", "silk")
#: Likewise for the time of day.
_ANYTIME = ("sunset", "dawn", "night", "day")


@dataclass(frozen=True)
class Mood:
    """What a film looks like, before its composition."""

    palette: Palette
    place: str
    time: str
    snow: bool
    rain: bool
    aurora: bool
    direction: int  #: the camera goes to the right (1) or left (-1)
    tempo: float  #: 1 is calm
    layout: np.random.Generator  #: composition: of the prompt and the seed
    detail: np.random.Generator  #: what cfg, steps, sampler and so on change a little


def read(prompt: str, seed: int, flavour: str) -> Mood:
    """Return the mood of a prompt; the same arguments give the same film."""
    words = re.findall(r"\w+", prompt.lower())
    theme = _generator(*words)
    anywhere = str(theme.choice(_ANYWHERE))
    anytime = str(theme.choice(_ANYTIME))
    place = _first(words, _PLACES) or anywhere
    time = _first(words, _TIMES) or anytime
    if place == "space":
        time = "night"
    palette = PALETTES[time]
    named = [colour(_COLOURS[word]) for word in words if word in _COLOURS]
    if not named:
        palette = _tinted(palette, _any_hue(theme), 0.12)
    for number, tint in enumerate(named[:3]):
        palette = _tinted(palette, tint, 0.52 / (1 + number))
    layout = _generator(*words, str(seed))
    return Mood(
        palette=palette,
        place=place,
        time=time,
        snow=time == "winter" or "snow" in words,
        rain=bool({"rain", "rainy", "storm"} & set(words)),
        aurora="aurora" in words
        or (time == "night" and place not in ("city", "space", "silk")),
        direction=_direction(words, layout),
        tempo=_tempo(words, theme),
        layout=layout,
        detail=_generator(flavour, str(seed)),
    )


def _generator(*parts: str) -> np.random.Generator:
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return np.random.default_rng(list(digest[:16]))


def _first(words: list[str], table: dict[str, str]) -> str | None:
    """Return the entry of the first word that belongs to one."""
    known = {word: name for name, text in table.items() for word in text.split()}
    for word in words:
        for form in (word, word.removesuffix("s")):
            if form in known:
                return known[form]
    return None


def _direction(words: list[str], layout: np.random.Generator) -> int:
    chance = int(layout.choice((-1, 1)))
    for word in words:
        if word in ("left", "right"):
            return -1 if word == "left" else 1
    return chance


def _tempo(words: list[str], theme: np.random.Generator) -> float:
    chance = float(theme.uniform(0.8, 1.3))
    if {"slow", "slowly", "calm", "still", "gentle", "quiet"} & set(words):
        return 0.6
    if {"fast", "quick", "running", "runs", "racing", "wild", "storm"} & set(words):
        return 1.9
    return chance


def _any_hue(theme: np.random.Generator) -> Colour:
    phase = theme.uniform() + np.array([0, 1 / 3, 2 / 3])
    return (0.5 + 0.4 * np.cos(2 * np.pi * phase)).astype(np.float32)


def luminance(rgb: Colour) -> float:
    """Return how bright a colour is, 0 … 1. Source: ITU-R BT.709."""
    return float(rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32))


def _tinted(palette: Palette, tint: Colour, amount: float) -> Palette:
    """Pull every colour towards a hue, leaving it as bright as it was."""

    def pull(old: Colour) -> Colour:
        bright = luminance(old)
        scaled = tint * (bright / max(luminance(tint), 0.05))
        # What would be over white goes to white instead of to a garish primary.
        over = float(max(scaled.max() - 1.0, 0.0))
        wanted = (scaled + over) / (1 + over) if over else scaled
        return np.clip(old + (wanted - old) * amount, 0, 1).astype(np.float32)

    return replace(
        palette, **{name: pull(getattr(palette, name)) for name in vars(palette)}
    )
