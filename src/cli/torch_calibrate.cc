#include "cli/torch_calibrate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "cli/text_tokens.h"
#include "config/checkpoint_folder.h"
#include "distill/calibrate.h"
#include "distill/calibration_plan.h"
#include "model/checkpoint.h"
#include "trace/table.h"
#include "transport/loopback.h"

namespace farskip::cli {
namespace {

at::Tensor sequences(const std::string& folder, const ModelConfig& model, const CalibrateArguments& arguments) {
  const int64_t wanted =
      arguments.num_tokens > 0 ? arguments.num_tokens : calibration_tokens_per_channel * model.hidden_size;
  const int64_t length = model.max_position_embeddings > 0
                             ? std::min(arguments.seq_length, model.max_position_embeddings)
                             : arguments.seq_length;
  const std::vector<int32_t> tokens = text_tokens(arguments.text, folder, model, wanted);
  const int64_t num_sequences = std::ssize(tokens) / length;
  if (num_sequences < 2) {
    fail("{}: {} tokens; calibration needs at least two sequences of {}, better {} tokens ({} for each of {} channels)",
         arguments.text, tokens.size(), length, calibration_tokens_per_channel * model.hidden_size,
         calibration_tokens_per_channel, model.hidden_size);
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= model.vocab_size)
      fail("token {} of {} is {}, outside the model's vocabulary of {}", i, arguments.text, tokens[i],
           model.vocab_size);
  }
  return at::tensor(std::vector<int64_t>(tokens.begin(), tokens.begin() + num_sequences * length), at::kLong)
      .view({num_sequences, length});
}

void tell(const CalibrationReport& report) {
  Table table{{"layer", "map", "damping", "error before", "after"}, {}, ""};
  for (const auto& map : report.maps) {
    table.rows.push_back({std::to_string(map.layer), std::string(to_string(map.site)),
                          map.num_maps > 1     ? fmt::format("{} of {} mapped", map.num_mapped, map.num_maps)
                          : map.num_mapped > 0 ? fmt::format("{:g}", map.damping)
                                               : "not mapped",
                          fmt::format("{:.4f}", map.identity_error), fmt::format("{:.4f}", map.error)});
  }
  std::printf("%s", render_text(table).c_str());
  std::printf(
      "held out, %.0f tokens: KL to the model as it was %.4f before, %.4f after; likeliest token the same in %.1f %%, "
      "%.1f %%\n",
      report.after.num_tokens, report.before.kl, report.after.kl, 100 * report.before.top1, 100 * report.after.top1);
}

}  // namespace

std::map<std::string, at::Tensor> calibrated_tensors(const std::string& in, const std::string& connectivity,
                                                     const CalibrateArguments& arguments) {
  const std::string folder = resolve_model_folder(in);
  const ModelConfig model = load_model_config(folder);
  const auto from = Connectivity::from_config(model.raw, model.num_layers());
  const auto to = Connectivity::parse(connectivity, model.num_layers());
  if (from == to) fail("{} has the connectivity {} already: there is nothing to calibrate", in, to.to_string());
  const at::Tensor tokens = sequences(folder, model, arguments);
  fmt::print("{}\n", describe_calibration(model, tokens.numel(), tokens.size(1), arguments.spool_folder));
  std::fflush(stdout);
  const auto table = std::make_shared<const ParameterTable>(model);
  ParameterSet parameters(table, {.keep_main = false});
  load_checkpoint(folder, parameters);
  CalibrationReport report;
  CalibrationOptions options;
  options.spool_folder = arguments.spool_folder;
  options.on_progress =
      calibration_progress(model.num_layers(), [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
  run_ranks(1, [&](World& world) {
    const Communicators communicators = Communicators::make(world, {});
    report = calibrate(model, from, to, parameters, communicators, {}, tokens, options);
  });
  tell(report);
  if (!report.accepted()) {
    fail(
        "calibration does not help: on held-out text the KL to {} would go from {:.4f} to {:.4f}; nothing was written. "
        "Give more text like what the model was trained on (--calibrate-tokens), or convert without --calibrate",
        from.to_string(), report.before.kl, report.after.kl);
  }
  nn::ModelWeights weights = parameters.weights();
  std::map<std::string, at::Tensor> tensors;
  for (const nn::Param* param : report.mapped_weights(weights)) {
    for (auto& [name, tensor] : (*table)[param->id].tensors_of(param->value)) tensors[name] = tensor;
  }
  return tensors;
}

}  // namespace farskip::cli
