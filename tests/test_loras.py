import pytest

from common.errors import UnknownLora
from common.fields import Lora, PairedLora
from common.loras import lookup, pair_of, with_files

X = ".safetensors"

PAIRS = [
    ("high_noise_model", "low_noise_model"),
    ("wan2.2_i2v_4steps_v1_high_noise", "wan2.2_i2v_4steps_v1_low_noise"),
    ("Wan22-Lightning-HIGH-rank64", "Wan22-Lightning-LOW-rank64"),
    ("style.high", "style.low"),
    ("style highnoise v2", "style lownoise v2"),
    ("StyleHighNoise_e50", "StyleLowNoise_e50"),
    ("wan22HIGH", "wan22LOW"),
    ("ink_h", "ink_l"),
    ("ink-H-v1", "ink-L-v1"),
    ("high_noise/ink", "low_noise/ink"),
    ("HIGH\\ink", "LOW\\ink"),
    ("high/ink_high", "low/ink_low"),
    ("low-poly_high_noise", "low-poly_low_noise"),
    ("Mixed_HIGH", "mixed_low"),
]
NO_PAIRS = [
    ("highlander", "lowlander"),
    ("FLOW", "FHIGH"),
    ("hollow_high", "hollow_low_v2"),
    ("model", "lodel"),
    ("ink_h1", "ink_l1"),
]


@pytest.mark.parametrize(("high", "low"), PAIRS, ids=str)
def test_either_half_of_a_pair_finds_the_other(high, low):
    """Halves are told by a word for high or low, wherever it stands in the name."""
    installed = (low + X, "other" + X, high + X)

    assert pair_of(high + X, installed) == (high + X, low + X)
    assert pair_of(low + X, installed) == (high + X, low + X)


@pytest.mark.parametrize(("one", "other"), NO_PAIRS, ids=str)
def test_words_that_only_look_like_halves_make_no_pair(one, other):
    """What has no other half is for both models."""
    for name in (one + X, other + X):
        assert pair_of(name, (one + X, other + X)) == (name, name)


def test_a_half_whose_other_half_is_away_goes_to_both():
    """Only an installed file is ever named."""
    assert pair_of("a_high" + X, ("a_high" + X,)) == ("a_high" + X, "a_high" + X)


@pytest.mark.parametrize(("high", "low"), PAIRS[:-1], ids=str)
def test_while_no_engine_answers_the_other_half_is_taken_to_be_there(high, low):
    """A half is never put on the model it is not for; ComfyUI has the last word."""
    expected = (high + X, low + X)
    if high == "high/ink_high":
        expected = (high + X, "high/ink_low" + X)

    assert pair_of(high + X, None) == expected


@pytest.mark.parametrize(
    ("lora", "expected"),
    [
        ({"name": "ink_high"}, ("ink_high", 1.0, "ink_low", 1.0)),
        ({"name": "ink_low", "strength": 0.5}, ("ink_high", 0.5, "ink_low", 0.5)),
        ({"name": "one", "strength": 0.7}, ("one", 0.7, "one", 0.7)),
        ({"name": "one", "strength_low": 0.0}, ("one", 1.0, "one", 0.0)),
        ({"name": "INK_HIGH", "strength_low": 0.2}, ("ink_high", 1.0, "ink_low", 0.2)),
        ({"name": "ink_high", "name_low": "one"}, ("ink_high", 1.0, "one", 1.0)),
        ({"name": "ink_low", "name_low": "ink_low"}, ("ink_low", 1.0, "ink_low", 1.0)),
    ],
    ids=str,
)
def test_a_lora_gets_a_file_and_a_strength_for_each_model(lora, expected):
    """What is accepted says it all, so a retry looks nothing up."""
    installed = ("ink_high" + X, "ink_low" + X, "one" + X)
    found = with_files(PairedLora(**lora), installed, "loras.0")
    name, strength, name_low, strength_low = expected

    assert (found.name, found.strength) == (name + X, strength)
    assert (found.name_low, found.strength_low) == (name_low + X, strength_low)
    assert with_files(found, installed, "loras.0") == found


def test_a_lora_for_one_model_is_only_looked_up():
    """A service with one model knows no pairs."""
    found = with_files(Lora(name="ink_high"), ("ink_high" + X, "ink_low" + X), "l")

    assert found == Lora(name="ink_high" + X)


def test_the_name_for_the_low_noise_model_is_looked_up_too():
    """The refusal names it, and what is near."""
    lora = PairedLora(name="ink", name_low="imk_low")
    with pytest.raises(UnknownLora) as caught:
        with_files(lora, ("ink" + X, "ink_low" + X), "loras.2")

    [error] = caught.value.errors
    assert error.field == "loras.2.name_low"
    assert "ink_low" in error.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ink-wash", "did you mean ink_wash.safetensors"),
        ("zzz", "installed: ink_wash.safetensors"),
        ("evil.pt", "installed: ink_wash.safetensors"),
    ],
)
def test_an_unknown_name_gets_near_ones(name, hint):
    """Pickles are not offered: loading them runs code."""
    with pytest.raises(UnknownLora) as caught:
        lookup(name, ("ink_wash" + X, "evil.pt"), "loras.0.name")

    assert caught.value.errors[0].hint == hint
