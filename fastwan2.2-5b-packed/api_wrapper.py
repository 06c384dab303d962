"""FastWan 2.2 5B with its weights in the image: the neighbour's service, renamed."""

from dataclasses import replace
from pathlib import Path

from common.service import load

_HERE = Path(__file__).parent
service = replace(
    load(_HERE.parent / "fastwan2.2-5b-network-storage"),
    name=_HERE.name,
    title="FastWan 2.2 5B, packed",
)
