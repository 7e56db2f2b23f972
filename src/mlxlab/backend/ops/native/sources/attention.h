// Softmax attention of whole sequences and its gradient, by blocks of queries: no matrix of all scores is held
// (as in Rabe and Staats 2021; the gradient recomputes the weights from the saved log-sum-exp of the scores).
//
// Scores of a block are stored with a row for each key and a column for each query: maxima and sums over the keys are
// computed on whole vectors, and the weights are already the packed panel that the product with the values needs.
#pragma once
#include "matmul.h"
#include "random_mask.h"

namespace mlxlab {

constexpr int QUERY_BLOCK = TILE_COLUMNS;
constexpr int BLOCK_VECTORS = QUERY_BLOCK / LANES;
constexpr float MASKED = -1e30f;

// One of q, k, v and so on: (rows, heads, length, head size), with neighbours of the last axis next to each other.
template <class T>
struct Heads {
  T* data;
  long row_stride, head_stride, stride;
  T* at(long row, long head, long position = 0) const {
    return data + row * row_stride + head * head_stride + position * stride;
  }
};

struct AttentionProblem {
  long rows, heads, kv_heads, length, size;
  bool causal;
  float scale;
  const int32_t* segments;  // (rows, length) document of each position, 0 for padding; null: all in one
  DropoutMask dropout;
  Heads<const float> q, k, v;
  Heads<float> out;
  float* log_sum_exps;  // (rows, heads, length)
};

struct AttentionGradient {
  Heads<const float> cotangent;  // of the output
  Heads<float> q, k, v;
};

// The keys that the queries of a block attend to.
class BlockMask {
 public:
  BlockMask(const AttentionProblem& p, long row, long first)
      : segments_(p.segments ? p.segments + row * p.length : nullptr), causal_(p.causal), first_(first) {
    for (int v = 0; v < BLOCK_VECTORS; v++) {
      positions_[v] = (Ints)lane_numbers() + (int32_t)(first + v * LANES);
      for (int i = 0; i < LANES; i++) {
        const long position = first + v * LANES + i;
        documents_[v][i] = segments_ && position < p.length ? segments_[position] : 0;
      }
    }
  }
  bool applies(long key) const { return segments_ || (causal_ && key > first_); }
  Ints allowed(long key, int v) const {
    Ints allowed = Ints{} - 1;
    if (segments_) {
      const int32_t document = segments_[key];
      allowed = document > 0 ? (documents_[v] == document) | (documents_[v] == 0) : Ints{};
    }
    if (causal_) allowed &= positions_[v] >= (int32_t)key;
    return allowed;
  }

