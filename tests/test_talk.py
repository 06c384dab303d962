import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.engine.validate import validate
from common.errors import InvalidInput
from common.request import MediaFacts
from common.service import find, load
from common.talk import FPS, WINDOW, frames_of, turns, windows

SERVICE = load(find("infinite-talk-v1"))
DATA = Path(__file__).parent / "data"
NEWEST = json.loads((DATA / "object_info_0.33.0.json").read_text(encoding="utf-8"))
FACE = MediaFacts(128, 128)
GIVEN = {"image": "x.png", "audio": "x.png", "prompt": "x"}
TWO = {**GIVEN, "audio_2": "x.png", "mask": "x.png", "mask_2": "x.png"}


def accepted(**given):
    return SERVICE.request.accept({**GIVEN, **given})


def graph(request):
    patched = request.apply(SERVICE.workflow)
    return {n["_meta"]["title"]: n["inputs"] for n in patched.nodes.values()}, patched


@given(st.integers(5, 15_000), st.sampled_from(range(1, 34, 4)))
def test_windows_make_each_frame_once(frames, motion):
    """In order, 4n + 1 long, each continuing what a whole one made."""
    made = 0
    for window in windows(frames, motion):
        assert window.length % 4 == 1
        assert motion < window.length <= WINDOW or not window.skip
        assert window.start + window.skip == made
        assert window.skip + window.keep <= window.length
        assert window.heard_from >= 0
        made += window.keep
    assert made == frames


@given(
    st.floats(0.2, 600),
    st.floats(0.2, 600),
    st.integers(0, 30_000).map(lambda frame: frame / FPS),
)
def test_speakers_are_heard_when_they_speak(first_s, second_s, start_s):
    """Whatever lies in a window begins where it does in the two recordings, joined."""
    heard, after = turns(start_s, start_s + 7, first_s)

    begins = heard.start_s + (first_s if heard.speaker else 0.0)
    assert begins == pytest.approx(max(start_s, 0), abs=0.11)
    assert heard.duration_s >= 0.09
    assert after.start_s == 0
    assert after.speaker != heard.speaker


@pytest.mark.parametrize(("seconds", "frames"), [(0.2, 5), (1, 25), (3.24, 81)])
def test_a_clip_is_as_long_as_its_recording(seconds, frames):
    """The caller says no length."""
    request = accepted().fitted(
        {"image": FACE, "audio": MediaFacts(None, None, seconds)}
    )

    assert (frames_of(seconds), request.frames) == (frames, frames)
    assert SERVICE.request.expected(request.model_dump()).audio


def test_a_clip_may_end_before_its_recording():
    """By seconds or by frames."""
    speech = {"image": FACE, "audio": MediaFacts(None, None, 60.0)}

    assert accepted(max_seconds=2.0).fitted(speech).frames == 50
    assert accepted(frames=30).fitted(speech).frames == 30


def test_a_clip_cannot_outlast_its_recording():
    """There would be nothing to hear."""
    with pytest.raises(InvalidInput, match="25 frames"):
        accepted(frames=30).fitted(
            {"image": FACE, "audio": MediaFacts(None, None, 1.0)}
        )


@pytest.mark.parametrize("name", ["mask", "mask_2"])
def test_a_mask_of_another_size_is_refused(name):
    """Naming the mask, and both sizes."""
    files = dict.fromkeys(["image", "mask", "mask_2"], FACE)
    sound = MediaFacts(None, None, 1.0)
    files |= {"audio": sound, "audio_2": sound, name: MediaFacts(64, 128)}

    with pytest.raises(InvalidInput, match="64×128") as refused:
        SERVICE.request.accept(TWO).fitted(files)
    assert refused.value.errors[0].field == name


@pytest.mark.parametrize("absent", ["audio_2", "mask", "mask_2"])
def test_a_second_speaker_is_whole(absent):
    """A voice without a face, or a face without a voice, is refused."""
    some = {name: value for name, value in TWO.items() if name != absent}

    with pytest.raises(InvalidInput, match="second speaker") as refused:
        SERVICE.request.accept(some)
    assert refused.value.errors[0].field == absent


