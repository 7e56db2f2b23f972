// GELU by the error function, SiLU, and the products of either with a second input (gated linear units).
#pragma once
#include "primitive.h"
#include "vectors.h"

namespace mlxlab {

enum class Activation { GELU, SILU };

// The share of a normal distribution above |x| (Abramowitz and Stegun 7.1.26: error 1.5e-7); bell is e^(-x^2 / 2).
MLXLAB_INLINE Floats normal_tail(Floats x, Floats bell) {
  const Floats t = 1.f / (1.f + 0.231641888f * absolute(x));  // 0.3275911 / sqrt(2)
  return 0.5f * bell * t *
         (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
}

// The activation of x, and its derivative.
template <Activation KIND>
MLXLAB_INLINE std::pair<Floats, Floats> activate(Floats x) {
  if constexpr (KIND == Activation::SILU) {
    const Floats s = sigmoid(x), y = x * s;
    return {y, s + y * (1.f - s)};
  } else {
    const Floats bell = exponential(-0.5f * x * x), tail = normal_tail(x, bell);
    const Floats y = 0.5f * (x + absolute(x)) - absolute(x) * tail;
    return {y, (x < 0.f ? tail : 1.f - tail) + x * bell * 0.39894228040143268f};  // 1 / sqrt(2 pi)
  }
}

constexpr size_t ACTIVATION_GRAIN = 8192;

template <Activation KIND>
void activation_forward(const float* x, const float* up, float* y, size_t n) {
  parallel_for(n, ACTIVATION_GRAIN, [=](size_t first, size_t end) {
    each_vector(end - first, [=](long i, auto lanes) {
      i += first;
      const Floats value = activate<KIND>(load_lanes(x + i, lanes)).first;
      store_lanes(y + i, up ? value * load_lanes(up + i, lanes) : value, lanes);
    });
  });
}

template <Activation KIND>
void activation_backward(const float* x, const float* up, const float* cotangent, float* dx, float* dup, size_t n) {
  parallel_for(n, ACTIVATION_GRAIN, [=](size_t first, size_t end) {
    each_vector(end - first, [=](long i, auto lanes) {
      i += first;
      const auto [value, derivative] = activate<KIND>(load_lanes(x + i, lanes));
      const Floats c = load_lanes(cotangent + i, lanes);
      const Floats gated = up ? c * load_lanes(up + i, lanes) : c;
      if (dup) store_lanes(dup + i, c * value, lanes);
      store_lanes(dx + i, gated * derivative, lanes);
    });
  });
}

// Inputs: x, (up), cotangent; outputs: the gradients of x and of up.
class ActivationGradient : public Kernel {
 public:
  ActivationGradient(mx::Stream s, Activation kind) : Kernel(s), kind_(kind) {}
  MLXLAB_NAME(ActivationGradient)
  MLXLAB_EVAL {
    const bool gated = in.size() == 3;
    auto x = rows_of(in[0]), up = gated ? rows_of(in[1]) : nullptr, cotangent = rows_of(in.back());
    auto dx = allocate_over(out[0], in.back()), dup = gated ? allocate(out[1]) : nullptr;
    auto run = kind_ == Activation::GELU ? activation_backward<Activation::GELU> : activation_backward<Activation::SILU>;
    dispatch([=, n = in[0].size()] { run(x, up, cotangent, dx, dup, n); });
  }

 private:
  Activation kind_;
};

class ActivationKernel : public Kernel {
 public:
  ActivationKernel(mx::Stream s, Activation kind) : Kernel(s), kind_(kind) {}
  MLXLAB_NAME(Activation)
  MLXLAB_EVAL {
    auto x = rows_of(in[0]), up = in.size() == 2 ? rows_of(in[1]) : nullptr;
    auto run = kind_ == Activation::GELU ? activation_forward<Activation::GELU> : activation_forward<Activation::SILU>;
    dispatch([=, y = allocate(out[0]), n = in[0].size()] { run(x, up, y, n); });
  }
  MLXLAB_VJP {
    Arrays inputs = primals;
    inputs.push_back(cotangents[0]);
    const std::vector<mx::Shape> shapes(primals.size(), primals[0].shape());
    auto gradients = make_outputs(std::make_shared<ActivationGradient>(stream(), kind_), shapes, inputs);
    return select_gradients(gradients, primals, argnums, stream());
  }

 private:
  Activation kind_;
};

}  // namespace mlxlab
