// A strict libcuda.so.1 over host memory: PyCUDA and cuda-bindings run on it as on a GPU, in tests only.
//
// - A stream's work is done when somebody waits for it, and not before. Waiting for an event does what comes before it.
// - Memory comes filled with NaN, lies between pages that nobody may touch, and its address never comes again.
// - Each call needs a current context; each handle, address and length is looked up. Host memory must be page-locked.
// - While a thread records a stream, what CUDA refuses is refused, and the recording is lost.
// - Kernels are the host builds of our sources (host_cuda.h), loaded from the bytes that are given as a cubin.
// - What is wrong is kept as a fault; what is left when a context or the process ends is a fault too. With faults that
//   nobody took (host_driver_take_faults) the process ends with exit code 97.
// - A call that it lacks is a fault: build.py makes one for each symbol that PyCUDA needs and this file has not.
//
// It needs SALEMA_HOST_DRIVER, the CUDA version that it says it has (13000 for 13.0); without, it finds no GPU.
// Source: CUDA Driver API 13.0, above all "Stream Management", "Graph Management" and "Difference between the driver
// and runtime APIs"; CUDA Programming Guide, "Prohibited and Unhandled Operations" of stream capture.
#include <cstdlib>

#include "kernels.hpp"
#include "streams.hpp"

