// Loops of many lengths, from two threads at once, nested, and in a forked child: every index exactly once.
#include "thread_pool.h"

#include <cstdio>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using mlxlab::parallel_for;
using mlxlab::pool;

static bool every_index_once(size_t n) {
  std::vector<int> counts(n);
  pool().run(n, [&](size_t i) { counts[i]++; });
  for (int count : counts)
    if (count != 1) return false;
  return true;
}

static bool loops() {
  bool right = true;
  for (int threads : {1, 2, 5, 3}) {
    pool().set_threads(threads);
    for (size_t n : {0, 1, 2, 3, 64, 1000})
      for (int again = 0; again < 50; again++) right &= every_index_once(n);
  }
  std::vector<int> nested(64 * 100);
  pool().run(64, [&](size_t i) { parallel_for(100, 1, [&](size_t a, size_t b) { for (; a < b; a++) nested[i * 100 + a]++; }); });
  for (int count : nested) right &= count == 1;
  return right;
}

// Every index but the failing one is done, and the next loop runs as before.
static bool failures() {
  for (int again = 0; again < 100; again++) {
    std::atomic<int> done = 0;
    try {
      pool().run(100, [&](size_t i) { i == 37 ? throw i : done++; });
      return false;
    } catch (size_t index) {
      if (index != 37 || done != 99) return false;
    }
    pool().set_threads(2 + again % 3);
    if (!every_index_once(100)) return false;
  }
  return true;
}

int main(int argc, char**) {
  bool right = loops() && failures(), other = false;
  std::thread thread([&] { other = true; for (int i = 0; i < 500; i++) other &= every_index_once(100); });
  for (int i = 0; i < 500; i++) right &= every_index_once(100);
  thread.join();
  if (argc > 1) {
    const pid_t child = fork();
    if (child == 0) _exit(loops() ? 0 : 1);
    int status = 1;
    waitpid(child, &status, 0);
    right &= status == 0;
  }
  std::puts(right && other ? "right" : "wrong");
}
