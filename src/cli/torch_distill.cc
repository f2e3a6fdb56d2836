// farskip distill RECIPE.yaml [key=value ...] [--nproc N]: a checkpoint learns another connectivity from itself.

#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/dry_run.h"
#include "cli/text_tokens.h"
#include "train/trainer.h"

namespace farskip::cli {
namespace {

struct DistillArguments {
  std::string recipe;
  std::vector<std::string> overrides;
  int num_ranks = 1;
  bool dry_run = false;
  std::string machine = "cpu";
};

/// Of the recipe's `calibrate`, where that is a text.
std::vector<int32_t> calibration_tokens(const TrainConfig& config, const ModelConfig& model) {
  const DistillSettings& distill = config.distill;
  if (!distill.calibrates() || distill.calibrate == "true" || resumes(config)) return {};
  const int64_t wanted =
      distill.calibrate_tokens > 0 ? distill.calibrate_tokens : calibration_tokens_per_channel * model.hidden_size;
  std::vector<int32_t> tokens = text_tokens(distill.calibrate, teacher_folder(config), model, wanted);
  for (const int32_t token : tokens) {
    if (token < 0 || token >= model.vocab_size)
      fail("calibrate={}: token {} is outside the model's vocabulary of {}", distill.calibrate, token,
           model.vocab_size);
  }
  return tokens;
}

void run_distill(const DistillArguments& arguments) {
  TrainConfig config = load_distill_config(arguments.recipe, arguments.overrides);
  LaunchOptions launch;
  launch.num_ranks = arguments.num_ranks;
  launch.transport = config.transport;
  launch.link = LinkSpec::parse(config.link);
  launch.timeout_s = config.timeout;
  config.resolve(world_size(launch));
  const TrainingModel model = TrainingModel::load(config);
  if (arguments.dry_run) {
    std::printf("%s", dry_run_text(config, model.config, model.connectivity, model.teacher->connectivity,
                                   arguments.machine)
                          .c_str());
    return;
  }
  keep_freed_memory();
  TrainData data = TrainData::open(config, model.config.vocab_size);
  data.calibration_tokens = calibration_tokens(config, model.config);
  const int status = run_on_ranks(launch, [&](RankContext& context) { train(config, data, context); });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_distill(CLI::App& app) {
  auto arguments = std::make_shared<DistillArguments>();
  CLI::App* command =
      app.add_subcommand("distill", "Repair a model under another connectivity: it learns from what it was");
  command->add_option("recipe", arguments->recipe, "YAML file of settings: teacher, data, and those of train")
      ->required();
  command->add_option("overrides", arguments->overrides, "key=value, after the recipe");
  command
      ->add_option("--nproc", arguments->num_ranks, "Ranks on this machine (torchrun, mpirun and srun give their own)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--dry-run", arguments->dry_run,
                    "Print memory, layout and what hides behind what, and start nothing");
  command->add_option("--machine", arguments->machine, "For --dry-run: the machine to simulate (see farskip show)")
      ->capture_default_str();
  command->add_flag_callback(
      "--help-settings",
      [] {
        std::printf("%s", distill_settings_help().c_str());
        throw CLI::RuntimeError(0);
      },
      "Print all settings with defaults and meanings");
  command->footer(
      "The teacher is a checkpoint (settings teacher=FOLDER), the student the same weights under another connectivity\n"
      "(default: FarSkip from the first MoE layer on). Both run in one stage graph, so that the communication of one\n"
      "hides behind the computation of the other; the loss is the forward KL divergence of their predictions.");
  command->callback([arguments] { run_distill(*arguments); });
}

}  // namespace farskip::cli
