// Products by the tile registers of AMX: elements rounded to bfloat16, sums in float32.
//
// Intel, "Architecture Instruction Set Extensions Programming Reference" (319433), chapter on AMX. As in `matmul.h` the
// blocking depends on the shape alone. Numbers below 2^-126 count as zero.
#pragma once
#include "matmul.h"
#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace mlxlab {

// Whether the processor has the registers, and the kernel lets this process use them.
inline bool has_tile_registers() {
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
  return permitted;
}

class TileProduct {
  using Word = uint32_t;  // two elements along the depth
  static constexpr long SIDE = 32;        // rows and columns of a block: two by two registers
  static constexpr long REGISTER = 16;    // rows of a register, and words of one
  static constexpr long MAX_DEPTH = 512;

 public:
  explicit TileProduct(const Product& p)
      : p_(p), bands_((p.rows + SIDE - 1) / SIDE), panels_((p.columns + SIDE - 1) / SIDE),
        serial_(2.0 * p.rows * p.columns * p.depth < SERIAL_WORK) {
    const long blocks = (p.depth + MAX_DEPTH - 1) / MAX_DEPTH;
    depth_ = ((p.depth + blocks - 1) / blocks + SIDE - 1) / SIDE * SIDE;
    group_ = std::clamp((1L << 20) / (depth_ * SIDE), 1L, panels_);
    height_ = std::clamp(bands_ / 16, 1L, 4L);
  }

  void compute() {
    // Never destroyed: a stream's thread may compute after the destructors of this library.
    static Workspace& shared = *new Workspace;
    static std::mutex& shared_in_use = *new std::mutex;
    static thread_local Workspace own;
    std::unique_lock<std::mutex> lock(shared_in_use, std::try_to_lock);
    columns_ = (lock.owns_lock() ? shared : own).template get<Word>(group_ * SIDE * depth_ / 2);
    for (long panel = 0; panel < panels_; panel += group_)
      for (long k = 0; k < p_.depth; k += depth_) compute_block(panel, std::min(panels_, panel + group_), k);
  }

 private:
  void compute_block(long first, long end, long k) {
    const long depth = std::min(depth_, p_.depth - k), words = (depth + SIDE - 1) / SIDE * REGISTER;
    run_tasks(serial_, end - first, [&](size_t j) { pack_columns(first + j, k, depth, words, columns_ + j * SIDE * words); });
    const long tasks = (bands_ + height_ - 1) / height_;
    const long splits = std::clamp(16 / tasks, 1L, end - first), width = (end - first + splits - 1) / splits;
    run_tasks(serial_, tasks * splits, [&](size_t task) {
      const long j = task % splits * width;
      for (long i = task / splits * height_; i < std::min(bands_, (long)(task / splits + 1) * height_); i++)
        compute_band(i, first, j, std::min(end - first, j + width), k, depth, words);
    });
  }

  void compute_band(long band, long first, long j, long end, long k, long depth, long words) {
    static thread_local Workspace space;
    Word* rows = space.get<Word>(SIDE * words);
    pack_rows(band, k, depth, words, rows);
    const TileConfig config;
    _tile_loadconfig(&config);
    alignas(64) float sums[SIDE * SIDE];
    for (; j < end; j++) {
      multiply_tiles(rows, columns_ + j * SIDE * words, words, sums);
      write(sums, band * SIDE, (first + j) * SIDE, k > 0);
    }
    _tile_release();
  }

