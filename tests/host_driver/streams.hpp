// Streams, events, and graphs that are recorded from a stream.
#pragma once

#include <chrono>

#include "objects.hpp"

namespace {
double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
}  // namespace

API CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  ENTER;
  if (flags != CU_STREAM_NON_BLOCKING) return refuse(CUDA_ERROR_NOT_SUPPORTED, __func__, "flags other than NON_BLOCKING");
  streams.push_back(make<Stream>("stream", context));
  return *stream = handle_of<CUstream>(streams.back()), CUDA_SUCCESS;
}

API CUresult cuStreamDestroy(CUstream handle) {
  ENTER;
  FIND(Stream, stream, handle);
  if (stream->recorded) return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, __func__, "while it is recorded");
  drain(lock, stream);
  return stream->alive = false, CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize(CUstream handle) {
  ENTER;
  FIND(Stream, stream, handle);
  NOT_WHILE_RECORDING;
  if (stream->recorded) return stream->invalid = true, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  drain(lock, stream);
  return context->error;
}

API CUresult cuEventCreate(CUevent* event, unsigned flags) {
  ENTER;
  auto* const made = make<Event>("event", context);
  made->flags = flags;
  return *event = handle_of<CUevent>(made), CUDA_SUCCESS;
}

API CUresult cuEventDestroy(CUevent handle) {
  ENTER;
  FIND(Event, event, handle);
  return event->alive = false, CUDA_SUCCESS;
}

API CUresult cuEventRecord(CUevent handle, CUstream on) {
  ENTER;
  FIND(Event, event, handle);
  FIND(Stream, stream, on);
  event->stream = stream;
  event->captured = stream->recorded != nullptr;
  if (stream->recorded) return stream->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
  const long record = ++event->records;
  return put(stream, [=] { return event->done = record, event->at_s = now_s(), CUDA_SUCCESS; });
}

API CUresult cuEventSynchronize(CUevent handle) {
  ENTER;
  FIND(Event, event, handle);
  if (event->captured) return event->stream->invalid = true, CUDA_ERROR_CAPTURED_EVENT;
  while (event->done < event->records && !context->error) run_next(lock, event->stream);
  return context->error;
}

API CUresult cuEventElapsedTime(float* elapsed_ms, CUevent from, CUevent to) {
  ENTER;
  FIND(Event, start, from);
  FIND(Event, end, to);
  if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
    return refuse(CUDA_ERROR_INVALID_HANDLE, __func__, "an event without timing");
  for (const Event* event : {start, end})
    if (!event->records || event->done < event->records || event->captured)
      return refuse(CUDA_ERROR_NOT_READY, __func__, "an event that is not done");
  return *elapsed_ms = static_cast<float>(1e3 * (end->at_s - start->at_s)), CUDA_SUCCESS;
}

API CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
  ENTER;
  FIND(Stream, stream, handle);
  if (stream->recorded) return refuse(CUDA_ERROR_ILLEGAL_STATE, __func__, "it is recorded already");
  stream->recorded = make<Graph>("graph", context);
  stream->invalid = false;
  stream->mode = mode;
  stream->recorder = std::this_thread::get_id();
  return CUDA_SUCCESS;
}

API CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  ENTER;
  FIND(Stream, stream, handle);
  *graph = nullptr;
  if (!stream->recorded) return refuse(CUDA_ERROR_ILLEGAL_STATE, __func__, "it is not recorded");
  if (stream->recorder != std::this_thread::get_id())
    return refuse(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, __func__, "another thread began it");
  Graph* const recorded = std::exchange(stream->recorded, nullptr);
  if (stream->invalid) return recorded->alive = false, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  return *graph = handle_of<CUgraph>(recorded), CUDA_SUCCESS;
}

API CUresult cuGraphInstantiate(CUgraphExec* made, CUgraph handle, unsigned long long flags) {
  ENTER;
  FIND(Graph, graph, handle);
  if (flags) return refuse(CUDA_ERROR_NOT_SUPPORTED, __func__, "flags");
  auto* const executable = make<Executable>("instantiated graph", context);
  executable->nodes = graph->nodes;
  return *made = handle_of<CUgraphExec>(executable), CUDA_SUCCESS;
}

API CUresult cuGraphLaunch(CUgraphExec handle, CUstream on) {
  ENTER;
  FIND(Executable, executable, handle);
  FIND(Stream, stream, on);
  if (stream->recorded) return refuse(CUDA_ERROR_NOT_SUPPORTED, __func__, "a graph within a graph");
  for (const Node& node : executable->nodes) put(stream, node);
  return CUDA_SUCCESS;
}

API CUresult cuGraphExecDestroy(CUgraphExec handle) {
  ENTER;
  FIND(Executable, executable, handle);
  return executable->alive = false, CUDA_SUCCESS;
}

API CUresult cuGraphDestroy(CUgraph handle) {
  ENTER;
  FIND(Graph, graph, handle);
  return graph->alive = false, CUDA_SUCCESS;
}
