"""Films: the same recipe is the same film, and every part of it counts."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.engine.render import Film, fill
from common.engine.render.mood import read
from common.engine.values import Guides, Recipe

RECIPE = Recipe(96, 64, 9, "a boat on the sea at sunset", 1, "euler")


def picture(width=120, height=80, hue=0):
    """Return a picture with smooth and sharp parts."""
    y, x = np.mgrid[:height, :width]
    red = 128 + 100 * np.sin(x / 9 + hue)
    green = 128 + 100 * np.cos(y / 7 + hue)
    blue = np.where((x // 16 + y // 16) % 2, 40 + hue * 30, 200)
    return np.stack([red, green, blue], -1).astype(np.uint8)


def distance(one, other):
    """Return how far two pictures are apart, 0 … 255, without the watermark."""
    rows = one.shape[0] * 4 // 5
    return float(np.abs(one[:rows].astype(int) - other[:rows]).mean())


PROMPTS = [
    "",
    "a cat walks in the city at night",
    "snow over mountains",
    "rain in the forest",
    "desert dunes",
    "space, purple galaxy",
    "red silk",
    "日本語 のプロンプト",
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("size", [(16, 16), (34, 18), (18, 130), (128, 128)])
def test_size_and_count(prompt, size):
    """Any even size and any prompt makes exactly the frames asked for."""
    film = Film(replace(RECIPE, prompt=prompt, width=size[0], height=size[1]))

    frames = list(film)

    assert len(frames) == film.count == 9
    assert {frame.shape for frame in frames} == {(size[1], size[0], 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("guides", [Guides(), Guides(picture())], ids=["text", "image"])
def test_the_same_recipe_is_the_same_film(guides):
    """Nothing but the recipe decides a film's pixels."""
    recipe = replace(RECIPE, guides=guides)
    frames = list(Film(recipe))
    list(Film(replace(recipe, seed=9)))
    list(Film(replace(recipe, prompt="night city")))

    again = list(Film(recipe))

    assert all(np.array_equal(*pair) for pair in zip(frames, again, strict=True))


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"prompt": "a forest"}, {"flavour": "heun"}],
    ids=["seed", "prompt", "flavour"],
)
@pytest.mark.parametrize("guides", [Guides(), Guides(picture())], ids=["text", "image"])
def test_every_part_of_a_recipe_counts(change, guides):
    """Another seed, prompt or setting is another film."""
    recipe = replace(RECIPE, guides=guides)

    one, other = Film(recipe), Film(replace(recipe, **change))

    assert distance(list(one)[-1], list(other)[-1]) > 0


def test_a_seed_is_another_composition():
    """Another seed moves everything, another setting is a nuance."""
    [first, seed, flavour] = (
        next(iter(Film(replace(RECIPE, **change))))
        for change in ({}, {"seed": 2}, {"flavour": "heun"})
    )

    assert distance(first, seed) > 3 * distance(first, flavour) > 0


def test_it_moves():
    """Frames differ, neighbours less than distant ones."""
    frames = list(Film(replace(RECIPE, frames=25)))

    near, far = distance(frames[0], frames[1]), distance(frames[0], frames[-1])
    assert 0 < near < far


def test_words_choose_the_colours():
    """A colour in the prompt is a colour in the picture."""
    means = {}
    for name in ("red", "green", "blue"):
        frame = next(iter(Film(replace(RECIPE, prompt=f"{name} hills at noon"))))
        means[name] = frame.reshape(-1, 3).mean(axis=0)

    assert [int(np.argmax(means[n] - means["blue"])) for n in ("red", "green")] == [
        0,
        1,
    ]
    assert int(np.argmax(means["blue"] - means["red"])) == 2


@pytest.mark.parametrize(
    ("prompt", "place", "time"),
    [
        ("a cat walks in the city at night", "city", "night"),
        ("Two foxes in the woods, misty morning", "forest", "dawn"),
        ("sailing boats on the ocean at sunset", "sea", "sunset"),
        ("an astronaut near a planet", "space", "night"),
    ],
)
def test_words_choose_the_place(prompt, place, time):
    """Place and time of day come from the first words that name one."""
    mood = read(prompt, 1, "")

    assert (mood.place, mood.time) == (place, time)


def test_a_start_picture_is_the_first_frame():
    """Frame 0 is the picture, filled into the size; later ones are near it."""
    start = picture()
    frames = list(Film(replace(RECIPE, guides=Guides(start), frames=25)))

    filled = fill(Image.fromarray(start), 96, 64)
    assert distance(frames[0], filled) == 0
    assert 0 < distance(frames[-1], filled) < 60


def test_an_end_picture_is_the_last_frame():
    """With both pictures, the film goes from one to the other."""
    start, end = picture(), picture(hue=2)
    frames = list(Film(replace(RECIPE, guides=Guides(start, end), frames=25)))

    first, last = (fill(Image.fromarray(p), 96, 64) for p in (start, end))
    assert distance(frames[0], first) == 0
    assert distance(frames[-1], last) == 0


def test_every_frame_is_marked():
    """The watermark is on each frame, with or without a picture."""
    for guides in (Guides(), Guides(np.zeros((64, 96, 3), np.uint8))):
        film = Film(replace(RECIPE, guides=guides, prompt="space"))
        for frame in film:
            corner = frame[-8:, 24:].astype(int)
            assert corner.max() - np.median(corner) > 60


def test_previews_come_out_of_the_noise():
    """Each step's preview is nearer to the film than the one before."""
    film = Film(replace(RECIPE, width=640, height=384))
    previews = [
        np.asarray(Image.open(io.BytesIO(film.preview(noise))))
        for noise in (0.9, 0.6, 0.3, 0.0)
    ]

    away = [distance(preview, previews[-1]) for preview in previews]
    assert previews[0].shape == (307, 512, 3)
    assert away == sorted(away, reverse=True)
    assert away[0] > 10


def test_leftover_noise_is_in_the_film():
    """A latent that is decoded too early gives noisy frames."""
    clear, noisy = next(iter(Film(RECIPE))), next(iter(Film(RECIPE, noise=0.5)))

    assert distance(clear, noisy) > 10
