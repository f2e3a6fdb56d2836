#include "nn/flash_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "nn/deferred.h"
#include "nn/flash_rows.h"
#include "nn/for_machine.h"
#include "nn/tiles.h"

namespace farskip::nn {
namespace {

using tiles::Left;
using tiles::Matrix;
using tiles::Panel;

constexpr int64_t block_rows =
    96;  // of queries; even, so that the words of two bf16 never straddle the diagonal's start
constexpr int64_t block_cols = tiles::panel_cols;  // of keys

struct Call {
  float scale;
  bool causal;
  std::vector<Segment> segments;
};

/// The rows of one head within a segment.
template <typename T>
Matrix<T> head(const at::Tensor& x_BHSd, const Segment& s, int64_t h) {
  const int64_t offset = s.sequence * x_BHSd.stride(0) + h * x_BHSd.stride(1) + s.begin * x_BHSd.stride(2);
  return {x_BHSd.const_data_ptr<T>() + offset, s.length, x_BHSd.size(3), x_BHSd.stride(2), 1};
}

/// The right operands that the blocks of 64 rows of a matrix make.
template <typename T>
class Packs {
 public:
  /// Block j as the columns: what is multiplied has the matrix' width.
  void columns(const Matrix<T>& x) {
    begin((x.rows + block_cols - 1) / block_cols, 1, x.cols);
    for (int64_t j = 0; j * block_cols < x.rows; ++j) panels_.push_back(tiles::pack(x.t(), j * block_cols, next()));
  }
  /// Block j, of up to `block` rows, as the inner index.
  void rows(const Matrix<T>& x, int64_t block = block_cols) {
    begin((x.rows + block - 1) / block, (x.cols + tiles::panel_cols - 1) / tiles::panel_cols, std::min(block, x.rows));
    for (int64_t first = 0; first < x.rows; first += block) {
      const Matrix<T> part = x.rows_from(first, std::min(block, x.rows - first));
      for (int64_t c = 0; c < x.cols; c += tiles::panel_cols) panels_.push_back(tiles::pack(part, c, next()));
    }
  }
  /// out (+)= a times block j without the first `skipped` rows (even); `width`: of out.
  void multiply(const Left& a, int64_t j, float* out, int64_t width, bool add, int64_t skipped = 0) const {
    for (int64_t c = 0; c < per_block_; ++c) {
      const Panel panel = panels_[j * per_block_ + c].from_depth(skipped * static_cast<int64_t>(sizeof(T)) / 4);
      tiles::multiply<T>(a, panel, out + c * tiles::panel_cols, width, add);
    }
  }

 private:
  void begin(int64_t num_blocks, int64_t per_block, int64_t inner) {
    per_block_ = per_block;
    stride_ = tiles::panel_words<T>(inner);
    words_.resize(num_blocks * per_block * stride_);
    panels_.clear();
  }
  uint32_t* next() { return words_.data() + panels_.size() * stride_; }

