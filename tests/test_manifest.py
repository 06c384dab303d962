import re
from pathlib import Path

import pytest

from common.engine.editors.weights import PIPELINE, transformer_file
from common.manifest import Manifest
from common.models.errors import BadManifest, Missing
from common.models.needs import models, needs
from common.service import folders, load

ROOT = Path(__file__).parent.parent
OURS = Manifest.load(ROOT / "models.toml")

SHA = "ab" * 32
COMMIT = "0123456789" * 4
GOOD = f"""\
schema = 1

[[file]]
name = "a.safetensors"
folder = "vae"
size = 10
sha256 = "{SHA}"
sources = ["hf://ORG/REPO@{COMMIT}/deep/a.safetensors"]

[[file]]
name = "b.safetensors"
folder = "loras"
unverified = true
sources = [
    "s3://bucket/b.safetensors",
    "https://example.com/b.safetensors?download=true",
    "local://b.safetensors",
]

[models."m@1.0"]
default = "fp8"
files = [
    "a.safetensors",
]

[models."m@1.0".variants.fp8]
files = ["loras/b.safetensors"]

[models."m@1.0".variants.fp16]
files = ["vae/"]
"""


def parsed(text=GOOD, **changes):
    for old, new in changes.items():
        text = text.replace(old, new)
    return Manifest.parse(text)


def refusal(old, new, text=GOOD):
    """Return what is said of GOOD with one thing changed."""
    assert old in text
    with pytest.raises(BadManifest) as caught:
        Manifest.parse(text.replace(old, new, 1))
    return caught.value


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


def test_a_variant_has_the_shared_files_and_its_own():
    """Files are named alone, with their folder, or by the folder; each one once."""
    manifest = parsed()

    fp8, fp16 = manifest.files_of("m@1.0"), manifest.files_of("m@1.0", "fp16")
    assert [file.path for file in fp8] == ["vae/a.safetensors", "loras/b.safetensors"]
    assert [file.path for file in fp16] == ["vae/a.safetensors"]
    assert manifest.model("m@1.0").version == "1.0"


def test_a_key_is_the_sha256_or_stands_for_the_place():
    """What has no sha256 yet is filed under its place."""
    a, b = parsed().files

    assert a.key == SHA
    assert re.fullmatch("unverified-[0-9a-f]{32}", b.key)


def test_what_is_parsed_does_not_change():
    """A manifest is frozen down to its files."""
    file = parsed().files[0]

    with pytest.raises(ValueError, match="frozen"):
        file.size = 11


@pytest.mark.parametrize(
    ("old", "new", "at", "says"),
    [
        (
            "schema = 1",
            "schema = 2",
            "schema",
            "schema: is 2, and this release reads 1",
        ),
        ("schema = 1", "", "", "schema: is None"),
        ("size = 10", "size = ", "size = ", "Invalid value"),
        ("size = 10", "size = 0", "size", "file.size: input should be greater than 0"),
        ("size = 10", 'size = "10"', "size", "file.size: input should be a valid"),
        ("size = 10", "bytes = 10", "bytes", "file.bytes: there is no such key"),
        ("size = 10\n", "", "[[file]]", "needs size and sha256, or unverified"),
        (SHA, SHA.upper(), "sha256", "file.sha256: is no sha256"),
        ('folder = "vae"', 'folder = "VAE"', "folder", "is none of ComfyUI's folders"),
        ('folder = "vae"', 'folder = "vae/x"', "folder", "only diffusers takes"),
        ('"a.safe', '"../a.safe', "name", "file.name: is a path"),
        ('"a.safe', '"con.safe', "name", "device on Windows"),
        ('"a.safe', '"a:.safe', "name", "a character such as"),
        ('"a.safetensors', '"a.ckpt', "[[file]]", "a.ckpt is no .safetensors"),
        (f"@{COMMIT}", "@main", "[[file]]", "main is no commit"),
        (f"@{COMMIT}", "", '"hf://', "names no revision"),
        ("hf://", "ftp://", '"ftp://', "unknown scheme"),
        ("https://", "https://me:pw@", "https://", "has credentials in it"),
        ("?download=true", "?X-Amz-Signature=s", "https://", "a secret in its query"),
        ("https://example", "http://example", '[[file]]\nname = "b', "needs a sha256"),
        ("local://", "local://../", "local://", "has a `..`"),
        ('"fp8"', '"fp4"', "default", "'fp4' is no variant of it: there are fp8, fp16"),
        ('"m@1.0"]', '"m"]', '[models."m"]', "is not name@version"),
    ],
    ids=lambda value: value[:24].strip() if isinstance(value, str) else None,
)
def test_an_error_names_file_line_and_key(old, new, at, says):
    """Whoever wrote it finds the place without counting."""
    error = refusal(old, new)

    assert says in error.message
    assert error.message.startswith("models.toml:")
    if at and "Invalid" not in says:
        line = line_of(GOOD.replace(old, new, 1), at)
        assert error.message.startswith(f"models.toml:{line}: ")


@pytest.mark.parametrize("number", range(GOOD.count("\n")))
@pytest.mark.parametrize("times", [0, 2], ids=["dropped", "doubled"])
def test_a_damaged_text_is_read_or_refused(number, times):
    """Whatever line is lost or doubled, the refusal is ours and has a place."""
    lines = GOOD.splitlines()
    lines[number : number + 1] = [lines[number]] * times

    said = "models.toml:1: "
    try:
        Manifest.parse("\n".join(lines))
    except BadManifest as error:
        said = error.message
    assert re.match(r"models\.toml:(\d+: | .*line \d+|.*end of)", said)


