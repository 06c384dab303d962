"""Which files a service, a workflow or a model's name means."""

import pytest

from common.models import ModelEnsurer
from common.models.errors import Missing
from common.service import find, folders, load
from common.settings import Settings


def test_a_model_that_nobody_knows_is_refused_with_near_names(tmp_path):
    """The hint is what was meant."""
    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))

    with pytest.raises(Missing) as caught:
        ensurer.files_of("qwen-image-edit@2508")

    assert "qwen-image-edit@2509" in caught.value.hint


@pytest.mark.parametrize("folder", folders(), ids=lambda one: one.name)
def test_each_service_needs_files_of_the_manifest(folder, tmp_path):
    """Nothing that a service loads is unknown; the exact set is its workflow's."""
    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))
    service = load(folder)

    needed = {file.name for file in ensurer.needed_by(service, variants=True)}
    loaded = {name for one in service.workflows.values() for name in one.weights()}

    assert needed >= loaded
    assert needed


def test_a_model_that_a_node_loads_whole_is_needed_in_one_variant(tmp_path):
    """The one that suits the card, where somebody says which that is."""
    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))
    service = load(find("qwen-image-edit-nunchaku"))
    usual = {one.name[:9] for one in ensurer.needed_by(service)}
    ensurer.variants["qwen-image-edit@2509"] = "fp4"
    job = {one.name[:9] for one in ensurer.loaded_by(service.workflow)}

    assert "svdq-int4" in usual - job
    assert "svdq-fp4_" in job - usual
    assert len(usual) == len(job) > 5


def test_a_variants_files_are_asked_for_by_name(tmp_path):
    """The 14B pair for text-to-video is 28 GB: nobody gets it without asking."""
    ensurer = ModelEnsurer.from_config(Settings(models=tmp_path))
    service = load(find("wan2.2-14b-loras"))

    main = {file.name for file in ensurer.needed_by(service)}
    every = {file.name for file in ensurer.needed_by(service, variants=True)}

    assert not any("t2v" in name for name in main)
    assert any("t2v" in name for name in every - main)
