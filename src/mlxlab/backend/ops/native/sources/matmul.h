// Products of float32 matrices, computed in float32 or from elements rounded to bfloat16 with float32 sums.
//
// The blocking depends on the shape alone, and so does the order of every sum: any number of threads gives equal results.
#pragma once
#include "thread_pool.h"
#include "tiles.h"

namespace mlxlab {

struct Matrix {
  const float* data;
  long stride;      // between the rows in memory
  bool transposed;  // its rows are columns in memory
};

struct Product {
  long rows, columns, depth;
  Matrix a, b;  // (rows, depth) and (depth, columns)
  float* out;   // (rows, columns), without gaps
  const float* bias = nullptr;  // (columns,), added to every row; not together with `accumulate`
  bool accumulate = false;      // adds to `out`
};

constexpr long FEW_ROWS = 4;
constexpr double SERIAL_WORK = 1e6;  // floating-point operations below which threads do not pay

template <class F>
void run_tasks(bool serial, long count, F&& f) {
  if (!serial) return pool().run(count, f);
  for (long i = 0; i < count; i++) f(i);
}

// A few rows times a transposed matrix, as in generation: every element of the matrix is read once.
inline void multiply_few_rows(const Product& p) {
  const long grain = std::max(1L, 65536 / p.depth);
  parallel_for(p.columns, grain, [&](size_t first, size_t end) {
    for (size_t n = first; n < end; n++) {
      const float* weights = p.b.data + n * p.b.stride;
      Floats sums[FEW_ROWS][2] = {};
      long k = 0;
      for (; k + 2 * LANES <= p.depth; k += 2 * LANES)
        for (long m = 0; m < p.rows; m++)
          for (int v = 0; v < 2; v++)
            sums[m][v] += load(p.a.data + m * p.a.stride + k + v * LANES) * load(weights + k + v * LANES);
      for (long m = 0; m < p.rows; m++) {
        float sum = sum_of_lanes(sums[m][0] + sums[m][1]);
        for (long rest = k; rest < p.depth; rest++) sum += p.a.data[m * p.a.stride + rest] * weights[rest];
        float& out = p.out[m * p.columns + n];
        out = sum + (p.bias ? p.bias[n] : p.accumulate ? out : 0.f);
      }
    }
  });
}

// How a product is divided: by depth, by groups of panels (TILE_COLUMNS columns each), and into tasks for the threads.
struct Blocking {
  long bands, panels;  // of TILE_ROWS rows, of TILE_COLUMNS columns
  long depth, group;   // of a block; panels that are packed together
  long bands_per_task;
  explicit Blocking(const Product& p) {
    bands = (p.rows + TILE_ROWS - 1) / TILE_ROWS;
    panels = (p.columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const long blocks = (p.depth + 511) / 512;
    depth = (p.depth + blocks - 1) / blocks;
    depth += depth % 2;
    group = std::clamp((1L << 20) / (depth * TILE_COLUMNS), 1L, panels);
    bands_per_task = std::clamp(bands / 16, 1L, 8L);
  }
};

template <class Format>
class BlockedProduct {
  using Word = typename Format::Word;

 public:
  explicit BlockedProduct(const Product& product)
      : p_(product), blocking_(product), serial_(2.0 * product.rows * product.columns * product.depth < SERIAL_WORK),
        // Rows that are a multiple of a page apart would be mapped to the same cache sets.
        in_place_(Format::READS_ROWS_IN_PLACE && !product.a.transposed && product.a.stride % 1024 != 0) {}

  void compute() {
    // Never destroyed: a stream's thread may compute after the destructors of this library.
    static Workspace& shared = *new Workspace;
    static std::mutex& shared_in_use = *new std::mutex;
    static thread_local Workspace own;
    std::unique_lock<std::mutex> lock(shared_in_use, std::try_to_lock);
    const size_t size = blocking_.group * TILE_COLUMNS * words(blocking_.depth);
    panels_ = (lock.owns_lock() ? shared : own).template get<Word>(size);
    for (long panel = 0; panel < blocking_.panels; panel += blocking_.group)
      for (long k = 0; k < p_.depth; k += blocking_.depth)
        compute_block(panel, std::min(blocking_.panels, panel + blocking_.group), k, std::min(blocking_.depth, p_.depth - k));
  }

