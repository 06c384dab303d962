import pytest


@pytest.fixture
def anyio_backend():
    """Run async tests on asyncio: aiohttp and SQLAlchemy's drivers know no other."""
    return "asyncio"
