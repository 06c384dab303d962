import pytest

from tests.live import both


@pytest.fixture
def anyio_backend():
    """Run async tests on asyncio: aiohttp and SQLAlchemy's drivers know no other."""
    return "asyncio"


@pytest.fixture
async def live(tmp_path):
    """Serve FastWan over an embedded engine that pretends no work."""
    async with both(tmp_path) as running:
        yield running
