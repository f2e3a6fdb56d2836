#pragma once
// Plain buffers under libtorch's names: just as much of at::Tensor as src/transport uses, always contiguous. libtorch
// cannot be built with the thread sanitizer; with this header in its place the transport can, unchanged.

#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace c10 {

template <typename T>
class ArrayRef {
 public:
  ArrayRef(const std::vector<T>& values) : begin_(values.data()), size_(values.size()) {}
  ArrayRef(const T* begin, size_t size) : begin_(begin), size_(size) {}
  const T* begin() const { return begin_; }
  const T* end() const { return begin_ + size_; }
  size_t size() const { return size_; }
  std::vector<T> vec() const { return {begin(), end()}; }
  ArrayRef slice(size_t first) const { return {begin_ + first, size_ - first}; }
  bool operator==(const ArrayRef& other) const { return vec() == other.vec(); }

 private:
  const T* begin_;
  size_t size_;
};

inline int64_t multiply_integers(ArrayRef<int64_t> values) {
  int64_t product = 1;
  for (const int64_t value : values) product *= value;
  return product;
}

enum class ScalarType : uint8_t { Byte, Long, Half, Float, BFloat16 };
const char* toString(ScalarType type);

/// The CPU, or one of two devices.
struct Device {
  int index = -1;
  bool is_cpu() const { return index < 0; }
  std::string str() const { return is_cpu() ? "cpu" : "fake:" + std::to_string(index); }
  bool operator==(const Device&) const = default;
};

}  // namespace c10

namespace at {

using c10::Device;
inline constexpr Device kCPU{-1};

/// On the CPU at once, on a device as the next piece of the current stream (tests/plain_buffer/fake_device.h).
void carry_out(Device on, std::function<void()> work);

using c10::ScalarType;
inline constexpr auto kByte = ScalarType::Byte;
inline constexpr auto kLong = ScalarType::Long;
inline constexpr auto kHalf = ScalarType::Half;  // a name only: no buffer has it
inline constexpr auto kFloat = ScalarType::Float;
inline constexpr auto kBFloat16 = ScalarType::BFloat16;
inline bool isIntegralType(ScalarType type, bool) { return type == kByte || type == kLong; }

using IntArrayRef = c10::ArrayRef<int64_t>;

/// What a new buffer is like.
struct TensorOptions {
  TensorOptions(ScalarType type = kFloat, Device device = kCPU) : type(type), device(device) {}
  ScalarType type;
  Device device;
};

/// A handle on counted bytes. As with libtorch's, handles of one buffer may be used by several threads, but one handle
/// by one thread at a time.
class Tensor {
 public:
  Tensor() = default;
  Tensor(std::vector<int64_t> shape, TensorOptions options);

  bool defined() const { return bytes_ != nullptr; }
  void reset() { *this = {}; }
  int64_t dim() const { return static_cast<int64_t>(shape_.size()); }
  int64_t size(int64_t d) const { return shape_[d]; }
  IntArrayRef sizes() const { return shape_; }
  int64_t numel() const { return c10::multiply_integers(shape_); }
  ScalarType scalar_type() const { return options_.type; }
  TensorOptions options() const { return options_; }
  Device device() const { return options_.device; }
  size_t element_size() const;
  size_t nbytes() const { return numel() * element_size(); }
  void* data_ptr() const { return data_; }
  template <typename T>
  T* data_ptr() const {
    return static_cast<T*>(data_ptr());
  }
  bool is_contiguous() const { return true; }
  Tensor contiguous() const { return *this; }
  Tensor detach() const { return *this; }

  /// The same bytes in another shape; one dimension may be -1.
  Tensor view(std::vector<int64_t> shape) const;
  /// Rows [begin, begin + rows) of the same bytes. `d` is 0.
  Tensor narrow(int64_t d, int64_t begin, int64_t rows) const;
  std::vector<Tensor> split_with_sizes(const std::vector<int64_t>& rows) const;

  Tensor clone() const;
  Tensor to(ScalarType type, bool non_blocking, bool copy) const;
  const Tensor& copy_(const Tensor& from) const;
  const Tensor& add_(const Tensor& other) const;
  const Tensor& fill_(double value) const;

 private:
  std::shared_ptr<std::byte[]> bytes_;
  std::byte* data_ = nullptr;
  std::vector<int64_t> shape_;
  TensorOptions options_;
};

Tensor empty(std::vector<int64_t> shape, TensorOptions options);
Tensor empty_like(const Tensor& like);
Tensor full(std::vector<int64_t> shape, double value, TensorOptions options = {});
Tensor zeros(std::vector<int64_t> shape, TensorOptions options);
Tensor cat(const std::vector<Tensor>& parts, int64_t d = 0);
Tensor& add_out(Tensor& out, const Tensor& a, const Tensor& b);
/// Same shape, type and bytes. REQUIRES: whatever writes them is done.
bool equal(const Tensor& a, const Tensor& b);

}  // namespace at
