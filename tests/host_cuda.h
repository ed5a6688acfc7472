// CUDA's words for a CPU: blocks one after the other; a block's threads take turns in one thread, each with a stack of its
// own, which takes a tenth of the time of real threads. Under a sanitizer they are real threads, so that it sees races.
// A kernel that neither waits nor shuffles runs its threads as a plain loop.
#pragma once

#include "host_standard.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SALEMA_REAL_THREADS
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)

struct Index3 {
  unsigned x, y, z;
};
inline thread_local Index3 threadIdx, blockIdx;
inline Index3 blockDim, gridDim;

namespace salema_host {
constexpr unsigned WARP = 32;
#ifdef SALEMA_REAL_THREADS
using Barrier = std::barrier<>;

inline void run_together(unsigned threads, const std::function<void(unsigned)>& work) {
  std::vector<std::thread> team;
  for (unsigned t = 0; t < threads; ++t) team.emplace_back(work, t);
  for (auto& thread : team) thread.join();
}
#else
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool is_done;
};
constexpr std::size_t STACK_BYTES = 64 << 10;
inline std::vector<Fiber> fibers;  // kept, for their stacks
inline ucontext_t after;
inline unsigned running, count;
inline const std::function<void(unsigned)>* task;

// The next that isn't done, or `count` if all are.
inline unsigned next_fiber() {
  for (unsigned step = 1; step <= count; ++step)
    if (const unsigned next = (running + step) % count; !fibers[next].is_done) return next;
  return count;
}

inline void give_turn() {
  const unsigned own = running, next = next_fiber();
  if (next == own) std::abort();  // the others are done, so what it waits for never comes
  const Index3 thread = threadIdx;
  running = next;
  swapcontext(&fibers[own].context, &fibers[next].context);
  threadIdx = thread;
}

inline void run_fiber() {
  (*task)(running);
  fibers[running].is_done = true;
  running = next_fiber();
  setcontext(running == count ? &after : &fibers[running].context);
}

inline void run_together(unsigned threads, const std::function<void(unsigned)>& work) {
  if (fibers.size() < threads) fibers.resize(threads);
  task = &work, count = threads, running = 0;
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    if (!fiber.stack) fiber.stack.reset(new char[STACK_BYTES]);
    fiber.is_done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
  }
  swapcontext(&after, &fibers[0].context);
}

class Barrier {
 public:
  explicit Barrier(unsigned size) : size_(size) {}
  void arrive_and_wait() {
    const unsigned round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
    }
    while (round_ == round) give_turn();
  }

 private:
  unsigned size_, arrived_ = 0, round_ = 0;
};
#endif

inline Barrier* block_barrier = nullptr;
inline std::vector<Barrier*> warp_barriers;
inline std::vector<float> lanes;
inline unsigned linear_thread() { return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }

inline float exchange(float value, unsigned from_lane) {
  const unsigned thread = linear_thread(), warp = thread / WARP;
  lanes[thread] = value;
  warp_barriers[warp]->arrive_and_wait();
  const unsigned source = warp * WARP + from_lane;
  const float got = from_lane < WARP && source < lanes.size() ? lanes[source] : value;
  warp_barriers[warp]->arrive_and_wait();
  return got;
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

template <class... A>
void launch(void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** arguments, int together) {
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  const unsigned threads = block[0] * block[1] * block[2], blocks = grid[0] * grid[1] * grid[2];
  const auto place = [&](unsigned at, const Index3& size) {
    return Index3{at % size.x, at / size.x % size.y, at / size.x / size.y};
  };
  const auto run = [&](unsigned at_block, unsigned at_thread) {
    blockIdx = place(at_block, gridDim);
    threadIdx = place(at_thread, blockDim);
    call(kernel, arguments, std::index_sequence_for<A...>{});
  };
  if (!together) {
    for (unsigned b = 0; b < blocks; ++b)
      for (unsigned t = 0; t < threads; ++t) run(b, t);
    return;
  }
  Barrier all(threads);
  block_barrier = &all;
  lanes.assign(threads, 0.0f);
  for (unsigned t = 0; t < threads; t += WARP)
    warp_barriers.push_back(new Barrier(threads - t < WARP ? threads - t : WARP));
  run_together(threads, [&](unsigned t) {
    for (unsigned b = 0; b < blocks; ++b) {
      run(b, t);
      all.arrive_and_wait();  // shared memory is the next block's from here on
    }
  });
  for (auto* barrier : warp_barriers) delete barrier;
  warp_barriers.clear();
}

// A character for each parameter: P for an address, else its size in bytes.
template <class... A>
constexpr std::array<char, sizeof...(A) + 1> parameters(void (*)(A...)) {
  return {(std::is_pointer_v<A> ? 'P' : static_cast<char>('0' + sizeof(A)))..., 0};
}
}  // namespace salema_host

inline void __syncthreads() { salema_host::block_barrier->arrive_and_wait(); }
inline float __shfl_down_sync(unsigned, float value, unsigned delta) {
  return salema_host::exchange(value, salema_host::linear_thread() % salema_host::WARP + delta);
}
inline float __shfl_xor_sync(unsigned, float value, unsigned mask) {
  return salema_host::exchange(value, (salema_host::linear_thread() % salema_host::WARP) ^ mask);
}

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// NAME_launch(grid, block, pointers to the arguments, whether threads wait for each other); and for tests/host_driver,
// which learns of a kernel from its library alone, NAME_parameters() and NAME_waits().
#define SALEMA_HOST_LAUNCHER(name)                                                                             \
  extern "C" void name##_launch(const unsigned* grid, const unsigned* block, void** arguments, int together) { \
    salema_host::launch(name, grid, block, arguments, together);                                               \
  }                                                                                                            \
  extern "C" const char* name##_parameters() {                                                                 \
    static constexpr auto text = salema_host::parameters(name);                                                \
    return text.data();                                                                                        \
  }                                                                                                            \
  extern "C" int name##_waits() { return SALEMA_WAITS; }
