"""
Weights: how fast a file comes, hashed, and what a kill costs, beside other tools.

    python bench/models.py [fast] [capped] [kill] [status] [together] [--quick]

All on loopback, against `tests/range_server.py` (sendfile) in a process of its own,
which is also the hub for huggingface_hub and the S3 for boto3: it serves `curl` no
faster than them, so it is not what limits them. Every tool's result is hashed, by
itself (`fetch`, aria2's --checksum) or with hashlib after it, in its own process and
time. The order of the tools is another in each round; figures are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import rig

FILE = "big.safetensors"
CAP = 20_000_000
# After 2 GiB were removed. A virtual machine gives freed memory back to its host over
# some seconds, and whoever writes meanwhile pays for it, be it fetch or curl.
SETTLE_S = 5
HASH = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    print(hashlib.file_digest(file, "sha256").hexdigest())
"""


# What each tool runs: `ours`, `hub` and `boto3` come back into this file.


def commands(
    url: str, folder: Path, sha256: str, *, checksum: bool
) -> dict[str, list[str]]:
    """Return each tool's command line; the file comes to `folder`."""
    me = [sys.executable, __file__, "--as"]
    aria2 = ["aria2c", "-q", "-x16", "-s16", "-d", str(folder), "-o", FILE]
    aria2 += ["--file-allocation=none"]
    if checksum:
        aria2 += [f"--checksum=sha-256={sha256}"]
    return {
        "fetch": [*me, "ours", url, str(folder), sha256],
        "curl": ["curl", "-s", "-o", str(folder / FILE), f"{url}/{FILE}"],
        "aria2c": [*aria2, f"{url}/{FILE}"],
        "huggingface_hub": [*me, "hub", url, str(folder), sha256],
        "boto3": [*me, "boto3", url, str(folder), sha256],
    }


def ours(url: str, folder: Path, sha256: str) -> None:
    """Fetch with this project."""
    from common.models.fetch import Goal, fetch
    from common.models.sources.address import Address

    class Web:
        label = "web"

        def resolve(self) -> Address:
            return Address(f"{url}/{FILE}")

    size = int(os.environ["BENCH_SIZE"])
    goal = Goal(FILE, size, sha256)
    options = {"notice": lambda *_: None, "stop": threading.Event()}
    fetch(goal, [Web()], folder, **options)
    said = os.environ.get("BENCH_RSS")
    if said:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        Path(said).write_text(str(peak / 1024), encoding="ascii")


def hub(url: str, folder: Path, _: str) -> None:
    """Download with huggingface_hub from a fake hub."""
    os.environ.update(HF_ENDPOINT=url, HF_HUB_DISABLE_XET="1", HF_HOME=str(folder))
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import hf_hub_download

    hf_hub_download("org/repo", FILE, local_dir=folder)


def boto3(url: str, folder: Path, _: str) -> None:
    """Download with boto3's transfer manager from a fake S3."""
    import boto3 as library
    from botocore.config import Config

    client = library.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.download_file("bucket", FILE, str(folder / FILE))


@contextlib.contextmanager
def served(folder: Path, rate: int | None = None) -> Iterator[tuple[str, Path]]:
    """Serve a folder; yield the address and the file that counts the bytes sent."""
    port, sent = rig.free_port(), folder.parent / "sent"
    command = [sys.executable, "-m", "tests.range_server", str(folder)]
    command += ["--port", str(port), "--sent", str(sent)]
    with rig.process([*command, *(["--rate", str(rate)] if rate else [])]):
        rig.wait_for(f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}", sent


