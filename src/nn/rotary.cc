#include "nn/rotary.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "nn/deferred.h"
#include "nn/for_machine.h"

namespace farskip::nn {
namespace {

/// The (fractional) pair that turns `rotations` times within the original context: r = L / (2 pi theta^(2i/dim)).
double correction_dim(double rotations, int64_t dim, double theta, int64_t original_length) {
  return dim * std::log(original_length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

/// On a CPU, in one loop over rows: out [B, H, S, r] = x [B, H or 1, S, r] turned by cos and sin [S, r/2] or
/// [B, 1, S, r/2].
template <typename in_t, typename out_t>
void rotate_rows(const at::Tensor& out, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                 bool interleaved) {
  using wide_t = at::opmath_type<in_t>;
  const int64_t num_heads = out.size(1), length = out.size(2), half = out.size(3) / 2;
  const int64_t head_stride = x.size(1) == 1 ? 0 : x.stride(1), table_stride = cos.dim() == 4 ? cos.stride(0) : 0;
  const int64_t pair = interleaved ? 2 : 1, other = interleaved ? 1 : half;  // from one pair to the next, within one
  const in_t* in = x.const_data_ptr<in_t>();
  out_t* to = out.data_ptr<out_t>();
  const float *cos_data = cos.const_data_ptr<float>(), *sin_data = sin.const_data_ptr<float>();
  const auto strides = [](const at::Tensor& t) { return std::array{t.stride(0), t.stride(1), t.stride(2)}; };
  const auto in_strides = strides(x), to_strides = strides(out);
  parallel_rows(out.size(0) * num_heads * length, 2 * half, [=](int64_t begin, int64_t end) FARSKIP_INLINE {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t b = n / (num_heads * length), h = n / length % num_heads, s = n % length;
      const in_t* from = in + b * in_strides[0] + h * head_stride + s * in_strides[2];
      out_t* row = to + b * to_strides[0] + h * to_strides[1] + s * to_strides[2];
      const float* c = cos_data + b * table_stride + s * half;
      const float* si = sin_data + b * table_stride + s * half;
      for (int64_t i = 0; i < half; ++i) {
        const wide_t first = from[i * pair], second = from[i * pair + other];
        row[i * pair] = static_cast<out_t>(first * c[i] - second * si[i]);
        row[i * pair + other] = static_cast<out_t>(second * c[i] + first * si[i]);
      }
    }
  });
}

/// The two channels of every pair along the last dimension: two views [..., dim/2].
std::pair<at::Tensor, at::Tensor> pairs(const at::Tensor& x, bool interleaved) {
  const int64_t dim = x.size(-1);
  if (interleaved) return {x.slice(-1, 0, dim, 2), x.slice(-1, 1, dim, 2)};
  return {x.narrow(-1, 0, dim / 2), x.narrow(-1, dim / 2, dim / 2)};
}

/// Writes x, rotated by the table's angles, into `out`; cos and sin broadcast against half of x.
void rotate_into(const at::Tensor& out, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                 bool interleaved) {
  const auto dense = [](const at::Tensor& t) { return t.stride(-1) == 1 || t.size(-1) == 1; };
  if (out.is_cpu() && dense(x) && dense(out) && cos.is_contiguous() && sin.is_contiguous() &&
      cos.scalar_type() == at::kFloat) {
    AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, out.scalar_type(), "rotate", [&] {
      using wide_t = at::opmath_type<scalar_t>;
      (x.scalar_type() == out.scalar_type() ? rotate_rows<scalar_t, scalar_t>
                                            : rotate_rows<wide_t, scalar_t>)(out, x, cos, sin, interleaved);
    });
    return;
  }
  const at::Tensor wide = x.to(at::promote_types(x.scalar_type(), cos.scalar_type()));
  const auto [first, second] = pairs(wide, interleaved);
  const auto [out_first, out_second] = pairs(out, interleaved);
  out_first.copy_((first * cos).sub_(second * sin));
  out_second.copy_((second * cos).add_(first * sin));
}

/// Llama 3's scaling of one frequency.
double llama3_frequency(double frequency, const Llama3Scaling& scaling) {
  const double turns = scaling.original_max_position_embeddings * frequency / (2 * std::numbers::pi);
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor || scaling.high_freq_factor == scaling.low_freq_factor) return frequency;
  const double kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return frequency * ((1 - kept) / scaling.factor + kept);
}

void check_inside(const RotaryTable& table, int64_t first, int64_t last) {
  if (first < 0 || last >= table.cos.size(0)) {
    fail(
        "positions {} to {} are asked for, but the rotary table holds {}: raise max_position_embeddings or shorten the "
        "sequence",
        first, last, table.cos.size(0));
  }
}

struct RotateHeads : torch::autograd::Function<RotateHeads> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rope_BSGr,
                            const std::optional<at::Tensor>& plain_BSHn, const at::Tensor& cos, const at::Tensor& sin,
                            bool interleaved) {
    const int64_t num_plain = plain_BSHn ? plain_BSHn->size(3) : 0, num_rope = rope_BSGr.size(3);
    const int64_t num_heads = plain_BSHn ? plain_BSHn->size(2) : rope_BSGr.size(2);
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["interleaved"] = interleaved;
    ctx->saved_data["plain"] = num_plain;
    ctx->saved_data["groups"] = rope_BSGr.size(2);

    const at::Tensor y_BHSd =
        at::empty({rope_BSGr.size(0), num_heads, rope_BSGr.size(1), num_plain + num_rope}, rope_BSGr.options());
    if (plain_BSHn) y_BHSd.narrow(3, 0, num_plain).copy_(plain_BSHn->transpose(1, 2));
    rotate_into(y_BHSd.narrow(3, num_plain, num_rope), rope_BSGr.transpose(1, 2), cos, sin, interleaved);
    return y_BHSd;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const int64_t num_plain = ctx->saved_data["plain"].toInt(), num_groups = ctx->saved_data["groups"].toInt();
    const at::Tensor dy_BHSd = grads[0];
    const int64_t num_heads = dy_BHSd.size(1), num_rope = dy_BHSd.size(3) - num_plain;
    at::Tensor dplain;
    if (num_plain > 0) dplain = dy_BHSd.narrow(3, 0, num_plain).transpose(1, 2);
    at::Tensor dy = dy_BHSd.narrow(3, num_plain, num_rope);
    if (num_groups != num_heads) dy = dy.to(wide_type(dy)).sum(1, true);
    const at::Tensor drope_BSGr = at::empty({dy.size(0), dy.size(2), num_groups, num_rope}, dy_BHSd.options());
    rotate_into(drope_BSGr.transpose(1, 2), dy, saved[0], saved[1].neg(), ctx->saved_data["interleaved"].toBool());
    return {drope_BSGr, dplain, {}, {}, {}};
  }
};

}  // namespace

