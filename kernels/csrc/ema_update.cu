// The EMA of a layer's output, and everything between that layer's convolution and the next one, in one pass:
//   state <- mix == 1 ? x : state + mix * (x - state);  out = relu(state + residual)
// x, residual and out are FP16 or FP32; state is float32 and updated in place. All have the same order of elements.
// Each thread takes eight elements in 128-bit accesses, and each byte is read and written once.
//
// Set with -D: X (type of x, residual and out), and RESIDUAL, RELU, RECTIFIED (0 or 1). RECTIFIED keeps the state after
// the ReLU, as in the published network's encoder, whose ReLUs work in place.
#include "common.cuh"

namespace {

__device__ inline float rectify(float value) {
  return value < 0.0f ? 0.0f : value;  // keeps a NaN, as PyTorch's ReLU does
}

__device__ inline float update(float state, float fresh, float mix) {
  const float after = mix == 1.0f ? fresh : state + mix * (fresh - state);  // a select, so that mix 1 also clears a NaN
  return RECTIFIED ? rectify(after) : after;
}

__device__ inline float activate(float value) { return RELU ? rectify(value) : value; }

}  // namespace

extern "C" __global__ void ema_update(float* state, const X* x, const float* mix, X* out,
                                      [[maybe_unused]] const X* residual, u32 total, u32 per_stream) {
  const u32 first = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (first >= total) return;
  if (first + 8 > total) {  // the tail, element by element
    for (u32 element = first; element < total; ++element) {
      float after = update(state[element], load(x + element), mix[element / per_stream]);
      state[element] = after;
      if constexpr (RESIDUAL) after += load(residual + element);
      store(out + element, activate(after));
    }
    return;
  }
  float values[8], states[8];
  [[maybe_unused]] float added[8];
  load8(x + first, values);
  load8(state + first, states);
  if constexpr (RESIDUAL) load8(residual + first, added);  // before the stores: the compiler can't move a load up past them
  const u32 stream = first / per_stream;
  const u32 end = (stream + 1) * per_stream;  // the next stream begins here: eight elements may belong to several
  const float own_mix = mix[stream];
#pragma unroll
  for (u32 i = 0; i < 8; ++i) {
    const float weight = first + i < end ? own_mix : mix[(first + i) / per_stream];
    states[i] = update(states[i], values[i], weight);
  }
  store8(state + first, states);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (RESIDUAL) states[i] += added[i];
    states[i] = activate(states[i]);
  }
  store8(out + first, states);
}
SALEMA_KERNEL(ema_update)
