// Modules, launches of kernels, and functions of the host.
#pragma once

#include <dlfcn.h>
#include <elf.h>
#include <signal.h>

#include <cstdio>

#include "memory.hpp"

namespace {

constexpr int EXIT_CODE = 97;

// The process can't go on: the kernel's threads are in the middle of it.
void on_segmentation_fault(int, siginfo_t* info, void*) {
  const auto next = on_device.upper_bound(static_cast<char*>(info->si_addr));
  std::string text = std::string("host driver: the kernel ") + running_kernel + " touched what is nobody's";
  if (next != on_device.begin()) {
    const auto& [start, memory] = *std::prev(next);
    text += ", " + std::to_string(static_cast<char*>(info->si_addr) - start) + " bytes from the start of a " +
            describe(memory) + (memory->alive ? "" : ", which was freed");
  }
  text += "\n";
  if (write(STDERR_FILENO, text.data(), text.size()) >= 0) _exit(EXIT_CODE);
  _exit(EXIT_CODE);
}

struct Launch {
  unsigned grid[3], block[3];
  std::vector<char> arguments;
  std::vector<size_t> offsets;
  std::vector<Span> spans;  // of the addresses among the arguments
};

CUresult run_kernel(const Function* kernel, Launch launch) {
  const char* const name = kernel->name.c_str();
  if (!kernel->module->alive)
    return refuse(CUDA_ERROR_ILLEGAL_ADDRESS, name, "launched after its module was unloaded");
  for (const Span& span : launch.spans)
    if (!is_alive(name, span)) return CUDA_ERROR_ILLEGAL_ADDRESS;
  std::vector<void*> arguments;
  for (const size_t offset : launch.offsets) arguments.push_back(launch.arguments.data() + offset);
  Lock one_at_a_time(kernel_mutex);
  struct sigaction before, ours {};
  ours.sa_sigaction = on_segmentation_fault, ours.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &ours, &before);
  running_kernel = name;
  kernel->launch(launch.grid, launch.block, arguments.data(), kernel->waits);
  sigaction(SIGSEGV, &before, nullptr);
  ++kernels_run;
  for (const Span& span : launch.spans)
    if (span.memory && !is_intact(span.memory))
      return refuse(CUDA_ERROR_ILLEGAL_ADDRESS, name, "it wrote beyond the ends of a " + describe(span.memory));
  return CUDA_SUCCESS;
}

// Takes the arguments apart as the kernel's parameters say, each at its natural alignment; returns what is wrong.
std::string take_arguments(const Function* kernel, const char* buffer, size_t size, Launch& launch) {
  size_t end = 0;
  std::string why;
  launch.arguments.assign(buffer, buffer + size);
  for (const char type : kernel->parameters) {
    const size_t bytes = type == 'P' ? sizeof(void*) : static_cast<size_t>(type - '0');
    const size_t start = rounded(end, bytes);
    end = start + bytes;
    launch.offsets.push_back(start);
    void* address = nullptr;
    if (type != 'P' || end > size || (std::memcpy(&address, buffer + start, bytes), !address)) continue;
    launch.spans.push_back(look_up(on_device, kernel->context, address, 0, why));
    if (!launch.spans.back().memory) return why;
  }
  return end == size ? "" : std::to_string(size) + " bytes of arguments, and it takes " + std::to_string(end);
}

bool fits(const unsigned (&grid)[3], const unsigned (&block)[3]) {
  const auto between = [](unsigned n, unsigned most) { return n >= 1 && n <= most; };
  return between(grid[0], 0x7fffffff) && between(grid[1], 65535) && between(grid[2], 65535) &&
         between(block[0], 1024) && between(block[1], 1024) && between(block[2], 64) &&
         block[0] * block[1] * block[2] <= 1024;
}

}  // namespace

API CUresult cuModuleLoadDataEx(CUmodule* made, const void* image, unsigned count, CUjit_option* options,
                                void** values) {
  ENTER;
  NOT_WHILE_RECORDING;
  for (unsigned i = 0; i < count; ++i)  // both logs stay empty
    if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES || options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
      values[i] = nullptr;
  const auto* const header = static_cast<const Elf64_Ehdr*>(image);
  if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_machine != EM_X86_64)
    return refuse(CUDA_ERROR_INVALID_IMAGE, __func__, "not a kernel's build for the host");
  const size_t bytes = header->e_shoff + static_cast<size_t>(header->e_shnum) * header->e_shentsize;
  const int file = memfd_create("module", 0);  // stays open: dlopen gives the old library where a name comes again
  void* library = nullptr;
  if (write(file, image, bytes) == static_cast<ssize_t>(bytes))
    library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW);
  if (!library) return refuse(CUDA_ERROR_INVALID_IMAGE, __func__, "it can't be loaded");
  auto* const module = make<Module>("module", context);
  module->library = library;
  return *made = handle_of<CUmodule>(module), CUDA_SUCCESS;
}

API CUresult cuModuleUnload(CUmodule handle) {
  ENTER;
  NOT_WHILE_RECORDING;
  FIND(Module, module, handle);
  drain_all(lock, context);
  return module->alive = false, CUDA_SUCCESS;
}

API CUresult cuModuleGetFunction(CUfunction* made, CUmodule handle, const char* name) {
  ENTER;
  FIND(Module, module, handle);
  const auto symbol = [&](const char* suffix) { return dlsym(module->library, (std::string(name) + suffix).c_str()); };
  if (!symbol("_launch")) return CUDA_ERROR_NOT_FOUND;
  auto* const function = make<Function>("function", context);
  function->module = module;
  function->name = name;
  function->launch = reinterpret_cast<decltype(function->launch)>(symbol("_launch"));
  function->parameters = reinterpret_cast<const char* (*)()>(symbol("_parameters"))();
  function->waits = reinterpret_cast<int (*)()>(symbol("_waits"))();
  return *made = handle_of<CUfunction>(function), CUDA_SUCCESS;
}

// PyCUDA calls it before each launch; it is of the launches before CUDA 4, which these are not.
API CUresult cuFuncSetBlockShape(CUfunction handle, int, int, int) {
  ENTER;
  FIND(Function, function, handle);
  return CUDA_SUCCESS;
}

API CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                            unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream on, void** parameters,
                            void** extra) {
  ENTER;
  FIND(Function, kernel, handle);
  FIND(Stream, stream, on);
  Launch launch{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, {}, {}, {}};
  if (!fits(launch.grid, launch.block) || shared_bytes)
    return refuse(CUDA_ERROR_INVALID_VALUE, kernel->name.c_str(), "a grid or block of no or too many threads");
  if (parameters || !extra || extra[0] != CU_LAUNCH_PARAM_BUFFER_POINTER || extra[2] != CU_LAUNCH_PARAM_BUFFER_SIZE)
    return refuse(CUDA_ERROR_NOT_SUPPORTED, kernel->name.c_str(), "arguments in another form than a buffer and its size");
  const std::string why =
      take_arguments(kernel, static_cast<const char*>(extra[1]), *static_cast<const size_t*>(extra[3]), launch);
  if (!why.empty()) return refuse(CUDA_ERROR_INVALID_VALUE, kernel->name.c_str(), why);
  return put(stream, [=] { return run_kernel(kernel, launch); });
}

API CUresult cuLaunchHostFunc(CUstream on, CUhostFn function, void* data) {
  ENTER;
  FIND(Stream, stream, on);
  return put(stream, [=] {
    in_host_function = true;
    function(data);
    in_host_function = false;
    return CUDA_SUCCESS;
  });
}
