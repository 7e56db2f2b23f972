// The dropout masks of mlxlab.backend.ops.dropout: 16 random bits of each element, a hash (Wellons' lowbias32) of its index.
#pragma once
#include "vectors.h"

namespace mlxlab {

struct DropoutMask {
  const uint32_t* key = nullptr;  // two words; null keeps everything
  uint32_t bound = 0;             // an element is kept if its random bits are below
  float scale = 1.f;              // of what is kept

  // 0 or `scale` for each of these indices.
  MLXLAB_INLINE Floats factors(const DropoutMask& mask, Words index) {
    const Words word = hash(mask, index >> 1);
    const Words bits = (index & 1) == 0 ? word & 0xffff : word >> 16;
    return bits < mask.bound ? Floats{} + mask.scale : Floats{};
  }
  // The same for index 2i + half of each i.
  MLXLAB_INLINE Floats half_factors(const DropoutMask& mask, Words word, int half) {
    const Words bits = half ? word >> 16 : word & 0xffff;
    return bits < mask.bound ? Floats{} + mask.scale : Floats{};
  }
  MLXLAB_INLINE Words hash(const DropoutMask& mask, Words x) {
    x ^= mask.key[0];
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ mask.key[1]) ^ (x >> 15);
    x = x * 0x846CA68Bu;
    return x ^ (x >> 16);
  }
};

}  // namespace mlxlab
