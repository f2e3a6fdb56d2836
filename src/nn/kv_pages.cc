#include "nn/kv_pages.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "base/error.h"
#include "nn/paged_rows.h"

namespace farskip::nn {
namespace {

/// Heads of one position beyond which a group is divided among threads.
constexpr int64_t heads_of_unit = 8;

/// One unit of work: heads [head, head + num) of the group at one position, or all rows of one head.
struct Unit {
  const PagedQuery* query;
  size_t sequence;  ///< which query it is
  int64_t head, num_heads;
};

std::vector<Unit> make_units(const std::vector<PagedQuery>& queries, int64_t num_heads, int64_t num_groups) {
  std::vector<Unit> units;
  const int64_t heads = num_heads / num_groups;
  const int64_t parts = std::min<int64_t>(at::get_num_threads(), (heads + heads_of_unit - 1) / heads_of_unit);
  const int64_t together = (heads + parts - 1) / parts;
  for (size_t i = 0; i < queries.size(); ++i) {
    const bool single = queries[i].num_rows == 1;
    for (int64_t group = 0; group < num_groups; ++group) {
      for (int64_t h = 0; h < heads; h += single ? together : 1)
        units.push_back({&queries[i], i, group * heads + h, single ? std::min(together, heads - h) : 1});
    }
  }
  return units;
}

template <typename T>
void attend_packed(const KvShape& shape, const std::vector<at::Tensor>& pages, const at::Tensor& q_HTd,
                   const std::vector<PagedQuery>& queries, double scale, const at::Tensor& out_THe) {
  std::vector<std::vector<const uint32_t*>> words(queries.size());
  int64_t scores = 0;
  for (size_t i = 0; i < queries.size(); ++i) {
    const int64_t end = queries[i].position + queries[i].num_rows;
    for (int64_t j = 0; j * KvPages::page_positions < end; ++j) {
      const at::Tensor& page = pages.at(queries[i].pages->at(j));
      words[i].push_back(page.defined() ? reinterpret_cast<const uint32_t*>(page.const_data_ptr<int32_t>()) : nullptr);
    }
    scores += (end - queries[i].visible) * queries[i].num_rows;
  }
  const int64_t num_heads = q_HTd.size(0), heads = num_heads / shape.num_heads;
  const auto units = make_units(queries, num_heads, shape.num_heads);
  const T* q = q_HTd.const_data_ptr<T>();
  T* out = out_THe.data_ptr<T>();
  const int64_t unit_work = scores * num_heads * shape.key_dim / std::max<int64_t>(1, std::ssize(units));
  at::parallel_for(0, std::ssize(units), 1 + (1 << 16) / (1 + unit_work), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const Unit& unit = units[u];
      const PagedQuery& query = *unit.query;
      const bool single = query.num_rows == 1;
      const T* first = q + unit.head * q_HTd.stride(0) + query.first_row * q_HTd.stride(1);
      const tiles::Matrix<T> rows{first, single ? unit.num_heads : query.num_rows, shape.key_dim,
                                  q_HTd.stride(single ? 0 : 1), 1};
      const int64_t out_row = num_heads * shape.value_dim;
      attend_rows<T>(shape, words[unit.sequence], unit.head / heads,
                     {rows, out + query.first_row * out_row + unit.head * shape.value_dim,
                      single ? shape.value_dim : out_row, query.position, single ? 0 : 1, query.visible},
                     static_cast<float>(scale));
    }
  });
}

}  // namespace

KvPages::KvPages(const KvShape& shape, int64_t num_pages, at::ScalarType dtype, at::Device device, bool portable)
    : shape_(shape),
      dtype_(dtype),
      device_(device),
      packed_(device.is_cpu() && tiles::supported(dtype) && !portable),
      pages_(num_pages) {}

int64_t KvPages::page_bytes(const KvShape& shape, at::ScalarType dtype) {
  if (dtype == at::kFloat) return PageLayout<float>(shape).page_words * 4;
  return PageLayout<at::BFloat16>(shape).page_words * 4;
}

at::Tensor& KvPages::page(int32_t index) {
  at::Tensor& page = pages_.at(index);
  if (page.defined()) return page;
  const auto options = at::TensorOptions().device(device_);
  if (packed_) return page = at::zeros({page_bytes(shape_, dtype_) / 4}, options.dtype(at::kInt));
  const int64_t width = shape_.num_heads * (shape_.key_dim + (shape_.values_in_keys ? 0 : shape_.value_dim));
  return page = at::zeros({page_positions, width}, options.dtype(dtype_));
}

template <typename T>
void KvPages::write_packed(const PageTable& pages, int64_t position, const at::Tensor& k, const at::Tensor& v) {
  const int64_t head_words = PageLayout<T>(shape_).head_words, end = position + k.size(1);
  const int64_t first_page = position / page_positions, num_pages = (end - 1) / page_positions + 1 - first_page;
  // Neighbouring positions share words: a page belongs to one thread.
  at::parallel_for(0, shape_.num_heads * num_pages, k.size(1) == 1 ? 64 : 1, [&](int64_t from, int64_t to) {
    for (int64_t unit = from; unit < to; ++unit) {
      const int64_t g = unit / num_pages, j = first_page + unit % num_pages;
      auto* words = reinterpret_cast<uint32_t*>(pages_[pages[j]].template data_ptr<int32_t>()) + g * head_words;
      const int64_t last = std::min(end, (j + 1) * page_positions);
      for (int64_t p = std::max(position, j * page_positions); p < last; ++p) {
        const T* key = k.const_data_ptr<T>() + g * k.stride(0) + (p - position) * k.stride(1);
        const T* value = nullptr;
        if (!shape_.values_in_keys) value = v.const_data_ptr<T>() + g * v.stride(0) + (p - position) * v.stride(1);
        write_position(shape_, words, p % page_positions, key, value);
      }
    }
  });
}

