// What plain buffers do.

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace {

/// Rounds to nearest, ties to even, as libtorch does.
struct BFloat16 {
  uint16_t bits = 0;
  BFloat16(float value) {
    const auto wide = std::bit_cast<uint32_t>(value);
    bits = static_cast<uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

/// Calls body(static_cast<T*>(nullptr)) with the type of the elements.
template <typename Body>
auto with_type(at::ScalarType type, Body body) {
  switch (type) {
    case at::kByte:
      return body(static_cast<uint8_t*>(nullptr));
    case at::kLong:
      return body(static_cast<int64_t*>(nullptr));
    case at::kFloat:
      return body(static_cast<float*>(nullptr));
    case at::kBFloat16:
      return body(static_cast<BFloat16*>(nullptr));
    default:
      throw c10::Error("no plain buffer has this type");
  }
}

/// out[i] = f(out[i], in[i]) for every element, now or when the device comes to it.
template <typename F>
void combine(const at::Tensor& out, const at::Tensor& in, F f) {
  if (out.sizes().vec() != in.sizes().vec()) throw c10::Error("plain buffers of different shapes");
  if (out.device() != in.device()) throw c10::Error("plain buffers of different devices");
  at::carry_out(out.device(), [out, in, f] {
    with_type(out.scalar_type(), [&]<typename Out>(Out*) {
      with_type(in.scalar_type(), [&]<typename In>(In*) {
        auto* to = out.data_ptr<Out>();
        const auto* from = in.data_ptr<In>();
        for (int64_t i = 0; i < out.numel(); ++i) to[i] = static_cast<Out>(f(to[i], from[i]));
      });
    });
  });
}

}  // namespace

const char* c10::toString(ScalarType type) {
  static constexpr const char* kNames[] = {"Byte", "Long", "Half", "Float", "BFloat16"};
  return kNames[static_cast<int>(type)];
}

namespace at {

Tensor::Tensor(std::vector<int64_t> shape, TensorOptions options) : shape_(std::move(shape)), options_(options) {
  bytes_ = std::shared_ptr<std::byte[]>(new std::byte[std::max<size_t>(nbytes(), 1)]);
  data_ = bytes_.get();
}

size_t Tensor::element_size() const {
  return with_type(scalar_type(), []<typename T>(T*) { return sizeof(T); });
}

Tensor Tensor::view(std::vector<int64_t> shape) const {
  int64_t known = 1;
  for (const int64_t size : shape) known *= size < 0 ? 1 : size;
  for (int64_t& size : shape)
    if (size < 0) size = numel() / known;
  if (c10::multiply_integers(shape) != numel()) throw c10::Error("view of another number of elements");
  auto result = *this;
  result.shape_ = std::move(shape);
  return result;
}

Tensor Tensor::narrow(int64_t d, int64_t begin, int64_t rows) const {
  if (d != 0 || begin < 0 || rows < 0 || begin + rows > size(0)) throw c10::Error("narrow outside of the buffer");
  auto result = *this;
  result.shape_[0] = rows;
  result.data_ += begin * c10::multiply_integers(sizes().slice(1)) * static_cast<int64_t>(element_size());
  return result;
}

std::vector<Tensor> Tensor::split_with_sizes(const std::vector<int64_t>& rows) const {
  std::vector<Tensor> parts;
  int64_t begin = 0;
  for (const int64_t count : rows) {
    parts.push_back(narrow(0, begin, count));
    begin += count;
  }
  return parts;
}

Tensor Tensor::clone() const { return to(scalar_type(), false, true); }

Tensor Tensor::to(ScalarType type, bool, bool copy) const {
  if (type == scalar_type() && !copy) return *this;
  Tensor result(shape_, {type, device()});
  result.copy_(*this);
  return result;
}

const Tensor& Tensor::copy_(const Tensor& from) const {
  combine(*this, from, [](auto, auto in) { return in; });
  return *this;
}

const Tensor& Tensor::add_(const Tensor& other) const {
  combine(*this, other, [](auto out, auto in) { return out + in; });
  return *this;
}

const Tensor& Tensor::fill_(double value) const {
  carry_out(device(), [out = *this, value] {
    with_type(out.scalar_type(),
              [&]<typename T>(T*) { std::fill_n(out.data_ptr<T>(), out.numel(), static_cast<T>(value)); });
  });
  return *this;
}

Tensor empty(std::vector<int64_t> shape, TensorOptions options) { return {std::move(shape), options}; }

Tensor empty_like(const Tensor& like) { return empty(like.sizes().vec(), like.options()); }

Tensor full(std::vector<int64_t> shape, double value, TensorOptions options) {
  return empty(std::move(shape), options).fill_(value);
}

Tensor zeros(std::vector<int64_t> shape, TensorOptions options) { return full(std::move(shape), 0, options); }

Tensor cat(const std::vector<Tensor>& parts, int64_t) {
  auto shape = parts.at(0).sizes().vec();
  shape[0] = 0;
  for (const auto& part : parts) shape[0] += part.size(0);
  auto result = empty(shape, parts[0].options());
  int64_t begin = 0;
  for (const auto& part : parts) {
    result.narrow(0, begin, part.size(0)).copy_(part);
    begin += part.size(0);
  }
  return result;
}

Tensor& add_out(Tensor& out, const Tensor& a, const Tensor& b) {
  out.copy_(a);
  out.add_(b);
  return out;
}

bool equal(const Tensor& a, const Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

}  // namespace at
