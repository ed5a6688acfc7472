// From a map, its range and the source frame to the picture, in one pass; nothing between them is kept:
//   level = floor((s - low) / (high - low) * 255 + 0.5);  colour = resize(table[level]);  out = (1 - a) * frame + a * colour
// The level rounds as the published code does, all else as OpenCV does for 8-bit images. Frame and picture are BGR [h, w, 3], or NV12: Y [h, w] and UV
// [h / 2, w / 2, 2], even sizes; rows may lie apart. A thread draws one pixel, of NV12 a block of 2x2.
//
// Set by the compiler's -D: VIEW (MAP8: levels at the map's size, MAP: grey, OVERLAY), NV12 (of the picture: 0 or 1).
// The frame is NV12 where it has a UV plane.
#include "common.cuh"

namespace {

enum View { MAP8, MAP, OVERLAY };
using u64 = unsigned long long;

struct alignas(16) Line {  // what a row or a column of the picture reads of the map
  int first, second, first_weight, second_weight;
};

struct Frame {
  const u8* plane;
  const u8* uv;
  u64 pitch, uv_pitch;
};

struct Drawing {
  const float* saliency;
  u32 map_width;
  float low, high;
  const Line* rows;
  const Line* columns;
  const u8* colours;
  Frame frame;
  float frame_weight, colour_weight;
};

struct Colour {
  int bgr[3];
};

__device__ inline int level(const Drawing& drawing, u32 row, u32 column) {
  if (!(drawing.high > drawing.low)) return 0;  // flat, or NaN
  const float s = drawing.saliency[row * drawing.map_width + column];
  const float scaled = floorf((s - drawing.low) / (drawing.high - drawing.low) * 255.0f + 0.5f);
  if (!(scaled > 0.0f)) return 0;  // also a NaN, of infinities
  return scaled < 255.0f ? static_cast<int>(scaled) : 255;
}

// Weights have 11 bits after the point; OpenCV drops 4 of the 22 before it weighs the rows, and rounds each down.
__device__ inline int resized(const int (&corners)[4], const Line& row, const Line& column) {
  const int first = corners[0] * column.first_weight + corners[1] * column.second_weight;
  const int second = corners[2] * column.first_weight + corners[3] * column.second_weight;
  return ((row.first_weight * (first >> 4) >> 16) + (row.second_weight * (second >> 4) >> 16) + 2) >> 2;
}

__device__ inline Colour map_colour(const Drawing& drawing, u32 x, u32 y) {
  const Line row = drawing.rows[y], column = drawing.columns[x];
  const int levels[4] = {level(drawing, row.first, column.first), level(drawing, row.first, column.second),
                         level(drawing, row.second, column.first), level(drawing, row.second, column.second)};
  Colour colour;
  if constexpr (VIEW == OVERLAY) {
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
      int corners[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) corners[i] = drawing.colours[3 * levels[i] + channel];
      colour.bgr[channel] = resized(corners, row, column);
    }
  } else {
    const int grey = resized(levels, row, column);
    colour = {{grey, grey, grey}};
  }
  return colour;
}

__device__ inline int descale(int value) { return (value + (1 << 19)) >> 20; }
__device__ inline int clamp8(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

__device__ inline Colour frame_colour(const Frame& frame, u32 x, u32 y) {
  if (!frame.uv) {
    const u8* pixel = frame.plane + y * frame.pitch + 3 * x;
    return {{pixel[0], pixel[1], pixel[2]}};
  }
  const u8* pair = frame.uv + y / 2 * frame.uv_pitch + x / 2 * 2;
  const int u = pair[0] - 128, v = pair[1] - 128, above_black = frame.plane[y * frame.pitch + x] - 16;
  const int light = (above_black < 0 ? 0 : above_black) * 1220542;  // BT.601, 16 to 235, 20 bits after the point
  return {{clamp8(descale(light + 2116026 * u)), clamp8(descale(light - 409993 * u - 852492 * v)),
           clamp8(descale(light + 1673527 * v))}};
}

__device__ inline Colour drawn(const Drawing& drawing, u32 x, u32 y) {
  Colour colour = map_colour(drawing, x, y);
  if constexpr (VIEW == OVERLAY) {
    const Colour frame = frame_colour(drawing.frame, x, y);
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
      const float coloured = colour.bgr[channel] * drawing.colour_weight;
      // Fused, as OpenCV is where the CPU can; with opacity 0.5 nothing is rounded before rint.
      colour.bgr[channel] = static_cast<int>(rintf(fmaf(frame.bgr[channel], drawing.frame_weight, coloured)));
    }
  }
  return colour;
}

__device__ inline int weighed(const Colour& colour, int b, int g, int r) {
  return descale(b * colour.bgr[0] + g * colour.bgr[1] + r * colour.bgr[2]);
}

__device__ inline void draw_bgr(const Drawing& drawing, u32 x, u32 y, u8* to) {
  const Colour colour = drawn(drawing, x, y);
#pragma unroll
  for (int channel = 0; channel < 3; ++channel) to[channel] = static_cast<u8>(colour.bgr[channel]);
}

__device__ inline void draw_nv12(const Drawing& drawing, u32 x, u32 y, u8* to, u64 pitch, u8* uv) {
#pragma unroll
  for (u32 i = 0; i < 4; ++i) {
    const Colour colour = drawn(drawing, x + i % 2, y + i / 2);
    to[i / 2 * pitch + i % 2] = static_cast<u8>(16 + weighed(colour, 102760, 528482, 269484));
    if (i > 0) continue;  // OpenCV takes a block's colour from its first pixel
    uv[0] = static_cast<u8>(128 + weighed(colour, 460324, -305135, -155188));
    uv[1] = static_cast<u8>(128 + weighed(colour, -74448, -385875, 460324));
  }
}

}  // namespace

extern "C" __global__ void postprocess(const float* saliency, const float* limits, const Line* rows,
                                       const Line* columns, const u8* colours, const u8* frame, const u8* frame_uv,
                                       u8* out, [[maybe_unused]] u8* out_uv, u64 frame_pitch, u64 frame_uv_pitch,
                                       u64 out_pitch, [[maybe_unused]] u64 out_uv_pitch, u32 map_width, u32 width,
                                       u32 height, float frame_weight, float colour_weight) {
  constexpr u32 STEP = NV12 ? 2 : 1;
  const u32 x = (blockIdx.x * blockDim.x + threadIdx.x) * STEP, y = (blockIdx.y * blockDim.y + threadIdx.y) * STEP;
  if (x >= width || y >= height) return;
  const Drawing drawing{saliency,     map_width, limits[0], limits[1],
                        rows,         columns,   colours,   {frame, frame_uv, frame_pitch, frame_uv_pitch},
                        frame_weight, colour_weight};
  u8* const row = out + y * out_pitch;
  if constexpr (VIEW == MAP8) {
    row[x] = static_cast<u8>(level(drawing, y, x));
  } else if constexpr (NV12) {
    draw_nv12(drawing, x, y, row + x, out_pitch, out_uv + y / 2 * out_uv_pitch + x);
  } else {
    draw_bgr(drawing, x, y, row + 3 * x);
  }
}
SALEMA_KERNEL(postprocess)