namespace {

constexpr int MAJOR = 9, MINOR = 0;  // of the compute capability

const auto& ERRORS = *new std::map<CUresult, std::pair<const char*, const char*>>{
    {CUDA_SUCCESS, {"CUDA_SUCCESS", "no error"}},
    {CUDA_ERROR_INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {CUDA_ERROR_OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {CUDA_ERROR_NO_DEVICE, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {CUDA_ERROR_INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
    {CUDA_ERROR_INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {CUDA_ERROR_INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {CUDA_ERROR_INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
    {CUDA_ERROR_NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {CUDA_ERROR_ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, {"CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"}},
    {CUDA_ERROR_NOT_SUPPORTED, {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"}},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
     {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
     {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"}},
    {CUDA_ERROR_CAPTURED_EVENT,
     {"CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"}},
};

}  // namespace

API CUresult cuInit(unsigned) {
  Lock lock(mutex);
  if (!std::getenv("SALEMA_HOST_DRIVER")) return CUDA_ERROR_NO_DEVICE;
  initialized = true;
  return CUDA_SUCCESS;
}

API CUresult cuDriverGetVersion(int* version) {
  const char* const given = std::getenv("SALEMA_HOST_DRIVER");
  return *version = given ? std::atoi(given) : 0, CUDA_SUCCESS;
}

API CUresult cuGetErrorString(CUresult code, const char** text) {
  const auto at = ERRORS.find(code);
  return *text = at == ERRORS.end() ? nullptr : at->second.second, at == ERRORS.end() ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

API CUresult cuGetErrorName(CUresult code, const char** text) {
  const auto at = ERRORS.find(code);
  return *text = at == ERRORS.end() ? nullptr : at->second.first, at == ERRORS.end() ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

// Gives the newest form of a call: those that are used have the same arguments in each.
API CUresult cuGetProcAddress(const char* symbol, void** address, int, cuuint64_t,
                              CUdriverProcAddressQueryResult* result) {
  static void* const self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  for (const char* suffix : {"_v4", "_v3", "_v2", "WithFlags", ""})
    if ((*address = dlsym(self, (std::string(symbol) + suffix).c_str()))) break;
  if (result) *result = *address ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  return *address ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// ---- devices and contexts ----

API CUresult cuDeviceGetCount(int* count) {
  ENTER_WITHOUT_CONTEXT;
  return *count = DEVICES, CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice* device, int index) {
  ENTER_WITHOUT_CONTEXT;
  if (index < 0 || index >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  return *device = index, CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<size_t>(length), "host driver %d", device);
  return CUDA_SUCCESS;
}

API CUresult cuDeviceGetPCIBusId(char* name, int length, CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  std::snprintf(name, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
  return CUDA_SUCCESS;
}

API CUresult cuDeviceTotalMem(size_t* bytes, CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  return *bytes = memory_bytes, CUDA_SUCCESS;
}

API CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  return *major = MAJOR, *minor = MINOR, CUDA_SUCCESS;
}

API CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  const std::map<CUdevice_attribute, int> known{{CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, MAJOR},
                                                {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, MINOR},
                                                {CU_DEVICE_ATTRIBUTE_INTEGRATED, integrated}};
  const auto at = known.find(attribute);
  if (at == known.end())
    return refuse(CUDA_ERROR_NOT_SUPPORTED, __func__, "attribute " + std::to_string(attribute) + " is not known");
  return *value = at->second, CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  NOT_WHILE_RECORDING;
  ++contexts[device].retained;
  return *context = reinterpret_cast<CUcontext>(&contexts[device]), CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
  ENTER_WITHOUT_CONTEXT;
  if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  Context* const context = &contexts[device];
  if (!context->retained) return refuse(CUDA_ERROR_INVALID_CONTEXT, __func__, "released more often than retained");
  if (--context->retained) return CUDA_SUCCESS;
  drain_all(lock, context);
  const std::string left = left_in(context);
  if (!left.empty()) fault("left in the context: " + left);
  for (const auto& [_, object] : objects)
    if (object->alive && object->context == context) object->alive = false;
  context->used_bytes = 0;
  context->error = CUDA_SUCCESS;
  return CUDA_SUCCESS;
}

API CUresult cuCtxPushCurrent(CUcontext given) {
  ENTER_WITHOUT_CONTEXT;
  if (stack.is_full()) return refuse(CUDA_ERROR_INVALID_VALUE, __func__, "pushed far more often than popped");
  for (Context& context : contexts)
    if (given == reinterpret_cast<CUcontext>(&context) && context.retained)
      return stack.push(&context), CUDA_SUCCESS;
  return refuse(CUDA_ERROR_INVALID_CONTEXT, __func__, "not a context, or it is gone");
}

API CUresult cuCtxPopCurrent(CUcontext* context) {
  ENTER_WITHOUT_CONTEXT;
  if (stack.is_empty()) return refuse(CUDA_ERROR_INVALID_CONTEXT, __func__, "no context is current in this thread");
  Context* const popped = stack.pop();
  if (context) *context = reinterpret_cast<CUcontext>(popped);
  return CUDA_SUCCESS;
}

API CUresult cuCtxGetCurrent(CUcontext* context) {
  ENTER_WITHOUT_CONTEXT;
  return *context = reinterpret_cast<CUcontext>(stack.is_empty() ? nullptr : stack.current()), CUDA_SUCCESS;
}

// ---- for the tests ----

API int host_driver_lacks(const char* call) { return refuse(CUDA_ERROR_NOT_SUPPORTED, call, "the host driver lacks it"); }
API void host_driver_fault(const char* text) { fault(text); }
API void host_driver_set_integrated(int value) { integrated = value; }
API void host_driver_set_memory(size_t bytes) { memory_bytes = bytes; }
API long host_driver_kernels_run() { return kernels_run; }

// Whether the device reaches all of these bytes.
API int host_driver_reaches(const void* address, size_t bytes) {
  Lock lock(mutex);
  std::string why;
  return look_up(on_device, nullptr, address, bytes, why).memory != nullptr;
}

// What was wrong since the last call, a line each; valid until the next call.
API const char* host_driver_take_faults() {
  static std::string& text = lasting<std::string>();
  Lock lock(fault_mutex);
  text.clear();
  for (const std::string& each : faults) text += each + "\n";
  faults.clear();
  return text.c_str();
}

// What nobody freed so far; valid until the next call.
API const char* host_driver_left() {
  static std::string& text = lasting<std::string>();
  Lock lock(mutex);
  text = left_in(nullptr);
  for (const Context& context : contexts)
    if (context.retained) text += (text.empty() ? "" : ", ") + std::string("context");
  return text.c_str();
}

namespace {
__attribute__((destructor)) void at_end() {
  const std::string left = host_driver_left();
  if (!left.empty()) fault("left when the process ended: " + left);
  const std::string text = host_driver_take_faults();
  if (text.empty()) return;
  std::fprintf(stderr, "host driver:\n%s", text.c_str());
  std::fflush(nullptr);
  _exit(EXIT_CODE);
}
}  // namespace
