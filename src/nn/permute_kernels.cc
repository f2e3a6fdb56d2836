#include "nn/permute_kernels.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include "nn/deferred.h"
#include "nn/for_machine.h"
#include "nn/router.h"

namespace farskip::nn {
at::Tensor gather_sum(const at::Tensor& rows_ND, const at::Tensor& index_TK, const at::Tensor& weight_TK) {
  const int64_t num_tokens = index_TK.size(0), top_k = index_TK.size(1), dim = rows_ND.size(1);
  const int64_t num_rows = rows_ND.size(0);
  if (num_rows == 0) return at::zeros({num_tokens, dim}, rows_ND.options());
  if (!rows_ND.device().is_cpu()) {
    at::Tensor gathered = rows_ND.index_select(0, index_TK.flatten().clamp(0, num_rows - 1))
                              .view({num_tokens, top_k, dim})
                              .to(wide_type(rows_ND));
    if (weight_TK.defined()) gathered = gathered * weight_TK.unsqueeze(-1);
    const at::Tensor there = index_TK.ge(0).logical_and(index_TK.lt(num_rows)).unsqueeze(-1);
    return at::where(there, gathered, at::zeros({}, gathered.options())).sum(1).to(rows_ND.scalar_type());
  }
  const at::Tensor rows_c = rows_ND.contiguous(), weight_c = weight_TK.defined() ? weight_TK.contiguous() : weight_TK;
  const at::Tensor y_TD = at::empty({num_tokens, dim}, rows_ND.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, rows_ND.scalar_type(), "gather_sum", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* rows = rows_c.const_data_ptr<scalar_t>();
    const int64_t* index = index_TK.const_data_ptr<int64_t>();
    const wide_t* weight = weight_c.defined() ? weight_c.const_data_ptr<wide_t>() : nullptr;
    scalar_t* y = y_TD.data_ptr<scalar_t>();
    parallel_rows(num_tokens, top_k * dim, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      std::vector<wide_t> sum(dim);
      for (int64_t t = begin; t < end; ++t) {
        std::fill(sum.begin(), sum.end(), wide_t(0));
        for (int64_t k = 0; k < top_k; ++k) {
          const int64_t n = index[t * top_k + k];
          if (n < 0 || n >= num_rows) continue;
          const scalar_t* row = rows + n * dim;
          const wide_t w = weight != nullptr ? weight[t * top_k + k] : wide_t(1);
          for (int64_t i = 0; i < dim; ++i) sum[i] += w * static_cast<wide_t>(row[i]);
        }
        for (int64_t i = 0; i < dim; ++i) y[t * dim + i] = static_cast<scalar_t>(sum[i]);
      }
    });
  });
  return y_TD;
}

at::Tensor gather_scale(const at::Tensor& x_TD, const at::Tensor& index_N, const at::Tensor& weight_N) {
  if (!weight_N.defined()) return x_TD.index_select(0, index_N);
  const int64_t num_rows = index_N.size(0), dim = x_TD.size(1);
  if (!x_TD.device().is_cpu()) {
    return (x_TD.index_select(0, index_N).to(wide_type(x_TD)) * weight_N.unsqueeze(-1)).to(x_TD.scalar_type());
  }
  const at::Tensor x_c = x_TD.contiguous(), weight_c = weight_N.contiguous();
  const at::Tensor y_ND = at::empty({num_rows, dim}, x_TD.options());
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_TD.scalar_type(), "gather_scale", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* x = x_c.const_data_ptr<scalar_t>();
    const int64_t* index = index_N.const_data_ptr<int64_t>();
    const wide_t* weight = weight_c.const_data_ptr<wide_t>();
    scalar_t* y = y_ND.data_ptr<scalar_t>();
    parallel_rows(num_rows, dim, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t* row = x + index[n] * dim;
        for (int64_t i = 0; i < dim; ++i)
          y[n * dim + i] = static_cast<scalar_t>(weight[n] * static_cast<wide_t>(row[i]));
      }
    });
  });
  return y_ND;
}

at::Tensor gather_dot(const at::Tensor& x_TD, const at::Tensor& rows_ND, const at::Tensor& index_TK) {
  const int64_t num_tokens = index_TK.size(0), top_k = index_TK.size(1), dim = x_TD.size(1);
  const auto wide = wide_type(x_TD);
  if (!x_TD.device().is_cpu()) {
    const at::Tensor gathered = rows_ND.index_select(0, index_TK.flatten()).view({num_tokens, top_k, dim}).to(wide);
    return (gathered * x_TD.to(wide).unsqueeze(1)).sum(-1);
  }
  const at::Tensor x_c = x_TD.contiguous(), rows_c = rows_ND.contiguous();
  const at::Tensor dot_TK = at::empty({num_tokens, top_k}, x_TD.options().dtype(wide));
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, x_TD.scalar_type(), "gather_dot", [&] {
    using wide_t = at::opmath_type<scalar_t>;
    const scalar_t* x = x_c.const_data_ptr<scalar_t>();
    const scalar_t* rows = rows_c.const_data_ptr<scalar_t>();
    const int64_t* index = index_TK.const_data_ptr<int64_t>();
    wide_t* dot = dot_TK.data_ptr<wide_t>();
    parallel_rows(num_tokens * top_k, dim, [&](int64_t begin, int64_t end) FARSKIP_INLINE {
      for (int64_t n = begin; n < end; ++n) {
        const scalar_t* a = x + n / top_k * dim;
        const scalar_t* b = rows + index[n] * dim;
        dot[n] = lane_sum<wide_t>(
            dim, [&](int64_t i) FARSKIP_INLINE { return static_cast<wide_t>(a[i]) * static_cast<wide_t>(b[i]); });
      }
    });
  });
  return dot_TK;
}

SortedIds sort_ids(const at::Tensor& ids_TK, int64_t num_experts) {
  const at::Tensor flat = ids_TK.contiguous().view({-1});
  const int64_t num_rows = flat.size(0);
  SortedIds out;
  if (!flat.device().is_cpu()) {
    out.order = std::get<1>(at::sort(flat, /*stable=*/true, /*dim=*/0, /*descending=*/false));
    out.token = at::div(out.order, ids_TK.size(1), "floor");
    out.inverse =
        at::empty_like(flat).scatter_(0, out.order, at::arange(num_rows, flat.options())).view(ids_TK.sizes());
    out.counts = expert_load(flat, num_experts);
    return out;
  }
  out.order = at::empty_like(flat);
  out.token = at::empty_like(flat);
  out.inverse = at::empty_like(ids_TK, at::MemoryFormat::Contiguous);
  out.counts = at::zeros({num_experts}, flat.options());
  const int64_t* ids = flat.const_data_ptr<int64_t>();
  int64_t* counts = out.counts.data_ptr<int64_t>();
  int64_t* order = out.order.data_ptr<int64_t>();
  int64_t* token = out.token.data_ptr<int64_t>();
  int64_t* inverse = out.inverse.data_ptr<int64_t>();
  for (int64_t i = 0; i < num_rows; ++i) {
    FARSKIP_CHECK(ids[i] >= 0 && ids[i] < num_experts, "an expert id outside the model");
    ++counts[ids[i]];
  }
  std::vector<int64_t> next(num_experts, 0);
  for (int64_t e = 1; e < num_experts; ++e) next[e] = next[e - 1] + counts[e - 1];
  for (int64_t i = 0, top_k = ids_TK.size(1); i < num_rows; ++i) {
    const int64_t row = next[ids[i]]++;
    order[row] = i;
    token[row] = i / top_k;
    inverse[i] = row;
  }
  return out;
}

}  // namespace farskip::nn
