// Shared by all kernels. It includes no CUDA header, so that NVRTC needs no CUDA toolkit.
// With SALEMA_HOST defined the same sources are C++ for the CPU: tests/host_cuda.h has threads, barriers and shuffles.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;

struct alignas(16) Four {
  u32 word[4];
};

#ifdef SALEMA_HOST
#define SALEMA_KERNEL(name) SALEMA_HOST_LAUNCHER(name)
__device__ inline float half_to_float(u16 bits) {
  _Float16 value;
  __builtin_memcpy(&value, &bits, 2);
  return static_cast<float>(value);
}
__device__ inline u16 float_to_half(float value) {
  const _Float16 rounded = static_cast<_Float16>(value);
  u16 bits;
  __builtin_memcpy(&bits, &rounded, 2);
  return bits;
}
#else
#define SALEMA_KERNEL(name)
__device__ inline float half_to_float(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ inline u16 float_to_half(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

// Load and store a number as float32, from and to FP16 or FP32.
__device__ inline float load(const float* from) { return *from; }
__device__ inline float load(const u16* from) { return half_to_float(*from); }
__device__ inline void store(float* to, float value) { *to = value; }
__device__ inline void store(u16* to, float value) { *to = float_to_half(value); }

// Load and store eight numbers in 128-bit accesses; the addresses must be multiples of 16.
__device__ inline void load8(const float* from, float (&values)[8]) {
  for (int part = 0; part < 2; ++part) {
    const Four four = reinterpret_cast<const Four*>(from)[part];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[4 * part + i] = __uint_as_float(four.word[i]);
  }
}
__device__ inline void load8(const u16* from, float (&values)[8]) {
  const Four four = *reinterpret_cast<const Four*>(from);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = half_to_float(static_cast<u16>(four.word[i]));
    values[2 * i + 1] = half_to_float(static_cast<u16>(four.word[i] >> 16));
  }
}
__device__ inline void store8(float* to, const float (&values)[8]) {
  for (int part = 0; part < 2; ++part) {
    Four four;
#pragma unroll
    for (int i = 0; i < 4; ++i) four.word[i] = __float_as_uint(values[4 * part + i]);
    reinterpret_cast<Four*>(to)[part] = four;
  }
}
__device__ inline void store8(u16* to, const float (&values)[8]) {
  Four four;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    four.word[i] = float_to_half(values[2 * i]) | static_cast<u32>(float_to_half(values[2 * i + 1])) << 16;
  }
  *reinterpret_cast<Four*>(to) = four;
}
