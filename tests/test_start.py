import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from common.cli.main import app

ROOT = Path(__file__).parent.parent
TINY = ("--width", "256", "--height", "256", "--frames", "5", "--steps", "2")


@pytest.fixture(scope="module")
def start():
    """start.py as a module."""
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Steps:
    """Stands for `step`: remembers what would run, and does what it would leave."""

    def __init__(self, environment):
        self.ran = []
        self.fails_at = None
        self._environment = environment

    def __call__(self, what, command, log):
        self.ran.append(what.split()[0])
        if self.ran[-1] == self.fails_at:
            raise KeyboardInterrupt
        if what.startswith("making"):
            python = self._environment.python
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
            (self._environment.folder / "made").touch()


@pytest.fixture
def tree(start, tmp_path, monkeypatch):
    """An environment in a tree that has the locks, and the steps that make it."""
    for name in start.LOCKS.values():
        (tmp_path / name).write_text("a==1\nb==2\n", "utf-8")
    environment = start.Environment(tmp_path, tmp_path / ".venv")
    steps = Steps(environment)
    monkeypatch.setattr(start, "step", steps)
    monkeypatch.setattr(start.Environment, "_link", lambda self: None)
    return environment, steps


posix = pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links")


@posix
def test_a_second_start_installs_nothing(tree):
    """What is there for the locks is not looked at again."""
    environment, steps = tree

    environment.prepare("run")
    assert steps.ran == ["making", "installing"]
    environment.prepare("run")
    assert steps.ran == ["making", "installing"]
    assert not environment.mark.exists()


@posix
def test_a_new_lock_is_installed_on_top(tree):
    """When a lock changes, what it adds is installed into what is there."""
    environment, steps = tree
    environment.prepare("run")
    (environment.root / "requirements.lock").write_text("a==2\n", "utf-8")

    environment.prepare("run")

    assert steps.ran == ["making", "installing", "installing"]
    assert (environment.folder / "made").exists()


@posix
def test_the_tests_need_more_and_that_is_enough_to_run(tree):
    """The second lock holds the first, so testing first spares an installation."""
    environment, steps = tree

    environment.prepare("test")
    environment.prepare("run")

    assert steps.ran == ["making", "installing"]


@posix
@pytest.mark.parametrize("fails_at", ["making", "installing"])
def test_what_was_left_half_made_is_made_anew(tree, fails_at):
    """A start that was killed in the middle is repaired by the next one."""
    environment, steps = tree
    steps.fails_at = fails_at
    with pytest.raises(KeyboardInterrupt):
        environment.prepare("run")
    (environment.folder / "half").mkdir()
    steps.fails_at, steps.ran = None, []

    environment.prepare("run")

    assert steps.ran == ["making", "installing"]
    assert not (environment.folder / "half").exists()
    assert environment.ready("run")


@posix
def test_what_somebody_else_made_is_never_thrown_away(tree, start):
    """A .venv of another hand is used if it can be, and refused if not; it stays."""
    environment, steps = tree
    environment.folder.mkdir()
    (environment.folder / "precious").touch()

    for _ in range(2):
        with pytest.raises(start.Stop, match="made by somebody else"):
            environment.prepare("run")
    environment.python.parent.mkdir()
    environment.python.symlink_to(sys.executable)
    steps.fails_at = "installing"
    with pytest.raises(KeyboardInterrupt):
        environment.prepare("run")
    steps.fails_at = None
    environment.prepare("run")

    assert steps.ran == ["installing", "installing"]
    assert (environment.folder / "precious").exists()


@posix
def test_a_tree_that_moved_is_linked_again(tree, start):
    """The stamp knows where the tree was: a moved one is not taken as it is."""
    environment, _ = tree
    environment.prepare("run")
    moved = environment.root.with_name("moved")
    environment.root.rename(moved)

    assert not start.Environment(moved, moved / ".venv").ready("run")


@posix
def test_a_damaged_stamp_is_no_stamp(tree):
    """Nonsense in the stamp makes us install again, and nothing worse."""
    environment, steps = tree
    environment.prepare("run")
    environment.stamp.write_text("[]", "utf-8")

    environment.prepare("run")

    assert steps.ran == ["making", "installing", "installing"]


def test_the_environment_finds_us_and_has_wan(start, tmp_path):
    """From inside, `import common` works and `wan` is there, without any tool."""
    folder = tmp_path / "v e n v"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    environment = start.Environment(ROOT, folder)

    environment._link()

    code = "import common; print(common.__file__)"
    found = subprocess.check_output(
        [environment.python, "-P", "-c", code], cwd=tmp_path, text=True
    )
    assert Path(found.strip()).parent.parent == ROOT
    wan = environment.python.parent / ("wan.cmd" if start.WINDOWS else "wan")
    done = subprocess.run([wan, "--version"], capture_output=True, text=True)
    assert "No module named 'typer'" in done.stderr  # it is ours that was run


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], ["up"]),
        (["--once"], ["up", "--once"]),
        (["--engine", "comfyui"], ["up", "--engine", "comfyui"]),
        (["generate", "a fox", "--once"], ["up", "generate", "a fox", "--once"]),
        (["--version"], ["--version"]),
        (["doctor"], ["doctor"]),
        (["serve", "fast"], ["serve", "fast"]),
    ],
)
def test_short_words_mean_up(start, arguments, passed):
    """No command, an option or `generate` is `wan up`; all else is passed on."""
    assert start.wan_arguments(arguments) == passed


