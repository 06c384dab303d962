"""The kernel's counters of out-of-memory kills, in each place they may be."""

import pytest

from common.comfy.oom import oom_kills


@pytest.mark.parametrize(
    ("files", "count"),
    [
        (
            {
                "proc/self/cgroup": "0::/pod/a\n",
                "sys/fs/cgroup/pod/a/memory.events": "oom 4\noom_kill 3\n",
                "proc/vmstat": "oom_kill 9\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.events": "low 0\noom_kill 2\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/a\n",
                "sys/fs/cgroup/memory/docker/a/memory.oom_control": "oom_kill 5\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/a\n",
                "sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 6\n",
            },
            6,
        ),
        ({"proc/vmstat": "nr_free 1\noom_kill 7\n"}, 7),
        ({"proc/vmstat": "oom_kill x\n"}, 0),
        ({}, 0),
    ],
    ids=["v2", "v2 root", "v1", "v1 container", "machine", "nonsense", "none"],
)
def test_oom_kills(tmp_path, files, count):
    """Our own group's counter wins over the machine's."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert oom_kills(tmp_path) == count
