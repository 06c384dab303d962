"""Volumes of our own for tests that run as root."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest

root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="needs to mount",
)


@contextmanager
def tmpfs(folder, options):
    """Mount a small tmpfs on a folder."""
    with _mounted(folder, "-t", "tmpfs", "-o", options, "tmpfs"):
        yield folder


@contextmanager
def ext2(folder, size):
    """Mount a small ext2 on a folder."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(size)
    make = shutil.which("mkfs.ext2", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
    if make is None:
        pytest.skip("there is no mkfs.ext2")
    subprocess.run([make, "-q", "-F", str(image)], check=True)
    with _mounted(folder, "-o", "loop", str(image)):
        yield folder


@contextmanager
def _mounted(folder, *what):
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *what, str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def read_only(folder):
    """Let a mounted folder take no writes any more."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(folder):
    """Leave no byte free on a mounted folder; return the file that took them."""
    path = folder / "fill"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path
