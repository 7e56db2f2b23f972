// The kernels' interface for Python: arrays are handed over by the address of their Python object, as nanobind holds
// them, so that the library does not need Python's headers. Functions return null, or an error message.
#include "activation.h"
#include "dropout.h"
#include "embedding.h"
#include "heads.h"
#include "linear.h"
#include "losses.h"
#include "norm.h"
#include "update.h"

#include <sstream>

#include "mlx/utils.h"
#include "mlx/version.h"

using namespace mlxlab;

namespace {

size_t object_header = 16;  // bytes of a Python object before what nanobind adds to it

// nanobind's instance: the distance to the value or to a pointer to it, then bits: 2 of state (2 is ready), 1 direct.
mx::array& array_of(void* object) {
  char* at = static_cast<char*>(object);
  int32_t distance;
  std::memcpy(&distance, at + object_header, sizeof distance);
  const uint8_t bits = at[object_header + sizeof distance];
  require((bits & 3) == 2, "not an array of MLX");
  char* value = at + distance;
  return *(bits & 4 ? reinterpret_cast<mx::array*>(value) : *reinterpret_cast<mx::array**>(value));
}

std::string shape_text(const mx::array& x) {
  std::string text;
  for (auto size : x.shape()) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + (x.ndim() == 1 ? ",)" : ")");
}

std::string dtype_text(mx::Dtype dtype) {
  std::ostringstream text;
  text << dtype;
  return text.str();
}

mx::array checked(void* object, mx::Dtype dtype, const char* what) {
  mx::array x = array_of(object);
  require(x.dtype() == dtype, std::string(what) + ": expected " + dtype_text(dtype) + ", got " + dtype_text(x.dtype()));
  require(x.size() < size_t{1} << 31, std::string(what) + ": more than 2^31 elements");
  return x;
}
mx::array floats(void* object, const char* what) { return checked(object, mx::float32, what); }

void require_vector(const mx::array& x, const mx::array& of, const char* what) {
  require(x.ndim() == 1 && of.ndim() >= 1 && x.shape(0) == of.shape(-1),
          std::string(what) + ": expected (" + (of.ndim() ? std::to_string(of.shape(-1)) : "") + ",), got " + shape_text(x));
}

thread_local std::string error;
template <class F>
const char* guarded(F body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::exception& caught) {
    error = caught.what();
  } catch (...) {
    error = "unknown error";
  }
  return error.c_str();
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API const char* mlxlab_version() { return mx::version(); }

API const char* mlxlab_features() {
#if defined(__AVX512BF16__)
  return has_tile_registers() ? "avx512,bfloat16,amx" : "avx512,bfloat16";
#elif defined(__AVX512F__)
  return "avx512";
#elif defined(__AVX2__) && defined(__FMA__)
  return "avx2";
#elif defined(__aarch64__)
  return "neon";
#else
  return "generic";
#endif
}

// Size, bytes of an element, number of axes and last axis of an array, to compare with what Python says.
API const char* mlxlab_probe(void* object, size_t header, size_t* properties) {
  return guarded([&] {
    object_header = header;
    const mx::array& x = array_of(object);
    const size_t values[] = {x.size(), x.itemsize(), x.ndim(), size_t(x.ndim() ? x.shape(-1) : 0)};
    std::copy_n(values, 4, properties);
  });
}

API void mlxlab_set_threads(int count) { pool().set_threads(count); }

API const char* mlxlab_linear(void* out, void* x, void* weight, void* bias, int bfloat16) {
  return guarded([&] {
    Arrays in{floats(x, "linear"), floats(weight, "linear")};
    require(in[0].ndim() >= 1 && in[1].ndim() == 2 && in[0].shape(-1) == in[1].shape(1),
            "linear: " + shape_text(in[0]) + " does not fit weights " + shape_text(in[1]));
    const int N = in[1].shape(0);
    if (bias) {
      in.push_back(floats(bias, "linear"));
      require(in[2].ndim() == 1 && in[2].shape(0) == N, "linear: expected a bias (" + std::to_string(N) + ",)");
    }
    array_of(out) = make_outputs(std::make_shared<Linear>(cpu_stream(), bfloat16 != 0), {with_last(in[0].shape(), N)}, in)[0];
  });
}

API const char* mlxlab_activation(void* out, void* x, void* up, int kind) {
  return guarded([&] {
    Arrays in{floats(x, "activation")};
    if (up) {
      in.push_back(floats(up, "activation"));
      require(in[0].shape() == in[1].shape(), "activation: " + shape_text(in[0]) + " and " + shape_text(in[1]));
    }
    auto kernel = std::make_shared<ActivationKernel>(cpu_stream(), static_cast<Activation>(kind));
    array_of(out) = make_outputs(kernel, {in[0].shape()}, in)[0];
  });
}

API const char* mlxlab_norm(void* out, void* x, void* weight, void* bias, float eps, int centered) {
  return guarded([&] {
    Arrays in{floats(x, "norm"), floats(weight, "norm")};
    if (bias) in.push_back(floats(bias, "norm"));
    for (size_t i = 1; i < in.size(); i++) require_vector(in[i], in[0], "norm");
    require(in[0].size() > 0, "norm: empty input");
    auto statistics = with_last(in[0].shape(), 2);
    auto kernel = std::make_shared<Norm>(cpu_stream(), centered != 0, eps);
    array_of(out) = make_outputs(kernel, {in[0].shape(), statistics}, in)[0];
  });
}

API const char* mlxlab_cross_entropy(void* out, void* logits, void* targets, float smoothing) {
  return guarded([&] {
    Arrays in{floats(logits, "cross_entropy"), checked(targets, mx::int32, "cross_entropy")};
    require(in[0].size() > 0 && in[0].ndim() >= 1 && without_last(in[0].shape()) == in[1].shape(),
            "cross_entropy: logits " + shape_text(in[0]) + " and targets " + shape_text(in[1]));
    auto kernel = std::make_shared<CrossEntropy>(cpu_stream(), smoothing);
    array_of(out) = make_outputs(kernel, {in[1].shape(), in[1].shape()}, in)[0];
  });
}

API const char* mlxlab_kl_divergence(void* out, void* student, void* teacher, float scale) {
  return guarded([&] {
    Arrays in{floats(student, "kl_divergence"), floats(teacher, "kl_divergence")};
    require(in[0].size() > 0 && in[0].ndim() >= 1 && in[0].shape() == in[1].shape(),
            "kl_divergence: " + shape_text(in[0]) + " and " + shape_text(in[1]));
    auto kernel = std::make_shared<Divergence>(cpu_stream(), scale);
    const auto rows = without_last(in[0].shape());
    array_of(out) = make_outputs(kernel, {rows, with_last(in[0].shape(), 2)}, in)[0];
  });
}

API const char* mlxlab_attention(void* out, void* q, void* k, void* v, void* segments, void* key, int causal, float scale,
                                 uint32_t bound, float keep_scale) {
  return guarded([&] {
    Arrays in{floats(q, "attention"), floats(k, "attention"), floats(v, "attention")};
    require(in[0].ndim() == 4 && in[0].size() > 0 && in[1].ndim() == 4 && in[1].shape() == in[2].shape(),
            "attention: " + shape_text(in[0]) + ", " + shape_text(in[1]) + " and " + shape_text(in[2]));
    for (int axis : {0, 2, 3}) require(in[0].shape(axis) == in[1].shape(axis), "attention: keys do not fit the queries");
    const int B = in[0].shape(0), H = in[0].shape(1), T = in[0].shape(2);
    require(in[1].shape(1) > 0 && H % in[1].shape(1) == 0, "attention: key-value heads do not divide the heads");
    require(double(B) * H * T * T < double(1u << 31), "attention: more than 2^31 weights");
    if (segments) {
      in.push_back(checked(segments, mx::int32, "attention"));
      require(in.back().shape() == mx::Shape({B, T}), "attention: segments " + shape_text(in.back()));
    }
    if (key) {
      in.push_back(checked(key, mx::uint32, "attention"));
      require(in.back().size() == 2, "attention: expected a key of two words");
    }
    const AttentionOptions options{causal != 0, segments != nullptr, key != nullptr, scale, bound, keep_scale};
    auto kernel = std::make_shared<AttentionKernel>(cpu_stream(), options);
    array_of(out) = make_outputs(kernel, {in[0].shape(), {B, H, T}}, in)[0];
  });
}

API const char* mlxlab_rope(void* out, void* x, void* table) {
  return guarded([&] {
    Arrays in{floats(x, "rope"), floats(table, "rope")};
    require(in[0].ndim() == 4 && in[0].size() > 0 && in[0].shape(3) % 2 == 0, "rope: expected (B, H, T, even)");
    require(in[1].shape() == mx::Shape({in[0].shape(2), in[0].shape(3)}), "rope: table " + shape_text(in[1]));
    array_of(out) = make_outputs(std::make_shared<Rope>(cpu_stream(), false), {in[0].shape()}, in)[0];
  });
}

API const char* mlxlab_dropout(void* out, void* x, void* key, uint32_t bound, float scale) {
  return guarded([&] {
    const Arrays in{floats(x, "dropout"), checked(key, mx::uint32, "dropout")};
    require(in[1].size() == 2, "dropout: expected a key of two words");
    array_of(out) = make_outputs(std::make_shared<Dropout>(cpu_stream(), bound, scale), {in[0].shape()}, in)[0];
  });
}

API const char* mlxlab_embedding(void* out, void* ids, void* table) {
  return guarded([&] {
    const Arrays in{checked(ids, mx::int32, "embedding"), floats(table, "embedding")};
    require(in[1].ndim() == 2 && in[1].size() > 0, "embedding: expected a table (V, D)");
    auto shape = in[0].shape();
    shape.push_back(in[1].shape(1));
    array_of(out) = make_outputs(std::make_shared<Embedding>(cpu_stream()), {shape}, in)[0];
  });
}

API const char* mlxlab_square_sum(void* out, void** arrays, int count) {
  return guarded([&] {
    Arrays in;
    for (int i = 0; i < count; i++) in.push_back(floats(arrays[i], "square_sum"));
    array_of(out) = make_outputs(std::make_shared<SquareSum>(cpu_stream()), {mx::Shape{}}, in)[0];
  });
}

// arrays: weight, gradient, first and second moment of each weight; out: new weight and moments of each.
API const char* mlxlab_adamw(void** out, void* hyperparameters, void** arrays, const int* groups, int count, double b1,
                             double b2, float eps) {
  return guarded([&] {
    Arrays in{floats(hyperparameters, "adamw")};
    std::vector<mx::Shape> shapes;
    const int group_count = (in[0].size() - 2) / 3;
    require(in[0].size() >= 5 && in[0].size() % 3 == 2, "adamw: hyperparameters " + shape_text(in[0]));
    for (int i = 0; i < 4 * count; i++) {
      in.push_back(floats(arrays[i], "adamw"));
      require(in.back().shape() == in[1 + i / 4 * 4].shape(), "adamw: shapes of a weight and its moments differ");
      if (i % 4) shapes.push_back(in.back().shape());
      require(groups[i / 4] >= 0 && groups[i / 4] < group_count, "adamw: no such group");
    }
    auto kernel = std::make_shared<AdamW>(cpu_stream(), std::vector<int>(groups, groups + count), b1, b2, eps);
    const auto made = make_outputs(kernel, shapes, in);
    for (int i = 0; i < 3 * count; i++) array_of(out[i]) = made[i];
  });
}
