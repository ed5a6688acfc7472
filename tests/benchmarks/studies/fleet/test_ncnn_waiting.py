from salema.benchmarks.studies.fleet.ncnn_waiting import measure


def test_each_setting_runs_alone_and_beside_another(exported):
    found = measure(exported(), (0, 1000), rounds=2, seconds=0.01)
    counts = {name: {spins: len(times) for spins, times in cases.items()} for name, cases in found.items()}
    assert counts == {"alone": {"0": 2, "1000": 2}, "two side by side": {"0": 4, "1000": 4}}
    assert all(0 < time < 60_000 for cases in found.values() for times in cases.values() for time in times)
