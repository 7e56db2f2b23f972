// Attention and rotary positions on arrays (B, H, T, d), which often are views of (B, T, H, d): read and written as such.
#pragma once
#include "attention.h"
#include "primitive.h"

#include "mlx/backend/common/utils.h"

namespace mlxlab {

class HeadsKernel : public Kernel {
 public:
  using Kernel::Kernel;

 protected:
  Heads<const float> read(const mx::array& x) {
    if (x.strides(3) == 1 || x.shape(3) == 1) return {x.data<float>(), x.strides(0), x.strides(1), x.strides(2)};
    const long H = x.shape(1), T = x.shape(2), d = x.shape(3);
    return {rows_of(x), H * T * d, T * d, d};
  }
  // Memory as (B, T, H, d): joining the heads again then costs nothing.
  static Heads<float> allocate_heads(mx::array& x) {
    const int64_t H = x.shape(1), T = x.shape(2), d = x.shape(3);
    const mx::Strides strides{T * H * d, d, H * d, 1};
    auto [size, row_contiguous, col_contiguous] = mx::check_contiguity(x.shape(), strides);
    mx::array::Flags flags{};
    flags.contiguous = true, flags.row_contiguous = row_contiguous, flags.col_contiguous = col_contiguous;
    x.set_data(mx::allocator::malloc(x.nbytes()), x.size(), strides, flags);
    return {x.data<float>(), strides[0], strides[1], strides[2]};
  }
};

// Inputs: x (B, H, T, d), table (T, d) of d / 2 cosines and d / 2 sines. Its gradient rotates by the negative angle.
class Rope : public HeadsKernel {
 public:
  Rope(mx::Stream s, bool inverse) : HeadsKernel(s), inverse_(inverse) {}
  MLXLAB_NAME(Rope)
  MLXLAB_EVAL {
    const long B = in[0].shape(0), H = in[0].shape(1), T = in[0].shape(2), half = in[0].shape(3) / 2;
    const auto from = read(in[0]);
    const auto to = allocate_heads(out[0]);
    const float* table = rows_of(in[1]);
    dispatch([=, sign = inverse_ ? -1.f : 1.f] {
      parallel_for(B * T, std::max(1L, 4096 / (H * half)), [=](size_t first, size_t end) {
        for (size_t i = first; i < end; i++) {
          const float *cosines = table + i % T * 2 * half, *sines = cosines + half;
          for (long head = 0; head < H; head++) {
            const float* x = from.at(i / T, head, i % T);
            float* y = to.at(i / T, head, i % T);
            for (long j = 0; j < half; j++) {
              const float a = x[j], b = x[j + half], c = cosines[j], s = sign * sines[j];
              y[j] = a * c - b * s, y[j + half] = b * c + a * s;
            }
          }
        }
      });
    });
  }
  MLXLAB_VJP {
    auto kernel = std::make_shared<Rope>(stream(), !inverse_);
    auto gradients = make_outputs(kernel, {primals[0].shape()}, {cotangents[0], primals[1]});
    return select_gradients(gradients, primals, argnums, stream());
  }

 private:
  bool inverse_;
};

struct AttentionOptions {
  bool causal, segments, dropout;
  float scale;
  uint32_t bound;
  float keep_scale;
};

class AttentionBase : public HeadsKernel {
 public:
  AttentionBase(mx::Stream s, AttentionOptions options) : HeadsKernel(s), options_(options) {}

 protected:
  AttentionProblem problem(const Arrays& in) {
    AttentionProblem p{};
    p.rows = in[0].shape(0), p.heads = in[0].shape(1), p.length = in[0].shape(2), p.size = in[0].shape(3);
    p.kv_heads = in[1].shape(1), p.causal = options_.causal, p.scale = options_.scale;
    p.segments = options_.segments ? rows_of<int32_t>(in[3]) : nullptr;
    if (options_.dropout) p.dropout = {rows_of<uint32_t>(in[3 + options_.segments]), options_.bound, options_.keep_scale};
    p.q = read(in[0]), p.k = read(in[1]), p.v = read(in[2]);
    return p;
  }
  template <class F>
  static void each_head(const AttentionProblem& p, F f) {
    pool().run(p.rows * p.kv_heads, [&](size_t i) { f(i / p.kv_heads, i % p.kv_heads); });
  }
  AttentionOptions options_;
};

// Inputs: q, k, v, (segments), (key), the output, its log-sum-exp, its cotangent.
class AttentionGradientKernel : public AttentionBase {
 public:
  using AttentionBase::AttentionBase;
  MLXLAB_NAME(AttentionGradient)
  MLXLAB_EVAL {
    AttentionProblem p = problem(in);
    const size_t n = in.size();
    const auto y = read(in[n - 3]);
    p.out = {const_cast<float*>(y.data), y.row_stride, y.head_stride, y.stride};
    p.log_sum_exps = const_cast<float*>(rows_of(in[n - 2]));
    const AttentionGradient g{read(in[n - 1]), allocate_heads(out[0]), allocate_heads(out[1]), allocate_heads(out[2])};
    dispatch([p, g] { each_head(p, [&](long row, long head) { AttentionHead(p, row, head, true).backward(g); }); });
  }
};

// Inputs: q (B, H, T, d), k and v (B, K, T, d), (segments (B, T)), (key); outputs: (B, H, T, d), and log-sum-exp (B, H, T).
class AttentionKernel : public AttentionBase {
 public:
  using AttentionBase::AttentionBase;
  MLXLAB_NAME(Attention)
  MLXLAB_EVAL {
    AttentionProblem p = problem(in);
    p.out = allocate_heads(out[0]), p.log_sum_exps = allocate(out[1]);
    dispatch([p] { each_head(p, [&](long row, long head) { AttentionHead(p, row, head, false).forward(); }); });
  }
  MLXLAB_VJP {
    Arrays inputs = primals;
    inputs.insert(inputs.end(), {outputs[0], outputs[1], cotangents[0]});
    const std::vector<mx::Shape> shapes{primals[0].shape(), primals[1].shape(), primals[2].shape()};
    auto gradients = make_outputs(std::make_shared<AttentionGradientKernel>(stream(), options_), shapes, inputs);
    return select_gradients(gradients, primals, argnums, stream());
  }
};

}  // namespace mlxlab
