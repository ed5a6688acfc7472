// Resizes a source frame to the network's frame, both uint8 BGR [height, width, 3], as OpenCV's INTER_AREA does on x86,
// to the bit. A thread makes one output pixel from the source pixels in its row's and its column's span. tables.py makes
// spans and weights on the host, and names the sources.
//
// Set with -D: MODE (WHOLE, AREA, LINEAR).
#include "common.cuh"

namespace {

enum Mode { WHOLE, AREA, LINEAR };

struct Span {  // source rows or columns, both ends included
  u32 first, last;
};

struct Source {
  const u8* pixels;
  u32 width;  // the launcher checks that all offsets are below 2^31
};

struct Pixel {
  int bgr[3];
};

__device__ inline u8 clamp(int value) { return static_cast<u8>(value < 0 ? 0 : value > 255 ? 255 : value); }
__device__ inline u8 round_to_byte(float value) { return clamp(static_cast<int>(rintf(value))); }  // halves to even

__device__ inline Pixel read(const Source& source, u32 row, u32 column) {
  const u8* at = source.pixels + (row * source.width + column) * 3;
  return {{at[0], at[1], at[2]}};
}

// Both axes shrink by whole numbers: the mean of the pixels. For 2x2 OpenCV rounds halves up.
__device__ inline void mean(const Source& source, Span rows, Span columns, u8* out) {
  u32 sums[3] = {0, 0, 0};
  for (u32 row = rows.first; row <= rows.last; ++row) {
    for (u32 column = columns.first; column <= columns.last; ++column) {
      const Pixel pixel = read(source, row, column);
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[c] += pixel.bgr[c];
    }
  }
  const u32 down = rows.last - rows.first + 1, across = columns.last - columns.first + 1;
  const float share = 1.0f / static_cast<float>(down * across);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    out[c] = down == 2 && across == 2 ? static_cast<u8>((sums[c] + 2) >> 2)
                                      : round_to_byte(static_cast<float>(sums[c]) * share);
  }
}

// Both axes shrink: pixels are weighted by the share of them that is inside. Each row is summed first, then the rows.
__device__ inline void weighted_mean(const Source& source, Span rows, Span columns, const float* row_weights,
                                     const float* column_weights, u8* out) {
  float sums[3] = {0.0f, 0.0f, 0.0f};
  for (u32 row = rows.first; row <= rows.last; ++row) {
    float line[3] = {0.0f, 0.0f, 0.0f};
    for (u32 column = columns.first; column <= columns.last; ++column) {
      const Pixel pixel = read(source, row, column);
      const float weight = column_weights[column - columns.first];
#pragma unroll
      for (int c = 0; c < 3; ++c) line[c] += static_cast<float>(pixel.bgr[c]) * weight;
    }
    const float weight = row_weights[row - rows.first];
#pragma unroll
    for (int c = 0; c < 3; ++c) sums[c] += line[c] * weight;
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) out[c] = round_to_byte(sums[c]);
}

// An axis grows: four pixels, weights of 11 bits. OpenCV cuts off 4 bits, then 16, and rounds the last two.
__device__ inline void interpolate(const Source& source, Span rows, Span columns, const float* row_weights,
                                   const float* column_weights, u8* out) {
  int sums[3] = {2, 2, 2};
  const int left = static_cast<int>(column_weights[0]), right = static_cast<int>(column_weights[1]);
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const u32 row = side ? rows.last : rows.first;
    const Pixel from = read(source, row, columns.first), to = read(source, row, columns.last);
    const int weight = static_cast<int>(row_weights[side]);
#pragma unroll
    for (int c = 0; c < 3; ++c) sums[c] += (weight * ((from.bgr[c] * left + to.bgr[c] * right) >> 4)) >> 16;
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) out[c] = static_cast<u8>(sums[c] >> 2);
}

}  // namespace

extern "C" __global__ void preprocess(const u8* pixels, u8* out, const Span* row_spans, const float* row_weights,
                                      const Span* column_spans, const float* column_weights, u32 source_width,
                                      u32 height, u32 width, u32 row_taps, u32 column_taps) {
  const u32 place = blockIdx.x * blockDim.x + threadIdx.x;
  if (place >= height * width) return;
  const u32 row = place / width, column = place % width;
  const Source source{pixels, source_width};
  const Span rows = row_spans[row], columns = column_spans[column];
  [[maybe_unused]] const float *down = row_weights + row * row_taps, *across = column_weights + column * column_taps;
  u8* to = out + place * 3;
  if constexpr (MODE == WHOLE) mean(source, rows, columns, to);
  if constexpr (MODE == AREA) weighted_mean(source, rows, columns, down, across, to);
  if constexpr (MODE == LINEAR) interpolate(source, rows, columns, down, across, to);
}
SALEMA_KERNEL(preprocess)
