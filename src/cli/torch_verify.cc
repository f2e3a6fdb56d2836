// farskip verify MODEL_DIR REFERENCE.safetensors: a model against what another program computed with it.

#include <cstdio>
#include <memory>

#include "cli/command.h"
#include "exec/verify.h"
#include "model/safetensors_writer.h"
#include "train/launch.h"

namespace farskip::cli {
namespace {

struct VerifyArguments {
  std::string model, reference, layout, dump, dtype = "fp32", routing = "own";
  VerifyOptions options;
  int num_ranks = 0;  ///< 0: as many as the layout has
};

void run_verify(VerifyArguments& arguments) {
  LaunchOptions launch;
  Layout& layout = arguments.options.layout;
  if (!arguments.layout.empty()) layout = Layout::parse(arguments.layout);
  arguments.options.dtype = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  arguments.options.reference_routing = arguments.routing == "reference";
  launch.num_ranks = arguments.num_ranks > 0 ? arguments.num_ranks : layout.world();
  if (arguments.layout.empty()) layout.ep = world_size(launch);
  bool ok = true;
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const Verification result = verify(arguments.model, arguments.reference, arguments.options, context.world);
    if (context.world.rank() == 0 || launched_as_rank()) ok = result.ok();
    if (context.world.rank() != 0) return;
    std::printf("%s: %s, %s, schedule %s\n%s%s\n", arguments.model.c_str(), result.connectivity.c_str(),
                layout.to_string().c_str(), result.schedule.c_str(), to_text(result.quantities).c_str(),
                result.ok() ? "all within tolerance" : "FAILED");
    if (!result.unused.empty()) std::printf("%s\n", result.unused.c_str());
    if (arguments.dump.empty()) return;
    save_safetensors(arguments.dump, {result.computed.begin(), result.computed.end()});
    std::printf("computed values: %s\n", arguments.dump.c_str());
  });
  if (status != 0 || !ok) throw CLI::RuntimeError(1);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command = app.add_subcommand("verify", "Compare a model with values that another program computed");
  command->add_option("model", arguments->model, "Hugging Face folder: config.json and safetensors")->required();
  command->add_option("reference", arguments->reference, "safetensors file of inputs and expected values")->required();
  command->add_option("--layout", arguments->layout, "ep=2,dp=1 (default: ep = ranks)");
  command->add_option("--nproc", arguments->num_ranks, "Ranks, as threads of this process (default: of the layout)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--schedule", arguments->options.schedule,
                   "reference, async, paper, search or FILE (see `farskip show --format schedule`)")
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "fp32, or bf16: judged by logits alone, needs --routing reference")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  command
      ->add_option("--routing", arguments->routing,
                   "Who chooses experts: own, or reference (batch a alone, as the file says)")
      ->check(CLI::IsMember({"own", "reference"}))
      ->capture_default_str();
  command
      ->add_option("--logits-tolerance", arguments->options.tolerances.bf16_logits,
                   "bf16: largest |d| / |logits|, Euclidean norms")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--dump", arguments->dump, "Write what was computed to this file, under the reference's names");
  command->footer(
      "Compares logits, loss, hidden states, both residual streams, routing, gradients and greedy ids.\n"
      "Exit status: 0 all within tolerance, 1 not.");
  command->callback([arguments] { run_verify(*arguments); });
}

}  // namespace farskip::cli
