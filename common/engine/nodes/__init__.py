"""
The nodes, by class: `function(run, **inputs)` returns outputs or what it has shown.

A class that is not in this table is not in /object_info and is refused as unknown.
"""

from __future__ import annotations

from common.engine.nodes import audio, edit, images, latents, loaders, sampling, video
from common.engine.run import Nodes

NODES = Nodes(
    functions={
        **loaders.NODES,
        **audio.NODES,
        **edit.NODES,
        **images.NODES,
        **latents.NODES,
        **sampling.NODES,
        **video.NODES,
    },
    stamps={**audio.STAMPS, **images.STAMPS},
)
