"""Triton's sequence batcher, as its user guide ("Batchers", "Implicit State Management") and source say it works.

Source: triton-inference-server/core 05295b7 (`sequence_batch_scheduler.cc`, `sequence_state.cc`), onnxruntime_backend
02ffb9e (`ValidateInputs`, `ValidateBooleanSequenceControl`). One instance, a clock of its own, ONNX Runtime. It shows
what the model and its configuration do under these rules, and nothing about Triton itself.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

ONNX_TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}
NUMPY_TYPES = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32}
TYPE = model_config_pb2.DataType.Name


class Refused(Exception):  # noqa: N818 - what the server answers
    """The server's error."""


def read_config(folder):
    """Parses `config.pbtxt` with Triton's own protobuf; an unknown field is an error."""
    return text_format.Parse((Path(folder) / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig())


def check_model(config, session):
    """Refuses what the ONNX Runtime backend refuses when it loads a model."""
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    states = config.sequence_batching.state
    controls = [(control.name, kind) for control in config.sequence_batching.control_input for kind in control.control]
    expected = len(config.input) + len(states) + len(controls)
    if len(inputs) != expected:
        raise Refused(f"configuration expects {expected} inputs, model provides {len(inputs)}")
    for name, _ in controls:
        if inputs[name].shape[1:] != [1] or inputs[name].type != "tensor(float)":
            raise Refused(
                f"sequence control '{name}' in model has dims {inputs[name].shape[1:]} but dims [1] is expected"
            )
    told = [(inputs, io.name, io) for io in config.input] + [(outputs, io.name, io) for io in config.output]
    told += [(inputs, io.input_name, io) for io in states] + [(outputs, io.output_name, io) for io in states]
    for tensors, name, io in told:
        shape = [-1 if isinstance(n, str) else n for n in tensors[name].shape]
        if shape != [-1, *io.dims] or tensors[name].type != ONNX_TYPES[TYPE(io.data_type)]:
            raise Refused(f"'{name}': model has {shape}, configuration {list(io.dims)}")


@dataclass
class Request:
    """One frame of a sequence; `saliency` is the answer."""

    sequence: int
    frame: np.ndarray
    start: bool
    end: bool
    saliency: np.ndarray | None = None


@dataclass
class Slot:
    """A place for a sequence: its requests, and the states that Triton keeps."""

    queue: deque = field(default_factory=deque)  # None: the sequence is to be ended, it was idle for too long
    states: dict | None = None


class SequenceBatcher:
    """A loaded model. `enqueue` takes requests, `step` runs a batch, `wait` lets time pass."""

    def __init__(self, folder, fill=np.nan):
        """Loads a model's folder. What has no initial state starts from `fill`: memory that nobody has set."""
        self.config = read_config(folder)
        self.session = onnxruntime.InferenceSession(str(Path(folder) / "1/model.onnx"))
        check_model(self.config, self.session)
        batching = self.config.sequence_batching
        self.fill, self.now_us, self.batches = fill, 0, []
        self.is_direct = not batching.HasField("oldest")
        slots = batching.oldest.max_candidate_sequences or self.config.max_batch_size
        self.slots = [Slot() for _ in range(slots)]
        self.free = deque(range(slots))
        self.slot_of, self.backlog, self.last_us = {}, {}, {}
        self.waiting = deque()  # sequences' requests that have no slot yet
        self.arrived = deque()  # slots in the order in which their next request came

    def enqueue(self, sequence, frame, *, start=False, end=False):
        request = Request(sequence, frame, start, end)
        known = sequence in self.slot_of or sequence in self.backlog
        if not start and not known:
            raise Refused(f"sequence {sequence} must specify the START flag on the first request of the sequence")
        self.last_us[sequence] = self.now_us
        if sequence in self.backlog:
            self.backlog[sequence].append(request)
        elif sequence in self.slot_of or self.free:
            slot = self.slot_of.setdefault(sequence, self.free[0] if self.free else -1)
            if self.free and slot == self.free[0] and not known:
                self.free.popleft()
            self.slots[slot].queue.append(request)
            self.arrived.append(slot)
        else:
            self.backlog[sequence] = deque([request])
            self.waiting.append(self.backlog[sequence])
        if end:
            self.slot_of.pop(sequence, None)
            self.backlog.pop(sequence, None)
        return request

    def wait(self, seconds):
        """Lets time pass, and ends the sequences that have been idle for too long."""
        self.now_us += round(seconds * 1e6)
        most = self.config.sequence_batching.max_sequence_idle_microseconds or 1_000_000
        for sequence, last_us in list(self.last_us.items()):
            if self.now_us - last_us >= most and sequence not in self.backlog:
                del self.last_us[sequence]
                slot = self.slot_of.pop(sequence, None)
                if slot is not None:
                    self.slots[slot].queue.append(None)
                    self.arrived.append(slot)
        self._end_idle()

    def run(self):
        """Steps until nothing waits."""
        while self.step():
            pass

    def step(self):
        """Runs one batch, of at most one request of each sequence; returns whether there was one."""
        self._end_idle()
        chosen = self._chosen()
        if not chosen:
            return False
        rows = [self._row(slot) for slot in chosen]
        feeds = {name: np.stack([row[name] for _, _, row in rows]) for name in rows[0][2]}
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, feeds), strict=True))
        self.batches.append(len(rows))
        for index, (slot, request, _) in enumerate(rows):
            if request is not None:
                request.saliency = outputs["saliency"][index, 0].copy()
                states = self.config.sequence_batching.state
                self.slots[slot].states = {io.input_name: outputs[io.output_name][index].copy() for io in states}
                if request.end:
                    self._release(slot)
        return True

    def _chosen(self):
        """Slots of the next batch. The direct strategy takes all from the first to the last that has a request."""
        ready = [slot for slot in dict.fromkeys(self.arrived) if self.slots[slot].queue]
        if self.is_direct:
            return list(range(max(ready) + 1)) if ready else []
        return ready[: self.config.max_batch_size]

    def _row(self, slot):
        """Takes a slot's next request, or a dummy for a slot without one; returns both and the model's inputs."""
        place = self.slots[slot]
        request = place.queue.popleft() if place.queue else None
        if request is not None:
            self.arrived.remove(slot)
            if request.start or place.states is None:  # also where the sequence before did not end
                place.states = self._initial()
        io = self.config.input[0]
        frame = request.frame if request else np.zeros(io.dims, NUMPY_TYPES[TYPE(io.data_type)])
        if list(frame.shape) != list(io.dims):
            raise Refused(f"unexpected shape for input '{io.name}'")
        row = {io.name: frame, **(place.states if request else self._initial())}
        for control in self.config.sequence_batching.control_input:
            (told,) = control.control
            assert told.kind == told.CONTROL_SEQUENCE_START
            row[control.name] = np.array([told.fp32_false_true[bool(request and request.start)]], np.float32)
        return slot, request, row

    def _initial(self):
        states = {}
        for io in self.config.sequence_batching.state:
            (given,) = io.initial_state or [None]
            if given is not None and (given.data_type != io.data_type or given.dims != io.dims or not given.name):
                raise Refused(f"'initial_state' of '{io.input_name}' does not match the state")
            value = 0 if given is not None and given.zero_data else self.fill
            states[io.input_name] = np.full(io.dims, value, NUMPY_TYPES[TYPE(io.data_type)])
        return states

    def _end_idle(self):
        for slot, place in enumerate(self.slots):
            if place.queue and place.queue[0] is None:
                place.queue.popleft()
                self.arrived.remove(slot)
                self._release(slot)

    def _release(self, slot):
        """Gives a slot, its states as they are, to the sequence that has waited longest."""
        if not self.waiting:
            self.free.append(slot)
            return
        queue = self.waiting.popleft()
        self.slots[slot].queue.extend(queue)
        self.arrived.extend([slot] * len(queue))
        sequence = queue[-1].sequence
        if not queue[-1].end:
            self.slot_of[sequence] = slot
            del self.backlog[sequence]
