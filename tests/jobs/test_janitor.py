"""What is past its time goes, and what cannot be written down stays."""

from unittest.mock import Mock

import pytest

from common.errors import StoreUnavailable
from common.job import Status
from common.jobs.bus import Bus
from common.jobs.janitor import Janitor
from common.jobs.ledger import Ledger
from common.jobs.queue import Waiting
from tests.jobs.conftest import accepted


async def test_a_job_that_expires_while_the_store_is_away_is_kept(store, monkeypatch):
    """It waits on, and expires when that can be written down."""
    waiting = Waiting()
    ledger = Ledger(store, Bus(), waiting, 0)
    janitor = Janitor(store, ledger, Mock(sweep=Mock(return_value=0)), 60)
    job = await ledger.add(accepted())  # of long ago
    waiting.put(job.id, 3)

    async def away(job):
        raise StoreUnavailable("the job store does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(store, "save", away)
        with pytest.raises(StoreUnavailable):
            await janitor.clean()
    assert waiting.ids() == [job.id]
    assert ledger.live(job.id).status is Status.QUEUED

    await janitor.clean()
    assert waiting.ids() == []
    assert (await ledger.get(job.id, "")).status is Status.EXPIRED
