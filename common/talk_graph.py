"""
A talking clip's graph: the exported one window, repeated until the sound is over.

Each window is saved by itself, so that ComfyUI may forget its frames: joined in the
graph, those of ten minutes would take hundreds of GB of the machine's memory. Pure; the
nodes are those of `infinite-talk-v1/workflow_api.json`, by title.
"""

from __future__ import annotations

from typing import Any

from common.talk import FPS, Piece, Window, turns, windows
from common.workflow import Workflow, is_link, title_of

#: Nodes that each window has one of.
PER_WINDOW: tuple[str, ...] = ("Heard", "Voice", "Talk", "Shift", "Sampler", "Decode")
#: What only a second speaker needs; in the exported workflow nothing reads it.
SECOND = (
    "InfiniteTalk for two",
    "Speech 2",
    "Heard 2",
    "Voice 2",
    "Both voices",
    *(f"Mask{number}{part}" for number in ("", " 2") for part in (" picture", " size")),
    "Mask",
    "Mask 2",
)
SPEECH, HEARD, MASK = ("Speech", "Speech 2"), ("Heard", "Heard 2"), ("Mask", "Mask 2")

Link = list[Any]


def chain(
    graph: Workflow, *, frames: int, motion: int, seed: int, turn_s: float | None
) -> None:
    """
    Make the graph's one window as many as `frames` take; each has a file of its own.

    The file of a single one has the sound; those of several have none.

    Args:
        graph: patched in place.
        motion: frames that a window takes over from the one before.
        seed: of the first window; the next one's is one higher.
        turn_s: when the second speaker begins, in seconds; None for one speaker.
    """
    titles = PER_WINDOW
    if turn_s is None:
        for title in SECOND:
            del graph.nodes[graph.id_of(title)]
    else:
        _second_speaker(graph)
        titles += ("Heard 2", "Voice 2")
    parts = windows(frames, motion)
    if len(parts) > 1:
        titles += ("Video", "Save video")
        del graph.inputs("Video", "audio")["audio"]
        if turn_s is not None:
            del graph.nodes[graph.id_of("Both voices")]
    exported = Workflow({graph.id_of(t): graph.node(t) for t in titles}).copy()
    previous: Link | None = None
    for number, window in enumerate(parts):
        suffix = f", window {number + 1}" if number else ""
        if previous is not None:
            _repeat(graph, exported, suffix)
            graph.node(f"Talk{suffix}")["inputs"]["previous_frames"] = previous
        _hear(graph, suffix, window, turn_s)
        graph.patch(f"Talk{suffix}", "length", window.length)
        graph.patch(f"Sampler{suffix}", "seed", seed + number)
        previous = _link(graph, f"Decode{suffix}")
        kept = _kept(graph, suffix, window, previous)
        graph.patch(f"Video{suffix}", "images", kept)


def _second_speaker(graph: Workflow) -> None:
    """Link the exported nodes of a second speaker."""
    graph.patch("Talk", "mode", "two_speakers")
    graph.patch("Talk", "model_patch", _link(graph, "InfiniteTalk for two"))
    del graph.nodes[graph.id_of("InfiniteTalk")]
    graph.patch("Video", "audio", _link(graph, "Both voices"))
    talk = graph.node("Talk")["inputs"]
    talk["mode.audio_encoder_output_2"] = _link(graph, "Voice 2")
    for mask in MASK:
        graph.patch(f"{mask} size", "width", talk["width"])
        graph.patch(f"{mask} size", "height", talk["height"])


def _repeat(graph: Workflow, exported: Workflow, suffix: str) -> None:
    """Add one more window's nodes, linked to each other as the exported ones are."""
    free = max(int(id_) for id_ in graph.nodes if id_.isdigit()) + 1
    ids = {old: str(free + place) for place, old in enumerate(exported.nodes)}
    for old, node in exported.nodes.items():
        inputs = {
            name: [ids.get(value[0], value[0]), value[1]] if is_link(value) else value
            for name, value in node["inputs"].items()
        }
        meta = {"title": title_of(node) + suffix}
        graph.nodes[ids[old]] = {**node, "inputs": inputs, "_meta": meta}


def _hear(graph: Workflow, suffix: str, window: Window, turn_s: float | None) -> None:
    """Give a window its part of the sound, and the faces in the order they speak."""
    start_s = window.heard_from / FPS
    if turn_s is None:
        pieces: tuple[Piece, ...] = (Piece(0, start_s, window.heard_s),)
    else:
        pieces = turns(start_s, start_s + window.heard_s, turn_s)
    for place, piece in enumerate(pieces):
        heard = graph.node(HEARD[place] + suffix)["inputs"]
        heard["audio"] = _link(graph, SPEECH[piece.speaker])
        heard["start_index"], heard["duration"] = piece.start_s, piece.duration_s
        if turn_s is not None:
            mask = _link(graph, MASK[piece.speaker])
            graph.node(f"Talk{suffix}")["inputs"][f"mode.mask_{place + 1}"] = mask


def _kept(graph: Workflow, suffix: str, window: Window, made: Link) -> Link:
    """Cut off what repeats the window before, and what is over the end."""
    if (window.skip, window.keep) == (0, window.length):
        return made
    return _add(
        graph,
        "ImageFromBatch",
        f"Kept{suffix}",
        image=made,
        batch_index=window.skip,
        length=window.keep,
    )


def _add(graph: Workflow, class_type: str, title: str, **inputs: object) -> Link:
    new = str(max(int(id_) for id_ in graph.nodes if id_.isdigit()) + 1)
    graph.nodes[new] = {
        "class_type": class_type,
        "inputs": inputs,
        "_meta": {"title": title},
    }
    return [new, 0]


def _link(graph: Workflow, title: str) -> Link:
    return [graph.id_of(title), 0]
