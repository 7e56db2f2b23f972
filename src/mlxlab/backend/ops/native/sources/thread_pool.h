// Threads for loops that are divided into tasks by their size alone: results do not depend on the number of threads.
//
// The indices of a loop are divided into one range per thread, the same for each loop of that length, so that rows stay in
// the cache of a core from kernel to kernel; a thread that is done takes indices from the end of other ranges.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <utility>

#include <pthread.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mlxlab {

inline void spin_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class ThreadPool {
 public:
  static constexpr int MAX_THREADS = 64;
  static constexpr size_t MAX_INDEX = 1 << 20;

  // Sets the number of threads, the caller's own included. Threads are never ended.
  void set_threads(int count) {
    while (in_loop_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    threads_ = std::clamp(count, 1, MAX_THREADS);
    for (; started_ < threads_; started_++) std::thread([this, self = started_] { serve(self); }).detach();
    in_loop_.clear(std::memory_order_release);
  }

  // Calls f(i) for i in [0, n). Serially within another loop, and while another thread's loop is running. If f throws,
  // the other indices are still done, and one of the exceptions is thrown here.
  template <class F>
  void run(size_t n, F&& f) {
    const int threads = threads_;
    if (threads == 1 || n <= 1 || n >= MAX_INDEX || in_loop_.test_and_set(std::memory_order_acquire)) {
      for (size_t i = 0; i < n; i++) f(i);
      return;
    }
    call_ = [](void* context, size_t i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); };
    context_ = (void*)&f;
    finished_.store(0, std::memory_order_relaxed);
    loop_++;
    for (int t = threads - 1; t >= 0; t--)
      ranges_[t].left.store(pack(n * t / threads, n * (t + 1) / threads), std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      wakeups_.fetch_add(1, std::memory_order_seq_cst);
      wakeups_.notify_all();
    }
    const size_t mine = work(0, threads);
    finished_.fetch_add(mine, std::memory_order_acq_rel);
    for (int spins = 0; finished_.load(std::memory_order_acquire) != n; spins++)
      spins < 20000 ? spin_pause() : std::this_thread::yield();
    const std::exception_ptr failure = std::exchange(failure_, nullptr);
    in_loop_.clear(std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
  }

 private:
  static constexpr uint64_t INDEX_MASK = MAX_INDEX - 1;

  // What is left of a range, [first, end), and the loop (24 bits): an exchange fails if either has changed.
  struct alignas(128) Range {
    std::atomic<uint64_t> left{0};
  };
  uint64_t pack(size_t first, size_t end) const { return loop_ << 40 | (uint64_t)first << 20 | (uint64_t)end; }
  static size_t first_of(uint64_t left) { return left >> 20 & INDEX_MASK; }
  static size_t end_of(uint64_t left) { return left & INDEX_MASK; }
  static bool is_empty(uint64_t left) { return first_of(left) >= end_of(left); }

  // The number of indices done. An index that is taken and not yet counted in `finished_` keeps its loop alive.
  size_t work(int self, int threads) {
    size_t done = 0;
    for (int k = 0; k < threads; k++) {
      auto& left = ranges_[(self + k) % threads].left;
      uint64_t seen = left.load(std::memory_order_acquire);
      while (!is_empty(seen)) {
        const bool own = k == 0;  // from the front of its own range, from the back of others
        const uint64_t rest = own ? seen + (uint64_t{1} << 20) : seen - 1;
        if (!left.compare_exchange_weak(seen, rest, std::memory_order_acq_rel)) continue;
        try {
          call_(context_, own ? first_of(seen) : end_of(seen) - 1);
        } catch (...) {
          std::lock_guard<std::mutex> lock(failing_);
          failure_ = std::current_exception();
        }
        done++;
        seen = left.load(std::memory_order_acquire);
      }
    }
    return done;
  }

  // A thread: spins for some 50 us after its last index, then sleeps.
  void serve(int self) {
    auto& left = ranges_[self].left;
    for (;;) {
      for (int spins = 0; spins < 2000; spins++, spin_pause()) {
        if (is_empty(left.load(std::memory_order_acquire))) continue;
        if (const size_t done = work(self, threads_)) finished_.fetch_add(done, std::memory_order_acq_rel);
        spins = 0;
      }
      asleep_.fetch_add(1, std::memory_order_seq_cst);
      const uint32_t ticket = wakeups_.load(std::memory_order_seq_cst);
      if (is_empty(left.load(std::memory_order_seq_cst))) wakeups_.wait(ticket);
      asleep_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  std::atomic_flag in_loop_ = ATOMIC_FLAG_INIT;
  std::mutex failing_;
  std::exception_ptr failure_;
  std::atomic<int> threads_{1};
  int started_ = 1;
  uint64_t loop_ = 0;
  void (*call_)(void*, size_t) = nullptr;
  void* context_ = nullptr;
  Range ranges_[MAX_THREADS];
  alignas(128) std::atomic<size_t> finished_{0};
  alignas(128) std::atomic<uint32_t> wakeups_{0};
  std::atomic<int> asleep_{0};
};

inline ThreadPool*& the_pool() {
  static ThreadPool* pool = [] {
    // A forked child has none of the threads: it computes with its own one.
    pthread_atfork(nullptr, nullptr, [] { the_pool() = new ThreadPool; });
    return new ThreadPool;  // never destroyed: its threads may outlive main
  }();
  return pool;
}
inline ThreadPool& pool() { return *the_pool(); }

// Calls f(first, end) for chunks of [0, n) that depend on n and `grain` alone: at most 64, of at least `grain`.
template <class F>
void parallel_for(size_t n, size_t grain, F&& f) {
  if (n == 0) return;
  const size_t chunk = std::max((((n + 63) / 64) + 15) / 16 * 16, std::max<size_t>(grain, 1));
  pool().run((n + chunk - 1) / chunk, [&](size_t i) { f(i * chunk, std::min(n, (i + 1) * chunk)); });
}

// Memory for intermediate results, 64-byte aligned; grows, and is kept until its thread ends.
class Workspace {
 public:
  ~Workspace() { std::free(data_); }
  template <class T>
  T* get(size_t count) {
    const size_t bytes = count * sizeof(T);
    if (bytes > size_) {
      std::free(data_);
      data_ = nullptr;
      size_ = (bytes + 65535) / 65536 * 65536;
      data_ = std::aligned_alloc(64, size_);
      if (!data_) size_ = 0, throw std::bad_alloc();
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace mlxlab
