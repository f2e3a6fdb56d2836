#include "nn/tiles.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/error.h"
#include "nn/for_machine.h"
#include "nn/matrix_unit.h"
#include "nn/tile_kernels.h"

namespace farskip::nn::tiles {

bool supported(at::ScalarType type) { return vectors_for(type) != Vectors::none; }

namespace {

template <typename T>
constexpr int64_t word_elements = 4 / sizeof(T);

#if FARSKIP_VECTORS

void transpose(const char* in, int64_t stride, int64_t rows, int64_t cols, uint32_t* out, int64_t width) {
  static Transpose* const kernel = vectors_for(at::kFloat) == Vectors::avx512 ? avx512::transpose : avx2::transpose;
  kernel(in, stride, rows, cols, out, width);
}

template <typename T, typename Out>
void multiply_vectors(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  static const auto kernel = vectors_for(c10::CppTypeToScalarType<T>::value) == Vectors::avx512
                                 ? avx512::multiply<T, Out>
                                 : avx2::multiply<T, Out>;
  kernel(a, b, out, row_stride, add);
}

#else

void transpose(const char*, int64_t, int64_t, int64_t, uint32_t*, int64_t) {
  fail("tiles are not built for this processor");
}

template <typename T, typename Out>
void multiply_vectors(const Left&, const Panel&, Out*, int64_t, bool) {
  fail("tiles are not built for this processor");
}

#endif

/// Words (low[n], high[n]) for n < num; high may be null.
void interleave(const at::BFloat16* low, const at::BFloat16* high, int64_t num, uint32_t* out) {
  for_machine(0, num, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    if (high == nullptr) {
      for (int64_t n = begin; n < end; ++n) out[n] = low[n].x;
    } else {
      for (int64_t n = begin; n < end; ++n) out[n] = low[n].x | static_cast<uint32_t>(high[n].x) << 16;
    }
  });
}

/// Words (k, n) of columns [begin, begin + cols) of b, n the dense index.
template <typename T>
void pack_row(const Matrix<T>& b, int64_t k, int64_t begin, int64_t cols, uint32_t* out) {
  const T* row = b.data + k * word_elements<T> * b.row_stride + begin;
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(out, row, cols * sizeof(float));
  } else {
    interleave(row, 2 * k + 1 < b.rows ? row + b.row_stride : nullptr, cols, out);
  }
}

template <typename T>
int64_t words_of(int64_t inner) {
  return (inner + word_elements<T> - 1) / word_elements<T>;
}

}  // namespace

template <typename T>
Left left(const Matrix<T>& a, std::vector<uint32_t>& storage) {
  const int64_t depth = words_of<T>(a.cols), per_word = word_elements<T>;
  const bool dense_inner = a.col_stride == 1;
  if (std::is_same_v<T, float> || (dense_inner && a.cols % 2 == 0 && a.row_stride % 2 == 0)) {
    return {reinterpret_cast<const uint32_t*>(a.data), a.rows, depth, dense_inner ? a.row_stride / per_word : 1,
            dense_inner ? 1 : a.col_stride};
  }
  const int64_t stride = (depth + 15) / 16 * 16;  // of words turned into rows, as the matrix unit reads them
  const bool turned = !dense_inner && has_matrix_unit();
  storage.resize(depth * a.rows + (turned ? stride * a.rows : 0));
  if (!dense_inner) {
    for (int64_t k = 0; k < depth; ++k) pack_row(a.t(), k, 0, a.rows, storage.data() + k * a.rows);
    if (!turned) return {storage.data(), a.rows, depth, 1, a.rows};
    uint32_t* rows = storage.data() + depth * a.rows;
    for (int64_t m = 0; m < a.rows; m += 16) {
      for (int64_t k = 0; k < depth; k += 16) {
        transpose(reinterpret_cast<const char*>(storage.data() + k * a.rows + m), 4 * a.rows,
                  std::min<int64_t>(16, depth - k), std::min<int64_t>(16, a.rows - m), rows + m * stride + k, stride);
      }
    }
    return {rows, a.rows, depth, stride, 1};
  }
  std::fill(storage.begin(), storage.end(), 0);
  for (int64_t m = 0; m < a.rows; ++m)
    std::memcpy(storage.data() + m * depth, a.data + m * a.row_stride, a.cols * sizeof(T));
  return {storage.data(), a.rows, depth, depth, 1};
}

