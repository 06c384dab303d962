"""
The edge that knows ComfyUI: its HTTP, its WebSocket, its process.

Nobody above imports aiohttp or reads ComfyUI's JSON.
"""

from common.comfy.engine import Comfy, Device, EngineInfo
from common.comfy.failure import Failure, failure
from common.comfy.follower import Follower, SocketLost
from common.comfy.http import EngineUnreachable, OutputMissing, OutputTooLarge, shown
from common.comfy.refusal import NodeError, WorkflowRejected
from common.comfy.state import Absent, Finished, History, Queued, Running, State

__all__ = [
    "Absent",
    "Comfy",
    "Device",
    "EngineInfo",
    "EngineUnreachable",
    "Failure",
    "Finished",
    "Follower",
    "History",
    "NodeError",
    "OutputMissing",
    "OutputTooLarge",
    "Queued",
    "Running",
    "SocketLost",
    "State",
    "WorkflowRejected",
    "failure",
    "shown",
]