RotaryTable RotaryTable::positions(int64_t first, int64_t num) const {
  check_inside(*this, first, first + num - 1);
  auto rows = [&](const at::Tensor& table) { return table.defined() ? table.narrow(0, first, num) : table; };
  return {rows(cos), rows(sin), interleaved, rows(temperature)};
}

RotaryTable RotaryTable::positions(const at::Tensor& positions_BS) const {
  // On a device the indexing itself notices, without waiting for a maximum.
  if (positions_BS.device().is_cpu() && positions_BS.numel() > 0)
    check_inside(*this, positions_BS.min().item<int64_t>(), positions_BS.max().item<int64_t>());
  const at::Tensor flat = positions_BS.flatten();
  auto rows = [&](const at::Tensor& table) {
    if (!table.defined()) return table;
    return table.index_select(0, flat).view({positions_BS.size(0), 1, positions_BS.size(1), table.size(1)});
  };
  return {rows(cos), rows(sin), interleaved, rows(temperature)};
}

std::vector<double> rotary_frequencies(const RotaryConfig& config, int64_t dim) {
  if (dim <= 0 || dim % 2 != 0)
    fail("rotary embedding turns pairs of channels, but the head has {}: use an even number", dim);
  std::vector<double> frequencies(dim / 2);
  for (int64_t i = 0; i < dim / 2; ++i) frequencies[i] = std::pow(config.theta, -2.0 * i / dim);
  if (config.llama3) {
    for (double& frequency : frequencies) frequency = llama3_frequency(frequency, *config.llama3);
  }
  if (!config.yarn) return frequencies;

  const Yarn& yarn = *config.yarn;
  const int64_t length = yarn.original_max_position_embeddings;
  const double low = std::max(0.0, std::floor(correction_dim(yarn.beta_fast, dim, config.theta, length)));
  double high = std::min(dim - 1.0, std::ceil(correction_dim(yarn.beta_slow, dim, config.theta, length)));
  if (low == high) high += 0.001;  // DeepSeek's way out of a division by zero
  for (int64_t i = 0; i < dim / 2; ++i) {
    const double slowed = std::clamp((i - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= slowed / yarn.factor + (1.0 - slowed);
  }
  return frequencies;
}

RotaryTable make_rotary(const RotaryConfig& config, int64_t dim, int64_t num_positions, at::Device device) {
  const std::vector<double> frequencies = rotary_frequencies(config, dim);
  double magnitude = 1.0;
  if (config.yarn) {
    magnitude = Yarn::attention_factor(config.yarn->factor, config.yarn->mscale) /
                Yarn::attention_factor(config.yarn->factor, config.yarn->mscale_all_dim);
  }
  const at::Tensor positions = at::arange(num_positions, at::kDouble);
  const at::Tensor angles = at::outer(positions, at::tensor(frequencies, at::kDouble));
  auto rounded = [&](const at::Tensor& table) { return table.to(at::kFloat).to(device); };
  at::Tensor temperature;
  if (config.temperature) {
    const at::Tensor steps = ((positions + 1) / config.temperature->floor).floor();
    temperature = rounded((steps.log1p() * config.temperature->scale + 1).unsqueeze(-1));
  }
  return {rounded(angles.cos() * magnitude), rounded(angles.sin() * magnitude), config.interleaved, temperature};
}

at::Tensor rotate_heads(const at::Tensor& plain, const at::Tensor& rope, const RotaryTable& table) {
  FARSKIP_CHECK(table.rotates(), "a rotary table without angles");
  FARSKIP_CHECK(table.cos.size(-2) == rope.size(1) && 2 * table.cos.size(-1) == rope.size(3),
                "the rotary table fits neither the sequence nor the head");
  return apply<RotateHeads>(rope, plain.defined() ? std::optional(plain) : std::nullopt, table.cos, table.sin,
                            table.interleaved);
}

}  // namespace farskip::nn
