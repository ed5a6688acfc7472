import shutil

import pytest

from salema.benchmarks.speed.records import read_records, write_records
from salema.benchmarks.studies import cpu_widths


@pytest.fixture(scope="module")
def measured(exported, tmp_path_factory):
    """Two forms of one network, the narrowest that there is, in place of eight of the studied ones."""
    folder = tmp_path_factory.mktemp("widths")
    for form, target in (("fp32-onnxruntime", "onnxruntime"), ("fp32-ncnn", "ncnn")):
        shutil.copytree(exported(for_=target), folder / "16" / form)
    return cpu_widths.measure(folder, 16, duration_s=0.05, peers=("pytorch",))


def test_every_form_that_is_there_runs_on_its_own_backends(measured, tmp_path):
    cases = [record["case"] for record in measured]
    assert cases == ["pytorch", "fp32-onnxruntime: onnxruntime", "fp32-ncnn: ncnn"]
    assert all(record["channels_over"] == 16 for record in measured)
    write_records(tmp_path / "r.jsonl", measured)
    assert read_records(tmp_path / "r.jsonl", cpu_widths.KIND) == measured


def test_a_new_run_replaces_its_width_on_its_cpu_only(measured):
    def of(machine, width):
        environment = measured[0]["environment"] | {"cpu": machine}
        return [record | {"channels_over": width, "environment": environment} for record in measured]

    before = [*of("one", 8), *of("two", 8), *of("one", 4)]
    now = [record | {"fps": 1.0} for record in of("one", 8)]
    assert cpu_widths.merge(before, now) == [*of("two", 8), *of("one", 4), *now]


def test_the_table_has_a_column_for_each_width_and_a_dash_where_nothing_was_measured(measured):
    timing = measured[0]["timing"] | {"median_ms": 8.0, "ratio": 2.5}
    wide = [record | {"channels_over": 1, "timing": timing} for record in measured[:2]]
    lines = cpu_widths.table([*measured, *wide]).splitlines()
    assert lines[2] == "| case | precision | all channels | 1/16 |"
    assert lines[4].startswith("| pytorch | fp32 | 125 (2.50) | ")
    assert lines[6].startswith("| fp32-ncnn: ncnn | fp32 | - | ")