def timed(command: list[str], folder: Path, sha256: str, hash_after: bool) -> float:
    """Run a tool into an empty folder; return the seconds, its hash's included."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.sync()
    time.sleep(SETTLE_S)
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=rig.ROOT, stdout=subprocess.DEVNULL)
    if hash_after:
        after = [sys.executable, "-c", HASH, str(folder / FILE)]
        found = subprocess.run(after, check=True, capture_output=True, text=True)
        assert found.stdout.strip() == sha256
    return time.perf_counter() - began


def side_by_side(
    served_folder: Path, work: Path, sha256: str, rounds: int, rate: int | None
) -> dict[str, float]:
    """Return the median seconds of each tool; `curl` without a hash."""
    seconds: dict[str, list[float]] = {}
    with served(served_folder, rate) as (url, _):
        tools = commands(url, work / "out", sha256, checksum=rate is None)
        if rate is not None:
            tools = {name: tools[name] for name in ("fetch", "aria2c")}
        for turn in range(rounds):
            names = list(tools)
            random.Random(turn).shuffle(names)
            for name in names:
                after = name in ("huggingface_hub", "boto3")
                took = timed(tools[name], work / "out", sha256, after)
                seconds.setdefault(name, []).append(took)
    return {name: statistics.median(took) for name, took in seconds.items()}


def killed(
    served_folder: Path, work: Path, sha256: str, turns: int
) -> dict[str, float]:
    """
    Return the most bytes (MiB) that each tool fetched twice because of a kill -9.

    What the server handed to the kernel counts: also what lay in socket buffers.
    """
    size = (served_folder / FILE).stat().st_size
    worst: dict[str, float] = {}
    # Slowed down, so that there is a middle to be killed in.
    with served(served_folder, CAP) as (url, counter):
        tools = commands(url, work / "out", sha256, checksum=False)
        for name in ("fetch", "aria2c", "huggingface_hub"):
            command = [*tools[name], *(["--continue=true"] if name == "aria2c" else [])]
            for turn in range(turns):
                shutil.rmtree(work / "out", ignore_errors=True)
                (work / "out").mkdir()
                time.sleep(0.1)
                before = int(counter.read_text(encoding="ascii"))
                at = size * random.Random(turn).uniform(0.2, 0.8)
                child = subprocess.Popen(command, cwd=rig.ROOT)
                while child.poll() is None and _sent(counter) - before < at:
                    time.sleep(0.01)
                child.kill()
                child.wait()
                subprocess.run(command, check=True, cwd=rig.ROOT, capture_output=True)
                time.sleep(0.1)
                twice = (_sent(counter) - before - size) / 2**20
                worst[name] = max(worst.get(name, 0), twice)
    return worst


def _sent(counter: Path) -> int:
    # The server writes the file as it goes: it is absent or empty for a moment.
    while not (said := counter.read_text("ascii") if counter.exists() else ""):
        time.sleep(0.001)
    return int(said)


MANIFEST = """schema = 1
{files}
[models."m@1"]
default = "v"
[models."m@1".variants.v]
files = ["vae/"]
"""


def manifest(work: Path, files: list[tuple[str, int, str, str]]) -> Path:
    """Write a manifest of (name, bytes, sha256, source) and return its path."""
    tables = "".join(
        f'[[file]]\nname = "{name}"\nfolder = "vae"\nsize = {size}\n'
        f'sha256 = "{sha256}"\nsources = ["{source}"]\n'
        for name, size, sha256, source in files
    )
    path = work / "models.toml"
    path.write_text(MANIFEST.format(files=tables), encoding="utf-8")
    return path


def tensors(path: Path, count: int, payload: int) -> None:
    """Write a sound safetensors file: `count` tensors of `payload` bytes each."""
    header = {
        f"blocks.{n}.attention.weight": {
            "dtype": "U8",
            "shape": [payload],
            "data_offsets": [n * payload, (n + 1) * payload],
        }
        for n in range(count)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            file.write(os.urandom(payload))


def status(work: Path, rounds: int) -> dict[str, float]:
    """
    Return milliseconds for the status of 100 verified files of 825 tensors each.

    `call` opens layers and manifest and looks at all files; `command` is all of
    `wan models status --json`, with the start of Python.
    """
    there = work / "published"
    there.mkdir()
    files = []
    for number in range(100):
        path = there / f"{number}.safetensors"
        tensors(path, 825, 64)  # as many as a 5B transformer has
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append((path.name, path.stat().st_size, found, f"local://{path}"))
    env = {
        "WAN_MODELS": str(work / "root"),
        "WAN_MODELS_MANIFEST": str(manifest(work, files)),
    }
    os.environ.update(env)
    from common.models import ModelEnsurer

    ModelEnsurer.from_config().ensure("m@1")
    calls, commands_ = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        (found,) = ModelEnsurer.from_config().status()
        calls.append(time.perf_counter() - began)
        assert found.state == "ready"
        assert len(found.files) == 100
        began = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "common.cli.main",
            "models",
            "status",
            "--json",
        ]
        subprocess.run(command, check=True, cwd=rig.ROOT, stdout=subprocess.DEVNULL)
        commands_.append(time.perf_counter() - began)
    for name in env:
        del os.environ[name]
    return {
        "call": 1000 * statistics.median(calls),
        "command": 1000 * statistics.median(commands_),
    }


ENSURE = """
from common.models import ModelEnsurer
print(ModelEnsurer.from_config().ensure("m@1"))
"""


def together(work: Path, size: int) -> float:
    """Return how often a file was sent when two processes ensure it at once."""
    there = work / "shared"
    there.mkdir()
    (there / "ready").touch()
    path = there / "one.safetensors"
    tensors(path, 16, size // 16)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with served(there) as (url, counter):
        facts = (path.name, path.stat().st_size, found, f"{url}/{path.name}")
        env = os.environ | {
            "WAN_MODELS": str(work / "volume"),
            "WAN_MODELS_MANIFEST": str(manifest(work, [facts])),
        }
        before = _sent(counter)
        children = [
            subprocess.Popen(
                [sys.executable, "-c", ENSURE],
                cwd=rig.ROOT,
                env=env,
                stdout=subprocess.DEVNULL,
            )
            for _ in range(2)
        ]
        assert [child.wait() for child in children] == [0, 0]
        time.sleep(0.1)
        return (_sent(counter) - before) / path.stat().st_size


def make(path: Path, size: int) -> str:
    """Write random bytes and return their sha256."""
    running = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size >> 20):
            data = os.urandom(1 << 20)
            running.update(data)
            file.write(data)
    return running.hexdigest()


PARTS = ["fast", "capped", "kill", "status", "together"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS)
    parser.add_argument("--quick", action="store_true", help="an eighth of the size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as", dest="tool", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tool:
        run = {"ours": ours, "hub": hub, "boto3": boto3}[args.tool[0]]
        run(args.tool[1], Path(args.tool[2]), args.tool[3])
        return
    figures: dict[str, object] = {}
    bounds: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as name:
        work, size = Path(name), (2 << 30) // (8 if args.quick else 1)
        (work / "served").mkdir()
        (work / "served" / "ready").touch()
        os.environ.update(BENCH_SIZE=str(size), BENCH_RSS=str(work / "rss"))
        sha256 = make(work / "served" / FILE, size)
        if "fast" in args.parts:
            took = side_by_side(work / "served", work, sha256, args.rounds, None)
            figures |= {f"fast_{tool}_s": round(s, 2) for tool, s in took.items()}
            mine = took.pop("fetch")
            for tool, seconds in took.items():
                figures[f"fast_ratio_to_{tool}"] = round(mine / seconds, 2)
                bounds[f"fast_{tool}"] = mine / seconds <= (
                    1.15 if tool == "curl" else 1
                )
        if "capped" in args.parts:
            took = side_by_side(work / "served", work, sha256, args.rounds, CAP)
            figures |= {f"capped_{tool}_s": round(s, 2) for tool, s in took.items()}
            share = took["aria2c"] / took["fetch"]
            figures["capped_share_of_aria2c"] = round(share, 2)
            bounds["capped"] = share >= 0.9
        if "kill" in args.parts:
            os.environ["BENCH_SIZE"] = str(size // 2)
            os.truncate(work / "served" / FILE, size // 2)
            with (work / "served" / FILE).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            lost = killed(work / "served", work, sha256, args.rounds)
            figures |= {f"kill_{tool}_mib": round(mib, 1) for tool, mib in lost.items()}
            bounds["kill"] = lost["fetch"] <= 64
        if "status" in args.parts:
            took = status(work, 5)
            figures |= {f"status_{what}_ms": round(ms, 1) for what, ms in took.items()}
            bounds["status"] = took["call"] <= 150
        if "together" in args.parts:
            times = together(work, size // 2)
            figures["together_times_sent"] = round(times, 3)
            bounds["together"] = times <= 1.02
        if not (work / "rss").exists():
            (work / "rss").write_text("0", encoding="ascii")
        peak = float((work / "rss").read_text(encoding="ascii"))
        figures["peak_rss_mib"] = round(peak, 1)
        bounds["rss"] = peak < 200
    figures["missed"] = [name for name, reached in bounds.items() if not reached]
    rig.report("models", figures, all(bounds.values()))


if __name__ == "__main__":
    main()
