"""The ledger over a store that is away now and then."""

from common.errors import StoreUnavailable
from common.jobs.bus import Bus
from common.jobs.ledger import Ledger
from common.jobs.queue import Waiting
from tests.jobs.conftest import GRAPH, accepted


async def test_a_recovered_job_is_taken_although_the_store_is_away(store, monkeypatch):
    """What it is to run is asked for until the store says it."""
    job = await Ledger(store, Bus(), Waiting(), 0).add(accepted())
    ledger = Ledger(store, Bus(), Waiting(), 0)
    await ledger.recover()
    work_of, away = store.work_of, [True]

    async def away_once(job_id):
        if away and away.pop():
            raise StoreUnavailable("the job store does not answer")
        return await work_of(job_id)

    monkeypatch.setattr(store, "work_of", away_once)
    workflow, _ = await ledger.work_of(job.id)

    assert workflow == GRAPH
