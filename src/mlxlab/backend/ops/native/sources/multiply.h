// The product of two matrices by what suits its shape and the processor.
#pragma once
#include "tile_products.h"

namespace mlxlab {

inline void multiply(const Product& p, bool bfloat16) {
  if (p.rows == 0 || p.columns == 0) return;
  if (p.depth == 0) {
    for (long i = 0; i < p.rows * p.columns && !p.accumulate; i++) p.out[i] = p.bias ? p.bias[i % p.columns] : 0.f;
  } else if (!bfloat16 && p.rows <= FEW_ROWS && !p.a.transposed && p.b.transposed) {
    multiply_few_rows(p);
  } else if (!bfloat16) {
    BlockedProduct<Float32>(p).compute();
  } else if (has_tile_registers()) {
    TileProduct(p).compute();
  } else {
    BlockedProduct<BFloat16>(p).compute();
  }
}

}  // namespace mlxlab