  static void multiply_tiles(const Word* rows, const Word* columns, long words, float* sums) {
    constexpr long LINE = SIDE * sizeof(Word);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // the loads below are no accesses to memory for GCC
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long k = 0; k < words; k += REGISTER) {
      _tile_loadd(4, rows + k, words * sizeof(Word));
      _tile_loadd(6, columns + k * SIDE, LINE);
      _tile_loadd(7, columns + k * SIDE + REGISTER, LINE);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, rows + REGISTER * words + k, words * sizeof(Word));
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, LINE);
    _tile_stored(1, sums + REGISTER, LINE);
    _tile_stored(2, sums + REGISTER * SIDE, LINE);
    _tile_stored(3, sums + REGISTER * SIDE + REGISTER, LINE);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }

  void write(const float* sums, long row, long column, bool later) const {
    const long rows = std::min(SIDE, p_.rows - row), columns = std::min(SIDE, p_.columns - column);
    const float* bias = p_.bias && !later ? p_.bias + column : nullptr;
    for (long i = 0; i < rows; i++, sums += SIDE) {
      float* to = p_.out + (row + i) * p_.columns + column;
      if (p_.accumulate || later)
        for (long j = 0; j < columns; j++) to[j] += sums[j];
      else if (bias)
        for (long j = 0; j < columns; j++) to[j] = sums[j] + bias[j];
      else
        std::memcpy(to, sums, columns * sizeof(float));
    }
  }

  // (SIDE, words): word k of line i at to[i * words + k].
  void pack_rows(long band, long k, long depth, long words, Word* to) const {
    const long row = band * SIDE, rows = std::min(SIDE, p_.rows - row), stride = p_.a.stride;
    if (p_.a.transposed) {
      Word side[REGISTER * SIDE];
      for (long w = 0; w < words; w += REGISTER) {
        pack_across(p_.a.data + (k + 2 * w) * stride + row, stride, rows, depth - 2 * w, side, REGISTER);
        transpose(side, SIDE, REGISTER, to + w, words);
      }
      return;
    }
    for (long i = 0; i < SIDE; i++) pack_along(p_.a.data + (row + i) * stride + k, i < rows ? depth : 0, words, to + i * words);
  }

  // (words, SIDE): word k of column j at to[k * SIDE + j].
  void pack_columns(long panel, long k, long depth, long words, Word* to) const {
    const long column = panel * SIDE, columns = std::min(SIDE, p_.columns - column), stride = p_.b.stride;
    if (!p_.b.transposed) return pack_across(p_.b.data + k * stride + column, stride, columns, depth, to, words);
    Word lines[SIDE * REGISTER];
    for (long w = 0; w < words; w += REGISTER) {
      for (long j = 0; j < SIDE; j++) {
        const long left = j < columns ? std::clamp(depth - 2 * w, 0L, SIDE) : 0;
        pack_along(p_.b.data + (column + j) * stride + k + 2 * w, left, REGISTER, lines + j * REGISTER);
      }
      transpose(lines, REGISTER, SIDE, to + w * SIDE, SIDE);
    }
  }

  // Elements that are neighbours along the depth, and zeros up to `words`.
  static void pack_along(const float* from, long depth, long words, Word* to) {
    alignas(64) uint16_t last[SIDE] = {};
    auto* out = reinterpret_cast<unsigned char*>(to);
    long k = 0;
    for (; k + LANES <= depth; k += LANES) {
      const Half half = narrow(load(from + k));
      std::memcpy(out + 2 * k, &half, sizeof half);
    }
    float rest[LANES] = {};
    std::memcpy(rest, from + k, (depth - k) * sizeof(float));
    const Half half = narrow(load(rest));
    std::memcpy(last, &half, sizeof half);
    for (; k < 2 * words; k += LANES) {
      std::memcpy(out + 2 * k, last, sizeof half);
      std::memset(last, 0, sizeof half);
    }
  }

  // Lines of up to SIDE elements, `stride` apart along the depth: (words, SIDE), with zeros where there is none.
  static void pack_across(const float* from, long stride, long side, long depth, Word* to, long words) {
    for (long w = 0; w < words; w++, to += SIDE) {
      float lines[2][SIDE] = {};
      for (long h = 0; h < 2; h++)
        if (2 * w + h < depth) std::memcpy(lines[h], from + (2 * w + h) * stride, side * sizeof(float));
      for (long j = 0; j < SIDE; j += LANES) store(to + j, BFloat16::word(load(lines[0] + j), load(lines[1] + j)));
    }
  }

  // from (lines, width) -> to (width, lines), whose lines are `stride` apart.
  static void transpose(const Word* from, long width, long lines, Word* to, long stride) {
    for (long j = 0; j < width; j++)
      for (long i = 0; i < lines; i++) to[j * stride + i] = from[i * width + j];
  }

  using Half = uint16_t __attribute__((vector_size(2 * LANES)));
  static Half narrow(Floats x) { return __builtin_convertvector(BFloat16::rounded(x) >> 16, Half); }

  struct TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };

  const Product& p_;
  long bands_, panels_, depth_, group_, height_;
  bool serial_;
  Word* columns_ = nullptr;
};

}  // namespace mlxlab
#else
namespace mlxlab {

inline bool has_tile_registers() { return false; }
using TileProduct = BlockedProduct<BFloat16>;

}  // namespace mlxlab
#endif
