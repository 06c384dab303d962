"""How long a run may take and be silent, by what it is doing. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from common.progress import Meter


@dataclass(frozen=True)
class Limits:
    """Seconds; `Settings` fills them in."""

    job_s: float = 1800
    load_s: float = 900
    step_s: float = 120
    decode_s: float = 300
    poll_s: float = 2.0  #: silence after which history and queue are asked
    absent_s: float = 1.0  #: in neither of them for so long means lost
    zombie_s: float = 15.0  #: waiting in ComfyUI while nothing runs there
    cancel_s: float = 30.0  #: from asking ComfyUI to stop to stopping ComfyUI
    home_s: float = 60.0  #: an engine that may have a job from before a restart
    rest_s: float = 300.0  #: for one that needs a restart, which is not ours to give

    def silence_s(self, meter: Meter) -> float:
        """
        Return how long no news is no trouble.

        Weights go to the GPU inside a sampler's first step, so until that one is made
        the limit is that of loading.
        """
        match meter.stage:
            case "sampling":
                return self.step_s if meter.warm else self.load_s
            case "decoding" | "saving":
                return self.decode_s
        return self.load_s
