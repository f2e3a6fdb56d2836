// farskip train RECIPE.yaml [key=value ...] [--nproc N]

#include <cstdio>
#include <memory>

#include "base/log.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/dry_run.h"
#include "train/parameter_rates.h"
#include "train/trainer.h"

namespace farskip::cli {
namespace {

struct TrainArguments {
  std::string recipe;
  std::vector<std::string> overrides;
  int num_ranks = 1;
  bool dry_run = false;
  std::string machine = "cpu";
};

void run_train(const TrainArguments& arguments) {
  TrainConfig config = load_train_config(arguments.recipe, arguments.overrides);
  const LaunchOptions launch = launch_options(config, arguments.num_ranks);
  config.resolve(world_size(launch));
  const TrainingModel model = TrainingModel::load(config);
  if (arguments.dry_run) {
    std::printf("%s", dry_run_text(config, model.config, model.connectivity, std::nullopt,
                                   frozen_weights(model.config, config), arguments.machine)
                          .c_str());
    return;
  }
  keep_freed_memory();
  const TrainData data = TrainData::open(config, model.config.vocab_size);
  const int status = run_on_ranks(launch, [&](RankContext& context) { train(config, data, context); });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_train(CLI::App& app) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* command = app.add_subcommand("train", "Train a model from a recipe");
  command->add_option("recipe", arguments->recipe, "YAML file of settings, in Megatron's names")->required();
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
        std::printf("%s", train_settings_help().c_str());
        throw CLI::RuntimeError(0);
      },
      "Print all settings with defaults and meanings");
  command->callback([arguments] { run_train(*arguments); });
}

}  // namespace farskip::cli