  std::vector<uint32_t> words_;
  std::vector<Panel> panels_;
  int64_t per_block_ = 1, stride_ = 0;
};

/// For each block of keys that rows [i, i + rows) see: f(j, block).
template <typename F>
void for_blocks(const Call& call, int64_t length, int64_t i, int64_t rows, const F& f) {
  for (int64_t j = 0; j * block_cols < length; ++j) {
    const int64_t begin = j * block_cols;
    if (call.causal && begin >= i + rows) return;
    f(j, Block{call.causal ? std::max<int64_t>(0, begin - i) : 0, rows, std::min(block_cols, length - begin),
               call.causal ? i - begin : length});
  }
}

/// As the left operand: rows [first, rows) of a block.
template <typename T>
Left left_of(const T* block, const Block& b) {
  constexpr int64_t per_word = 4 / sizeof(T);
  return {reinterpret_cast<const uint32_t*>(block + b.first * block_cols), b.rows - b.first,
          (b.cols + per_word - 1) / per_word, block_cols / per_word, 1};
}

/// Transposed: the columns of a block times its rows [first, rows).
template <typename T>
Left transposed(const T* block, const Block& b, std::vector<uint32_t>& storage) {
  const Matrix<T> rows{block + b.first * block_cols, b.rows - b.first, b.cols, block_cols, 1};
  return tiles::left(rows.t(), storage);
}

template <typename T>
void forward_segment(const Call& call, const Segment& segment, int64_t group, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v, const at::Tensor& o_BHSe, const at::Tensor& lse_BHS) {
  const int64_t heads = q.size(1) / k.size(1), width = v.size(3);
  Packs<T> keys, values;
  keys.columns(head<T>(k, segment, group));
  values.rows(head<T>(v, segment, group));
  std::vector<float> scores(block_rows * block_cols), out(block_rows * width);
  std::vector<T> weights(block_rows * block_cols);
  std::vector<uint32_t> storage;
  std::vector<float> largest(block_rows), sum(block_rows);
  for (int64_t h = group * heads; h < (group + 1) * heads; ++h) {
    const Matrix<T> queries = head<T>(q, segment, h), o = head<T>(o_BHSe, segment, h);
    for (int64_t i = 0; i < segment.length; i += block_rows) {
      const int64_t rows = std::min(block_rows, segment.length - i);
      const Left query = tiles::left(queries.rows_from(i, rows), storage);
      std::fill(largest.begin(), largest.end(), -std::numeric_limits<float>::infinity());
      std::fill(sum.begin(), sum.end(), 0);
      std::fill(out.begin(), out.end(), 0);
      for_blocks(call, segment.length, i, rows, [&](int64_t j, const Block& b) {
        keys.multiply(query.rows_from(b.first), j, scores.data() + b.first * block_cols, block_cols, false);
        softmax_rows(b, call.scale, scores.data(), weights.data(), largest.data(), sum.data(), out.data(), width);
        values.multiply(left_of(weights.data(), b), j, out.data() + b.first * width, width, true);
      });
      float* lse = lse_BHS.data_ptr<float>() + (segment.sequence * q.size(1) + h) * q.size(2) + segment.begin + i;
      for_machine(0, rows, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
        for (int64_t r = begin; r < end; ++r) {
          T* row = const_cast<T*>(o.data) + (i + r) * o.row_stride;
          for (int64_t n = 0; n < width; ++n) row[n] = static_cast<T>(out[r * width + n] / sum[r]);
          lse[r] = largest[r] + std::log(sum[r]);
        }
      });
    }
  }
}

template <typename T>
void round_rows(const float* in, const Matrix<T>& out) {
  for_machine(0, out.rows, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t n = 0; n < out.cols; ++n)
        const_cast<T*>(out.data)[r * out.row_stride + n] = static_cast<T>(in[r * out.cols + n]);
  });
}

struct Gradients {
  at::Tensor q, k, v;
};

template <typename T>
void backward_segment(const Call& call, const Segment& segment, int64_t group, const variable_list& saved,
                      const at::Tensor& do_BHSe, const Gradients& grads) {
  const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &o_BHSe = saved[3], &lse_BHS = saved[4];
  const int64_t heads = q.size(1) / k.size(1), length = segment.length, d = q.size(3), e = v.size(3);
  const Matrix<T> keys = head<T>(k, segment, group), values = head<T>(v, segment, group);
  Packs<T> key_columns, value_columns, key_rows, query_rows, do_rows;
  key_columns.columns(keys);
  value_columns.columns(values);
  key_rows.rows(keys);
  std::vector<float> dk(length * d, 0), dv(length * e, 0), dq(block_rows * d), delta(block_rows);
  std::vector<float> scores(block_rows * block_cols), dweights(block_rows * block_cols);
  std::vector<T> weights(block_rows * block_cols), dscores(block_rows * block_cols);
  std::vector<uint32_t> query_words, do_words, words;
  for (int64_t h = group * heads; h < (group + 1) * heads; ++h) {
    for (int64_t i = 0; i < length; i += block_rows) {
      const int64_t rows = std::min(block_rows, length - i);
      const Matrix<T> queries = head<T>(q, segment, h).rows_from(i, rows),
                      o = head<T>(o_BHSe, segment, h).rows_from(i, rows);
      const Matrix<T> dos = head<T>(do_BHSe, segment, h).rows_from(i, rows);
      const Left query = tiles::left(queries, query_words), d_o = tiles::left(dos, do_words);
      query_rows.rows(queries, block_rows);
      do_rows.rows(dos, block_rows);
      std::fill(dq.begin(), dq.end(), 0);
      const float* lse =
          lse_BHS.const_data_ptr<float>() + (segment.sequence * q.size(1) + h) * q.size(2) + segment.begin + i;
      for_machine(0, rows, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
        for (int64_t r = begin; r < end; ++r) {
          const T *a = o.data + r * o.row_stride, *b = dos.data + r * dos.row_stride;
          delta[r] = lane_sum<float>(e, [=](int64_t n) { return static_cast<float>(a[n]) * static_cast<float>(b[n]); });
        }
      });
      for_blocks(call, length, i, rows, [&](int64_t j, const Block& b) {
        const int64_t at = b.first * block_cols;
        key_columns.multiply(query.rows_from(b.first), j, scores.data() + at, block_cols, false);
        value_columns.multiply(d_o.rows_from(b.first), j, dweights.data() + at, block_cols, false);
        softmax_backward_rows(b, call.scale, scores.data(), dweights.data(), lse, delta.data(), weights.data(),
                              dscores.data());
        const int64_t column = j * block_cols;
        do_rows.multiply(transposed(weights.data(), b, words), 0, dv.data() + column * e, e, true, b.first);
        query_rows.multiply(transposed(dscores.data(), b, words), 0, dk.data() + column * d, d, true, b.first);
        key_rows.multiply(left_of(dscores.data(), b), j, dq.data() + b.first * d, d, true);
      });
      round_rows(dq.data(), head<T>(grads.q, segment, h).rows_from(i, rows));
    }
  }
  round_rows(dk.data(), head<T>(grads.k, segment, group));
  round_rows(dv.data(), head<T>(grads.v, segment, group));
}

