#include "cli/torch_calibrate.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "cli/text_tokens.h"
#include "config/checkpoint_folder.h"
#include "distill/calibrate.h"
#include "distill/calibration_plan.h"
#include "layer/export_config.h"
#include "model/checkpoint.h"
#include "model/convert_checkpoint.h"
#include "trace/table.h"
#include "train/launch.h"

namespace farskip::cli {
namespace {

/// All sequences of the text, [N, S].
at::Tensor sequences(const std::string& folder, const ModelConfig& model, const CalibrateArguments& arguments,
                     int num_ranks) {
  const int64_t wanted =
      arguments.num_tokens > 0 ? arguments.num_tokens : calibration_tokens_per_channel * model.hidden_size;
  const int64_t length = model.max_position_embeddings > 0
                             ? std::min(arguments.seq_length, model.max_position_embeddings)
                             : arguments.seq_length;
  const std::vector<int32_t> tokens = text_tokens(arguments.text, folder, model, wanted);
  const int64_t num_sequences = std::ssize(tokens) / length;
  if (num_sequences < 2 * num_ranks) {
    fail(
        "{}: {} tokens; calibration needs at least two sequences of {}{}, better {} tokens ({} for each of {} "
        "channels)",
        arguments.text, tokens.size(), length, num_ranks > 1 ? fmt::format(" on each of {} ranks", num_ranks) : "",
        calibration_tokens_per_channel * model.hidden_size, calibration_tokens_per_channel, model.hidden_size);
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

/// Names of the tensors that hold what the maps have changed, with their parameters.
std::map<std::string, int> changed_names(const CalibrationReport& report, ParameterSet& parameters) {
  nn::ModelWeights weights = parameters.weights();
  std::map<std::string, int> names;
  for (const nn::Param* param : report.mapped_weights(weights)) {
    for (const auto& [name, shape] : parameters.table()[param->id].tensors()) names[name] = param->id;
  }
  return names;
}

/// Of a rank that holds all experts.
ChangedTensors in_memory(const CalibrationReport& report, ParameterSet& parameters) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, id] : changed_names(report, parameters)) {
    if (tensors.contains(name)) continue;
    for (auto& [made, tensor] : parameters.table()[id].tensors_of(parameters.value(id))) tensors[made] = tensor;
  }
  return [tensors = std::move(tensors)](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? at::Tensor() : found->second;
  };
}

/// Of a folder that holds all weights.
ChangedTensors on_disk(const CalibrationReport& report, ParameterSet& parameters, const std::string& folder) {
  return [names = changed_names(report, parameters), reader = std::make_shared<const SafetensorsReader>(folder)](
             const std::string& name) { return names.contains(name) ? reader->tensor(name) : at::Tensor(); };
}

class RemovedAtEnd {
 public:
  explicit RemovedAtEnd(std::string folder) : folder_(std::move(folder)) {}
  ~RemovedAtEnd() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  RemovedAtEnd(const RemovedAtEnd&) = delete;
  RemovedAtEnd& operator=(const RemovedAtEnd&) = delete;

 private:
  std::string folder_;
};

}  // namespace

