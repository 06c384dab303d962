#!/usr/bin/env python3
"""
Installs what is needed into .venv, once, and starts.

    python start.py                 start FastWan, make a clip, go on serving
    python start.py --once          the same, and end after the clip
    python start.py generate "a red fox" --image fox.png --seconds 3
    python start.py test            check and test everything
    python start.py test ARGUMENTS  pytest alone, with these arguments
    python start.py lock            refresh the locks (needs uv)
    python start.py COMMAND ...     any command of `wan`: serve, services, estimate,
                                    jobs, models, engine, runpod, doctor, container;
                                    COMMAND --help tells of it

Standard library only. Python 3.11 or later; an older one is told so, which is why
nothing here is newer than 3.6 in its syntax.

WAN_VENV names an environment to use as it is: nothing is installed then.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent
NEEDED = (3, 11)
KNOWN = ("3.13", "3.12", "3.11")  # looked for when we are run by an older one
WINDOWS = os.name == "nt"
LOCKS = {"run": "requirements.lock", "test": "requirements-test.lock"}
EXTRAS = {"run": ("aria2", "postgres"), "test": ("aria2", "postgres", "runpod", "test")}
HEADER = """\
# Made by `python start.py lock` from pyproject.toml: every package with the hashes of
# all its files, for each system and Python. It names no registry. Not to be edited.
"""
OFFLINE = (
    "name resolution",
    "getaddrinfo",
    "from versions: none",
    "failed to establish a new connection",
    "network is unreachable",
    "connection refused",
    "dns error",
    "error sending request",
    "connecttimeouterror",
)
HALF_MADE = "half made by start.py"
COVERAGE_PERCENT = 90


class Stop(Exception):
    """Something keeps us from starting; the text says what, and what to do."""


class Environment:
    """The virtual environment, and what is known of it."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if WINDOWS else "bin/python")
        self.stamp = folder / "wan-stamp.json"
        #: there while it is being made; locked by whoever makes it
        self.mark = folder / "wan-making"
        self.log = folder / "wan-install.log"

    def prepare(self, kind: str) -> None:
        """
        Install what `kind` ("run" or "test") needs, unless it is there.

        What a killed run left half made is thrown away; an environment that somebody
        else made never is.

        Raises:
            Stop: it is somebody else's, and its Python is not ours.
        """
        if self.ready(kind):
            return
        self.folder.mkdir(exist_ok=True)
        with self.mark.open("a+", encoding="utf-8") as held:
            lock_file(held)
            if self.ready(kind):
                return  # another start.py made it while we waited
            held.seek(0)
            half_made = held.read() == HALF_MADE
            if not half_made and self._usable():
                self._install(kind)
            elif half_made or not self._others():
                held.truncate(0)
                held.write(HALF_MADE)
                held.flush()
                self._create()
                self._install(kind)
            else:
                raise Stop(
                    "%s was made by somebody else, with another Python than %s: remove"
                    " it, or name it in WAN_VENV if it has all that is needed"
                    % (self.folder, python())
                )
            held.truncate(0)
        # Windows keeps it while another start.py waits with it open; it is empty.
        with suppress(OSError):
            self.mark.unlink()

    def ready(self, kind: str) -> bool:
        """Tell whether the environment is what the locks ask for."""
        if not self.python.exists():
            return False
        known = self._known()
        same = known.get("root") == str(self.root) and known.get("python") == python()
        # What is installed for the tests is enough to run.
        return same and any(
            known.get(one) == digest(self.root / LOCKS[one]) for one in (kind, "test")
        )

    def _others(self) -> bool:
        """Tell whether something is in the folder, and we did not make it."""
        own = (self.mark, self.log)
        there = [path for path in self.folder.iterdir() if path not in own]
        return bool(there) and "ours" not in self._known()

    def _create(self) -> None:
        self._clear()
        command = [sys.executable, "-m", "venv", str(self.folder)]
        if shutil.which("uv"):
            command.append("--without-pip")
        step("making .venv", command, self.log)
        self.stamp.write_text(json.dumps({"ours": "yes"}), "utf-8")

    def _install(self, kind: str) -> None:
        lock = self.root / LOCKS[kind]
        wanted = ["--require-hashes", "-r", str(lock)]
        uv = shutil.which("uv")
        if uv:
            command = [uv, "pip", "install", "--python", str(self.python), *wanted]
        else:
            quiet = ["--disable-pip-version-check", "--no-input"]
            command = [str(self.python), "-m", "pip", "install", *quiet, *wanted]
        many = sum("==" in line for line in lock.read_text("utf-8").splitlines())
        step("installing %d packages" % many, command, self.log)
        self._link()
        known = self._known()
        known.update({"root": str(self.root), "python": python(), kind: digest(lock)})
        self.stamp.write_text(json.dumps(known), "utf-8")

    def _usable(self) -> bool:
        """Tell whether an environment is there that its Python still runs."""
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            found = subprocess.run(
                [str(self.python), "-c", code],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        return found.stdout.decode().strip() == python()

    def _clear(self) -> None:
        """Empty the folder, but for the mark: a kill in here must be noticed, too."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != self.mark:
                path.unlink()

    def _link(self) -> None:
        """
        Make `import common` and `wan` work from the environment.

        By hand, with a path file and a script, because it needs no build tool, no
        network and no second; `pip install -e .` needs all three.
        """
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = subprocess.check_output([str(self.python), "-c", code]).decode()
        path_file = Path(packages.strip()) / "wan-services.pth"
        path_file.write_text(str(self.root) + "\n", "utf-8")
        if WINDOWS:
            text = '@"%~dp0python.exe" -P -m common.cli.main %*\r\n'
            (self.python.parent / "wan.cmd").write_text(text, "utf-8")
            return
        script = self.python.parent / "wan"
        # Not by #!, which takes no path that is long or has a blank.
        script.write_text(
            '#!/bin/sh\nexec "%s" -P -m common.cli.main "$@"\n' % self.python,
            "utf-8",
        )
        script.chmod(0o755)

    def _known(self) -> "dict[str, str]":
        try:
            known = json.loads(self.stamp.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def main(arguments: "list[str]") -> int:
    """Do what the command line asks for; return the exit code."""
    if sys.version_info < NEEDED:
        return newer_python(arguments)
    if arguments[:1] in (["-h"], ["--help"]):
        say((__doc__ or "").strip())
        return 0
    try:
        if arguments[:1] == ["lock"]:
            return lock()
        given = os.environ.get("WAN_VENV")
        environment = Environment(ROOT, Path(given) if given else ROOT / ".venv")
        testing = arguments[:1] == ["test"]
        if not given:
            environment.prepare("test" if testing else "run")
        if testing:
            return test(str(environment.python), arguments[1:])
        return hand_over(str(environment.python), wan_arguments(arguments))
    except Stop as stop:
        say("error: " + str(stop))
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode  # it has said why
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def wan_arguments(arguments: "list[str]") -> "list[str]":
    """
    Return the arguments of `wan`: ours, or those of `wan up` where we are brief.

    >>> wan_arguments([]), wan_arguments(["--once"]), wan_arguments(["doctor"])
    (['up'], ['up', '--once'], ['doctor'])
    """
    first = arguments[0] if arguments else "--"
    if first == "generate" or (first.startswith("-") and first != "--version"):
        return ["up", *arguments]
    return arguments


def hand_over(python_path: str, arguments: "list[str]") -> int:
    """Become `wan`; where a process cannot, wait for it."""
    # -P: a folder named `common` where we are called from is not ours.
    command = [python_path, "-P", "-m", "common.cli.main", *arguments]
    # What it calls itself in its hints: `wan` alone is not on the PATH.
    typed = shlex.join([Path(sys.executable).name, sys.argv[0]])
    variables = dict(os.environ, WAN_COMMAND=typed)
    sys.stdout.flush()
    if not WINDOWS:
        os.execve(python_path, command, variables)  # noqa: S606 - our own Python
    child = subprocess.Popen(command, env=variables)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue  # it had the same Ctrl-C, and ends when it is ready to


def test(python_path: str, arguments: "list[str]") -> int:
    """Check and test everything, or run pytest with `arguments` alone."""
    os.chdir(str(ROOT))
    tool = [python_path, "-m"]
    if arguments:
        return subprocess.call([*tool, "pytest", *arguments])
    checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."]]
    # One run each: wrappers all have the same name.
    checks += [["mypy", "common", "start.py"]]
    checks += [["mypy", str(one)] for one in sorted(ROOT.glob("*/api_wrapper.py"))]
    for check in checks:
        say("$ " + " ".join(check))
        code = subprocess.call([*tool, *check])
        if code:
            return code
    say("$ pytest")
    return subprocess.call(
        [
            *tool,
            "pytest",
            *("-n", "auto", "--dist", "worksteal"),
            *("--cov", "--cov-report=term:skip-covered"),
            "--cov-fail-under=" + str(COVERAGE_PERCENT),
        ]
    )


def lock() -> int:
    """Write both locks anew, from pyproject.toml and whatever index uv is set to."""
    uv = shutil.which("uv")
    if uv is None:
        raise Stop("this needs uv: https://docs.astral.sh/uv/ tells how to install it")
    for kind, name in LOCKS.items():
        command = [uv, "pip", "compile", "pyproject.toml", "--universal"]
        command += ["--python-version", "%d.%d" % NEEDED, "--generate-hashes"]
        command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
        for extra in EXTRAS[kind]:
            command += ["--extra", extra]
        if kind == "test":
            command += ["--constraint", LOCKS["run"]]
        made = subprocess.run(
            command, stdout=subprocess.PIPE, cwd=str(ROOT), check=False
        )
        if made.returncode:
            return made.returncode
        (ROOT / name).write_bytes(HEADER.encode() + made.stdout)
        say("wrote " + name)
    return 0


def step(what: str, command: "list[str]", log: Path) -> None:
    """
    Run a command with its output in `log`, and show that it goes on.

    Raises:
        Stop: it failed; with the end of its output.
    """
    began = time.monotonic()
    drawn = sys.stderr.isatty()
    if not drawn:
        say(what + " …")
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            while child.poll() is None:
                if drawn:
                    draw("%s … %d s" % (what, time.monotonic() - began))
                time.sleep(0.1)
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if drawn:
        draw("")
    if child.returncode:
        raise Stop(trouble(what, log.read_text("utf-8", "replace")))
    say("%s: done in %.0f s" % (what, time.monotonic() - began))


def trouble(what: str, output: str) -> str:
    """Return why a step failed, as far as its output tells, and what to do."""
    end = "\n".join(output.strip().splitlines()[-8:])
    low = output.lower()
    if "ensurepip" in low:
        cure = "install the package python3-venv, or uv, and start again"
    elif any(sign in low for sign in OFFLINE):
        cure = (
            "the package index does not answer: check the network, or the proxy and"
            " index that pip or uv are set to, and start again"
        )
    elif "no space left" in low:
        cure = "the disk is full"
    else:
        cure = "start again; if it stays, remove .venv first"
    return what + " failed\n" + end + "\n" + cure


def newer_python(arguments: "list[str]") -> int:
    """Start again with a newer Python, if there is one; say so if not."""
    for version in KNOWN:
        found = shutil.which("python" + version)
        if found:
            return subprocess.call([found, str(ROOT / "start.py")] + arguments)
    say(
        "error: this is Python %d.%d, and %d.%d or later is needed:"
        " https://www.python.org/downloads/" % (sys.version_info[:2] + NEEDED)
    )
    return 1


def lock_file(file: TextIO) -> None:
    """Wait until no other start.py holds the open file; the system frees it with us."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        while True:  # it gives up after ten seconds
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            except OSError:
                continue
            return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another start.py is installing; waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)


def python() -> str:
    """Return our version as far as installed packages depend on it."""
    return "%d.%d" % sys.version_info[:2]


def digest(path: Path) -> str:
    """Return what changes with a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def draw(text: str) -> None:
    """Replace the line that shows how far a step is."""
    sys.stderr.write("\r\x1b[K" + text)
    sys.stderr.flush()


def say(text: str) -> None:
    """Write a line for a person."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