void KvPages::write(const PageTable& pages, int64_t position, const at::Tensor& k, const at::Tensor& v) {
  const int64_t num = k.size(1);
  if (num == 0) return;
  if (!packed_) {
    at::Tensor rows = k.transpose(0, 1).flatten(1);
    if (!shape_.values_in_keys) rows = at::cat({rows, v.transpose(0, 1).flatten(1)}, 1);
    for (int64_t i = 0; i < num;) {
      const int64_t column = (position + i) % page_positions, here = std::min(page_positions - column, num - i);
      page(pages.at((position + i) / page_positions)).narrow(0, column, here).copy_(rows.narrow(0, i, here));
      i += here;
    }
    return;
  }
  for (int64_t j = position / page_positions; j * page_positions < position + num; ++j) page(pages.at(j));
  const at::Tensor keys = k.stride(-1) == 1 ? k : k.contiguous();
  const at::Tensor values = shape_.values_in_keys || v.stride(-1) == 1 ? v : v.contiguous();
  dtype_ == at::kFloat ? write_packed<float>(pages, position, keys, values)
                       : write_packed<at::BFloat16>(pages, position, keys, values);
}

at::Tensor KvPages::plain_rows(const PageTable& pages, int64_t length) const {
  std::vector<at::Tensor> parts;
  for (int64_t j = 0; j * page_positions < length; ++j) parts.push_back(pages_.at(pages.at(j)));
  return at::cat(parts).narrow(0, 0, length);
}

at::Tensor KvPages::keys(const PageTable& pages, int64_t length) const {
  const int64_t num_heads = shape_.num_heads, dim = shape_.key_dim;
  if (!packed_) {
    return plain_rows(pages, length).narrow(1, 0, num_heads * dim).unflatten(1, {num_heads, dim}).transpose(0, 1);
  }
  const int64_t per_word = 4 / static_cast<int64_t>(c10::elementSize(dtype_));
  const int64_t depth = (dim + per_word - 1) / per_word, stride = (depth + 15) / 16 * 16;
  const int64_t num_pages = (length + page_positions - 1) / page_positions;
  const int64_t head_words = page_bytes(shape_, dtype_) / 4 / num_heads;
  const at::Tensor rows = at::empty({num_heads, num_pages * page_positions, stride * per_word}, dtype_);
  for (int64_t g = 0; g < num_heads; ++g) {
    for (int64_t j = 0; j < num_pages; ++j) {
      const auto* words = reinterpret_cast<const uint32_t*>(pages_.at(pages.at(j)).const_data_ptr<int32_t>());
      auto* out = static_cast<uint32_t*>(rows[g][j * page_positions].data_ptr());
      tiles::unpack({words + g * head_words, page_positions, page_positions, depth}, out, stride);
    }
  }
  return rows.narrow(1, 0, length).narrow(2, 0, dim);
}

void KvPages::attend_plain(const at::Tensor& q_HTd, const PagedQuery& query, double scale,
                           const at::Tensor& out_THe) const {
  const int64_t num_heads = shape_.num_heads, length = query.position + query.num_rows;
  const at::Tensor rows = plain_rows(*query.pages, length).narrow(0, query.visible, length - query.visible);
  const auto heads = [&](int64_t first, int64_t dim) {
    return rows.narrow(1, first, num_heads * dim).unflatten(1, {num_heads, dim}).transpose(0, 1).unsqueeze(0);
  };
  const at::Tensor k = heads(0, shape_.key_dim);
  const at::Tensor v =
      shape_.values_in_keys ? k.narrow(-1, 0, shape_.value_dim) : heads(num_heads * shape_.key_dim, shape_.value_dim);
  const at::Tensor seen =
      at::ones({query.num_rows, length - query.visible}, at::TensorOptions().dtype(at::kBool).device(device_))
          .tril(query.position - query.visible);
  const at::Tensor q = q_HTd.narrow(1, query.first_row, query.num_rows).unsqueeze(0);
  const at::Tensor o = at::scaled_dot_product_attention(q, k, v, seen, 0.0, false, scale, q.size(1) != num_heads);
  out_THe.narrow(0, query.first_row, query.num_rows).copy_(o[0].transpose(0, 1).flatten(1));
}

at::Tensor KvPages::attend(const at::Tensor& q_in, const std::vector<PagedQuery>& queries, double scale) const {
  FARSKIP_CHECK(q_in.size(0) % shape_.num_heads == 0 && q_in.size(2) == shape_.key_dim, "heads do not fit");
  const at::Tensor q = q_in.stride(-1) == 1 ? q_in : q_in.contiguous();
  const at::Tensor out = at::empty({q.size(1), q.size(0) * shape_.value_dim}, q.options());
  if (!packed_) {
    for (const PagedQuery& query : queries) attend_plain(q, query, scale, out);
  } else if (dtype_ == at::kFloat) {
    attend_packed<float>(shape_, pages_, q, queries, scale, out);
  } else {
    attend_packed<at::BFloat16>(shape_, pages_, q, queries, scale, out);
  }
  return out;
}

}  // namespace farskip::nn
