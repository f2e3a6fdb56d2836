#include "distill/calibration_plan.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/progress.h"
#include "config/flops.h"
#include "distill/calibrate.h"

namespace farskip {
namespace {

constexpr double seconds_between_lines = 2;

/// FLOP/s of a product of `rows` x `width` with a square weight in `type`, the best of three.
double product_rate(int64_t width, at::ScalarType type) {
  const int64_t rows = 512;
  const at::Tensor a = at::ones({rows, width}, type), b = at::ones({width, width}, type);
  double best = 0;
  for (int i = 0; i < 4; ++i) {  // the first wakes the threads
    const double begin = monotonic_seconds();
    const at::Tensor c = at::matmul(a, b);
    const double seconds = monotonic_seconds() - begin;
    const auto flops = 2 * static_cast<double>(rows) * static_cast<double>(width) * static_cast<double>(width);
    if (i > 0) best = std::max(best, flops / seconds);
  }
  return best;
}

/// FLOPs of fitting maps from `num_parts` parts on `tokens`, `num_maps` of them (experts) sharing the tokens.
double fit_flops(double hidden_size, double num_parts, double tokens, double num_maps) {
  const double n = num_parts * hidden_size;
  const double sums = 2 * tokens * n * (n + hidden_size);
  const double solution = n * n * n / 3 + 2 * n * n * hidden_size, judged = 2 * n * n * hidden_size;
  const auto num_dampings = static_cast<double>(CalibrationOptions{}.dampings.size());
  return sums + num_maps * (num_dampings * (solution + judged) + judged);
}

}  // namespace

double map_statistics_bytes(int64_t hidden_size, int64_t num_parts) {
  const auto size = static_cast<double>(hidden_size), parts = static_cast<double>(num_parts);
  return 2 * 8 * size * size * (parts * parts + parts);
}

bool expert_maps_fit(const ModelConfig& model, double max_bytes) {
  return static_cast<double>(model.num_experts) * map_statistics_bytes(model.hidden_size, 1) <= max_bytes;
}

CalibrationPlan plan_calibration(const ModelConfig& model, int64_t num_tokens, int64_t seq_length,
                                 const Layout& layout) {
  const CalibrationOptions options;
  const auto size = static_cast<double>(model.hidden_size), tokens = static_cast<double>(num_tokens);
  const auto top_k = static_cast<double>(model.top_k);
  const double num_experts = static_cast<double>(model.num_experts) / layout.ep;  // of this rank
  const double of_experts = num_experts * map_statistics_bytes(model.hidden_size, 1);
  const bool experts_have_maps = expert_maps_fit(model, options.max_expert_bytes);
  CalibrationPlan plan;
  double held = static_cast<double>(model.num_parameters());
  const double of_expert = 3 * size * static_cast<double>(model.moe_intermediate_size);
  for (int k = 0; k < model.num_layers(); ++k) {
    if (model.is_moe(k)) held -= (static_cast<double>(model.num_experts) - num_experts) * of_expert;
  }
  plan.weight_bytes = 4 * held;
  // Attention, routed or dense, shared.
  const int64_t num_parts = model.has_shared() ? 3 : 2;
  // As much again while a map is made; of each token a few streams of teacher and student, and rows of experts.
  plan.statistics_bytes =
      std::max(2 * map_statistics_bytes(model.hidden_size, num_parts), experts_have_maps ? of_experts : 0.0);
  plan.waiting_bytes = (10 + top_k) * size * 4 * tokens;

  const TokenFlops token = model_flops(model, seq_length);
  const double layers = token.total() - token.head, held_out = options.held_out;
  plan.forward_flops = 2 * tokens * (layers + held_out * (layers + 2 * token.head));
  for (int k = 0; k < model.num_layers(); ++k) {
    const bool moe = model.is_moe(k);
    const double of_layer = fit_flops(size, moe ? static_cast<double>(num_parts) : 2, tokens, 1);
    plan.statistics_flops += 2 * fit_flops(size, 1, tokens, 1) + of_layer;
    if (moe && experts_have_maps) {
      plan.statistics_flops += of_layer;
      plan.statistics_flops += (1 + options.expert_rounds) * fit_flops(size, 1, tokens * top_k, num_experts);
    }
  }
  plan.statistics_flops += fit_flops(size, 1, tokens, 1);
  // Maps meet each weight once, the experts' last one in each round and once more.
  plan.statistics_flops += 2 * size * held * 2;
  return plan;
}

double expected_seconds(const CalibrationPlan& plan, int64_t hidden_size) {
  const int64_t width = std::clamp<int64_t>(hidden_size, 64, 1024);
  return plan.forward_flops / product_rate(width, at::kFloat) +
         plan.statistics_flops / product_rate(width, at::kDouble);
}

std::string describe_calibration(const ModelConfig& model, int64_t num_tokens, int64_t seq_length, const Layout& layout,
                                 const std::string& spool_folder) {
  const CalibrationPlan plan = plan_calibration(model, num_tokens, seq_length, layout);
  const auto bytes = [](double number) { return format_bytes(static_cast<int64_t>(number)); };
  const std::string ranks = layout.world() > 1 ? fmt::format(" on each of {} ranks", layout.world()) : "";
  return fmt::format("calibration on {} tokens{}: {} of weights in fp32, {} of statistics, {} of streams {}; about {}",
                     num_tokens, ranks, bytes(plan.weight_bytes), bytes(plan.statistics_bytes),
                     bytes(plan.waiting_bytes), spool_folder.empty() ? "in memory" : "in " + spool_folder,
                     format_duration(expected_seconds(plan, model.hidden_size)));
}

std::function<void(int64_t)> calibration_progress(int64_t num_layers, std::function<void(const std::string&)> say) {
  const double begin = monotonic_seconds();
  return [=, told = begin](int64_t layers) mutable {
    const double now = monotonic_seconds();
    if (now - told < seconds_between_lines) return;
    told = now;
    const double left = (now - begin) / static_cast<double>(layers) * static_cast<double>(num_layers - layers);
    say(fmt::format("calibrated {} of {} layers, {} left", layers, num_layers, format_duration(left)));
  };
}

}  // namespace farskip
