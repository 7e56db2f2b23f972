// RMSNorm and LayerNorm over rows of D elements, and their gradients: (x - mean) r w + b, without mean and b for RMSNorm.
#pragma once
#include "primitive.h"
#include "vectors.h"

namespace mlxlab {

constexpr long NORM_GRAIN = 32;  // rows

// Of one row: the mean (0 for RMSNorm) and r, the inverse root of its variance.
MLXLAB_INLINE std::pair<float, float> row_statistics(const float* x, long D, bool centered, float eps) {
  float mean = 0.f;
  Floats sum = {};
  if (centered) {
    each_vector(D, [&](long j, auto lanes) { sum += load_lanes(x + j, lanes); });
    mean = sum_of_lanes(sum) / D;
  }
  Floats squares = {};
  each_vector(D, [&](long j, auto lanes) {
    const Floats h = load_lanes(x + j, lanes, mean) - mean;
    squares += h * h;
  });
  return {mean, 1.f / std::sqrt(sum_of_lanes(squares) / D + eps)};
}

inline void norm_forward(const float* x, const float* w, const float* b, float* y, float* statistics, long rows, long D,
                         bool centered, float eps) {
  parallel_for(rows, NORM_GRAIN, [=](size_t first, size_t end) {
    for (size_t i = first; i < end; i++) {
      const float* row = x + i * D;
      const auto [mean, r] = row_statistics(row, D, centered, eps);
      statistics[2 * i] = mean, statistics[2 * i + 1] = r;
      each_vector(D, [=, mean = mean, r = r](long j, auto lanes) {
        const Floats h = (load_lanes(row + j, lanes) - mean) * r * load_lanes(w + j, lanes);
        store_lanes(y + i * D + j, b ? h + load_lanes(b + j, lanes) : h, lanes);
      });
    }
  });
}

// sums: the gradients of w (D) and of b (D) over these rows.
inline void norm_backward_rows(const float* x, const float* w, const float* statistics, const float* cotangent, float* dx,
                               float* sums, long first, long end, long D, bool centered) {
  std::memset(sums, 0, 2 * D * sizeof(float));
  for (long i = first; i < end; i++) {
    const float *row = x + i * D, *c = cotangent + i * D, mean = statistics[2 * i], r = statistics[2 * i + 1];
    Floats dots = {}, totals = {};
    each_vector(D, [&](long j, auto lanes) {
      const Floats g = load_lanes(c + j, lanes) * load_lanes(w + j, lanes);
      dots += g * ((load_lanes(row + j, lanes) - mean) * r), totals += g;
    });
    const float dot = sum_of_lanes(dots) / D, total = centered ? sum_of_lanes(totals) / D : 0.f;
    each_vector(D, [&](long j, auto lanes) {
      const Floats h = (load_lanes(row + j, lanes) - mean) * r, g = load_lanes(c + j, lanes);
      store_lanes(sums + j, load_lanes(sums + j, lanes) + g * h, lanes);
      store_lanes(sums + D + j, load_lanes(sums + D + j, lanes) + g, lanes);
      store_lanes(dx + i * D + j, (g * load_lanes(w + j, lanes) - total - h * dot) * r, lanes);
    });
  }
}

inline void norm_backward(const float* x, const float* w, const float* statistics, const float* cotangent, float* dx,
                          float* dw, float* db, long rows, long D, bool centered) {
  static thread_local Workspace space;
  const long chunks = std::clamp(rows / NORM_GRAIN, 1L, 16L);
  float* sums = space.get<float>(2 * chunks * D);
  pool().run(chunks, [=](size_t t) {
    const long first = rows * t / chunks, end = rows * (t + 1) / chunks;
    norm_backward_rows(x, w, statistics, cotangent, dx, sums + 2 * t * D, first, end, D, centered);
  });
  for (long j = 0; j < D; j++) {
    float weight = 0.f, bias = 0.f;
    for (long t = 0; t < chunks; t++) weight += sums[2 * t * D + j], bias += sums[(2 * t + 1) * D + j];
    dw[j] = weight;
    if (db) db[j] = bias;
  }
}

// Inputs: x, w, statistics, cotangent; outputs: the gradients of x, w and, if there is one, of the bias.
class NormGradient : public Kernel {
 public:
  NormGradient(mx::Stream s, bool centered) : Kernel(s), centered_(centered) {}
  MLXLAB_NAME(NormGradient)
  MLXLAB_EVAL {
    const long D = in[1].size(), rows = in[0].size() / D;
    auto x = rows_of(in[0]), w = rows_of(in[1]), statistics = rows_of(in[2]), cotangent = rows_of(in[3]);
    auto dx = allocate(out[0]), dw = allocate(out[1]), db = out.size() > 2 ? allocate(out[2]) : nullptr;
    dispatch([=, centered = centered_] { norm_backward(x, w, statistics, cotangent, dx, dw, db, rows, D, centered); });
  }

 private:
  bool centered_;
};

// Inputs: x, w, (bias); outputs: y, and for the gradient mean and r of each row.
class Norm : public Kernel {
 public:
  Norm(mx::Stream s, bool centered, float eps) : Kernel(s), centered_(centered), eps_(eps) {}
  MLXLAB_NAME(Norm)
  MLXLAB_EVAL {
    const long D = in[1].size(), rows = in[0].size() / D;
    auto x = rows_of(in[0]), w = rows_of(in[1]), b = in.size() > 2 ? rows_of(in[2]) : nullptr;
    auto y = allocate(out[0]), statistics = allocate(out[1]);
    dispatch([=, centered = centered_, eps = eps_] { norm_forward(x, w, b, y, statistics, rows, D, centered, eps); });
  }
  MLXLAB_VJP {
    std::vector<mx::Shape> shapes;
    for (auto& primal : primals) shapes.push_back(primal.shape());
    auto kernel = std::make_shared<NormGradient>(stream(), centered_);
    auto gradients = make_outputs(kernel, shapes, {primals[0], primals[1], outputs[1], cotangents[0]});
    return select_gradients(gradients, primals, argnums, stream());
  }

 private:
  bool centered_;
  float eps_;
};

}  // namespace mlxlab
