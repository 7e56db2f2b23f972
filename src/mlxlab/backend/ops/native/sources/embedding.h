// Rows of a table (V, D) by their indices, and the gradient of the table. An index out of range gives NaN.
#pragma once
#include "primitive.h"

namespace mlxlab {

// Inputs: ids (int32), cotangents (..., D); output: (V, D). Each task computes rows of its own, in the order of ids.
class EmbeddingGradient : public Kernel {
 public:
  using Kernel::Kernel;
  MLXLAB_NAME(EmbeddingGradient)
  MLXLAB_EVAL {
    const long V = out[0].shape(0), D = out[0].shape(1), count = in[0].size();
    auto ids = rows_of<int32_t>(in[0]);
    auto cotangents = rows_of(in[1]);
    dispatch([=, table = allocate(out[0])] {
      const long tasks = std::clamp(V / 16, 1L, 16L);
      pool().run(tasks, [=](size_t task) {
        const long first = V * task / tasks, end = V * (task + 1) / tasks;
        std::memset(table + first * D, 0, (end - first) * D * sizeof(float));
        for (long i = 0; i < count; i++)
          if (ids[i] >= first && ids[i] < end)
            for (long j = 0; j < D; j++) table[ids[i] * D + j] += cotangents[i * D + j];
      });
    });
  }
};

// Inputs: ids (int32), table.
class Embedding : public Kernel {
 public:
  using Kernel::Kernel;
  MLXLAB_NAME(Embedding)
  MLXLAB_EVAL {
    const long V = in[1].shape(0), D = in[1].shape(1), count = in[0].size();
    auto ids = rows_of<int32_t>(in[0]);
    auto table = rows_of(in[1]);
    dispatch([=, rows = allocate(out[0])] {
      parallel_for(count, std::max(16L, 16384 / D), [=](size_t first, size_t end) {
        for (size_t i = first; i < end; i++) {
          if (ids[i] >= 0 && ids[i] < V) std::memcpy(rows + i * D, table + ids[i] * D, D * sizeof(float));
          else std::fill_n(rows + i * D, D, NAN);
        }
      });
    });
  }
  MLXLAB_VJP {
    Arrays result;
    for (int i : argnums) {
      if (i == 0) result.push_back(mx::zeros_like(primals[0], stream()));
      else {
        auto kernel = std::make_shared<EmbeddingGradient>(stream());
        result.push_back(make_outputs(kernel, {primals[1].shape()}, {primals[0], cotangents[0]})[0]);
      }
    }
    return result;
  }
};

}  // namespace mlxlab