 private:
  static long words(long depth) { return (depth + Format::DEPTH_PER_WORD - 1) / Format::DEPTH_PER_WORD; }

  void compute_block(long first_panel, long end_panel, long k, long depth) {
    const long panels = end_panel - first_panel, panel_size = TILE_COLUMNS * words(depth);
    const long together = std::max(1L, 16384 / panel_size);
    run_tasks(serial_, (panels + together - 1) / together, [&](size_t task) {
      for (long j = task * together; j < std::min<long>(panels, (task + 1) * together); j++)
        pack_columns(first_panel + j, k, depth, panels_ + j * panel_size);
    });
    const long height = blocking_.bands_per_task, row_tasks = (blocking_.bands + height - 1) / height;
    const long column_tasks = std::clamp(16 / row_tasks, 1L, panels), width = (panels + column_tasks - 1) / column_tasks;
    run_tasks(serial_, row_tasks * column_tasks, [&](size_t task) {
      const long band = task / column_tasks * height, j = task % column_tasks * width;
      compute_tiles(band, std::min(blocking_.bands, band + height), first_panel, j, std::min(panels, j + width), k, depth);
    });
  }

  void compute_tiles(long band, long end_band, long first_panel, long j, long end_j, long k, long depth) {
    static thread_local Workspace space;
    const long band_size = TILE_ROWS * words(depth);
    Word* packed = in_place_ ? nullptr : space.get<Word>((end_band - band) * band_size);
    for (long i = band; packed && i < end_band; i++) pack_rows(i, k, depth, packed + (i - band) * band_size);
    for (; j < end_j; j++)
      for (long i = band; i < end_band; i++) {
        const long row = i * TILE_ROWS, column = (first_panel + j) * TILE_COLUMNS;
        const int rows = std::min<long>(TILE_ROWS, p_.rows - row);
        const Word* panel = panels_ + j * TILE_COLUMNS * words(depth);
        const TileTarget target{p_.out + row * p_.columns + column, p_.columns,
                                std::min<long>(TILE_COLUMNS, p_.columns - column),
                                p_.bias && k == 0 ? p_.bias + column : nullptr, p_.accumulate || k > 0};
        if constexpr (Format::READS_ROWS_IN_PLACE)
          if (in_place_) {
            const float* a = p_.a.data + row * p_.a.stride + k;
            compute_tile_of<Format, false>(rows, a, p_.a.stride, panel, depth, target);
            continue;
          }
        compute_tile_of<Format, true>(rows, packed + (i - band) * band_size, 0, panel, words(depth), target);
      }
  }

  void pack_rows(long band, long k, long depth, Word* to) const {
    const long row = band * TILE_ROWS, stride = p_.a.stride;
    const float* from = p_.a.data + (p_.a.transposed ? k * stride + row : row * stride + k);
    const int rows = std::min<long>(TILE_ROWS, p_.rows - row);
    pack_panel<Format, TILE_ROWS>(from, stride, p_.a.transposed, rows, depth, to);
  }
  void pack_columns(long panel, long k, long depth, Word* to) const {
    const long column = panel * TILE_COLUMNS, stride = p_.b.stride;
    const float* from = p_.b.data + (p_.b.transposed ? column * stride + k : k * stride + column);
    const int columns = std::min<long>(TILE_COLUMNS, p_.columns - column);
    pack_panel<Format, TILE_COLUMNS>(from, stride, !p_.b.transposed, columns, depth, to);
  }

  const Product& p_;
  const Blocking blocking_;
  const bool serial_, in_place_;
  Word* panels_ = nullptr;
};

}  // namespace mlxlab
