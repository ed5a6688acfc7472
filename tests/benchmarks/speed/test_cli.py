"""`salema-bench` as a user runs it, on narrow networks and for fractions of a second."""

import json
from dataclasses import replace

import pytest

from salema.benchmarks.speed import bench, report, startup
from salema.benchmarks.speed.cases import Plan
from salema.benchmarks.speed.cli import main
from salema.benchmarks.speed.records import read_records
from salema.runtime.errors import BackendError, UsageError
from salema.runtime.onnx_metadata import read_spec


@pytest.fixture(scope="module")
def measured(exported, small_clip, tmp_path_factory):
    """One run: whole and split model against two peers, with all options."""
    import sys

    folder = tmp_path_factory.mktemp("bench")
    whole, split = exported(), exported(split=True)
    arguments = ["--model", whole, "--model", split, "--backend", "onnxruntime", "--compare", "pytorch,onnxruntime"]
    arguments += ["--duration", 0.1, "--source", small_clip, "--json", folder / "r.jsonl", "--plot", folder / "r.png"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["salema-bench", *map(str, arguments)])
        patch.setattr(startup, "STARTS", 1)
        main()
    assert not stop.value.code
    return folder, whole, split


def test_a_run_leaves_a_record_for_each_case(measured):
    folder, whole, split = measured
    records = read_records(folder / "r.jsonl")
    assert [record["case"] for record in records] == [
        *("pytorch", "onnxruntime", f"{whole.name}: onnxruntime", f"{split.name}: onnxruntime")
    ]
    assert [record["is_peer"] for record in records] == [True, True, False, False]
    for record in records:
        timing = record["timing"]
        assert record["baseline"] == "pytorch"
        assert timing["runs"] >= 10
        assert 0 < timing["ratio_low"] <= timing["ratio"] <= timing["ratio_high"]
        assert timing["median_ms"] <= timing["p90_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
        assert record["fps"] == pytest.approx(1e3 / timing["mean_ms"])
        assert record["quality"]["reference"] == "pytorch fp32"
        assert record["quality"]["frames"] == 12
        assert record["quality"]["map_max"] < 1e-5
        assert record["quality"]["cc"] > 0.99999
        limit, peak = record["limit"], record["peaks"]["operations_per_s"]["fp32"]
        for kind in ("done", "graph"):
            ms = 1e3 * limit[f"{kind}_operations_per_frame"] / peak
            assert limit[f"{kind}_share_of_peak"] == pytest.approx(ms / timing["median_ms"])
        assert limit["methods"] == {"direct": 27}
        assert record["engine"] is None
        assert record["environment"]["versions"]["onnxruntime"]
    assert records[0]["timing"]["ratio"] == 1
    assert records[2]["limit"]["graph_operations_per_frame"] == records[3]["limit"]["graph_operations_per_frame"]


def test_models_have_their_hash_and_a_whole_run_by_stage(measured):
    folder, *_ = measured
    *peers, one, two = read_records(folder / "r.jsonl")
    assert all(peer["model"] is None and peer["run"] is None for peer in peers)
    assert set(one["model"]["sha256"]) == {"model.onnx"}
    assert set(two["model"]["sha256"]) == {"encoder.onnx", "decoder.onnx"}
    assert [one["model"]["split"], two["model"]["split"]] == [False, True]
    assert one["run"]["frames"] >= 10
    assert set(one["run"]["stage_ms"]) == {"decode", "preprocess", "step", "postprocess", "encode"}
    assert one["run"]["fps"] > 0
    assert all(peer["start_ms"] is None for peer in peers)
    for start in (one["start_ms"], two["start_ms"]):
        assert set(start) == {*startup.PARTS, "total"}
        assert all(start[part] > 0 for part in startup.PARTS)
        assert sum(start[part] for part in startup.PARTS) == pytest.approx(start["total"])
        assert start["imports"] > 50  # NumPy, OpenCV and PyAV
    text = report.details([one])
    assert f"{one['start_ms']['total']:.0f} ms from the start to the first map: python " in text


def test_a_start_that_fails_is_told(model, small_clip):
    with pytest.raises(BackendError, match="it does not start in a new process: .*tensorflow: not one of auto"):
        startup.start_ms(model, "tensorflow", "cpu", str(small_clip))


def test_report_prints_the_last_record_of_each_case_and_draws_them(measured, cli, tmp_path):
    folder, whole, _ = measured
    records = read_records(folder / "r.jsonl")
    later = [dict(records[2], time_utc="2999-01-01T00:00:00+00:00", fps=12345.67)]
    (tmp_path / "later.jsonl").write_text("".join(json.dumps(record) + "\n" for record in later))
    ran = cli(main, "report", tmp_path / "later.jsonl", folder / "r.jsonl", "--plot", tmp_path / "p.png")
    assert ran.code == 0, ran.err
    rows = [line for line in ran.out.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 4
    assert [row.split(" | ")[6] for row in rows if f"| {whole.name}: " in row] == ["12345.7"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_is_timed_per_frame(exported, cli, tmp_path):
    ran = cli(
        main,
        *("--model", exported(batch=None), "--backend", "onnxruntime", "--batch", "1,3", "--duration", 0.1),
        *("--json", tmp_path / "r.jsonl"),
    )
    assert ran.code == 0, ran.err
    one, three = read_records(tmp_path / "r.jsonl")
    assert [one["batch"], three["batch"]] == [1, 3]
    assert three["case"].endswith(", batch 3")
    assert three["fps"] == pytest.approx(3e3 / three["timing"]["mean_ms"])


def test_against_says_what_got_slower_and_fails(measured, cli, tmp_path):
    folder, whole, split = measured
    records = read_records(folder / "r.jsonl")
    for record, factor in ((records[2], 1000), (records[3], 0.001)):
        for name in ("ratio", "ratio_low", "ratio_high"):
            record["timing"][name] *= factor
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    models = ("--model", whole, "--model", split, "--backend", "onnxruntime")
    ran = cli(main, *models, "--compare", "pytorch", "--duration", 0.1, "--against", tmp_path / "r.jsonl")
    assert ran.code == 1
    assert f"\nslower  {whole.name}: onnxruntime: ratio " in ran.out
    assert f"\nfaster  {split.name}: onnxruntime: ratio " in ran.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--compare", "jax"), "--compare jax: not one of pytorch, "),
        (("--compare", "tensorrt", "--device", "cpu"), "--compare tensorrt: runs on NVIDIA GPUs only"),
        (("--batch", "1,x"), "--batch x: give whole numbers"),
        (("--batch", "0"), "--batch 0: give 1 or more"),
        (("--batch", "2"), "the model was exported with --batch 1"),
        (("--duration", "0"), "--duration 0: give seconds, more than 0"),
        (("--backend", "onnxruntime,onnxruntime"), "asked for twice"),
        (("--against", "nothing.jsonl"), "nothing.jsonl: no such file"),
        (("--weights", "seeded:8"), "--weights seeded:8: SHA-256"),
        (("report", "r.jsonl"), "--model stands before report"),
        (("--device", "foo"), "--device foo: not one of auto, cpu, cuda"),
        (("--source", "-"), "--source -: can't be played again and again"),
        (("--json", "-"), "--json -: the table is on standard output; give a file"),
    ],
)
def test_bad_usage_ends_in_one_sentence(model, cli, arguments, sentence):
    ran = cli(main, "--model", model, *arguments)
    assert ran.code == 2
    last = ran.err.strip().splitlines()[-1]
    assert last.startswith("salema-bench: ")
    assert sentence in last
    assert ran.out == ""


def test_models_of_two_sizes_or_checkpoints_are_refused(exported, model, cli):
    for other, name in ((exported(imgsz_hw=(32, 48)), "height"), (exported(weights="seeded:32"), "weights_sha256")):
        ran = cli(main, "--model", model, "--model", other)
        assert ran.code == 2
        assert f"its {name} is " in ran.err


def test_another_baseline_is_refused_before_any_work(measured, cli):
    folder, whole, _ = measured
    ran = cli(main, "--model", whole, "--against", folder / "r.jsonl")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert f"over pytorch, and here over {whole.name}: auto" in ran.err


def test_folders_of_one_name_are_told_apart(model, cli, tmp_path):
    import shutil

    for name in ("a", "b"):
        shutil.copytree(model, tmp_path / name / "sal")
    arguments = [part for name in ("a", "b") for part in ("--model", tmp_path / name / "sal")]
    ran = cli(main, *arguments, "--backend", "onnxruntime", "--duration", 0.05)
    assert ran.code == 0, ran.err
    assert "| a/sal: onnxruntime |" in ran.out
    assert "| b/sal: onnxruntime |" in ran.out


def test_a_model_may_have_its_own_backends_and_a_name_with_an_equals_sign(model, cli, tmp_path):
    import shutil

    for name in ("one", "a=b"):
        shutil.copytree(model, tmp_path / name)
    models = ("--model", f"{tmp_path / 'one'}=onnxruntime,openvino", "--model", tmp_path / "a=b")
    ran = cli(main, *models, "--backend", "openvino", "--duration", 0.05, "--json", tmp_path / "r.jsonl")
    assert ran.code == 0, ran.err
    cases = [record["case"] for record in read_records(tmp_path / "r.jsonl")]
    assert cases == ["one: onnxruntime", "one: openvino", "a=b: openvino"]


def test_each_machine_has_its_own_table_and_row_of_plots(measured, cli, tmp_path, monkeypatch):
    folder, *_ = measured
    records = read_records(folder / "r.jsonl")
    other = [record | {"environment": record["environment"] | {"cpu": "Another"}} for record in records[:1]]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records + other))
    ran = cli(main, "report", tmp_path / "two.jsonl")
    assert ran.code == 0, ran.err
    first, second = ran.out.split("\n\n| case |")
    assert first.count("\n| pytorch |") == 1
    assert first.count("\n| ") == len(records) + 1
    assert [line[:12] for line in second.splitlines() if line.startswith("| ")] == ["| --- | --- ", "| pytorch | "]
    assert ": Another (" in second
    assert ": Another (" not in first
    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, _: figures.append(figure))
    report.plot(records + other, None)
    assert [len(axes.get_legend().get_texts()) for axes in figures[0].axes] == [len(records), 1]
    assert figures[0].axes[1].get_title().startswith("Time and accuracy, Another (")