 private:
  const int32_t* segments_;
  bool causal_;
  long first_;
  Ints positions_[BLOCK_VECTORS], documents_[BLOCK_VECTORS];
};

// One key-value head of one row, and the query heads that share it.
class AttentionHead {
 public:
  AttentionHead(const AttentionProblem& p, long row, long kv_head, bool backward) : p_(p), row_(row), kv_head_(kv_head) {
    static thread_local Workspace space;
    const size_t T = p.length, d = p.size, bands = (d + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    const size_t panels = (d + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS * QUERY_BLOCK;
    next_ = space.get<float>(2 * T * d + 2 * T * bands + 2 * T * QUERY_BLOCK + (3 * d + bands) * QUERY_BLOCK + 2 * panels +
                             (backward ? 2 * T * d : 0) + 512);
    k_ = take(T * d), v_ = take(T * d), scores_ = take(T * QUERY_BLOCK), queries_ = take(d * QUERY_BLOCK);
    transposed_ = take(bands * QUERY_BLOCK), bands_ = take(T * bands);
    copy(p.k, k_), copy(p.v, v_);
    pack_bands(backward ? k_ : v_);
    if (!backward) return;
    weight_gradients_ = take(T * QUERY_BLOCK), cotangents_ = take(d * QUERY_BLOCK), block_ = take(d * QUERY_BLOCK);
    panels_ = take(panels);
    dk_ = take(T * d), dv_ = take(T * d);
    std::memset(dk_, 0, T * d * sizeof(float)), std::memset(dv_, 0, T * d * sizeof(float));
  }

  void forward() {
    for (long head = first_head(); head < first_head() + group(); head++)
      for (long q = 0; q < p_.length; q += QUERY_BLOCK) forward_block(head, q);
  }

  void backward(const AttentionGradient& g) {
    for (long head = first_head(); head < first_head() + group(); head++)
      for (long q = 0; q < p_.length; q += QUERY_BLOCK) backward_block(g, head, q);
    for (long t = 0; t < p_.length; t++) {
      std::memcpy(g.k.at(row_, kv_head_, t), dk_ + t * p_.size, p_.size * sizeof(float));
      std::memcpy(g.v.at(row_, kv_head_, t), dv_ + t * p_.size, p_.size * sizeof(float));
    }
  }

 private:
  float* take(size_t count) {  // of the workspace
    float* start = next_;
    next_ += (count + 15) / 16 * 16;
    return start;
  }
  long group() const { return p_.heads / p_.kv_heads; }
  long first_head() const { return kv_head_ * group(); }
  void copy(const Heads<const float>& from, float* to) const {
    for (long t = 0; t < p_.length; t++) std::memcpy(to + t * p_.size, from.at(row_, kv_head_, t), p_.size * sizeof(float));
  }
  // (T, d) as panels of TILE_ROWS dimensions each, for products that sum over the keys.
  void pack_bands(const float* from) {
    for (long i = 0; i < p_.size; i += TILE_ROWS)
      pack_panel<Float32, TILE_ROWS>(from + i, p_.size, true, std::min<long>(TILE_ROWS, p_.size - i), p_.length,
                                     bands_ + i * p_.length);
  }
  // (keys, d) times a panel (d, QUERY_BLOCK) -> (keys, QUERY_BLOCK)
  void multiply_keys(const float* keys, const float* panel, long count, float* out) const {
    for (long j = 0; j < count; j += TILE_ROWS)
      compute_tile_of<Float32, false>(std::min<long>(TILE_ROWS, count - j), keys + j * p_.size, p_.size, panel, p_.size,
                                      {out + j * QUERY_BLOCK, QUERY_BLOCK, QUERY_BLOCK, nullptr, false});
  }
  // The transposed `bands_` times (keys, QUERY_BLOCK) -> `transposed_`, (d, QUERY_BLOCK)
  void sum_over_keys(const float* weights, long count) {
    for (long i = 0; i < p_.size; i += TILE_ROWS)
      compute_tile_of<Float32, true>(std::min<long>(TILE_ROWS, p_.size - i), bands_ + i * p_.length, 0, weights, count,
                                     {transposed_ + i * QUERY_BLOCK, QUERY_BLOCK, QUERY_BLOCK, nullptr, false});
  }
  // (keys, QUERY_BLOCK) times the queries' (count, d), added to (keys, d)
  void sum_over_queries(const float* weights, const float* queries, long stride, long count, long keys, float* out) {
    for (long j = 0; j < p_.size; j += TILE_COLUMNS) {
      const int columns = std::min<long>(TILE_COLUMNS, p_.size - j);
      pack_panel<Float32, TILE_COLUMNS>(queries + j, stride, true, columns, count, panels_);
      for (long i = 0; i < keys; i += TILE_ROWS)
        compute_tile_of<Float32, false>(std::min<long>(TILE_ROWS, keys - i), weights + i * QUERY_BLOCK, QUERY_BLOCK,
                                        panels_, count, {out + i * p_.size + j, p_.size, columns, nullptr, true});
    }
  }
  // Queries (or cotangents) of a block as a panel (d, QUERY_BLOCK).
  void pack_block(const float* from, long stride, long count, float scale, float* panel) const {
    pack_panel<Float32, QUERY_BLOCK>(from, stride, false, count, p_.size, panel);
    if (scale != 1.f)
      for (long i = 0; i < p_.size * QUERY_BLOCK; i++) panel[i] *= scale;
  }
  Words dropout_index(long head, long query, int v) const {
    const Words queries = lane_numbers() + (uint32_t)((row_ * p_.heads + head) * p_.length + query + v * LANES);
    return queries * (uint32_t)p_.length;
  }
  long keys_of(long query) const { return p_.causal ? std::min(p_.length, query + QUERY_BLOCK) : p_.length; }

  void forward_block(long head, long query);
  void backward_block(const AttentionGradient& g, long head, long query);
  void weights_of_block(long head, long query, long keys, const float* statistics);

  const AttentionProblem& p_;
  const long row_, kv_head_;
  float *next_, *k_, *v_, *bands_, *scores_, *queries_, *transposed_;
  float *weight_gradients_ = nullptr, *cotangents_ = nullptr, *block_ = nullptr, *panels_ = nullptr;
  float *dk_ = nullptr, *dv_ = nullptr;
};

inline void AttentionHead::forward_block(long head, long query) {
  const long keys = keys_of(query), count = std::min<long>(QUERY_BLOCK, p_.length - query);
  pack_block(p_.q.at(row_, head, query), p_.q.stride, count, p_.scale, queries_);
  multiply_keys(k_, queries_, keys, scores_);
  const BlockMask mask(p_, row_, query);
  Floats maxima[BLOCK_VECTORS], sums[BLOCK_VECTORS] = {};
  for (auto& m : maxima) m = Floats{} + MASKED;
  for (long j = 0; j < keys; j++)
    for (int v = 0; v < BLOCK_VECTORS; v++) {
      float* at = scores_ + j * QUERY_BLOCK + v * LANES;
      Floats score = load(at);
      if (mask.applies(j)) {
        score = mask.allowed(j, v) ? score : Floats{} + MASKED;
        store(at, score);
      }
      maxima[v] = maximum(maxima[v], score);
    }
  for (auto& m : maxima) m = maximum(m, Floats{} + MASKED * 0.5f);  // a query that attends to nothing: weights of 0
  Words index[BLOCK_VECTORS] = {};
  for (int v = 0; p_.dropout.key && v < BLOCK_VECTORS; v++) index[v] = dropout_index(head, query, v);
  for (long j = 0; j < keys; j++)
    for (int v = 0; v < BLOCK_VECTORS; v++) {
      float* at = scores_ + j * QUERY_BLOCK + v * LANES;
      Floats weight = exponential(load(at) - maxima[v]);
      sums[v] += weight;
      if (p_.dropout.key) weight *= DropoutMask::factors(p_.dropout, index[v] + (uint32_t)j);
      store(at, weight);
    }
  sum_over_keys(scores_, keys);
  for (long i = 0; i < count; i++) {
    const float sum = sums[i / LANES][i % LANES], factor = sum > 0.f || std::isnan(sum) ? 1.f / sum : 0.f;
    float* out = p_.out.at(row_, head, query + i);
    for (long j = 0; j < p_.size; j++) out[j] = transposed_[j * QUERY_BLOCK + i] * factor;
    p_.log_sum_exps[(row_ * p_.heads + head) * p_.length + query + i] =
        factor == 0.f ? -MASKED : maxima[i / LANES][i % LANES] + std::log(sum);
  }
}

// The weights of a block into `scores_` and the gradients of the scores into `weight_gradients_`, from the scores and the
// gradients of the weights. statistics: for each query the dot product of its output and cotangent, then its log-sum-exp.
inline void AttentionHead::weights_of_block(long head, long query, long keys, const float* statistics) {
  const BlockMask mask(p_, row_, query);
  for (int v = 0; v < BLOCK_VECTORS; v++) {
    const Words index = p_.dropout.key ? dropout_index(head, query, v) : Words{};
    const Floats dots = load(statistics + v * LANES), log_sum_exps = load(statistics + QUERY_BLOCK + v * LANES);
    for (long j = 0; j < keys; j++) {
      float *score = scores_ + j * QUERY_BLOCK + v * LANES, *gradient = weight_gradients_ + j * QUERY_BLOCK + v * LANES;
      Floats weight = exponential(load(score) - log_sum_exps), factor = Floats{} + 1.f;
      if (mask.applies(j)) weight = mask.allowed(j, v) ? weight : Floats{};
      if (p_.dropout.key) factor = DropoutMask::factors(p_.dropout, index + (uint32_t)j);
      store(score, weight * factor);
      store(gradient, weight * (load(gradient) * factor - dots));
    }
  }
}

inline void AttentionHead::backward_block(const AttentionGradient& g, long head, long query) {
  const long keys = keys_of(query), count = std::min<long>(QUERY_BLOCK, p_.length - query);
  const float *q = p_.q.at(row_, head, query), *cotangent = g.cotangent.at(row_, head, query);
  pack_block(q, p_.q.stride, count, p_.scale, queries_);
  pack_block(cotangent, g.cotangent.stride, count, 1.f, cotangents_);
  multiply_keys(k_, queries_, keys, scores_);
  multiply_keys(v_, cotangents_, keys, weight_gradients_);
  float statistics[2 * QUERY_BLOCK] = {};
  for (long i = 0; i < QUERY_BLOCK; i++) {
    const float* out = p_.out.at(row_, head, query + i);
    for (long j = 0; i < count && j < p_.size; j++) statistics[i] += out[j] * cotangent[i * g.cotangent.stride + j];
    statistics[QUERY_BLOCK + i] = i < count ? p_.log_sum_exps[(row_ * p_.heads + head) * p_.length + query + i] : -MASKED;
  }
  weights_of_block(head, query, keys, statistics);
  for (long i = 0; i < count; i++)
    for (long j = 0; j < p_.size; j++) block_[i * p_.size + j] = q[i * p_.q.stride + j] * p_.scale;
  sum_over_queries(scores_, cotangent, g.cotangent.stride, count, keys, dv_);
  sum_over_queries(weight_gradients_, block_, p_.size, count, keys, dk_);
  sum_over_keys(weight_gradients_, keys);
  for (long i = 0; i < count; i++) {
    float* dq = g.q.at(row_, head, query + i);
    for (long j = 0; j < p_.size; j++) dq[j] = transposed_[j * QUERY_BLOCK + i] * p_.scale;
  }
}

}  // namespace mlxlab