template <typename T>
Panel pack(const Matrix<T>& b, int64_t begin, uint32_t* words) {
  const int64_t cols = std::min(panel_cols, b.cols - begin), width = (cols + 15) / 16 * 16, depth = words_of<T>(b.rows);
  const int64_t whole = b.rows / word_elements<T>;  // words with all their elements
  if (b.col_stride == 1) {
    for (int64_t k = 0; k < depth; ++k) {
      pack_row(b, k, begin, cols, words + k * width);
      std::fill(words + k * width + cols, words + (k + 1) * width, 0);
    }
    return {words, cols, width, depth};
  }
  const int64_t stride = b.col_stride * static_cast<int64_t>(sizeof(T));
  for (int64_t n = 0; n < width; n += 16) {
    const int64_t num = std::clamp<int64_t>(cols - n, 0, 16);
    const char* in = reinterpret_cast<const char*>(b.data + (begin + n) * b.col_stride);
    for (int64_t k = 0; k < whole; k += 16)
      transpose(in + 4 * k, stride, num, std::min<int64_t>(16, whole - k), words + k * width + n, width);
    if (whole == depth) continue;
    for (int64_t i = 0; i < 16; ++i) {
      uint16_t last = 0;
      if (i < num) std::memcpy(&last, in + i * stride + 4 * whole, 2);
      words[whole * width + n + i] = last;
    }
  }
  return {words, cols, width, depth};
}

void unpack(const Panel& b, uint32_t* rows, int64_t stride) {
  for (int64_t n = 0; n < b.width; n += 16) {
    for (int64_t k = 0; k < b.depth; k += 16) {
      transpose(reinterpret_cast<const char*>(b.words + k * b.width + n), 4 * b.width,
                std::min<int64_t>(16, b.depth - k), std::min<int64_t>(16, b.cols - n), rows + n * stride + k, stride);
    }
  }
}

template <typename T, typename Out>
void multiply(const Left& a, const Panel& b, Out* out, int64_t row_stride, bool add) {
  FARSKIP_CHECK(a.depth == b.depth, "operands of different inner sizes");
  if constexpr (std::is_same_v<T, at::BFloat16>) {
    if (a.depth_stride == 1 && has_matrix_unit()) return unit_multiply(a, b, out, row_stride, add);
  }
  multiply_vectors<T>(a, b, out, row_stride, add);
}

namespace {

bool dense(const at::Tensor& x) { return x.dim() == 2 && (x.stride(0) == 1 || x.stride(1) == 1); }

/// REQUIRES: dense.
template <typename T>
Matrix<T> matrix(const at::Tensor& x) {
  return {x.const_data_ptr<T>(), x.size(0), x.size(1), x.stride(0), x.stride(1)};
}

template <typename T>
void product(T* out, const Matrix<T>& a, const Matrix<T>& b) {
  std::vector<uint32_t> storage;
  const Left rows = left(a, storage);
  const int64_t num_panels = (b.cols + panel_cols - 1) / panel_cols;
  const int64_t num_threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  // Of few columns the rows are divided as well, as long as a part has more to multiply than its panel has to pack.
  const int64_t row_parts = std::clamp<int64_t>(num_threads / std::max<int64_t>(1, num_panels), 1, 1 + a.rows / 128);
  const int64_t part_rows = (a.rows + row_parts - 1) / row_parts;
  const int64_t work = std::max<int64_t>(1, part_rows * a.cols * panel_cols);
  at::parallel_for(0, num_panels * row_parts, std::max<int64_t>(1, (1 << 22) / work), [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> words(panel_words<T>(b.rows));
    Panel panel{};
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i / row_parts * panel_cols, row = i % row_parts * part_rows;
      if (i == begin || row == 0) panel = pack(b, column, words.data());
      Left part = rows.rows_from(std::min(row, a.rows));
      part.rows = std::min(part.rows, part_rows);
      multiply<T>(part, panel, out + row * b.cols + column, b.cols);
    }
  });
}

}  // namespace

void product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (!out.is_cpu() || !supported(out.scalar_type()) || !dense(a) || !dense(b) || !out.is_contiguous()) {
    at::Tensor result = out;
    at::mm_out(result, a, b);
  } else if (out.scalar_type() == at::kFloat) {
    product(out.data_ptr<float>(), matrix<float>(a), matrix<float>(b));
  } else {
    product(out.data_ptr<at::BFloat16>(), matrix<at::BFloat16>(a), matrix<at::BFloat16>(b));
  }
}

bool better_than_library(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 && vectors_for(at::kFloat) == Vectors::avx2;
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  if (!better_than_library(a)) return a.mm(b);
  const at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  product(out, a, b);
  return out;
}

#define FARSKIP_TILES_FOR(T)                                       \
  template Left left<T>(const Matrix<T>&, std::vector<uint32_t>&); \
  template Panel pack<T>(const Matrix<T>&, int64_t, uint32_t*);    \
  template void multiply<T, float>(const Left&, const Panel&, float*, int64_t, bool);
FARSKIP_TILES_FOR(float)
FARSKIP_TILES_FOR(at::BFloat16)
#undef FARSKIP_TILES_FOR
template void multiply<at::BFloat16, at::BFloat16>(const Left&, const Panel&, at::BFloat16*, int64_t, bool);

}  // namespace farskip::nn::tiles
