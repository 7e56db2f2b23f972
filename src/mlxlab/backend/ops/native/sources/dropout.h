// Dropout: the elements of x times 0 or a scale, by the masks of mlxlab.backend.ops.dropout.
#pragma once
#include "primitive.h"
#include "random_mask.h"

namespace mlxlab {

constexpr size_t DROPOUT_GRAIN = 8192;  // a multiple of 2 * LANES

inline void apply_mask(const DropoutMask& mask, const float* x, float* y, size_t n) {
  parallel_for(n, DROPOUT_GRAIN, [=](size_t first, size_t end) {
    for (size_t i = first; i < end; i += 2 * LANES) {
      const Words word = DropoutMask::hash(mask, lane_numbers() + (uint32_t)(i / 2));
      const Floats even = DropoutMask::half_factors(mask, word, 0), odd = DropoutMask::half_factors(mask, word, 1);
      float factors[2 * LANES];
      for (int q = 0; q < LANES; q++) factors[2 * q] = even[q], factors[2 * q + 1] = odd[q];
      for (size_t j = i; j < std::min(end, i + 2 * LANES); j++) y[j] = x[j] * factors[j - i];
    }
  });
}

// Inputs: x, key (two words). Its gradient is the same kernel.
class Dropout : public Kernel {
 public:
  Dropout(mx::Stream s, uint32_t bound, float scale) : Kernel(s), bound_(bound), scale_(scale) {}
  MLXLAB_NAME(Dropout)
  MLXLAB_EVAL {
    const DropoutMask mask{rows_of<uint32_t>(in[1]), bound_, scale_};
    auto x = rows_of(in[0]);
    auto y = allocate_over(out[0], in[0]);
    dispatch([=, n = in[0].size()] { apply_mask(mask, x, y, n); });
  }
  MLXLAB_VJP {
    auto kernel = std::make_shared<Dropout>(stream(), bound_, scale_);
    auto gradients = make_outputs(kernel, {primals[0].shape()}, {cotangents[0], primals[1]});
    return select_gradients(gradients, primals, argnums, stream());
  }

 private:
  uint32_t bound_;
  float scale_;
};

}  // namespace mlxlab
