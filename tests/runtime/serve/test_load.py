"""Good and bad clients at once, in short; `benchmarks/studies/serve_load` is the long form, and measures time."""

import asyncio
import time

from serving import serving

from salema.benchmarks.studies.serve_load.clients import Crowd, Seen
from salema.benchmarks.studies.serve_load.load import wrong_maps
from salema.runtime.serve.limits import Limits

MOST_S = 60
GOOD = {"steady": 4, "watcher": 2}
BAD = {"slow": 1, "vanishing": 2, "lying": 2, "flooding": 2}


class Brief(Crowd):
    """A crowd that goes as soon as it has seen enough, however fast the machine is."""

    @property
    def is_over(self):
        refused = (self.seen.refused.get(kind, 0) for kind in ("lied", "vanished"))
        maps = [len(self.seen.maps.get(seed, ())) for seed in range(GOOD["steady"])]
        return super().is_over or (min(maps) >= 8 and self.seen.pictures >= 10 and min(refused) >= 4)


def test_bad_clients_take_nothing_from_the_others(model, small_clip):
    with serving(model, small_clip, limits=Limits(max_streams=12, max_fps=20)) as one:
        seen = Seen()
        crowd = Brief(one.port, time.monotonic() + MOST_S, seen, rate=5)
        asyncio.run(crowd.run({**GOOD, **BAD}))
        assert seen.lost == []
        assert sorted(seen.maps) == [0, 1, 2, 3]
        assert all(len(maps) >= 8 for maps in seen.maps.values())
        assert wrong_maps(model, seen) == 0
        assert seen.pictures >= 10
        assert seen.refused["lied"] >= 4
        assert seen.refused["vanished"] >= 4
        deadline = time.monotonic() + 10
        gauges = (one.service.metrics.streams, one.service.metrics.viewers)
        while any(gauge._value.get() for gauge in gauges) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [gauge._value.get() for gauge in gauges] == [0, 0]  # every place is given back
        assert one.notes == []
