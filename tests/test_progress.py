import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events import Cached, Ended, Executing, Progress
from common.progress import Meter, stage_of
from common.workflow import Workflow

GRAPH = Workflow(
    {
        id_: {"class_type": class_type, "inputs": {}, "_meta": {"title": title}}
        for id_, class_type, title in [
            ("1", "UNETLoader", "Model"),
            ("2", "CLIPTextEncode", "Prompt"),
            ("3", "KSampler", "Sampler"),
            ("8", "VAEDecode", "Decode"),
            ("9", "SaveVideo", "Save"),
        ]
    }
)


def play(*events, meter=None, pace=1.0):
    meter = meter or Meter.of(GRAPH)
    for number, event in enumerate(events):
        meter = meter.after(event, number * pace)
    return meter


def test_a_sampler_moves_the_bar_with_each_step():
    """Most of the bar is the sampler's, and the stage says so."""
    early = play(Executing("3"), Progress("3", 1, 8))
    late = play(Executing("3"), Progress("3", 8, 8))

    assert 0 < early.value < 0.2 < late.value
    assert late.stage == "sampling"
    assert late.progress(9).step == 8
    assert late.progress(9).node == "Sampler"


def test_two_samplers_share_the_bar():
    """Steps start again at 1 in the second sampler; the bar does not."""
    nodes = {
        **GRAPH.nodes,
        "4": {"class_type": "KSampler", "inputs": {}, "_meta": {"title": "Low"}},
    }
    meter = Meter.of(Workflow(nodes))
    high = play(Executing("3"), Progress("3", 2, 2), meter=meter)
    low = play(Executing("4"), Progress("4", 1, 2), meter=high)

    assert low.value > high.value
    assert low.step == 1


def test_cached_nodes_count_as_done():
    """A rerun that only saves begins near the end."""
    assert play(Cached(frozenset({"1", "2", "3", "8"}))).value > 0.9


def test_the_bar_stops_short_of_one():
    """One is for the published file."""
    events = [Executing(id_) for id_ in GRAPH.nodes]

    assert play(*events, Ended()).value == 0.99


def test_an_estimate_comes_from_the_pace_of_the_steps():
    """Nothing after one step, which also loads; then the rest by the pace."""
    one = play(Executing("3"), Progress("3", 1, 5))
    three = play(*[Executing("3"), *(Progress("3", n, 5) for n in (1, 2, 3))])

    assert one.progress(1).eta_s is None
    # 2 steps of a second, then decode and save: their share of the sampler's 5 s.
    assert three.progress(3).eta_s == pytest.approx(2 + (20 + 3 + 1 + 3) / 60 * 5, 0.05)


def test_a_lost_frame_does_not_stop_the_meter():
    """A step names its node even if `executing` never came."""
    assert play(Progress("3", 2, 4)).stage == "sampling"


def test_seconds_are_kept_by_title():
    """What each node took, for the job's timings."""
    meter = play(Executing("1"), Executing("3"), Ended(), pace=2.0)

    assert meter.seconds == {"Model": 2.0, "Sampler": 2.0}


@given(
    st.lists(
        st.one_of(
            st.builds(Executing, st.sampled_from(["1", "3", "8", "zz"])),
            st.builds(
                Progress,
                st.sampled_from(["3", "8", "zz"]),
                st.integers(-2, 10),
                st.integers(-1, 8),
            ),
            st.builds(Cached, st.frozensets(st.sampled_from(["1", "2", "x"]))),
            st.just(Ended()),
        )
    )
)
def test_the_bar_never_goes_back(events):
    """Whatever comes in whatever order, the value grows and stays in 0…0.99."""
    meter, before = Meter.of(GRAPH), 0.0
    for number, event in enumerate(events):
        meter = meter.after(event, number)
        assert before <= meter.value <= 0.99
        before = meter.value


@pytest.mark.parametrize(
    ("class_type", "stage"),
    [("UNETLoader", "loading"), ("KSampler", "sampling"), ("Custom", "preparing")],
)
def test_each_class_has_a_stage(class_type, stage):
    """Unknown nodes prepare something."""
    assert stage_of(class_type) == stage