def test_a_missing_model_and_an_unwritable_file_are_told_before_any_work(model, cli, tmp_path):
    assert "no such model" in cli(main, "--model", tmp_path / "none").err
    ran = cli(main, "--model", model, "--json", tmp_path / "none/r.jsonl")
    assert ran.code == 1
    assert "can't be written" in ran.err


def test_a_file_of_something_else_is_no_record(cli, tmp_path):
    (tmp_path / "r.jsonl").write_text("{}\n")
    ran = cli(main, "report", tmp_path / "r.jsonl")
    assert ran.code == 2
    assert "holds no case records" in ran.err


@pytest.mark.parametrize("line", ['{"schema": 2, "kind": "ca', "[" * 100_000, '{"schema": 2, "kind": "cost"}'])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "r.jsonl").write_text(f'{{"schema": 2, "kind": "case"}}\n\n{line}\n')
    with pytest.raises(UsageError, match=r"r.jsonl: line 3 is no case record; take it out"):
        read_records(tmp_path / "r.jsonl")


def test_the_weights_that_ship_need_not_be_given_for_the_correlation(nano_model):
    spec = read_spec(nano_model / "model.onnx").whole
    assert bench._find_network(Plan((nano_model,)), spec).checkpoint.sha256 == spec.weights_sha256
    assert bench._find_network(Plan((nano_model,)), replace(spec, weights="mine.pt")) is None


def test_what_was_measured_before_an_error_is_kept(model, small_clip, cli, tmp_path, monkeypatch):
    def fail(*_):
        raise BackendError("it does not start")

    monkeypatch.setattr(bench, "start_ms", fail)
    arguments = ("--backend", "onnxruntime", "--duration", 0.05, "--source", small_clip)
    ran = cli(main, "--model", model, *arguments, "--json", tmp_path / "r.jsonl")
    assert ran.code == 1
    assert f"| {model.name}: onnxruntime | fp32 |" in ran.out
    assert ran.err.endswith("salema-bench: it does not start\n")
    (record,) = read_records(tmp_path / "r.jsonl")
    assert record["run"]["frames"] > 0
    assert record["start_ms"] is None
