// What the kernels share as primitives of MLX: memory of outputs, row-major inputs, tasks in the order of a stream.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/array.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "mlx/scheduler.h"

#include "thread_pool.h"

namespace mx = mlx::core;

namespace mlxlab {

using Arrays = std::vector<mx::array>;

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

// Base of all kernels: float32 on a CPU. `eval_cpu` allocates, then leaves the work to the thread of its stream.
class Kernel : public mx::Primitive {
 public:
  explicit Kernel(mx::Stream stream) : Primitive(stream) {}
  void eval_gpu(const Arrays&, Arrays&) override { throw std::runtime_error("mlxlab's kernels are for CPUs"); }

 protected:
  // A task of its own: MLX lets the host run at most 10 tasks ahead, each of which holds the memory of its outputs.
  template <class F>
  void dispatch(F work) {
    const mx::Stream s = stream();
    mx::scheduler::notify_new_task(s);
    mx::scheduler::enqueue(s, std::move(work));
    mx::scheduler::enqueue(s, [s] { mx::scheduler::notify_task_completion(s); });
  }

  static float* allocate(mx::array& out) {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    return out.data<float>();
  }
  // In the memory of the input if nothing else refers to it, else new.
  static float* allocate_over(mx::array& out, const mx::array& input) {
    if (!input.is_donatable() || !input.flags().row_contiguous || input.nbytes() != out.nbytes()) return allocate(out);
    out.copy_shared_buffer(input);
    return out.data<float>();
  }

  // The elements of an input in row-major order: in place, or a copy that lives as long as the task.
  template <class T = float>
  const T* rows_of(const mx::array& input) {
    if (input.flags().row_contiguous || input.ndim() == 0) return input.data<T>();
    mx::array copy(input.shape(), input.dtype(), nullptr, {});
    copy.set_data(mx::allocator::malloc(copy.nbytes()));
    mx::cpu::get_command_encoder(stream()).add_temporary(copy);
    const std::vector<int64_t> shape(input.shape().begin(), input.shape().end());
    const std::vector<int64_t> strides(input.strides().begin(), input.strides().end());
    dispatch([from = input.data<T>(), to = copy.data<T>(), shape, strides] { copy_rows(from, to, shape, strides); });
    return copy.data<T>();
  }

 private:
  template <class T>
  static void copy_rows(const T* from, T* to, const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
    const int64_t width = shape.back(), step = strides.back(), axes = shape.size();
    int64_t rows = 1;
    for (int64_t axis = 0; axis + 1 < axes; axis++) rows *= shape[axis];
    parallel_for(rows, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, width)), [&](size_t first, size_t end) {
      for (int64_t row = first; row < (int64_t)end; row++) {
        const T* line = from;
        for (int64_t axis = axes - 2, rest = row; axis >= 0; rest /= shape[axis], axis--)
          line += rest % shape[axis] * strides[axis];
        for (int64_t i = 0; i < width; i++) to[row * width + i] = line[i * step];
      }
    });
  }
};

inline mx::Stream cpu_stream() { return mx::default_stream(mx::Device(mx::Device::cpu)); }

// The outputs of a kernel, float32.
inline Arrays make_outputs(std::shared_ptr<Kernel> kernel, const std::vector<mx::Shape>& shapes, const Arrays& inputs) {
  if (shapes.size() == 1) return {mx::array(shapes[0], mx::float32, kernel, inputs)};
  return mx::array::make_arrays(shapes, std::vector<mx::Dtype>(shapes.size(), mx::float32), kernel, inputs);
}

// The gradients of the inputs `argnums`; those without one (indices, keys) get zeros.
inline Arrays select_gradients(const Arrays& gradients, const Arrays& primals, const std::vector<int>& argnums, mx::Stream s) {
  Arrays selected;
  for (int i : argnums) selected.push_back(i < (int)gradients.size() ? gradients[i] : mx::zeros_like(primals[i], s));
  return selected;
}

inline mx::Shape without_last(mx::Shape shape) {
  shape.pop_back();
  return shape;
}
inline mx::Shape with_last(mx::Shape shape, int size) {
  shape.back() = size;
  return shape;
}

}  // namespace mlxlab

#define MLXLAB_NAME(kernel) \
  const char* name() const override { return "mlxlab::" #kernel; }
#define MLXLAB_EVAL void eval_cpu(const Arrays& in, Arrays& out) override
#define MLXLAB_VJP \
  Arrays vjp(const Arrays& primals, const Arrays& cotangents, const std::vector<int>& argnums, const Arrays& outputs) override
