// What the driver keeps: faults, contexts, what has a handle, memory, and the streams' work. driver.cpp is the calls.
#pragma once

#include <cuda.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

using Lock = std::unique_lock<std::mutex>;
using Node = std::function<CUresult()>;
constexpr int DEVICES = 2;

// Nothing here is ever destroyed: other libraries' last calls, and at_end, come after C++ has destroyed what is global.
template <class T>
T& lasting() {
  return *new T;
}

std::mutex mutex, fault_mutex, kernel_mutex;  // host_cuda.h runs one kernel at a time
std::condition_variable& idle = lasting<std::condition_variable>();
std::vector<std::string>& faults = lasting<std::vector<std::string>>();
std::atomic<bool> integrated{false};
std::atomic<long> kernels_run{0};
bool initialized = false;
thread_local bool in_host_function = false;
const char* volatile running_kernel = nullptr;

void fault(const std::string& text) {
  Lock lock(fault_mutex);
  faults.push_back(text);
}

// What a caller may provoke and sees as an error; all else that is refused is a fault.
bool is_expected(CUresult code) {
  return code == CUDA_ERROR_OUT_OF_MEMORY || code == CUDA_ERROR_INVALID_DEVICE || code == CUDA_ERROR_NOT_FOUND ||
         code == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED || code == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED ||
         code == CUDA_ERROR_CAPTURED_EVENT;
}

CUresult refuse(CUresult code, const char* call, const std::string& why) {
  if (!is_expected(code)) fault(std::string(call) + ": " + why);
  return code;
}

struct Context {
  int retained = 0;
  size_t used_bytes = 0;
  CUresult error = CUDA_SUCCESS;  // as CUDA's errors of running work, it stays
};
Context contexts[DEVICES];

// The contexts of a thread, the current one last.
class ContextStack {
 public:
  ~ContextStack() {
    if (depth_) fault("a thread ended with " + std::to_string(depth_) + " contexts on its stack");
  }
  bool is_empty() const { return !depth_; }
  bool is_full() const { return depth_ == MOST; }
  Context* current() const { return contexts_[depth_ - 1]; }
  void push(Context* context) { contexts_[depth_++] = context; }
  Context* pop() { return contexts_[--depth_]; }

 private:
  static constexpr size_t MOST = 64;
  Context* contexts_[MOST];
  size_t depth_ = 0;
};
thread_local ContextStack stack;

// What has a handle. It is never deleted, so that a handle that was destroyed is known as such.
struct Object {
  Object(const char* what, Context* owner) : kind(what), context(owner) {}
  virtual ~Object() = default;
  const char* kind;
  Context* context;
  std::atomic<bool> alive{true};
};
std::map<const void*, Object*>& objects = lasting<std::map<const void*, Object*>>();  // by handle

struct Memory : Object {
  using Object::Object;
  char *host = nullptr, *device = nullptr;  // where each side sees it; null if it doesn't
  size_t bytes = 0;
};

struct Graph : Object {
  using Object::Object;
  std::vector<Node> nodes;
};
struct Executable : Graph {
  using Graph::Graph;
};
struct Stream : Object {
  using Object::Object;
  std::deque<Node> queue;
  bool busy = false;
  Graph* recorded = nullptr;  // while it is recorded
  bool invalid = false;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id recorder;
};
std::vector<Stream*>& streams = lasting<std::vector<Stream*>>();
struct Event : Object {
  using Object::Object;
  unsigned flags = 0;
  Stream* stream = nullptr;
  long records = 0, done = 0;
  bool captured = false;
  double at_s = 0;
};
struct Module : Object {
  using Object::Object;
  void* library = nullptr;
};
struct Function : Object {
  using Object::Object;
  Module* module = nullptr;
  std::string name, parameters;
  void (*launch)(const unsigned*, const unsigned*, void**, int) = nullptr;
  int waits = 0;
};

template <class T>
T* make(const char* kind, Context* context) {
  T* const object = new T(kind, context);
  objects[static_cast<Object*>(object)] = object;
  return object;
}

