"""The model repository, parsed by Triton's own protobuf and driven by the rules of its sequence batcher."""

from dataclasses import fields, replace

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from sequence_batcher import Refused, SequenceBatcher, check_model, read_config
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from salema.export.serving.graphs import SequencedSpec
from salema.export.serving.triton import triton_config
from salema.export.weights.seeded import moving_disc
from salema.runtime import load

NETWORKS = {
    "SalEMA30": {},
    "double": {"ema_locs": (7, 54)},
    "SalCLSTM30": {"arch": "salclstm30"},
}
CLIPS = [moving_disc(5, 64, 96), moving_disc(5, 64, 96)[::-1].copy(), 255 - moving_disc(5, 64, 96)]


def alone(folder, frames):
    """What `load` gives for the frames of one video."""
    with load(folder, backend="onnxruntime") as stream:
        return [stream.step(frame) for frame in frames]


def assert_maps(requests, expected):
    np.testing.assert_allclose([request.saliency for request in requests], expected, atol=1e-6)


def test_the_configuration_is_what_tritons_protobuf_says(repository):
    config = read_config(repository() / "triton/salema")
    assert (config.name, config.platform, config.max_batch_size) == ("salema", "onnxruntime_onnx", 8)
    (start,) = config.sequence_batching.control_input
    assert start.name == "mix"
    assert list(start.control[0].fp32_false_true) == [np.float32(0.1), 1]
    (state,) = config.sequence_batching.state
    assert (state.input_name, state.output_name, list(state.dims)) == ("ema30_in", "ema30_out", [32, 4, 6])
    assert config.sequence_batching.oldest.max_candidate_sequences == 64
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_AUTO
    assert config.parameters["salema"].string_value == load(repository()).spec.to_json()
    assert ModelConfig.FromString(config.SerializeToString()) == config


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("is_direct", [False, True])
def test_streams_side_by_side_give_the_maps_of_each_alone(repository, network, is_direct):
    folder = repository(**NETWORKS[network])
    batcher = SequenceBatcher(folder / "triton/salema")
    batcher.is_direct = is_direct
    requests = {sequence: [] for sequence in range(3)}
    for index in range(5):
        for sequence, clip in enumerate(CLIPS):
            if (index + sequence) % 3:  # each stream lacks other frames
                first, last = not requests[sequence], index == 4
                requests[sequence].append(batcher.enqueue(sequence, clip[index], start=first, end=last))
        batcher.run()
    assert max(batcher.batches) == 3 if is_direct else max(batcher.batches) > 1
    for sequence, clip in enumerate(CLIPS):
        frames = [clip[index] for index in range(5) if (index + sequence) % 3]
        assert_maps(requests[sequence], alone(folder, frames))


@pytest.mark.parametrize("network", ["SalEMA30", "SalCLSTM30"])
def test_a_sequence_that_timed_out_is_taken_anew(repository, network):
    folder = repository(**NETWORKS[network])
    batcher = SequenceBatcher(folder / "triton/salema")
    before = [batcher.enqueue(7, frame, start=not index) for index, frame in enumerate(CLIPS[0][:3])]
    batcher.run()
    batcher.wait(9.9)
    before.append(batcher.enqueue(7, CLIPS[0][3]))
    batcher.run()
    batcher.wait(10.1)
    with pytest.raises(Refused, match="must specify the START flag"):
        batcher.enqueue(7, CLIPS[0][4])
    after = [batcher.enqueue(7, frame, start=not index) for index, frame in enumerate(CLIPS[1])]
    batcher.run()
    assert_maps(before, alone(folder, CLIPS[0][:4]))
    assert_maps(after, alone(folder, CLIPS[1]))


@pytest.mark.parametrize("network", ["SalEMA30", "SalCLSTM30"])
@pytest.mark.parametrize("is_direct", [False, True])
def test_a_slot_is_used_again_and_others_wait_for_it(repository, network, is_direct):
    """Three sequences and one slot: two wait, and get it when the one before ends; the last one starts anew within."""
    folder = repository(**NETWORKS[network])
    batcher = SequenceBatcher(folder / "triton/salema")
    batcher.is_direct = is_direct
    del batcher.slots[1:]
    batcher.free = type(batcher.free)([0])
    requests = [
        [batcher.enqueue(sequence, frame, start=index == 0, end=index == 4) for index, frame in enumerate(clip)]
        for sequence, clip in enumerate(CLIPS)
    ]
    batcher.run()
    again = [batcher.enqueue(3, frame, start=index in {0, 2}) for index, frame in enumerate(CLIPS[0])]
    batcher.run()
    assert set(batcher.batches) == {1}
    for clip, answers in zip(CLIPS, requests, strict=True):
        assert_maps(answers, alone(folder, clip))
    assert_maps(again[:2], alone(folder, CLIPS[0][:2]))
    assert_maps(again[2:], alone(folder, CLIPS[0][2:]))


def test_more_streams_than_a_batch_holds_take_turns(repository):
    folder = repository()
    batcher = SequenceBatcher(folder / "triton/salema")
    requests = [[batcher.enqueue(n, CLIPS[n % 3][0], start=True)] for n in range(11)]
    batcher.run()
    assert batcher.batches == [8, 3]
    for n, answers in enumerate(requests):
        assert_maps(answers, alone(folder, CLIPS[n % 3][:1]))


def test_states_start_at_zero_because_the_configuration_says_so(repository, tmp_path):
    """Without `initial_state` Triton hands over memory that nobody has set. `mix` clears it; an LSTM has none."""
    for network, clean in (("SalEMA30", True), ("SalCLSTM30", False)):
        folder = repository(**NETWORKS[network])
        batcher = SequenceBatcher(folder / "triton/salema")
        for state in batcher.config.sequence_batching.state:
            del state.initial_state[:]
        request = batcher.enqueue(1, CLIPS[0][0], start=True)
        batcher.run()
        assert bool(np.isfinite(request.saliency).all()) is clean


def test_triton_would_refuse_the_plain_graph(repository):
    """Its backends want `[N, 1]` for a control; the exported step has `[N]`."""
    folder = repository()
    with pytest.raises(Refused, match=r"'mix' in model has dims \[\] but dims \[1\] is expected"):
        check_model(read_config(folder / "triton/salema"), onnxruntime.InferenceSession(str(folder / "model.onnx")))


def test_a_network_without_states_needs_no_sequence(repository):
    spec = replace(load(repository()).spec, states=(), coefficient=None)
    text = triton_config(
        SequencedSpec(**{field.name: getattr(spec, field.name) for field in fields(spec)}),
        "salgan",
        "onnxruntime_onnx",
        (1, 4, 8),
    )
    config = text_format.Parse(text, ModelConfig())
    assert config.HasField("dynamic_batching")
    assert not config.HasField("sequence_batching")
    warm = [(sample.batch_size, list(sample.inputs["frame"].dims)) for sample in config.model_warmup]
    assert warm == [(1, [64, 96, 3]), (8, [64, 96, 3])]
