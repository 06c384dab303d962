"""Processes that share a root: one fetch for all, and no half a file after a kill."""

import signal
import subprocess
import sys
import textwrap
import time

from tests.models.shelf import shelf


def view(shop, where, name, root="root"):
    return shop.folder / root / "models" / where / name


CHILD = """
    import sys
    from pathlib import Path
    from common.models import ModelEnsurer
    from common.settings import Settings

    folder = Path(sys.argv[1])
    settings = Settings(
        models=folder / "root", models_manifest=folder / "models.toml",
        models_margin_gb=0,
    )
    print("begun", flush=True)
    print(ModelEnsurer.from_config(settings).ensure("m@1"))
"""


def child(shop):
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(shop.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def test_processes_that_ask_together_fetch_once(tmp_path):
    """One fetches, the others wait for it, and each gets the file."""
    with shelf(tmp_path, rate=4_000_000) as shop:
        data = shop.put("a.safetensors", 6_000_000)
        shop.write()
        children = [child(shop) for _ in range(3)]
        outputs = [one.communicate(timeout=60)[0] for one in children]

        assert [one.returncode for one in children] == [0, 0, 0]
        assert {one.strip() for one in outputs} == {str(tmp_path / "root" / "models")}
        assert shop.server.sent < 1.2 * len(data)


def test_kills_at_any_moment_lose_little_and_never_leave_half_a_file(tmp_path):
    """Each life takes up what the one before had; the name appears when it is whole."""
    with shelf(tmp_path, rate=2_000_000) as shop:
        data = shop.put("a.safetensors", 24_000_000)
        shop.write()
        path = view(shop, "vae", "a.safetensors")
        for _ in range(3):
            before = shop.server.sent
            process = child(shop)
            while shop.server.sent < before + 4_000_000 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert not path.exists()
        process = child(shop)
        process.communicate(timeout=60)

        assert process.returncode == 0
        assert path.read_bytes() == data
        # A kill loses at most a block of 1 MiB for each of 16 connections.
        assert shop.server.sent < len(data) + 3 * 17 * 2**20