def test_a_short_clip_has_one_window():
    """And nothing of a second speaker."""
    nodes, patched = graph(accepted(frames=30, seed=7))

    assert nodes["Talk"]["length"] == 33
    assert nodes["Video"]["images"] == [patched.id_of("Kept"), 0]
    assert nodes["Kept"] | {"image": 0} == {"image": 0, "batch_index": 0, "length": 30}
    assert not [title for title in nodes if "2" in title or "Mask" in title]


def test_each_window_continues_the_one_before():
    """It gets its frames, the sound from where those began, and a seed of its own."""
    nodes, patched = graph(accepted(frames=200, seed=7))

    third = nodes["Talk, window 3"]
    assert third["previous_frames"] == [patched.id_of("Decode, window 2"), 0]
    assert nodes["Heard, window 3"]["start_index"] == pytest.approx(72 / FPS)
    assert [nodes[f"Sampler{w}"]["seed"] for w in ("", ", window 2", ", window 3")] == [
        7, 8, 9,
    ]  # fmt: skip


def test_each_window_is_saved_by_itself():
    """Nothing reads the frames of all of them; the sound is laid under them later."""
    nodes, patched = graph(accepted(frames=200, seed=7))

    saves = patched.repeats("Save video")
    assert len(saves) == SERVICE.request.expected(
        {"width": 640, "height": 640, "frames": 200, "fps": 25, "motion_frames": 9}
    ).parts == 3  # fmt: skip
    for save, window in zip(saves, ("", ", window 2", ", window 3"), strict=True):
        video = patched.nodes[save]["inputs"]["video"]
        assert video == [patched.id_of(f"Video{window}"), 0]
        kept = "Decode" if not window else f"Kept{window}"
        assert nodes[f"Video{window}"]["images"] == [patched.id_of(kept), 0]
        assert "audio" not in nodes[f"Video{window}"]


@pytest.mark.parametrize("given", [GIVEN, TWO], ids=["one", "two"])
def test_ten_minutes_are_one_graph_that_comfyui_takes(given):
    """Over two hundred windows, each saved, each input of the right type."""
    request = SERVICE.request.accept({**given, "frames": 15_000, "turn_s": 200.0})
    patched = request.apply(SERVICE.workflow)

    verdict = validate(patched.nodes, NEWEST)

    wrong = [
        error
        for found in verdict.node_errors.values()
        for error in found["errors"]
        if error["type"] != "value_not_in_list"
    ]
    assert not wrong
    assert sum(n["class_type"] == "KSampler" for n in patched.nodes.values()) == 209
    assert len(patched.repeats("Save video")) == 209


def test_who_speaks_first_in_a_window_has_the_first_mask():
    """The node lays its two sounds end to end."""
    request = SERVICE.request.accept({**TWO, "frames": 300, "turn_s": 2.0})
    nodes, patched = graph(request)

    masks = [[patched.id_of(name), 0] for name in ("Mask", "Mask 2")]
    first, last = nodes["Talk"], nodes["Talk, window 4"]
    assert [first["mode.mask_1"], first["mode.mask_2"]] == masks
    assert [last["mode.mask_2"], last["mode.mask_1"]] == masks
    assert nodes["Heard, window 4"]["audio"] == [patched.id_of("Speech 2"), 0]
    assert nodes["Talk"]["model_patch"] == [patched.id_of("InfiniteTalk for two"), 0]
    assert "InfiniteTalk" not in nodes


def test_two_speakers_in_one_window_have_both_voices():
    """ComfyUI lays the sound under a clip that it makes in one go."""
    request = SERVICE.request.accept({**TWO, "frames": 50, "turn_s": 1.0})
    nodes, patched = graph(request)

    assert nodes["Video"]["audio"] == [patched.id_of("Both voices"), 0]
    assert len(patched.repeats("Save video")) == 1