template <class H>
H handle_of(Object* object) {
  return reinterpret_cast<H>(object);
}

// Returns the object of a handle, or null after a fault.
template <class T>
T* find(const void* handle, Context* context, const char* call) {
  const auto at = objects.find(handle);
  T* const object = at == objects.end() ? nullptr : dynamic_cast<T*>(at->second);
  if (!object) return fault(std::string(call) + ": not a handle of what it takes"), nullptr;
  if (!object->alive) return fault(std::string(call) + ": the " + object->kind + " was destroyed"), nullptr;
  if (object->context != context) return fault(std::string(call) + ": another context's " + object->kind), nullptr;
  return object;
}

std::string describe(const Object* object) {
  const auto* memory = dynamic_cast<const Memory*>(object);
  return object->kind + (memory ? " of " + std::to_string(memory->bytes) + " bytes" : std::string());
}

std::string left_in(const Context* context) {
  std::string text;
  for (const auto& [_, object] : objects)
    if (object->alive && (!context || object->context == context) && !dynamic_cast<const Function*>(object))
      text += (text.empty() ? "" : ", ") + describe(object);
  return text;
}

CUresult enter(const char* call, bool needs_context = true) {
  if (in_host_function) return refuse(CUDA_ERROR_NOT_PERMITTED, call, "called by a function that a stream runs");
  if (!initialized) return refuse(CUDA_ERROR_NOT_INITIALIZED, call, "before cuInit");
  if (!needs_context) return CUDA_SUCCESS;
  if (stack.is_empty()) return refuse(CUDA_ERROR_INVALID_CONTEXT, call, "no context is current in this thread");
  if (!stack.current()->retained) return refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, call, "the current context is gone");
  return stack.current()->error;
}
#define ENTER                                               \
  Lock lock(mutex);                                         \
  if (const CUresult wrong = enter(__func__)) return wrong; \
  Context* const context [[maybe_unused]] = stack.current()
#define ENTER_WITHOUT_CONTEXT \
  Lock lock(mutex);           \
  if (const CUresult wrong = enter(__func__, false)) return wrong
#define FIND(T, name, handle)                         \
  T* const name = find<T>(handle, context, __func__); \
  if (!name) return CUDA_ERROR_INVALID_HANDLE

// For calls that may wait or allocate: while this thread records a stream, or any thread in the global mode.
CUresult refuse_while_recording() {
  CUresult result = CUDA_SUCCESS;
  for (Stream* stream : streams) {
    if (!stream->recorded || stream->mode == CU_STREAM_CAPTURE_MODE_RELAXED) continue;
    if (stream->mode != CU_STREAM_CAPTURE_MODE_GLOBAL && stream->recorder != std::this_thread::get_id()) continue;
    stream->invalid = true;
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}
#define NOT_WHILE_RECORDING \
  if (const CUresult recording = refuse_while_recording()) return recording

CUresult put(Stream* stream, Node node) {
  if (!stream->recorded) return stream->queue.push_back(std::move(node)), CUDA_SUCCESS;
  if (stream->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  return stream->recorded->nodes.push_back(std::move(node)), CUDA_SUCCESS;
}

// Runs the next work of a stream, without the lock; another thread's is waited for.
void run_next(Lock& lock, Stream* stream) {
  idle.wait(lock, [&] { return !stream->busy; });
  if (stream->queue.empty()) return;
  const Node node = std::move(stream->queue.front());
  stream->queue.pop_front();
  stream->busy = true;
  lock.unlock();
  const CUresult result = stream->context->error ? stream->context->error : node();
  lock.lock();
  stream->busy = false;
  if (result) stream->context->error = result;
  idle.notify_all();
}

void drain(Lock& lock, Stream* stream) {
  while (stream->busy || !stream->queue.empty()) run_next(lock, stream);
}

void drain_all(Lock& lock, const Context* context) {
  for (size_t i = 0; i < streams.size(); ++i)  // other threads may add to it meanwhile
    if (streams[i]->context == context) drain(lock, streams[i]);
}

}  // namespace
