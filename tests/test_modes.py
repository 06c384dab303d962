"""Modes: what each kind of request loads, and what a volume must hold for one."""

import pytest

from common.modes import lacking, wanted_by
from common.service import find, load

TALK = load(find("infinite-talk-v1"))
PAIR = load(find("wan2.2-14b-loras"))
SINGLE = "wan2.1_infiniteTalk_single_fp16.safetensors"
MULTI = "wan2.1_infiniteTalk_multi_fp16.safetensors"
T2V = "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"
I2V = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
FAST = "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"
VAE = "wan_2.1_vae.safetensors"


@pytest.mark.parametrize("service", [TALK, PAIR], ids=lambda service: service.name)
def test_fields_that_do_not_go_together_are_no_mode(service):
    """A last frame needs a first one, and a second speaker a voice and two masks."""
    for mode in service.modes:
        assert not mode.given.get("end_image") or mode.given["image"]
        assert mode.given.get("audio_2") == mode.given.get("mask_2")
    assert len(service.modes) == (2 if service is TALK else 6)


@pytest.mark.parametrize(
    ("service", "absent", "needed"),
    [
        (TALK, {SINGLE}, set()),
        (TALK, {MULTI}, set()),
        (TALK, {SINGLE, MULTI}, {SINGLE}),
        (TALK, {VAE, MULTI}, {VAE}),
        (PAIR, {T2V}, set()),
        (PAIR, {I2V}, set()),
        (PAIR, {FAST}, set()),
        (PAIR, {FAST, T2V}, set()),
        (PAIR, {I2V, T2V}, {I2V}),
        (PAIR, {I2V, FAST, T2V}, {T2V}),
        (PAIR, {VAE, FAST}, {VAE}),
    ],
    ids=[
        "two speakers only", "one speaker only", "no speaker", "VAE and one",
        "from a picture only", "from text only", "no Lightning",
        "from a picture, slowly", "neither", "text is nearer", "VAE, no Lightning",
    ],
)  # fmt: skip
def test_nothing_is_needed_while_one_kind_of_request_works(service, absent, needed):
    """Else what the nearest kind lacks, as services are used by default."""
    found, users = lacking(service.modes, frozenset(absent))

    assert found == needed
    assert set(users) == absent - needed


@pytest.mark.parametrize(
    ("service", "file", "users"),
    [
        (PAIR, VAE, "every request"),
        (PAIR, I2V, "requests with image"),
        (PAIR, FAST, "requests with image and lightning"),
        (TALK, SINGLE, "requests without audio_2 or mask or mask_2"),
        (TALK, "unheard of", "some requests"),
    ],
)
def test_who_loads_a_file_is_said_by_fields(service, file, users):
    """Those that all of them share."""
    assert wanted_by(file, service.modes) == users


def test_an_empty_volume_lacks_what_the_defaults_load():
    """Lightning too, although it can be switched off; text-to-video is a note."""
    everything = frozenset(file for mode in PAIR.modes for file in mode.weights)
    found, users = lacking(PAIR.modes, everything)

    assert {I2V, FAST, VAE} < found
    assert T2V in users


@pytest.mark.parametrize(
    ("service", "file", "said"),
    [
        (TALK, SINGLE, "requests without audio_2 or mask or mask_2"),
        (PAIR, T2V, "requests without image or end_image"),
        (PAIR, FAST, "requests with image and lightning"),
    ],
    ids=["one speaker", "text-to-video", "Lightning"],
)
def test_a_note_says_which_requests_need_a_file(service, file, said):
    """By the fields that all of them give or leave out."""
    assert lacking(service.modes, frozenset({file}))[1] == {file: said}
