import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.estimate import OVERHEAD_GB, Memory, oom_hint, smaller
from common.memory_table import memory_table
from common.service import folders, load
from common.video import frames_for
from tests.live import SMALL, fastwan

SERVICE = fastwan()
SCHEMA = SERVICE.request.model_json_schema()
# A model of which frames matter as much as the size.
LONG = Memory(
    text_encoder_gb=1.0,
    model_gb=2.0,
    vae_gb=0.5,
    latent_bytes=30_000,
    pixel_bytes=1_000,
    side=16,
)

sides = st.integers(8, 40).map(lambda n: n * 32)
lengths = st.integers(1, 60).map(lambda n: 4 * n + 1)
models = st.sampled_from([SERVICE.memory, LONG])


def clip(**fields):
    """Return an accepted request as a job keeps it."""
    return SERVICE.request.accept({**SMALL, **fields}).model_dump(mode="json")


def within_budget(width, height, frames):
    """Tell whether the service takes such a clip at all."""
    request = SERVICE.request
    area = width * height
    return area <= request.max_area and area * frames <= request.max_volume


@given(models, sides, sides, lengths, st.floats(1.0, 30.0), st.booleans())
def test_following_any_advice_makes_it_fit(memory, width, height, frames, card, timed):
    """Sent again with the advised fields, the request is accepted and small enough."""
    assume(within_budget(width, height, frames))
    fields = {**SMALL, "width": width, "height": height}
    fields |= {"frames": frames}
    if timed:
        del fields["frames"]
        fields |= {"seconds": round(frames / 24, 2)}
    request = SERVICE.request.accept(fields)
    accepted = request.model_dump(mode="json")

    for advice in smaller(memory, SCHEMA, accepted, card, fields):
        again = SERVICE.request.accept({**fields, **advice.set})
        needs = memory.of(again.model_dump(mode="json"))
        assert needs == advice.vram_gb
        assert needs <= card
        assert again.width * again.height * again.frames < width * height * frames
        assert f"{advice.vram_gb:g} GB" in advice.text


@given(models, sides, sides, lengths)
def test_a_smaller_clip_never_takes_more(memory, width, height, frames):
    """So a search from large to small finds the largest that fits."""
    needs = memory.gb(width, height, frames)

    assert memory.gb(width - 32, height, frames) <= needs
    assert memory.gb(width, height - 32, frames) <= needs
    assert memory.gb(width, height, max(1, frames - 4)) <= needs


def test_the_largest_size_that_fits_is_advised():
    """One grid step more in the same shape would be too much."""
    accepted = clip(width=1280, height=704, frames=121)
    size, *_ = smaller(SERVICE.memory, SCHEMA, accepted, 12.88, {})

    width, height = size.set["width"], size.set["height"]
    assert (width, height) == (960, 512)
    assert SERVICE.memory.gb(992, 544, 121) > 12.88


def test_steps_are_never_advised():
    """They cost time and no memory."""
    accepted = clip(width=1280, height=704, frames=121, steps=50)
    advice = smaller(LONG, SCHEMA, accepted, 4.0, {})

    assert [set(one.set) for one in advice] == [{"width", "height"}, {"frames"}]


def test_who_asked_for_seconds_is_advised_in_seconds():
    """Frames beside seconds would be refused."""
    fields = {"prompt": "a fox", "seconds": 5.0}
    accepted = SERVICE.request.accept(fields).model_dump(mode="json")
    shorter = smaller(LONG, SCHEMA, accepted, 4.0, fields)[1]

    assert set(shorter.set) == {"seconds"}
    assert frames_for(shorter.set["seconds"], 24) < 121


def test_nothing_is_advised_where_the_weights_alone_are_too_large():
    """No size would help."""
    assert smaller(SERVICE.memory, SCHEMA, clip(), 8.0, {}) == []


def test_the_largest_stage_counts():
    """Weights of one stage make room for those of the next."""
    heavy = Memory(50.0, 10.0, 1.0, latent_bytes=1, pixel_bytes=1)

    assert heavy.gb(512, 512) == 50.0 + OVERHEAD_GB


def test_a_window_bounds_what_is_sampled_at_once():
    """A clip that is made in parts takes no more when it is longer."""
    parts = Memory(1, 1, 1, latent_bytes=50_000, pixel_bytes=1, window=81)

    assert parts.gb(640, 640, 81) == parts.gb(640, 640, 4001) > parts.gb(640, 640, 41)
    assert parts.of({"width": 640, "height": 640}) == parts.gb(640, 640, 81)


def test_an_open_size_is_the_declared_area_or_unknown():
    """A picture may keep the shape of the one it is made from."""
    picture = Memory(1, 1, 1, latent_bytes=50_000, pixel_bytes=10_000, area=2**20)
    unknown = Memory(1, 1, 1, latent_bytes=50_000, pixel_bytes=10_000)

    assert picture.of({"width": None, "height": None}) == picture.gb(1024, 1024)
    assert unknown.of({}) is None
    assert oom_hint(unknown, SCHEMA, {}, 24.0) is None


@pytest.mark.parametrize(
    ("card_gb", "parts"),
    [
        (12.88, ["takes about 16.9 GB at 1280×704×121", "12.9 GB;", "960×512 takes"]),
        (25.8, ["this card has 25.8 GB: end what else", "1120×608 takes 13.4 GB"]),
        (8.6, ["this card has 8.6 GB", "1120×608 takes 13.4 GB"]),
        (None, ["takes about 16.9 GB", "1120×608 takes 13.4 GB"]),
    ],
    ids=["too small a card", "large enough", "smaller than the weights", "unknown"],
)
def test_the_hint_after_running_out_has_numbers(card_gb, parts):
    """What it takes, what there is, and what to ask for instead."""
    hint = oom_hint(
        SERVICE.memory, SCHEMA, clip(width=1280, height=704, frames=121), card_gb
    )

    for part in parts:
        assert part in hint


def test_the_hint_says_when_no_size_would_do():
    """The smallest clip leaves only smaller weights or another card."""
    smallest = {**SMALL, "width": 256, "height": 256, "frames": 5}
    hint = oom_hint(SERVICE.memory, SCHEMA, smallest, 6.0)

    assert "larger GPU" in hint


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_the_readme_says_what_fits(folder):
    """The table is what `memory_table` makes of the declaration, or a neighbour's."""
    service = load(folder)
    assert service.memory is not None
    if service.folder != folder:
        pytest.skip("its README links to the one that has the table")
    readme = (folder / "README.md").read_text(encoding="utf-8")

    assert memory_table(service) in readme
