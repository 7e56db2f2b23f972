// Cross-entropy of classes and Kullback-Leibler divergence, from logits (..., C), and their gradients.
// The gradients recompute the exponentials from the saved log-sum-exp: no second array of the size of the logits is held.
#pragma once
#include "primitive.h"
#include "vectors.h"

namespace mlxlab {

inline size_t loss_grain(long classes) { return std::max(1L, 16384 / classes); }  // rows

MLXLAB_INLINE float row_maximum(const float* x, long n) {
  Floats maxima = Floats{} - INFINITY;
  each_vector(n, [&](long j, auto lanes) { maxima = maximum(maxima, load_lanes(x + j, lanes, -INFINITY)); });
  return max_of_lanes(maxima);
}

// log(sum e^(scale x))
MLXLAB_INLINE float log_sum_exp(const float* x, long n, float scale) {
  const float max = row_maximum(x, n);
  Floats sums = {};
  each_vector(n, [&](long j, auto lanes) { sums += exponential((load_lanes(x + j, lanes, -INFINITY) - max) * scale); });
  return max * scale + std::log(sum_of_lanes(sums));
}

// Inputs: logits, targets, log-sum-exp, cotangent.
class CrossEntropyGradient : public Kernel {
 public:
  CrossEntropyGradient(mx::Stream s, float smoothing) : Kernel(s), smoothing_(smoothing) {}
  MLXLAB_NAME(CrossEntropyGradient)
  MLXLAB_EVAL {
    const long C = in[0].shape(-1), rows = in[0].size() / C;
    auto logits = rows_of(in[0]), log_sum_exps = rows_of(in[2]), cotangents = rows_of(in[3]);
    auto targets = rows_of<int32_t>(in[1]);
    auto gradient = allocate_over(out[0], in[0]);
    dispatch([=, e = smoothing_] {
      parallel_for(rows, loss_grain(C), [=](size_t first, size_t end) {
        for (size_t i = first; i < end; i++) {
          const float *x = logits + i * C, cotangent = cotangents[i], lse = log_sum_exps[i];
          float* to = gradient + i * C;
          each_vector(C, [=](long j, auto lanes) {
            store_lanes(to + j, exponential(load_lanes(x + j, lanes) - lse) * cotangent - cotangent * e / C, lanes);
          });
          if (targets[i] >= 0 && targets[i] < C) to[targets[i]] -= cotangent * (1 - e);
        }
      });
    });
  }

 private:
  float smoothing_;
};

// Inputs: logits, targets (int32); outputs: the losses and the log-sum-exp of each row. A target out of range gives NaN.
class CrossEntropy : public Kernel {
 public:
  CrossEntropy(mx::Stream s, float smoothing) : Kernel(s), smoothing_(smoothing) {}
  MLXLAB_NAME(CrossEntropy)
  MLXLAB_EVAL {
    const long C = in[0].shape(-1), rows = in[0].size() / C;
    auto logits = rows_of(in[0]);
    auto targets = rows_of<int32_t>(in[1]);
    auto losses = allocate(out[0]), log_sum_exps = allocate(out[1]);
    dispatch([=, e = smoothing_] {
      parallel_for(rows, loss_grain(C), [=](size_t first, size_t end) {
        for (size_t i = first; i < end; i++) {
          const float* x = logits + i * C;
          const float lse = log_sum_exps[i] = log_sum_exp(x, C, 1.f);
          losses[i] = lse - (1 - e) * (targets[i] >= 0 && targets[i] < C ? x[targets[i]] : NAN);
          if (e == 0.f) continue;
          Floats sum = {};
          each_vector(C, [&](long j, auto lanes) { sum += load_lanes(x + j, lanes); });
          losses[i] -= e / C * sum_of_lanes(sum);
        }
      });
    });
  }
  MLXLAB_VJP {
    auto kernel = std::make_shared<CrossEntropyGradient>(stream(), smoothing_);
    const Arrays inputs{primals[0], primals[1], outputs[1], cotangents[0]};
    return select_gradients(make_outputs(kernel, {primals[0].shape()}, inputs), primals, argnums, stream());
  }

 private:
  float smoothing_;
};

// Inputs: student and teacher logits, their log-sum-exp, cotangent; output: the gradient of the student's logits.
class DivergenceGradient : public Kernel {
 public:
  DivergenceGradient(mx::Stream s, float scale) : Kernel(s), scale_(scale) {}
  MLXLAB_NAME(DivergenceGradient)
  MLXLAB_EVAL {
    const long C = in[0].shape(-1), rows = in[0].size() / C;
    auto students = rows_of(in[0]), teachers = rows_of(in[1]), log_sum_exps = rows_of(in[2]), cotangents = rows_of(in[3]);
    auto gradient = allocate_over(out[0], in[0]);
    dispatch([=, scale = scale_] {
      parallel_for(rows, loss_grain(C), [=](size_t first, size_t end) {
        for (size_t i = first; i < end; i++) {
          const float *z = students + i * C, *t = teachers + i * C;
          const float factor = cotangents[i] * scale, lse_z = log_sum_exps[2 * i], lse_t = log_sum_exps[2 * i + 1];
          each_vector(C, [=, to = gradient + i * C](long j, auto lanes) {
            const Floats q = exponential(load_lanes(z + j, lanes) * scale - lse_z);
            store_lanes(to + j, (q - exponential(load_lanes(t + j, lanes) * scale - lse_t)) * factor, lanes);
          });
        }
      });
    });
  }

 private:
  float scale_;
};

// KL(softmax(scale t) || softmax(scale z)) of student logits z and teacher logits t; outputs: it and both log-sum-exp.
class Divergence : public Kernel {
 public:
  Divergence(mx::Stream s, float scale) : Kernel(s), scale_(scale) {}
  MLXLAB_NAME(Divergence)
  MLXLAB_EVAL {
    const long C = in[0].shape(-1), rows = in[0].size() / C;
    auto students = rows_of(in[0]), teachers = rows_of(in[1]);
    auto values = allocate(out[0]), log_sum_exps = allocate(out[1]);
    dispatch([=, scale = scale_] {
      parallel_for(rows, loss_grain(C), [=](size_t first, size_t end) {
        for (size_t i = first; i < end; i++) {
          const float *z = students + i * C, *t = teachers + i * C;
          const float lse_z = log_sum_exps[2 * i] = log_sum_exp(z, C, scale);
          const float lse_t = log_sum_exps[2 * i + 1] = log_sum_exp(t, C, scale);
          Floats sum = {};
          each_vector(C, [&](long j, auto lanes) {
            const Floats log_p = load_lanes(t + j, lanes) * scale - lse_t;
            const Floats log_q = load_lanes(z + j, lanes) * scale - lse_z;
            Floats terms = exponential(log_p) * (log_p - log_q);
            for (long rest = lanes; rest < LANES; rest++) terms[rest] = 0.f;  // lanes beyond the row
            sum += terms;
          });
          values[i] = sum_of_lanes(sum);
        }
      });
    });
  }
  MLXLAB_VJP {
    auto kernel = std::make_shared<DivergenceGradient>(stream(), scale_);
    const Arrays inputs{primals[0], primals[1], outputs[1], cotangents[0]};
    return select_gradients(make_outputs(kernel, {primals[0].shape()}, inputs), primals, argnums, stream());
  }

 private:
  float scale_;
};

}  // namespace mlxlab