/// Heads [B, H, S, d] of which a row's elements lie side by side.
at::Tensor with_dense_rows(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

/// [B, S, H*e] -> [B, H, S, e], a view.
at::Tensor heads_of(const at::Tensor& x, int64_t num_heads) {
  return x.unflatten(-1, {num_heads, x.size(-1) / num_heads}).transpose(1, 2);
}

/// f(segment, group of heads), divided among threads where there is enough to do.
template <typename F>
void for_units(const std::vector<Segment>& segments, const at::Tensor& q, int64_t num_groups, const F& f) {
  int64_t scores = 0;
  for (const Segment& s : segments) scores += s.length * s.length;
  const auto num_units = static_cast<int64_t>(segments.size()) * num_groups;
  const int64_t unit_work = std::max<int64_t>(1, scores * q.size(1) * q.size(3) / std::max<int64_t>(1, num_units));
  at::parallel_for(0, num_units, std::max<int64_t>(1, (1 << 19) / unit_work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(segments[i / num_groups], i % num_groups);
  });
}

struct FlashAttention : torch::autograd::Function<FlashAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                            const at::Tensor& v_in, const Call* call) {
    const at::Tensor q = with_dense_rows(q_in.detach()), k = with_dense_rows(k_in.detach()),
                     v = with_dense_rows(v_in.detach());
    at::Tensor o = at::empty({q.size(0), q.size(2), q.size(1) * v.size(3)}, q.options());
    at::Tensor lse = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
    const at::Tensor o_BHSe = heads_of(o, q.size(1));
    for_units(call->segments, q, k.size(1), [&](const Segment& segment, int64_t group) {
      q.scalar_type() == at::kFloat ? forward_segment<float>(*call, segment, group, q, k, v, o_BHSe, lse)
                                    : forward_segment<at::BFloat16>(*call, segment, group, q, k, v, o_BHSe, lse);
    });
    ctx->save_for_backward({q, k, v, o, lse});
    std::vector<int64_t> numbers;
    for (const Segment& s : call->segments) numbers.insert(numbers.end(), {s.sequence, s.begin, s.length});
    ctx->saved_data["segments"] = numbers;
    ctx->saved_data["scale"] = static_cast<double>(call->scale);
    ctx->saved_data["causal"] = call->causal;
    return o;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    variable_list saved = ctx->get_saved_variables();
    for (at::Tensor& x : saved) x = x.detach();
    const int64_t num_heads = saved[0].size(1);
    saved[3] = heads_of(saved[3], num_heads);
    Call call{static_cast<float>(ctx->saved_data["scale"].toDouble()), ctx->saved_data["causal"].toBool(), {}};
    const std::vector<int64_t> numbers = ctx->saved_data["segments"].toIntVector();
    for (size_t i = 0; i < numbers.size(); i += 3)
      call.segments.push_back({numbers[i], numbers[i + 1], numbers[i + 2]});
    const at::Tensor do_BHSe = heads_of(grads[0].detach().contiguous(), num_heads);
    const Gradients out{at::empty_like(saved[0]), at::empty_like(saved[1]), at::empty_like(saved[2])};
    for_units(call.segments, saved[0], saved[1].size(1), [&](const Segment& segment, int64_t group) {
      saved[0].scalar_type() == at::kFloat ? backward_segment<float>(call, segment, group, saved, do_BHSe, out)
                                           : backward_segment<at::BFloat16>(call, segment, group, saved, do_BHSe, out);
    });
    return {out.q, out.k, out.v, {}};
  }
};

}  // namespace

bool has_flash_attention(const at::Tensor& q) { return q.is_cpu() && tiles::supported(q.scalar_type()); }

at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale, bool causal,
                           const std::vector<Segment>& segments) {
  FARSKIP_CHECK(q.size(1) % k.size(1) == 0 && k.size(1) == v.size(1) && q.size(3) == k.size(3), "heads do not fit");
  const Call call{static_cast<float>(scale), causal, segments};
  return apply<FlashAttention>(q, k, v, &call);
}

}  // namespace farskip::nn
