// Linear layers: x w^T + b and its gradients. x (..., K), w (N, K), b (N,) -> (..., N).
#pragma once
#include "multiply.h"
#include "primitive.h"

namespace mlxlab {

// The gradient of the input: (..., N) times w (N, K) -> (..., K).
class LinearInputGradient : public Kernel {
 public:
  LinearInputGradient(mx::Stream s, bool bfloat16) : Kernel(s), bfloat16_(bfloat16) {}
  MLXLAB_NAME(LinearInputGradient)
  MLXLAB_EVAL {
    const long N = in[1].shape(0), K = in[1].shape(1), M = in[0].size() / std::max(1L, N);
    const Product p{M, K, N, {rows_of(in[0]), N, false}, {rows_of(in[1]), K, false}, allocate(out[0])};
    dispatch([p, bfloat16 = bfloat16_] { multiply(p, bfloat16); });
  }

 private:
  bool bfloat16_;
};

// The gradients of the weights: transposed cotangents (M, N) times x (M, K) -> (N, K); of the bias: sums over the rows.
class LinearWeightGradient : public Kernel {
 public:
  LinearWeightGradient(mx::Stream s, bool bfloat16) : Kernel(s), bfloat16_(bfloat16) {}
  MLXLAB_NAME(LinearWeightGradient)
  MLXLAB_EVAL {
    const long N = out[0].shape(0), K = out[0].shape(1), M = in[1].size() / std::max(1L, K);
    const float* cotangents = rows_of(in[0]);
    const Product p{N, K, M, {cotangents, N, true}, {rows_of(in[1]), K, false}, allocate(out[0])};
    float* bias = out.size() > 1 ? allocate(out[1]) : nullptr;
    dispatch([=, bfloat16 = bfloat16_] {
      multiply(p, bfloat16);
      if (bias) sum_rows(cotangents, M, N, bias);
    });
  }

 private:
  // Each task sums some columns over all rows.
  static void sum_rows(const float* from, long rows, long columns, float* to) {
    parallel_for(columns, std::max(64L, 65536 / std::max(1L, rows)), [=](long first, long end) {
      std::memset(to + first, 0, (end - first) * sizeof(float));
      for (long i = 0; i < rows; i++)
        for (long j = first; j < end; j++) to[j] += from[i * columns + j];
    });
  }
  bool bfloat16_;
};

class Linear : public Kernel {
 public:
  Linear(mx::Stream s, bool bfloat16) : Kernel(s), bfloat16_(bfloat16) {}
  MLXLAB_NAME(Linear)
  MLXLAB_EVAL {
    const long N = in[1].shape(0), K = in[1].shape(1), M = out[0].size() / std::max(1L, N);
    Product p{M, N, K, {rows_of(in[0]), K, false}, {rows_of(in[1]), K, true}, allocate(out[0])};
    if (in.size() > 2) p.bias = rows_of(in[2]);
    dispatch([p, bfloat16 = bfloat16_] { multiply(p, bfloat16); });
  }
  MLXLAB_VJP {
    const bool bias = primals.size() > 2;
    Arrays weights, result;
    for (int i : argnums) {
      if (i == 0) {
        auto kernel = std::make_shared<LinearInputGradient>(stream(), bfloat16_);
        result.push_back(make_outputs(kernel, {primals[0].shape()}, {cotangents[0], primals[1]})[0]);
        continue;
      }
      if (weights.empty()) {
        std::vector<mx::Shape> shapes{primals[1].shape()};
        if (bias) shapes.push_back(primals[2].shape());
        auto kernel = std::make_shared<LinearWeightGradient>(stream(), bfloat16_);
        weights = make_outputs(kernel, shapes, {cotangents[0], primals[0]});
      }
      result.push_back(weights[i - 1]);
    }
    return result;
  }

 private:
  bool bfloat16_;
};

}  // namespace mlxlab
