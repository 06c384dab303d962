"""
Each row of data/bad_inputs_SERVICE.jsonl, sent to that service: refusals by its fields.

A row passes when it is refused with the status (422 unless it says otherwise) and code,
names the field that the caller sent, and gives the hint. "PNG" stands for a picture.
"""

import base64
import json
from pathlib import Path

import pytest

from common.service import find, load
from tests.live import both
from tests.pictures import png

LISTS = sorted((Path(__file__).parent / "data").glob("bad_inputs_*.jsonl"))
PNG = base64.b64encode(png(64, 64)).decode()


@pytest.mark.parametrize("rows", LISTS, ids=lambda path: path.stem[11:])
async def test_bad_fields_are_named(rows, tmp_path):
    """Each row is refused by its field, and nothing is queued."""
    service = load(find(rows.stem.removeprefix("bad_inputs_")))
    wrong = {}
    async with both(tmp_path, service=service) as live:
        for line in rows.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            given = {k: PNG if v == "PNG" else v for k, v in row["body"].items()}
            body = {"prompt": "a cat walks", **given}
            status, answer = await live.post("/generate", json=body)
            if problems := list(faults(row, status, answer)):
                wrong[row["name"]] = problems
        jobs = (await live.get("/jobs"))[1]["jobs"]

    assert wrong == {}
    assert jobs == []


def faults(row, status, answer):
    """Yield what is wrong with an answer."""
    if status != row.get("status", 422):
        yield status, answer
        return
    if answer["code"] != row.get("code", answer["code"]):
        yield answer["code"]
    if not answer["detail"].startswith(f"{row['field']}: "):
        yield answer["detail"]
    for error in answer["errors"][:1]:
        if error["field"] != row["field"]:
            yield error
        if row.get("hint", "") not in error.get("hint", ""):
            yield error
    if status == 422 and not answer["errors"]:
        yield "no field is named"
