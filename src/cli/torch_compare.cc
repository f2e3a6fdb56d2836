// farskip compare RECIPE.yaml: the same model with several connectivities, side by side.

#include <cstdio>
#include <memory>

#include "base/log.h"
#include "cli/command.h"
#include "layer/connectivity.h"
#include "train/compare.h"

namespace farskip::cli {
namespace {

struct CompareArguments {
  std::string recipe, link = "share=0.25", connectivities = "standard farskip";
  std::vector<std::string> overrides;
  CompareOptions options;
  int num_ranks = 2;
};

void run_compare(CompareArguments& arguments) {
  CompareOptions& options = arguments.options;
  options.config = load_train_config(arguments.recipe, arguments.overrides);
  options.link = BenchLink::parse(arguments.link);
  options.connectivities = CLI::detail::split(arguments.connectivities, ' ');
  const LaunchOptions launch = launch_options(options.config, arguments.num_ranks);
  options.config.resolve(world_size(launch));
  const ModelConfig model = load_model_config(options.config.model);
  for (const auto& spelling : options.connectivities) Connectivity::parse(spelling, model.num_layers());
  const TrainData data = TrainData::open(options.config, model.vocab_size);
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const CompareResult result = compare(options, data, context);
    if (context.world.rank() != 0) return;
    std::printf("\n%s\n", render_text(result.table()).c_str());
    if (options.config.report.empty()) return;
    write_compare_report(options, result, options.config.report);
    std::printf("report: %s\n", options.config.report.c_str());
  });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_compare(CLI::App& app) {
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* command =
      app.add_subcommand("compare", "Train one model with several connectivities and measure the overlap of each");
  command->add_option("recipe", arguments->recipe, "YAML file of settings, as for `farskip train`")->required();
  command->add_option("overrides", arguments->overrides, "key=value, after the recipe");
  command->add_option("--nproc", arguments->num_ranks, "Ranks on this machine")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--connectivities", arguments->connectivities, "Spellings, separated by blanks")
      ->capture_default_str();
  command->add_option("--link", arguments->link, "Emulated link: share=0.25, rate=2gbit,latency=50us, or none")
      ->capture_default_str();
  command->add_option("--rounds", arguments->options.num_rounds, "Benchmark steps of each kind")
      ->capture_default_str()
      ->check(CLI::Range(6, 10000));
  command->add_option("-o,--output", arguments->options.output, "Folder for the trained models, one each");
  command->callback([arguments] { run_compare(*arguments); });
}

}  // namespace farskip::cli
