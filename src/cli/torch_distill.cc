// farskip distill RECIPE.yaml [key=value ...] [--nproc N]: a checkpoint learns another connectivity from itself.

#include <algorithm>
#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/dry_run.h"
#include "cli/text_tokens.h"
#include "train/frontier.h"
#include "train/parameter_rates.h"
#include "train/trainer.h"

namespace farskip::cli {
namespace {

struct DistillArguments {
  std::string recipe;
  std::vector<std::string> overrides;
  int num_ranks = 1;
  bool dry_run = false;
  std::string machine;
  bool frontier = false;
  std::string connectivities = "last=25% last=50% last=75% last=90% last=100% attn-only mlp-only";
  std::string link = "share=0.25", output;
  int rounds = 30;
  double bearable = 0.01;
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

int run_frontier(const DistillArguments& arguments, const TrainConfig& config, const TrainData& data,
                 const LaunchOptions& launch) {
  FrontierOptions options;
  options.config = config;
  options.connectivities = CLI::detail::split(arguments.connectivities, ' ');
  options.link = BenchLink::parse(arguments.link);
  options.num_rounds = arguments.rounds;
  options.bearable = arguments.bearable;
  options.output = arguments.output;
  if (!arguments.machine.empty()) options.machine = machine(arguments.machine);
  return run_on_ranks(launch, [&](RankContext& context) {
    const FrontierResult result = frontier(options, data, context);
    if (context.world.rank() != 0) return;
    std::printf("\n%s\n%s\n%s/frontier.html, frontier.json\n", render_text(result.table()).c_str(),
                result.recommendation.c_str(), options.output.c_str());
  });
}

void check_frontier(const DistillArguments& arguments, const TrainConfig& config) {
  if (arguments.output.empty()) throw CLI::RequiredError("--output");
  if (!config.connectivity.empty() || !config.save.empty() || !config.load.empty())
    fail("--frontier trains one student after the other: leave connectivity, save and load out of the recipe");
}

void run_distill(const DistillArguments& arguments) {
  TrainConfig config = load_distill_config(arguments.recipe, arguments.overrides);
  const LaunchOptions launch = launch_options(config, arguments.num_ranks);
  config.resolve(world_size(launch));
  if (arguments.frontier) check_frontier(arguments, config);
  const TrainingModel model = TrainingModel::load(config);
  if (arguments.dry_run) {
    std::printf(
        "%s", dry_run_text(config, model.config, model.connectivity, model.teacher->connectivity,
                           frozen_weights(model.config, config), arguments.machine.empty() ? "cpu" : arguments.machine)
                  .c_str());
    return;
  }
  keep_freed_memory();
  TrainData data = TrainData::open(config, model.config.vocab_size);
  data.calibration_tokens = calibration_tokens(config, model.config);
  const int status = arguments.frontier
                         ? run_frontier(arguments, config, data, launch)
                         : run_on_ranks(launch, [&](RankContext& context) { train(config, data, context); });
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
  command->add_option("--machine", arguments->machine,
                      "For --dry-run (default: cpu) and --frontier: what to simulate (see farskip show)");
  command->add_flag_callback(
      "--help-settings",
      [] {
        std::printf("%s", distill_settings_help().c_str());
        throw CLI::RuntimeError(0);
      },
      "Print all settings with defaults and meanings");
  command->add_flag("--frontier", arguments->frontier,
                    "Distil several connectivities under this budget, time them, and recommend one");
  command->add_option("--connectivities", arguments->connectivities, "For --frontier: spellings, separated by blanks")
      ->capture_default_str();
  command->add_option("--link", arguments->link, "For --frontier: emulated link, as for bench train, or none")
      ->capture_default_str();
  command->add_option("--rounds", arguments->rounds, "For --frontier: benchmark steps of each kind")
      ->capture_default_str()
      ->check(CLI::Range(6, 10000));
  command
      ->add_option("--bearable", arguments->bearable,
                   "For --frontier: share of the teacher's cross-entropy that may be lost")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("-o,--output", arguments->output, "For --frontier: folder for students, table and page");
  command->footer(
      "The teacher is a checkpoint (settings teacher=FOLDER), the student the same weights under another connectivity\n"
      "(default: FarSkip from the first MoE layer on). Both run in one stage graph, so that the communication of one\n"
      "hides behind the computation of the other; the loss is the forward KL divergence of their predictions.");
  command->callback([arguments] { run_distill(*arguments); });
}

}  // namespace farskip::cli
