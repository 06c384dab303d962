import pytest

from common.field_table import field_table
from common.service import folders, load


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_the_readme_lists_the_fields_as_they_are(folder):
    """`wan services --fields NAME` prints the table to paste; a neighbour is linked."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    service = load(folder)

    if service.folder == folder:
        assert field_table(service.request) in readme
    else:
        assert f"(../{service.folder.name}/README.md)" in readme


def test_a_row_says_range_unit_and_default():
    """Everything but the rules between fields."""
    table = field_table(load(folders()[0]).request)

    assert "| `steps` | 1 to 50, whole | `8` | Denoising steps. |" in table
    assert "| `prompt` | text, up to 2000 characters | required |" in table
    assert "2^53 - 1" in table
