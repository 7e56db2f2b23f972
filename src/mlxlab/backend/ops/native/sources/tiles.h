// Tiles of a product: the part that is computed in the registers of a core, and the packed panels that it reads.
#pragma once
#include <utility>

#include "vectors.h"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace mlxlab {

constexpr int TILE_COLUMNS = 2 * LANES;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 12;  // of 32 vector registers: 24 sums, 2 of b, 1 of a
#else
constexpr int TILE_ROWS = 6;  // of 16
#endif

// Elements of a product as they are packed, in words along its depth.
struct Float32 {
  using Word = float;
  using Vector = Floats;
  static constexpr long DEPTH_PER_WORD = 1;
  static constexpr bool READS_ROWS_IN_PLACE = true;
  static Floats multiply_add(Floats sum, Word a, Vector b) { return sum + a * b; }
  static Vector word(Floats first, Floats) { return first; }
  static Word word(float first, float) { return first; }
};

// Two elements in a word, rounded to bfloat16 (nearest, ties to even); their products are added in float32.
struct BFloat16 {
  using Word = uint32_t;
  using Vector = Words;
  static constexpr long DEPTH_PER_WORD = 2;
  static constexpr bool READS_ROWS_IN_PLACE = false;
  static Floats multiply_add(Floats sum, Word a, Vector b) {
#if defined(__AVX512BF16__)
    const __m512i pair = _mm512_set1_epi32((int)a);
    return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pair, (__m512bh)b);
#else
    float low, high;
    const uint32_t low_bits = a << 16, high_bits = a & 0xffff0000u;
    std::memcpy(&low, &low_bits, 4), std::memcpy(&high, &high_bits, 4);
    return sum + low * (Floats)(b << 16) + high * (Floats)(b & 0xffff0000u);
#endif
  }
  static Vector word(Floats first, Floats second) { return (rounded(first) >> 16) | (rounded(second) & 0xffff0000u); }
  static Word word(float first, float second) { return rounded(first) >> 16 | (rounded(second) & 0xffff0000u); }

  // Words whose upper half is the bfloat16.
  static Words rounded(Floats x) {
    const Words bits = (Words)x, nearest = bits + 0x7fffu + (bits >> 16 & 1);
    return x == x ? nearest : bits | 0x400000u;
  }
  static Word rounded(float x) {
    Word bits;
    std::memcpy(&bits, &x, sizeof bits);
    return x == x ? bits + 0x7fffu + (bits >> 16 & 1) : bits | 0x400000u;
  }
};

// Where a tile of at most TILE_COLUMNS columns is written.
struct TileTarget {
  float* out;
  long stride, columns;
  const float* bias;  // of the columns, or null
  bool accumulate;
};

// Calls f(0), ..., f(N - 1) with compile-time constants; with other indices GCC keeps a part of an array on the stack.
template <int N, class F>
MLXLAB_INLINE void unroll(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

// A tile of ROWS rows of a times a panel of b, both `words` deep.
// PACKED: a is a panel of TILE_ROWS rows, else rows that are `stride` apart, as in the caller's matrix.
template <class Format, int ROWS, bool PACKED>
__attribute__((noinline)) void compute_tile(
    const typename Format::Word* a, long stride, const typename Format::Word* panel, long words, TileTarget target) {
  Floats sums[ROWS][2] = {};
  const typename Format::Word* third[(ROWS + 2) / 3];  // every third row: the next two are reached from it
  for (int j = 0; j < (ROWS + 2) / 3; j++) third[j] = a + 3 * j * stride;
  for (long k = 0; k < words; k++) {
    const auto b0 = load<typename Format::Vector>(panel), b1 = load<typename Format::Vector>(panel + LANES);
    panel += TILE_COLUMNS;
    unroll<ROWS>([&](auto i) __attribute__((always_inline)) {
      const auto x = PACKED ? a[i] : third[i / 3][(i % 3) * stride];
      sums[i][0] = Format::multiply_add(sums[i][0], x, b0);
      sums[i][1] = Format::multiply_add(sums[i][1], x, b1);
    });
    a += TILE_ROWS;
#pragma GCC unroll 5
    for (int j = 0; j < (ROWS + 2) / 3; j++) third[j]++;
  }
  const bool full = target.columns == TILE_COLUMNS;
  float line[TILE_COLUMNS] = {};
  Floats bias[2] = {};
  if (target.bias) {
    std::memcpy(line, target.bias, target.columns * sizeof(float));
    bias[0] = load(line), bias[1] = load(line + LANES);
  }
  unroll<ROWS>([&](auto i) __attribute__((always_inline)) {
    float* row = target.out + i * target.stride;
    float* to = full ? row : line;
    if (!full && target.accumulate) std::memcpy(line, row, target.columns * sizeof(float));
    for (int v = 0; v < 2; v++) {
      const Floats before = target.accumulate ? load(to + v * LANES) : bias[v];
      store(to + v * LANES, sums[i][v] + before);
    }
    if (!full) std::memcpy(row, line, target.columns * sizeof(float));
  });
}

// The same for a number of rows known at run time.
template <class Format, bool PACKED, int ROWS = TILE_ROWS>
inline void compute_tile_of(int rows, const typename Format::Word* a, long stride,
                            const typename Format::Word* panel, long words, TileTarget target) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS) compute_tile<Format, ROWS, PACKED>(a, stride, panel, words, target);
    else compute_tile_of<Format, PACKED, ROWS - 1>(rows, a, stride, panel, words, target);
  }
}

// Packs `side` rows or columns of a matrix, `depth` deep, into a panel of WIDTH: word k of line j at panel[k * WIDTH + j].
// contiguous_side: neighbours of the side are neighbours in memory, else those of the depth are.
template <class Format, int WIDTH>
void pack_panel(const float* from, long stride, bool contiguous_side, int side, long depth, typename Format::Word* panel) {
  constexpr long PER_WORD = Format::DEPTH_PER_WORD;
  for (long k = 0; k < depth; k += PER_WORD) {
    auto* words = panel + k / PER_WORD * WIDTH;
    const bool pair = k + 1 < depth;
    if (PER_WORD == 1 && contiguous_side && side == WIDTH) {
      std::memcpy(words, from + k * stride, WIDTH * sizeof(float));
      continue;
    }
    if (contiguous_side && WIDTH % LANES == 0 && side == WIDTH) {
      const float* line = from + k * stride;
      for (int j = 0; j < WIDTH; j += LANES)
        store(words + j, Format::word(load(line + j), PER_WORD == 2 && pair ? load(line + stride + j) : Floats{}));
      continue;
    }
    const long along_side = contiguous_side ? 1 : stride, along_depth = contiguous_side ? stride : 1;
    const float* line = from + k * along_depth;
    for (int j = 0; j < side; j++, line += along_side)
      words[j] = Format::word(*line, PER_WORD == 2 && pair ? line[along_depth] : 0.f);
    for (int j = side; j < WIDTH; j++) words[j] = 0;
  }
}

}  // namespace mlxlab
