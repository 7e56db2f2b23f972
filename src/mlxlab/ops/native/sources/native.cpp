// Native CPU kernels of mlxlab, called by ctypes with the addresses of Python's array objects.
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>

#include "mlx/array.h"
#include "mlx/version.h"

namespace {

size_t header_bytes = 16;  // of a Python object
thread_local std::string fault;

// nanobind stores the offset of the C++ object after the Python header, then flags: bit 2 says that it is there itself.
mlx::core::array& array_of(void* object) {
  char* start = static_cast<char*>(object);
  int32_t offset;
  std::memcpy(&offset, start + header_bytes, sizeof offset);
  const bool is_direct = start[header_bytes + 4] & 4;
  char* value = start + offset;
  return is_direct ? *reinterpret_cast<mlx::core::array*>(value) : **reinterpret_cast<mlx::core::array**>(value);
}

}  // namespace

#define MLXLAB_API extern "C" __attribute__((visibility("default")))

MLXLAB_API const char* mlxlab_version() {
  static const std::string version = std::to_string(MLX_VERSION_MAJOR) + "." + std::to_string(MLX_VERSION_MINOR) + "." +
                                     std::to_string(MLX_VERSION_PATCH);
  return version.c_str();
}
MLXLAB_API const char* mlxlab_features() { return ""; }
MLXLAB_API void mlxlab_set_threads(int) {}
MLXLAB_API const char* mlxlab_probe(void* object, size_t header, size_t* sizes) {
  try {
    header_bytes = header;
    mlx::core::array& a = array_of(object);
    sizes[0] = a.size(), sizes[1] = a.itemsize(), sizes[2] = a.ndim();
    sizes[3] = a.ndim() ? a.shape(-1) : 0;
    return nullptr;
  } catch (const std::exception& error) {
    fault = error.what();
    return fault.c_str();
  }
}
