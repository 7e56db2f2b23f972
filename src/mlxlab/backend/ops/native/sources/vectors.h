// Vectors of the compilers' own vector types (GCC, Clang): as many elements as a register of the target holds.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define MLXLAB_INLINE static inline __attribute__((always_inline))

namespace mlxlab {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));

template <class Vector = Floats, class T>
MLXLAB_INLINE Vector load(const T* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class Vector, class T>
MLXLAB_INLINE void store(T* to, Vector value) {
  std::memcpy(to, &value, sizeof value);
}
// The first `count` elements; the other lanes are `rest`.
MLXLAB_INLINE Floats load_some(const float* from, long count, float rest = 0.f) {
  Floats value = Floats{} + rest;
  std::memcpy(&value, from, count * sizeof(float));
  return value;
}
MLXLAB_INLINE void store_some(float* to, Floats value, long count) { std::memcpy(to, &value, count * sizeof(float)); }

// Calls f(index, lanes) for n elements, a vector at a time; `lanes` is a compile-time constant except for the last ones.
template <class F>
MLXLAB_INLINE void each_vector(long n, F f) {
  long i = 0;
  for (; i + LANES <= n; i += LANES) f(i, std::integral_constant<long, LANES>{});
  if (i < n) f(i, n - i);
}
template <class Count>
MLXLAB_INLINE Floats load_lanes(const float* from, Count count, float rest = 0.f) {
  if constexpr (std::is_same_v<Count, std::integral_constant<long, LANES>>) return load(from);
  else return load_some(from, count, rest);
}
template <class Count>
MLXLAB_INLINE void store_lanes(float* to, Floats value, Count count) {
  if constexpr (std::is_same_v<Count, std::integral_constant<long, LANES>>) store(to, value);
  else store_some(to, value, count);
}

MLXLAB_INLINE Floats maximum(Floats a, Floats b) { return a > b ? a : b; }
MLXLAB_INLINE Floats absolute(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
MLXLAB_INLINE Floats square_root(Floats x) {
  Floats y;
  for (int i = 0; i < LANES; i++) y[i] = std::sqrt(x[i]);
  return y;
}
MLXLAB_INLINE Words lane_numbers() {
  Words lanes;
  for (int i = 0; i < LANES; i++) lanes[i] = i;
  return lanes;
}
// Adds halves, quarters, ...: the same order on every call.
MLXLAB_INLINE float sum_of_lanes(Floats x) {
  float lane[LANES];
  std::memcpy(lane, &x, sizeof x);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  return lane[0];
}
MLXLAB_INLINE float max_of_lanes(Floats x) {
  float maximum = x[0];
  for (int i = 1; i < LANES; i++) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
}

// e^x to 2e-7, 0 below -87, e^88 above 88; NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2, and the Taylor series of e^r.
MLXLAB_INLINE Floats exponential(Floats x) {
  Floats lowest = Floats{} - 87.f, highest = Floats{} + 88.f;
  Floats y = x < lowest ? lowest : x;
  y = y > highest ? highest : y;
  const float round = 12582912.f;  // 1.5 * 2^23: a sum with it is rounded to an integer, in its lowest bits
  Floats shifted = y * 1.44269504088896341f + round;
  Floats n = shifted - round;
  Floats r = y - n * 0.693145751953125f;  // ln 2 in two parts, of which the first has few bits
  r = r - n * 1.42860682030941723e-6f;
  Floats p = r * (1.f / 720) + 1.f / 120;
  p = p * r + 1.f / 24;
  p = p * r + 1.f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  Floats power = (Floats)(((Ints)shifted << 23) + (Ints)p);  // adds n to the exponent
  power = x < lowest ? Floats{} : power;
  return x == x ? power : x;
}
MLXLAB_INLINE Floats sigmoid(Floats x) { return 1.f / (1.f + exponential(-x)); }

}  // namespace mlxlab