def test_a_syntax_error_names_its_line():
    """What tomllib says of the place is kept."""
    assert "line 6" in refusal("size = 10", "size = ").message


def test_secrets_are_not_repeated():
    """A refusal says what is wrong with a URL, and not the URL."""
    error = refusal("https://", "https://me:topsecret@")

    assert "topsecret" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize("reference", ["b.safetensor", "loras/c.safetensors"])
def test_a_misspelt_reference_says_what_is_near(reference):
    """The hint names the file that was meant; the line is that of the reference."""
    error = refusal("loras/b.safetensors", reference)

    text = GOOD.replace("loras/b.safetensors", reference, 1)
    line = line_of(text, f'"{reference}"')
    assert error.message.startswith(f"models.toml:{line}: ")
    assert "b.safetensors" in error.hint


def test_a_line_within_an_array_is_found():
    """Arrays go over several lines; the line is the item's."""
    error = refusal("s3://bucket/b.safetensors", "s3://bucket")

    assert error.message.startswith(f"models.toml:{line_of(GOOD, 's3://')}: ")


@pytest.mark.parametrize("name", ["a.safetensors", "A.safetensors"])
def test_a_place_is_taken_once(name):
    """Twice the same place is refused, also where only capitals differ."""
    text = GOOD.replace(
        "[models",
        f'[[file]]\nname = "{name}"\nfolder = "vae"\n'
        'unverified = true\nsources = ["local://x"]\n\n[models',
        1,
    )

    with pytest.raises(BadManifest, match="here twice: line 3 has it too"):
        Manifest.parse(text)


def test_one_content_has_one_size():
    """Two names of the same bytes agree on how many there are."""
    text = GOOD.replace("unverified = true", f'size = 11\nsha256 = "{SHA}"')

    with pytest.raises(BadManifest, match="the same sha256 and another size"):
        Manifest.parse(text)


def test_the_same_bytes_may_have_two_names():
    """They are stored once, and count once."""
    text = GOOD.replace("unverified = true", f'size = 10\nsha256 = "{SHA}"')

    variant = Manifest.parse(text).model("m@1.0").variant()
    assert len(variant.files) == 2
    assert variant.size == 10


def test_a_tree_is_as_many_files():
    """Each path has its folder, its name and its source."""
    tree = f"""
[[tree]]
folder = "diffusers/Edit"
sources = ["hf://ORG/REPO@{COMMIT}"]
files = ["model_index.json", "vae/config.json"]
"""
    manifest = Manifest.parse("schema = 1\n" + tree)

    index, config = manifest.files
    assert config.path == "diffusers/Edit/vae/config.json"
    assert config.sources == (f"hf://ORG/REPO@{COMMIT}/vae/config.json",)
    assert index.unverified
    assert not index.is_safetensors


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ('"../x.json"', "only|folder|`..`|drop"),
        ('"x.pickle"', "others run code"),
        ('"a.json", "a.json"', "here twice"),
    ],
    ids=["leaves its folder", "runs code", "twice"],
)
def test_a_bad_tree_is_refused(files, says):
    """A tree's files are checked as single ones are."""
    tree = '[[tree]]\nfolder = "diffusers/E"\nsources = ["s3://bucket/e"]\n'

    with pytest.raises(BadManifest, match=says):
        Manifest.parse(f"schema = 1\n{tree}files = [{files}]\n")


def test_who_is_not_there_has_near_names():
    """A model, a variant and a file each say what is there."""
    manifest = parsed()

    with pytest.raises(Missing) as model:
        manifest.model("m@1.1")
    with pytest.raises(Missing) as variant:
        manifest.files_of("m@1.0", "int4")
    with pytest.raises(Missing) as file:
        manifest.file("a.safetensor")
    assert model.value.hint == "did you mean m@1.0?"
    assert variant.value.hint == "there are fp8, fp16"
    assert file.value.hint.startswith("did you mean a.safetensors")


def test_an_absent_manifest_says_so(tmp_path):
    """The message names the file, and the hint the setting."""
    with pytest.raises(BadManifest, match=r"nope\.toml") as caught:
        Manifest.load(tmp_path / "nope.toml")
    assert "WAN_MODELS_MANIFEST" in caught.value.hint


@pytest.fixture(params=folders(ROOT), ids=lambda folder: folder.name)
def service(request):
    return load(request.param)


def test_every_weight_of_a_service_is_listed(service):
    """What a workflow loads is in the manifest, in the folder that its loader reads."""
    for need in needs(service):
        assert OURS.file(need.name).folder == need.folder


def test_every_service_is_one_model_or_two(service):
    """The models' default variants, and their others, hold what a service loads."""
    held = {
        file.path
        for model in OURS.models.values()
        for variant in model.variants.values()
        for file in variant.files
    }

    assert {f"{need.folder}/{need.name}" for need in needs(service)} <= held
    for id_ in models(service):
        assert OURS.model(id_).variant().files


@pytest.mark.parametrize("kind", ["int4", "fp4"])
def test_the_editor_finds_what_it_loads(kind):
    """Our own engine's model has the transformer of each card, and a pipeline."""
    paths = [file.path for file in OURS.files_of("qwen-image-edit@2509", kind)]

    assert f"diffusion_models/{transformer_file(kind)}" in paths
    assert f"diffusers/{PIPELINE}/model_index.json" in paths
    assert not any(part in path for path in paths for part in ("transformer/", "fp8"))


def test_every_listed_file_belongs_to_a_model():
    """Nothing is listed that nobody would fetch."""
    held = {
        file
        for model in OURS.models.values()
        for variant in model.variants.values()
        for file in variant.files
    }

    assert held == set(OURS.files)
