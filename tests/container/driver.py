"""Runs a Supervisor over programs of a JSON file, in a process that it owns."""

import json
import logging
import os
import sys
from pathlib import Path

from common.container.plan import Kind, Program
from common.container.supervisor import Supervisor

logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
given = json.loads(Path(sys.argv[1]).read_text())
counted = Path(sys.argv[1]).with_name("kills")

supervisor = Supervisor(
    [
        Program(one["name"], tuple(one["command"]), dict(os.environ), Kind[one["kind"]])
        for one in given["programs"]
    ],
    grace_s=given.get("grace_s", 5.0),
    backoff_s=tuple(given.get("backoff_s", (0.01, 0.05))),
    give_up=given.get("give_up", 5),
    term_s=given.get("term_s", 2.0),
    count_kills=lambda: len(counted.read_text()) if counted.exists() else 0,
)
sys.exit(supervisor.run())
