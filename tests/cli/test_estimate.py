import json

import pytest

from common.cli.estimate import spoken


def test_an_estimate_is_told_in_words(wan, service):
    """Memory and time, from the options of `wan generate`; a prompt is not needed."""
    said = wan(
        "estimate",
        "fastwan2.2-5b-n",
        "--width",
        832,
        "--height",
        480,
        "--url",
        service.url,
    )

    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "12.5 GB on the card (which is not known)",
        "time: too few runs to tell",
    ]


def test_json_is_the_service_s_own_answer(wan, service, tmp_path):
    """A picture stays where it is."""
    said = wan(
        *("estimate", "fastwan2.2-5b-n", "a fox", "--image", tmp_path / "any.png"),
        *("--url", service.url, "--json"),
    )

    assert said.code == 0, said.err
    assert json.loads(said.out)["vram_gb"] == 16.9


def test_a_refused_field_is_named(wan, service):
    """As by `wan generate`."""
    said = wan("estimate", "fastwan2.2-5b-n", "--frames", 120, "--url", service.url)

    assert said.code != 0
    assert "frames" in said.err


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (
            {
                "vram_gb": 16.9,
                "card_gb": 12.88,
                "seconds": [10.0, 21.5],
                "advice": [{"text": "960×512 takes 12.8 GB"}],
            },
            [
                "16.9 GB on the card (which has 12.9 GB)",
                "time: 10 to 21.5 s",
                "fits: 960×512 takes 12.8 GB",
            ],
        ),
        (
            {"vram_gb": None, "card_gb": None, "seconds": None, "advice": []},
            ["memory: not known", "time: too few runs to tell"],
        ),
    ],
    ids=["all is known", "nothing is known"],
)
def test_what_is_known_is_said(found, lines):
    """And what is not known is said to be so."""
    assert spoken(found) == lines
