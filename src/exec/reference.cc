#include "exec/reference.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/error.h"

namespace farskip {
namespace {

enum class Measure { absolute, relative, routing, ids };

/// Tensors that one line judges: those whose name is `name` or begins with `name` and a dot.
struct Kind {
  std::string name;
  Measure measure;
  double tolerance;
};

std::vector<Kind> kinds(const std::vector<std::string>& batches, const Tolerances& t, Judge judge) {
  std::vector<Kind> result;
  const auto each = [&](const char* name, Measure measure, double tolerance) {
    for (const auto& batch : batches) result.push_back({fmt::format("{}.{}", name, batch), measure, tolerance});
  };
  if (judge == Judge::logits) {
    each("logits", Measure::relative, t.bf16_logits);
    return result;
  }
  each("logits", Measure::absolute, t.logits);
  each("loss", Measure::absolute, t.loss);
  each("hidden", Measure::absolute, t.hidden);
  each("stream_y", Measure::absolute, t.hidden);
  each("routing", Measure::routing, t.routing);
  result.push_back({"grad", Measure::relative, t.gradients});
  each("greedy", Measure::ids, 0);
  return result;
}

bool is_of(const Kind& kind, const std::string& name) {
  return name == kind.name || name.rfind(kind.name + ".", 0) == 0;
}

/// Every name that a reference of this model has, but stream_y.
std::vector<std::string> expected_names(const ModelConfig& config, const ParameterTable& table,
                                        const std::vector<std::string>& batches) {
  std::vector<std::string> names;
  for (const auto& batch : batches) {
    for (const char* kind : {"input_ids", "logits", "loss", "greedy"})
      names.push_back(fmt::format("{}.{}", kind, batch));
  }
  for (int64_t k = 0; k <= config.num_layers(); ++k) names.push_back(fmt::format("hidden.a.{}", k));
  for (int64_t k = 0; k < config.num_layers(); ++k) {
    if (config.is_moe(k)) names.push_back(fmt::format("routing.a.{}", k));
  }
  for (const auto& info : table.parameters()) {
    for (const auto& [name, shape] : info.tensors()) names.push_back("grad." + name);
  }
  return names;
}

std::string first_of(const std::vector<std::string>& names) {
  constexpr size_t shown = 5;
  const size_t count = std::min(shown, names.size());
  return fmt::format("{}: {}{}", names.size(), fmt::join(names.begin(), names.begin() + count, ", "),
                     names.size() > shown ? ", ..." : "");
}

const char* text_of(Measure measure) {
  constexpr const char* texts[] = {"|d|", "|d|/|g|", "|d|", "ids"};
  return texts[static_cast<size_t>(measure)];
}

/// Infinite where something is not a number, so that it stays the worst.
double difference(Measure measure, const at::Tensor& ours, const at::Tensor& theirs) {
  if (ours.numel() == 0) return 0;
  if (measure == Measure::ids) return ours.ne(theirs).sum().item<double>();
  const at::Tensor a = ours.to(at::kDouble), b = theirs.to(at::kDouble);
  double value = 0;
  if (measure == Measure::relative) {
    const double distance = (a - b).norm().item<double>();
    value = distance == 0 ? 0 : distance / b.norm().item<double>();  // an expert without tokens: 0 of 0
  } else {
    value = (a - b).abs().max().item<double>();
  }
  return std::isnan(value) ? std::numeric_limits<double>::infinity() : value;
}

}  // namespace

Reference::Reference(const std::string& path, const ModelConfig& config, const ParameterTable& table) : reader_(path) {
  batches_ = {"a"};
  if (reader_.contains("input_ids.b")) batches_.push_back("b");
  std::vector<std::string> missing, unknown;
  const auto expected = expected_names(config, table, batches_);
  std::set<std::string> known(expected.begin(), expected.end());
  for (int64_t k = 1; k <= config.num_layers(); ++k) known.insert(fmt::format("stream_y.a.{}", k));
  for (const auto& name : expected) {
    if (!reader_.contains(name)) missing.push_back(name);
  }
  for (const auto& name : reader_.names()) {
    if (!known.count(name)) unknown.push_back(name);
  }
  if (!missing.empty() || !unknown.empty()) {
    fail("{}: is not a reference of this model{}{}", path,
         missing.empty() ? "" : "\n  missing tensors, " + first_of(missing),
         unknown.empty() ? "" : "\n  tensors that the model does not have, " + first_of(unknown));
  }
  check_inputs(config);
}

void Reference::check_inputs(const ModelConfig& config) const {
  for (const auto& batch : batches_) {
    for (const std::string& name : {"input_ids." + batch, "greedy." + batch}) {
      const TensorSpec& spec = reader_.spec(name);
      if (spec.dtype != at::kLong || spec.shape.size() != 2) {
        fail("{}: {} should be int64 ids [sequences, positions], but is {} {}", reader_.source(), name,
             safetensors_dtype(spec.dtype), shape_text(spec.shape));
      }
    }
    const auto& shape = reader_.spec("input_ids." + batch).shape;
    if (shape[0] < 1 || shape[1] < 2) {
      fail("{}: input_ids.{} is {}; a loss needs at least one sequence of 2 tokens", reader_.source(), batch,
           shape_text(shape));
    }
    const at::Tensor ids = tokens(batch);
    const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
    if (low < 0 || high >= config.vocab_size) {
      fail("{}: input_ids.{} run from {} to {}, but the model's vocabulary has {} tokens", reader_.source(), batch, low,
           high, config.vocab_size);
    }
  }
}

at::Tensor Reference::experts(int64_t layer, int64_t top_k) const {
  const auto name = fmt::format("routing.a.{}", layer);
  const at::Tensor weights_TE = reader_.tensor(name).flatten(0, -2);
  const int64_t others = weights_TE.ne(0).sum(-1).ne(top_k).sum().item<int64_t>();
  if (others > 0)
    fail("{}: {}: {} of {} tokens have other than {} experts", reader_.source(), name, others, weights_TE.size(0),
         top_k);
  return std::get<1>(weights_TE.topk(top_k, -1));
}

std::vector<Quantity> Reference::compare(const NamedTensors& computed, const Tolerances& tolerances,
                                         Judge judge) const {
  std::vector<Quantity> result;
  for (const Kind& kind : kinds(batches_, tolerances, judge)) {
    Quantity quantity{kind.name, text_of(kind.measure), -1, kind.tolerance, 0, "", true};
    for (const auto& name : reader_.names()) {
      if (!is_of(kind, name) || computed.count(name) == 0) continue;
      const at::Tensor &ours = computed.at(name), theirs = reader_.tensor(name);
      if (ours.sizes() != theirs.sizes()) {
        fail("{}: {} is {}, but this model gives {}", reader_.source(), name, shape_text(theirs.sizes().vec()),
             shape_text(ours.sizes().vec()));
      }
      ++quantity.num_tensors;
      const double d = difference(kind.measure, ours, theirs);
      if (!(d <= quantity.difference)) {
        quantity.difference = d;
        quantity.worst = name;
      }
      if (kind.measure != Measure::routing || !quantity.same_choice) continue;
      const int64_t others = ours.ne(0).ne(theirs.ne(0)).any(-1).sum().item<int64_t>();
      if (others > 0) {
        quantity.same_choice = false;
        quantity.difference = std::numeric_limits<double>::infinity();
        quantity.worst =
            fmt::format("{}: {} of {} tokens choose other experts", name, others, ours.numel() / ours.size(-1));
      }
    }
    if (quantity.num_tensors > 0) result.push_back(std::move(quantity));
  }
  return result;
}

std::string to_text(const std::vector<Quantity>& quantities) {
  std::string text;
  for (const Quantity& q : quantities) {
    const bool ids = q.measure == "ids";
    const std::string found = ids ? fmt::format("{:.0f} ids differ", q.difference)
                                  : fmt::format("{} {:.1e}, tolerance {:.0e}", q.measure, q.difference, q.tolerance);
    text += fmt::format("{:<12}{:<36}{:<6}", q.name, found, q.ok() ? "ok" : "FAIL");
    if (q.num_tensors > 1) text += fmt::format("worst of {}: {}", q.num_tensors, q.worst);
    if (q.num_tensors == 1 && !q.same_choice) text += q.worst;
    while (text.back() == ' ') text.pop_back();
    text += '\n';
  }
  return text;
}

}  // namespace farskip
