""".ci/run: on a machine where it may install nothing, it tests what it can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(os.name != "posix" or BASH is None, reason="no bash")


@pytest.fixture
def machine(tmp_path):
    """Return what runs .ci/run where only the programs given are there."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "start.py").write_text("import sys; print(sys.argv[1:])\n")
    for name in ("dirname", "env", "bash"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    (tmp_path / "bin/python3").symlink_to(sys.executable)

    def run(**programs):
        for name, script in programs.items():
            path = tmp_path / "bin" / name.replace("_", "-")
            path.write_text(f"#!{BASH}\n{script}\n")
            path.chmod(0o755)
        return subprocess.run(
            [BASH, tmp_path / ".ci/run", "-q"],
            env={"PATH": str(tmp_path / "bin")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "programs",
    [
        {},
        {"id": "echo 1000", "apt_get": "exit 0"},
        {"id": "echo 0", "apt_get": "exit 100"},
    ],
    ids=["no apt", "no sudo", "no network"],
)
def test_it_tests_without_what_it_cannot_install(machine, programs):
    """The tests of what is absent skip, and the others run."""
    done = machine(**programs)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "['test', '-q']\n"


def test_it_installs_what_is_absent(machine):
    """As root, or by sudo."""
    done = machine(
        id="echo 1000",
        sudo='DEBIAN_FRONTEND=x "$@"',
        apt_get='case $1 in install) echo "$@" >&2;; esac',
    )

    assert done.returncode == 0, done.stderr
    for name in ("aria2", "buildah", "caddy", "debootstrap"):
        assert f" {name}" in done.stderr
