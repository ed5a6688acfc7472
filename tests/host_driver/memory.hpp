// Memory of the device and page-locked memory of the host, and copies.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "objects.hpp"

namespace {

constexpr size_t PAGE = 4096, ALIGNMENT = 256;
constexpr unsigned char UNTOUCHED = 0xFD, UNDEFINED = 0xFF;  // UNDEFINED is a NaN in FP16 and FP32
std::atomic<size_t> memory_bytes{4ull << 30};                // of each device
using Places = std::map<const char*, Memory*>;               // by the start, also what was freed
Places &on_host = lasting<Places>(), &on_device = lasting<Places>();

size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// Maps memory that ends, but for the alignment, at a page that nobody may touch; another begins where it begins.
char* map_guarded(size_t bytes, int file) {
  const size_t inner = rounded(bytes, PAGE);
  const int none = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char* const outer = static_cast<char*>(mmap(nullptr, inner + 2 * PAGE, PROT_NONE, none, -1, 0));
  const int flags = MAP_FIXED | MAP_POPULATE | (file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
  if (outer == MAP_FAILED || mmap(outer + PAGE, inner, PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED)
    return nullptr;
  return outer + PAGE + inner - rounded(bytes, ALIGNMENT);
}

char* page_of(char* at) { return reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(at) / PAGE * PAGE); }

bool is_intact(const Memory* memory) {
  char* const at = memory->device ? memory->device : memory->host;
  const auto untouched = [](char c) { return static_cast<unsigned char>(c) == UNTOUCHED; };
  return std::all_of(page_of(at), at, untouched) &&
         std::all_of(at + memory->bytes, at + rounded(memory->bytes, ALIGNMENT), untouched);
}

enum Side { HOST, DEVICE, BOTH };

CUresult allocate(Context* context, size_t bytes, Side side, const char* kind, Memory** made) {
  if (!bytes || context->used_bytes + bytes > memory_bytes)
    return bytes ? CUDA_ERROR_OUT_OF_MEMORY : refuse(CUDA_ERROR_INVALID_VALUE, kind, "0 bytes asked for");
  const int file = side == BOTH ? memfd_create("memory", 0) : -1;
  if (file >= 0 && ftruncate(file, static_cast<off_t>(rounded(bytes, PAGE)))) return CUDA_ERROR_OUT_OF_MEMORY;
  char* const host = side == DEVICE ? nullptr : map_guarded(bytes, file);
  char* const device = side == HOST ? nullptr : map_guarded(bytes, file);
  if (file >= 0) close(file);
  if ((side != DEVICE && !host) || (side != HOST && !device)) return CUDA_ERROR_OUT_OF_MEMORY;
  char* const at = host ? host : device;
  std::fill(page_of(at), at + rounded(bytes, ALIGNMENT), static_cast<char>(UNTOUCHED));
  std::fill(at, at + bytes, static_cast<char>(UNDEFINED));
  Memory* const memory = make<Memory>(kind, context);
  memory->host = host, memory->device = device, memory->bytes = bytes;
  if (host) on_host[host] = memory;
  if (device) on_device[device] = memory;
  context->used_bytes += bytes;
  return *made = memory, CUDA_SUCCESS;
}

void release(Memory* memory) {
  if (!is_intact(memory)) fault(describe(memory) + ": something wrote beyond its ends");
  for (char* at : {memory->host, memory->device})
    if (at) mmap(page_of(at), rounded(memory->bytes, PAGE), PROT_NONE,
                 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  memory->context->used_bytes -= memory->bytes;
  memory->alive = false;
}

// A place in memory, as a call or a kernel is given it.
struct Span {
  Memory* memory = nullptr;
  char* at = nullptr;
};

bool is_alive(const char* call, const Span& span) {
  if (!span.memory || span.memory->alive) return true;
  fault(std::string(call) + ": " + describe(span.memory) + " used after it was freed");
  return false;
}

// Looks up bytes on one side. Returns nothing, and in `why` the reason, where they aren't in one piece of memory of the
// context; a null context stands for any.
Span look_up(const Places& side, const Context* context, const void* address, size_t bytes,
             std::string& why) {
  char* const at = static_cast<char*>(const_cast<void*>(address));
  auto next = side.upper_bound(at);
  Memory* const memory = next == side.begin() ? nullptr : std::prev(next)->second;
  const char* const start = next == side.begin() ? nullptr : std::prev(next)->first;
  const bool is_device = &side == &on_device;
  if (!memory || at >= start + rounded(memory->bytes, ALIGNMENT)) {
    why = is_device ? "an address that is not of the device's memory" : "host memory that is not page-locked";
  } else if (!memory->alive) {
    why = describe(memory) + " used after it was freed";
  } else if (is_device && context && memory->context != context) {
    why = describe(memory) + " of another context";
  } else if (bytes > memory->bytes || at - start > static_cast<std::ptrdiff_t>(memory->bytes - bytes)) {
    why = std::to_string(bytes) + " bytes from " + std::to_string(at - start) + " on of a " + describe(memory);
  } else {
    return {memory, at};
  }
  return {};
}

CUresult copy(const char* call, Context* context, CUstream stream, const void* to, const void* from, size_t bytes,
              bool from_host, bool to_host) {
  auto* const queue = find<Stream>(stream, context, call);
  if (!queue) return CUDA_ERROR_INVALID_HANDLE;
  if (!bytes) return CUDA_SUCCESS;
  std::string why;
  const Span target = look_up(to_host ? on_host : on_device, context, to, bytes, why);
  const Span source = target.memory ? look_up(from_host ? on_host : on_device, context, from, bytes, why) : Span{};
  if (!source.memory) {
    fault(std::string(call) + ": " + why);
    queue->invalid = true;
    return queue->recorded ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_ERROR_INVALID_VALUE;
  }
  if (source.at < target.at + bytes && target.at < source.at + bytes)
    return refuse(CUDA_ERROR_INVALID_VALUE, call, "source and target overlap");
  return put(queue, [=] {
    if (!is_alive(call, source) || !is_alive(call, target)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    std::memcpy(target.at, source.at, bytes);
    return CUDA_SUCCESS;
  });
}

CUresult free_memory(Lock& lock, Context* context, const char* call, const Places& side,
                     const void* address) {
  const auto at = side.find(static_cast<const char*>(address));
  if (at == side.end() || (&side == &on_device && at->second->host))
    return refuse(CUDA_ERROR_INVALID_VALUE, call, "not the start of memory that it frees");
  if (!at->second->alive) return refuse(CUDA_ERROR_INVALID_VALUE, call, describe(at->second) + " was freed before");
  if (at->second->context != context) return refuse(CUDA_ERROR_INVALID_VALUE, call, "memory of another context");
  drain_all(lock, context);  // CUDA waits here too
  return release(at->second), CUDA_SUCCESS;
}

const void* pointer(CUdeviceptr address) { return reinterpret_cast<const void*>(address); }

}  // namespace

API CUresult cuMemAlloc(CUdeviceptr* address, size_t bytes) {
  ENTER;
  NOT_WHILE_RECORDING;
  Memory* memory = nullptr;
  if (const CUresult wrong = allocate(context, bytes, DEVICE, "device memory", &memory)) return wrong;
  return *address = reinterpret_cast<CUdeviceptr>(memory->device), CUDA_SUCCESS;
}

API CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned flags) {
  ENTER;
  NOT_WHILE_RECORDING;
  if (flags & ~static_cast<unsigned>(CU_MEMHOSTALLOC_DEVICEMAP))
    return refuse(CUDA_ERROR_NOT_SUPPORTED, __func__, "flags other than DEVICEMAP");
  Memory* memory = nullptr;
  const char* const kind = flags ? "mapped memory" : "page-locked memory";
  if (const CUresult wrong = allocate(context, bytes, flags ? BOTH : HOST, kind, &memory)) return wrong;
  return *address = memory->host, CUDA_SUCCESS;
}

API CUresult cuMemHostGetDevicePointer(CUdeviceptr* address, void* host, unsigned flags) {
  ENTER;
  const auto at = on_host.find(static_cast<char*>(host));
  if (flags || at == on_host.end() || !at->second->alive || !at->second->device)
    return refuse(CUDA_ERROR_INVALID_VALUE, __func__, "not the start of mapped memory");
  return *address = reinterpret_cast<CUdeviceptr>(at->second->device), CUDA_SUCCESS;
}

API CUresult cuMemFree(CUdeviceptr address) {
  ENTER;
  NOT_WHILE_RECORDING;
  return free_memory(lock, context, __func__, on_device, pointer(address));
}

API CUresult cuMemFreeHost(void* address) {
  ENTER;
  NOT_WHILE_RECORDING;
  return free_memory(lock, context, __func__, on_host, address);
}

API CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  ENTER;
  return copy(__func__, context, stream, pointer(to), from, bytes, true, false);
}

API CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  ENTER;
  return copy(__func__, context, stream, to, pointer(from), bytes, false, true);
}

API CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  ENTER;
  return copy(__func__, context, stream, pointer(to), pointer(from), bytes, false, false);
}
