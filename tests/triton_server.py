"""A gRPC server with Triton's service, as far as a client of a sequence needs it, over `SequenceBatcher`."""

from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
from sequence_batcher import Refused, SequenceBatcher
from tritonclient.grpc import service_pb2, service_pb2_grpc


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, folder):
        self.batcher = SequenceBatcher(folder)

    def ModelConfig(self, request, context):  # noqa: N802 - gRPC's name
        assert request.name == self.batcher.config.name
        return service_pb2.ModelConfigResponse(config=self.batcher.config)

    def ModelInfer(self, request, context):  # noqa: N802
        (tensor,) = request.inputs
        assert (request.model_name, tensor.name, tensor.datatype) == (self.batcher.config.name, "frame", "UINT8")
        frames = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tensor.shape)
        told = request.parameters
        flags = {name: told[f"sequence_{name}"].bool_param for name in ("start", "end")}
        try:
            (frame,) = frames  # the sequence batcher takes one frame a request
            answer = self.batcher.enqueue(told["sequence_id"].int64_param, frame, **flags)
            self.batcher.run()
        except Refused as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"inference request for {error}")
        shape = (1, 1, *answer.saliency.shape)
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="saliency", datatype="FP32", shape=shape)
        return service_pb2.ModelInferResponse(
            model_name=request.model_name, outputs=[output], raw_output_contents=[answer.saliency.tobytes()]
        )


@contextmanager
def serving(folder):
    """Serves a model's folder; gives the address and the batcher."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    service = Service(folder)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", service.batcher
    finally:
        server.stop(None).wait()
