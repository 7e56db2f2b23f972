// The optimizer step: the sum of all squares of the gradients, and AdamW over all weights at once.
#pragma once
#include "primitive.h"
#include "vectors.h"

namespace mlxlab {

// Chunks of arrays of any sizes, so that small and large arrays are divided among the threads alike.
struct Chunk {
  size_t array, first, end;
};
inline std::vector<Chunk> split_arrays(const Arrays& arrays, size_t from, size_t step) {
  constexpr size_t SIZE = 1 << 15;
  std::vector<Chunk> chunks;
  for (size_t i = from; i < arrays.size(); i += step)
    for (size_t first = 0; first < arrays[i].size(); first += SIZE)
      chunks.push_back({(i - from) / step, first, std::min(arrays[i].size(), first + SIZE)});
  return chunks;
}

// The sum of the squares of all elements of all inputs, a scalar.
class SquareSum : public Kernel {
 public:
  using Kernel::Kernel;
  MLXLAB_NAME(SquareSum)
  MLXLAB_EVAL {
    std::vector<const float*> data;
    for (auto& x : in) data.push_back(rows_of(x));
    dispatch([chunks = split_arrays(in, 0, 1), data = std::move(data), total = allocate(out[0])] {
      std::vector<double> sums(chunks.size());
      pool().run(chunks.size(), [&](size_t i) {
        const auto [array, first, end] = chunks[i];
        Floats squares = {};
        each_vector(end - first, [&, x = data[array] + first](long j, auto lanes) {
          const Floats value = load_lanes(x + j, lanes);
          squares += value * value;
        });
        sums[i] = sum_of_lanes(squares);
      });
      double sum = 0;
      for (double part : sums) sum += part;
      *total = sum;
    });
  }
};

// Inputs: hyperparameters, then weight, gradient, first and second moment of each weight; outputs: their new values.
// Hyperparameters: learning rate, step and decay of each group; then the factor of the gradients, and 1, or 0 for no change.
class AdamW : public Kernel {
 public:
  AdamW(mx::Stream s, std::vector<int> groups, double b1, double b2, float eps)
      : Kernel(s), groups_(std::move(groups)), b1_(b1), b2_(b2), eps_(eps) {}
  MLXLAB_NAME(AdamW)
  MLXLAB_EVAL {
    const float* hyperparameters = rows_of(in[0]);
    std::vector<Weight> weights;
    for (size_t i = 0; i < groups_.size(); i++) {
      Weight w{groups_[i], {rows_of(in[1 + 4 * i]), rows_of(in[3 + 4 * i]), rows_of(in[4 + 4 * i])}, rows_of(in[2 + 4 * i]), {}};
      const size_t inputs[3] = {1 + 4 * i, 3 + 4 * i, 4 + 4 * i};
      for (int k = 0; k < 3; k++) w.after[k] = allocate_over(out[3 * i + k], in[inputs[k]]);
      weights.push_back(w);
    }
    const size_t count = (in[0].size() - 2) / 3;
    dispatch([=, weights = std::move(weights), chunks = split_arrays(in, 1, 4), b1 = b1_, b2 = b2_, eps = eps_] {
      std::vector<Coefficients> groups;
      for (size_t g = 0; g < count; g++) {
        const float* h = hyperparameters + 3 * g;
        const double rate = h[0], step = h[1], decay = h[2];
        groups.push_back({float(1 - rate * decay), float(rate / (1 - std::pow(b1, step))),
                          float(1 / std::sqrt(1 - std::pow(b2, step))), float(b1), float(b2), eps, hyperparameters[3 * count]});
      }
      const bool changes = hyperparameters[3 * count + 1] != 0.f;
      pool().run(chunks.size(), [&](size_t i) {
        const Weight& w = weights[chunks[i].array];
        changes ? update(w, groups[w.group], chunks[i]) : copy(w, chunks[i]);
      });
    });
  }

 private:
  struct Weight {
    int group;
    const float *before[3], *gradient;  // weight, first and second moment
    float* after[3];
  };
  struct Coefficients {
    float decay, rate, root, b1, b2, eps, scale;
  };
  static void copy(const Weight& w, const Chunk& chunk) {
    for (int k = 0; k < 3; k++)
      if (w.after[k] != w.before[k])
        std::memcpy(w.after[k] + chunk.first, w.before[k] + chunk.first, (chunk.end - chunk.first) * sizeof(float));
  }
  static void update(const Weight& w, const Coefficients& c, const Chunk& chunk) {
    each_vector(chunk.end - chunk.first, [&](long j, auto lanes) {
      j += chunk.first;
      const Floats g = load_lanes(w.gradient + j, lanes) * c.scale;
      const Floats m = c.b1 * load_lanes(w.before[1] + j, lanes) + (1 - c.b1) * g;
      const Floats v = c.b2 * load_lanes(w.before[2] + j, lanes) + (1 - c.b2) * (g * g);
      const Floats p = load_lanes(w.before[0] + j, lanes) * c.decay - c.rate * m / (square_root(v) * c.root + c.eps);
      store_lanes(w.after[1] + j, m, lanes), store_lanes(w.after[2] + j, v, lanes), store_lanes(w.after[0] + j, p, lanes);
    });
  }

  std::vector<int> groups_;
  double b1_, b2_;
  float eps_;
};

}  // namespace mlxlab
