// Minimum and maximum of each map of [N, H, W], one block per map. Every byte is read once, in 128-bit accesses.
// A NaN anywhere makes both NaN, hence the comparisons: fminf would skip a NaN.
#include "common.cuh"

namespace {

constexpr u32 WARP = 32;

struct Range {
  float low, high;
};

__device__ inline Range nothing() { return {__uint_as_float(0x7f800000u), __uint_as_float(0xff800000u)}; }

__device__ inline void take(Range& range, float low, float high) {
  if (low < range.low || low != low) range.low = low;  // once NaN, it stays NaN
  if (high > range.high || high != high) range.high = high;
}

__device__ inline void take_four(Range& range, const Four& four) {
#pragma unroll
  for (int i = 0; i < 4; ++i) take(range, __uint_as_float(four.word[i]), __uint_as_float(four.word[i]));
}

__device__ inline Range of_thread(const float* map, u32 count) {
  Range range = nothing();
  const u32 misaligned = reinterpret_cast<unsigned long long>(map) / 4 % 4;  // maps follow each other without gaps
  const u32 before = misaligned ? 4 - misaligned : 0;
  const u32 head = before < count ? before : count;
  const u32 fours = (count - head) / 4;
  const u32 tail = head + 4 * fours;
  if (threadIdx.x < head) take(range, map[threadIdx.x], map[threadIdx.x]);
  if (threadIdx.x < count - tail) take(range, map[tail + threadIdx.x], map[tail + threadIdx.x]);
  const Four* const from = reinterpret_cast<const Four*>(map + head);
  u32 i = threadIdx.x;
  for (; i + 3 * blockDim.x < fours; i += 4 * blockDim.x) {
    Four batch[4];  // four accesses at a time: a single block can't hide their latency
#pragma unroll
    for (u32 j = 0; j < 4; ++j) batch[j] = from[i + j * blockDim.x];
#pragma unroll
    for (u32 j = 0; j < 4; ++j) take_four(range, batch[j]);
  }
  for (; i < fours; i += blockDim.x) take_four(range, from[i]);
  return range;
}

__device__ inline Range of_warp(Range range) {
#pragma unroll
  for (u32 step = WARP / 2; step; step /= 2) {
    const float low = __shfl_xor_sync(0xffffffffu, range.low, step);
    const float high = __shfl_xor_sync(0xffffffffu, range.high, step);
    take(range, low, high);
  }
  return range;
}

}  // namespace

// The number of a block's threads must be a multiple of 32.
extern "C" __global__ void map_range(const float* saliency, float* out, u32 count) {
  __shared__ float lows[WARP], highs[WARP];  // one per warp
  const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const unsigned long long first = static_cast<unsigned long long>(blockIdx.x) * count;
  Range range = of_warp(of_thread(saliency + first, count));
  if (lane == 0) {
    lows[warp] = range.low;
    highs[warp] = range.high;
  }
  __syncthreads();
  if (warp > 0) return;
  range = of_warp(lane < blockDim.x / WARP ? Range{lows[lane], highs[lane]} : nothing());
  if (lane > 0) return;
  const bool clean = range.low == range.low;
  const float nan = __uint_as_float(0x7fc00000u);
  out[2 * blockIdx.x] = clean ? range.low + 0.0f : nan;  // -0 + 0 is 0, so the result doesn't depend on which zero came first
  out[2 * blockIdx.x + 1] = clean ? range.high + 0.0f : nan;
}
SALEMA_KERNEL(map_range)
