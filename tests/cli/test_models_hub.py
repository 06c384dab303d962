"""`wan models` and a Hugging Face Hub: tokens, terms, and what is written down."""

import hashlib
import re
from pathlib import Path

import pytest

from common.manifest import Manifest
from common.manifest_schema import BESIDE
from tests.fake_hub import COMMIT, TOKEN, fake_hub
from tests.models.tensors import tensors

REPOSITORY = Path(__file__).parents[2]
FILES = {"open": "o", "private": "p", "gated": "g"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with three repositories, of which one is private and one gated."""
    with fake_hub() as running:
        texts = ["schema = 1"]
        for number, (name, short) in enumerate(FILES.items()):
            data = tensors(number, 50_000)
            running.put(f"org/{name}", f"{short}.safetensors", data)
            texts.append(
                f'[[file]]\nname = "{short}.safetensors"\nfolder = "vae"\n'
                f"size = {len(data)}\n"
                f'sha256 = "{hashlib.sha256(data).hexdigest()}"\n'
                f'sources = ["hf://org/{name}@{COMMIT}/{short}.safetensors"]\n'
                f'[models."{short}@1"]\ndefault = "v"\n'
                f'[models."{short}@1".variants.v]\nfiles = ["{short}.safetensors"]'
            )
        running.private.add("org/private")
        running.gated.add("org/gated")
        manifest = tmp_path / "models.toml"
        manifest.write_text("\n".join(texts) + "\n")
        monkeypatch.setenv("WAN_MODELS", str(tmp_path / "root"))
        monkeypatch.setenv("WAN_MODELS_MANIFEST", str(manifest))
        monkeypatch.setenv("WAN_MODELS_MARGIN_GB", "0")
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HOME"):
            monkeypatch.delenv(name, raising=False)
        yield running


def test_an_open_file_needs_no_token(wan, hub, monkeypatch):
    """Its bytes come from the CDN; the Hub is asked once, and told nothing of us."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.utils._headers.detect_agent", lambda: asked.append(1)
    )
    assert wan("models", "ensure", "o@1").code == 0
    assert len(hub.asked_by("hub")) == 1
    assert asked == []
    assert all(who == "hub" or header is None for who, _, _, header in hub.asked)


@pytest.mark.parametrize(
    ("model", "token", "words", "hint"),
    [
        ("p@1", None, "a token is needed", "set HF_TOKEN"),
        ("p@1", "hf_wrong", "the token is refused", "set HF_TOKEN"),
        ("g@1", None, "wants terms to be accepted", "/org/gated"),
        ("g@1", TOKEN, "wants terms to be accepted", "/org/gated"),
    ],
    ids=["no token", "a wrong one", "terms, no token", "terms, a token"],
)
def test_what_the_hub_refuses_is_7_and_says_what_to_do(
    wan, hub, monkeypatch, model, token, words, hint
):
    """The cause, and the page or the variable that cures it; no token is repeated."""
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)

    said = wan("models", "ensure", model)

    assert said.code == 7
    assert words in said.err
    assert hint in said.err.partition("hint:")[2]
    assert token is None or token not in said.out + said.err


def test_each_thing_to_do_is_said_once(wan, hub):
    """Files that fail for several reasons need several cures."""
    said = wan("models", "ensure", "p@1", "g@1")

    assert said.code == 7
    hints = [line for line in said.err.splitlines() if line.startswith("hint: ")]
    assert len(hints) == len(set(hints)) == 2
    assert any("set HF_TOKEN" in line for line in hints)
    assert any("/org/gated" in line for line in hints)


@pytest.fixture
def pipeline(hub, monkeypatch):
    """Our own manifest's pipeline of the image editor, and the texts that it has."""
    monkeypatch.setenv("WAN_MODELS_MANIFEST", str(REPOSITORY / "models.toml"))
    manifest = Manifest.load(REPOSITORY / "models.toml")
    files = [one for one in manifest.files if one.name.endswith(BESIDE)]
    for number, file in enumerate(files):
        repo, _, rest = file.sources[0].removeprefix("hf://").partition("@")
        commit, _, path = rest.partition("/")
        hub.branches["pinned"] = commit
        hub.put(repo, path, b"{}" + b" " * number * 100)  # some are small, some are not
    return files


def test_the_texts_of_our_image_editor_come(wan, hub, pipeline, tmp_path):
    """No page states their sha256; the Hub states that of the large ones."""
    assert len(pipeline) == 21
    said = [wan("models", "ensure", file.path) for file in pipeline]

    assert {one.code for one in said} == {0}
    for number, file in enumerate(pipeline):
        there = tmp_path / "root" / "models" / file.path
        assert there.read_bytes() == b"{}" + b" " * number * 100


def test_no_secret_is_written_anywhere(wan, hub, monkeypatch, tmp_path):
    """Not a token, not a signed URL: in no line, no receipt, no journal, no record."""
    monkeypatch.setenv("LOG_LEVEL", "debug")
    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("WAN_HF_TOKEN_FILE", str(secret))
    said = [wan("models", "ensure", "p@1", "--json"), wan("models", "ensure", "o@1")]
    hub.expired = True  # the CDN refuses from here on, whatever it is shown
    (tmp_path / "root/models/vae/p.safetensors").unlink()
    monkeypatch.setenv("WAN_MODELS", str(tmp_path / "other"))
    said.append(wan("models", "ensure", "p@1", "--json"))
    said.append(wan("models", "why", "p.safetensors"))

    assert [one.code for one in said] == [0, 0, 7, 0]
    texts = [one.out + one.err for one in said]
    for root in (tmp_path / "root", tmp_path / "other"):
        files = (path for path in root.rglob("*") if path.is_file())
        texts += [path.read_text("latin-1") for path in files]
    assert len(texts) > 8
    bad = re.compile(f"{re.escape(TOKEN)}|Signature=|Expires=|Bearer ")
    assert [text[:200] for text in texts if bad.search(text)] == []
