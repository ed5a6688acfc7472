from types import SimpleNamespace

from salema.runtime.fleet.size import workers_that_fit


def test_how_many_workers_fit():
    nodes = [SimpleNamespace(cores=cores, gpus=gpus) for cores, gpus in ((8, 0), (3, 1), (4, 4), (0, 0))]
    cluster = SimpleNamespace(nodes=lambda: nodes)
    fits = [workers_that_fit(cluster, *each) for each in ((1, 0), (2, 0), (4, 0), (9, 0), (1, 1), (2, 1))]
    assert fits == [15, 7, 3, 0, 5, 3]
