from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from common.cli.options import explain, flag, parameters, values
from common.cli.screen import Stop
from common.request import Media, Request
from common.service import find, folders, load

UPLOAD = "11111111-2222-3333-4444-555555555555"


class Adapter(BaseModel):
    name: str
    strength: float = 1.0


class Sample(Request):
    """A request of every kind of field."""

    prompt: str
    steps: Annotated[int, Field(ge=1, le=50, description="Denoising steps.")] = 8
    size: Annotated[int, Field(ge=256, le=512, multiple_of=32)] = 256
    seconds: Annotated[float, Field(gt=0, le=60, description="Length.")] | None = None
    loop: bool = False
    sampler: Annotated[Literal["euler", "uni_pc"], Field(description="How.")] = "euler"
    image: Annotated[str, Media("image"), Field(description="First frame.")] | None = (
        None
    )
    adapters: Annotated[list[Adapter], Field(description="In this order.")] = Field(
        default_factory=list
    )

    @classmethod
    def expected(cls, accepted):
        """Return nothing: no sample is ever made."""


class FakeClient:
    """Remembers what was uploaded."""

    def __init__(self):
        self.uploads = []

    def upload(self, path):
        self.uploads.append(path)
        return {"id": UPLOAD}


SCHEMA = Sample.model_json_schema()["properties"]


@pytest.mark.parametrize(
    ("name", "help_"),
    [
        ("steps", "Denoising steps. 1 to 50; default 8."),
        ("size", "256 to 512 in steps of 32; default 256."),
        ("seconds", "Length. Above 0, up to 60."),
        ("sampler", "How. One of euler, uni_pc; default euler."),
        ("adapters", "In this order."),
    ],
)
def test_help_says_range_and_default(name, help_):
    """What an option is, what it may be and what it is when absent."""
    assert explain(SCHEMA[name]) == help_


def test_a_field_is_an_option_and_the_prompt_is_not():
    """Every field but the prompt is an option; underscores are dashes."""
    assert [one.name for one in parameters(Sample)] == [
        name for name in Sample.model_fields if name != "prompt"
    ]
    assert flag("negative_prompt") == "--negative-prompt"
    assert flag("adapters", many=True) == "--adapter"


def test_a_switch_can_be_turned_off():
    """What is on by default needs a way to say no."""
    [loop] = [one for one in parameters(Sample) if one.name == "loop"]

    assert loop.annotation.__metadata__[0].default == "--loop/--no-loop"


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_every_service_has_options(folder):
    """Each service's request can be told on the command line, and each is explained."""
    service = load(folder)

    for one in parameters(service.request):
        option = one.annotation.__metadata__[0]
        assert option.help, one.name


def test_a_file_of_this_machine_is_uploaded(tmp_path):
    """A path is sent ahead; its id stands for it."""
    picture = tmp_path / "fox.png"
    picture.touch()
    client = FakeClient()

    assert values(Sample, {"image": str(picture)}, client) == {"image": UPLOAD}
    assert client.uploads == [picture]


@pytest.mark.parametrize(
    "value", ["https://x/fox.png", "data:image/png;base64,", UPLOAD]
)
def test_what_the_service_fetches_is_sent_as_it_is(value):
    """URLs, data URIs and upload ids are the service's business."""
    client = FakeClient()

    assert values(Sample, {"image": value}, client) == {"image": value}
    assert client.uploads == []


def test_a_missing_file_is_named(tmp_path):
    """A path that is no file stops before anything is sent."""
    with pytest.raises(Stop, match=r"--image: there is no file .*nix\.png"):
        values(Sample, {"image": str(tmp_path / "nix.png")}, FakeClient())


def test_names_with_strengths():
    """NAME and NAME:STRENGTH, in order."""
    given = {"adapters": ["snow", "fog:0.5", "rain:-1"]}

    assert values(Sample, given, FakeClient())["adapters"] == [
        {"name": "snow"},
        {"name": "fog", "strength": 0.5},
        {"name": "rain", "strength": -1.0},
    ]


def test_a_strength_is_a_number():
    """Anything else is refused with how to write it."""
    with pytest.raises(Stop, match="no number") as caught:
        values(Sample, {"adapters": ["fog:much"]}, FakeClient())

    assert caught.value.hint == "write --adapter NAME or --adapter NAME:0.8"


def test_the_help_of_a_recording_says_so():
    """A file option names the files that its field takes."""
    schema = load(find("infinite-talk-v1")).request.model_json_schema()

    said = explain(schema["properties"]["audio"], file=True)

    assert said.startswith("A WAV, MP3, M4A, Opus or Ogg file")