@pytest.mark.parametrize(
    ("output", "cure"),
    [
        ("ERROR: No matching distribution (from versions: none)", "check the network"),
        ("error: dns error: failed to lookup", "check the network"),
        ("The virtual environment … ensurepip is not available", "python3-venv"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("something else", "start again"),
    ],
)
def test_a_failed_step_says_what_to_do(start, output, cure):
    """The end of the output, and a cure for what it is known to mean."""
    said = start.trouble("installing", output)

    assert output in said
    assert cure in said


def test_a_step_shows_its_output_when_it_fails(start, tmp_path, capsys):
    """A command that fails stops the start with the end of what it said."""
    fails = [sys.executable, "-c", "import sys; sys.exit('broken pipe dream')"]

    with pytest.raises(start.Stop, match="broken pipe dream"):
        start.step("trying", fails, tmp_path / "log")

    start.step("trying", [sys.executable, "-c", ""], tmp_path / "log")
    assert "trying: done in" in capsys.readouterr().err


def test_an_old_python_can_read_it():
    """Nothing is newer than 3.7, so that an older Python can say it is too old."""
    ast.parse((ROOT / "start.py").read_text("utf-8"), feature_version=(3, 7))


def test_an_old_python_is_told(start, monkeypatch, capsys):
    """Where there is no newer Python, where to get one is said."""
    monkeypatch.setattr(start.shutil, "which", lambda _name: None)
    monkeypatch.setattr(start, "NEEDED", (99, 0))

    assert start.main([]) == 1
    assert "99.0 or later is needed" in capsys.readouterr().err


def test_a_newer_python_takes_over(start, monkeypatch):
    """Where there is a newer one beside an old one, it is used."""
    monkeypatch.setattr(start, "NEEDED", (99, 0))
    monkeypatch.setattr(start.shutil, "which", lambda name: f"/bin/{name}")
    called = []
    monkeypatch.setattr(
        start.subprocess, "call", lambda command: called.append(command)
    )

    start.main(["doctor"])

    assert called == [["/bin/python3.13", str(ROOT / "start.py"), "doctor"]]


def test_help_is_its_own(start, capsys):
    """Its help needs no environment."""
    assert start.main(["--help"]) == 0
    assert "python start.py --once" in capsys.readouterr().err


def test_help_names_the_commands(start):
    """Those of `wan`, but for what start.py does by itself."""
    words = set(re.findall(r"\w+", start.__doc__))

    assert set(get_command(app).commands) - {"up"} <= words


@posix
def test_a_wrong_command_is_told_what_works(tmp_path):
    """`wan` alone is not on the PATH: the way that was taken is said."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "start.py"), "frob"],
        env={**os.environ, "WAN_VENV": sys.prefix, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 2
    python = Path(sys.executable).name
    assert f"Try '{python} {ROOT / 'start.py'} --help'" in done.stderr


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-test.lock"])
def test_the_locks_name_hashes_and_no_registry(name):
    """Every package is pinned with hashes, wherever it will be downloaded from."""
    lines = (ROOT / name).read_text("utf-8").splitlines()

    pins = [i for i, line in enumerate(lines) if "==" in line]
    assert pins
    assert all("--hash=sha256:" in lines[i + 1] for i in pins)
    assert not [line for line in lines if "://" in line or "index-url" in line]


def test_the_lock_of_the_tests_holds_the_other():
    """A package has one version, whether the tests are installed or not."""

    def pins(name):
        lines = (ROOT / name).read_text("utf-8").splitlines()
        # On which systems it is wanted may differ.
        return {line.rstrip(" \\").partition(" ;")[0] for line in lines if "==" in line}

    assert pins("requirements.lock") < pins("requirements-test.lock")


@posix
def test_from_start_to_clip(tmp_path):
    """Run as people do, it hands over to `wan up` and ends with the clip's path."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WAN_", "COMFY"))
    }
    done = subprocess.run(
        [
            *(sys.executable, str(ROOT / "start.py"), "generate", "a fox", *TINY),
            *("--once", "--speed", "0", "--port", "0", "--data", str(tmp_path / "d")),
        ],
        env={**variables, "WAN_VENV": sys.prefix, "WAN_ENGINE_PORT": "0"}
        | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes()[4:8] == b"ftyp"
    assert "\x1b" not in done.stderr