void with_calibrated_tensors(const std::string& in, const std::string& connectivity,
                             const CalibrateArguments& arguments, const std::string& aside,
                             const std::function<void(const ChangedTensors&)>& use) {
  const std::string folder = resolve_model_folder(in);
  const ModelConfig model = load_model_config(folder);
  const auto from = Connectivity::from_config(model.raw, model.num_layers());
  const auto to = Connectivity::parse(connectivity, model.num_layers());
  if (from == to) fail("{} has the connectivity {} already: there is nothing to calibrate", in, to.to_string());
  LaunchOptions launch;
  launch.transport = transport_of(arguments.transport);
  const Layout layout = layout_of_ranks(arguments.layout, arguments.num_ranks, launch, [&](int ranks) {
    const auto ep = static_cast<int>(std::gcd<int64_t>(ranks, model.num_experts));
    return Layout{.ep = ep, .dp = ranks / ep};
  });
  layout.check(model, Phase::train);
  const int num_ranks = layout.world();
  if (num_ranks > 1) check_not_there(aside);
  const at::Tensor all_tokens = sequences(folder, model, arguments, num_ranks);
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const int rank = context.world.rank();
    // As many sequences on every rank, so that those held out are the last ones of the text, whatever the ranks.
    const int64_t per_rank = all_tokens.size(0) / num_ranks;
    const at::Tensor tokens =
        all_tokens.narrow(0, 0, per_rank * num_ranks).view({per_rank, num_ranks, -1}).select(1, rank).contiguous();
    ParameterSet parameters(std::make_shared<const ParameterTable>(model),
                            {.expert_rank = rank % layout.ep, .expert_ranks = layout.ep, .keep_main = false});
    CalibrationOptions options;
    options.spool_folder = arguments.spool_folder;
    if (rank == 0) {
      fmt::print("{}\n", describe_calibration(model, tokens.numel(), tokens.size(1), layout, arguments.spool_folder));
      std::fflush(stdout);
      options.on_progress =
          calibration_progress(model.num_layers(), [](const std::string& line) { fmt::print(stderr, "{}\n", line); });
    }
    load_checkpoint(folder, parameters);
    const Communicators communicators = Communicators::make(context.world, layout);
    const CalibrationReport report = calibrate(model, from, to, parameters, communicators, layout, tokens, options);
    if (rank == 0) tell(report);
    if (!report.accepted()) {
      if (rank != 0) return;
      fail(
          "calibration does not help: on held-out text the KL to {} would go from {:.4f} to {:.4f}; nothing was "
          "written. Give more text like what the model was trained on (--calibrate-tokens), or convert without "
          "--calibrate",
          from.to_string(), report.before.kl, report.after.kl);
    }
    if (num_ranks == 1) return use(in_memory(report, parameters));
    std::optional<RemovedAtEnd> removed;
    if (rank == 0) removed.emplace(aside);
    SaveOptions save;
    save.gather = [&](const at::Tensor& block, int64_t owner) { return communicators.gather_block(block, owner); };
    if (rank < layout.ep) save_checkpoint(aside, export_config(model, to), parameters, save);
    if (rank == 0) use(on_disk(report, parameters, aside));
  });
  if (status != 0) throw CLI::RuntimeError(status);
}

void add_calibrate_options(CLI::App& command, CalibrateArguments& arguments) {
  CLI::Option* calibrate = command.add_option(
      "--calibrate", arguments.text,
      std::string(text_help) + ":\nfit the weights to --connectivity in closed form, without training");
  command
      .add_option("--calibrate-tokens", arguments.num_tokens,
                  "Tokens of it (default: 128 for each channel of the hidden size)")
      ->check(CLI::PositiveNumber)
      ->needs(calibrate);
  command.add_option("--calibrate-seq-length", arguments.seq_length, "Tokens of a sequence")
      ->capture_default_str()
      ->check(CLI::PositiveNumber)
      ->needs(calibrate);
  command
      .add_option("--spool", arguments.spool_folder,
                  "Folder where calibration keeps what waits between layers (default: memory)")
      ->needs(calibrate);
  command.add_option("--nproc", arguments.num_ranks, "Ranks that calibrate, each on a part of the text")
      ->check(CLI::PositiveNumber)
      ->needs(calibrate);
  command
      .add_option("--layout", arguments.layout,
                  "ep=N,dp=N: experts divided among N ranks (default: among as many\nas their number allows)")
      ->needs(calibrate);
  command.add_option("--transport", arguments.transport, "auto: ranks are threads, or a launcher's processes")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "loopback", "gloo", "nccl"}))
      ->needs(calibrate);
}

}  // namespace farskip::cli
