// Draws the picture from a map, its range and the source frame, in one pass without intermediate buffers:
//   level = floor((s - low) / (high - low) * 255 + 0.5);  colour = resize(table[level]);  out = (1 - a) * frame + a * colour
// The level is rounded as in the published code, all else as in OpenCV for 8-bit images. Frame and picture are BGR
// [h, w, 3]. A thread draws one pixel.
//
// Set with -D: VIEW (MAP8: levels at the map's size, MAP: grey, OVERLAY).
#include "common.cuh"

namespace {

enum View { MAP8, MAP, OVERLAY };

struct alignas(16) Line {  // the two rows or columns of the map for one of the picture
  int first, second, first_weight, second_weight;
};

struct Drawing {
  const float* saliency;
  u32 map_width;
  float low, high;
  const Line* rows;
  const Line* columns;
  const u8* colours;
  const u8* frame;
  float frame_weight, colour_weight;
};

struct Colour {
  int bgr[3];
};

__device__ inline int level(const Drawing& drawing, u32 row, u32 column) {
  if (!(drawing.high > drawing.low)) return 0;  // flat, or NaN
  const float s = drawing.saliency[row * drawing.map_width + column];
  const float scaled = floorf((s - drawing.low) / (drawing.high - drawing.low) * 255.0f + 0.5f);
  if (!(scaled > 0.0f)) return 0;  // also NaN, which infinities give
  return scaled < 255.0f ? static_cast<int>(scaled) : 255;
}

// Weights have 11 bits after the point. OpenCV drops 4 of the 22 bits before it weights the rows, and rounds each down.
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

__device__ inline void draw(const Drawing& drawing, u32 x, u32 y, u32 pixel, u8* out) {
  Colour colour = map_colour(drawing, x, y);
  if constexpr (VIEW == OVERLAY) {
    const u8* frame = drawing.frame + 3 * pixel;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
      const float coloured = colour.bgr[channel] * drawing.colour_weight;
      // Fused, as in OpenCV if the CPU can; with opacity 0.5 nothing is rounded before rint.
      colour.bgr[channel] = static_cast<int>(rintf(fmaf(frame[channel], drawing.frame_weight, coloured)));
    }
  }
#pragma unroll
  for (int channel = 0; channel < 3; ++channel) out[3 * pixel + channel] = static_cast<u8>(colour.bgr[channel]);
}

}  // namespace

extern "C" __global__ void postprocess(const float* saliency, const float* limits, const Line* rows,
                                       const Line* columns, const u8* colours, const u8* frame, u8* out,
                                       u32 map_width, u32 width, u32 height, float frame_weight,
                                       float colour_weight) {
  const u32 x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const Drawing drawing{saliency, map_width, limits[0], limits[1],    rows,
                        columns,  colours,   frame,     frame_weight, colour_weight};
  const u32 pixel = y * width + x;  // the launcher checks that all offsets are below 2^31
  if constexpr (VIEW == MAP8) {
    out[pixel] = static_cast<u8>(level(drawing, y, x));
  } else {
    draw(drawing, x, y, pixel, out);
  }
}
SALEMA_KERNEL(postprocess)
