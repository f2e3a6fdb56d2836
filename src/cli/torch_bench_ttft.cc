// farskip bench ttft: what an order and a connectivity are worth until the first token, with the proof.

#include <cstdio>
#include <memory>

#include "base/error.h"
#include "base/files.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/torch_bench.h"
#include "infer/bench_ttft.h"
#include "train/launch.h"

namespace farskip::cli {
namespace {

struct TtftArguments {
  TtftOptions options;
  std::string layout, link = "share=0.15", modes = default_bench_modes, routing = "balanced", dtype, transport = "auto",
                      json, html;
  int num_ranks = 2;
  double timeout_s = 300;
};

void run_ttft(TtftArguments& arguments) {
  keep_freed_memory();
  LaunchOptions launch;
  launch.num_ranks = arguments.num_ranks;
  launch.transport = transport_of(arguments.transport);
  launch.timeout_s = arguments.timeout_s;
  const int world = world_size(launch);
  TtftOptions& options = arguments.options;
  options.layout = Layout::parse(arguments.layout.empty() ? fmt::format("tp={}", world) : arguments.layout);
  if (options.layout.world() != world) {
    fail("layout {} needs {} ranks, --nproc (or the launcher) starts {}", options.layout.to_string(),
         options.layout.world(), world);
  }
  const ModelConfig model = load_model_config(options.model);
  options.layout.check(model, Phase::prefill);
  options.modes = parse_bench_modes(arguments.modes, model.num_layers());
  options.routing = BenchRouting::parse(arguments.routing);
  options.routing.experts(model, options.layout);
  options.link = BenchLink::parse(arguments.link);
  if (!arguments.dtype.empty()) options.dtype = dtype_of(arguments.dtype);
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const TtftResult result = bench_ttft(options, context.world, *context.link);
    if (context.world.rank() != 0) return;
    std::printf("%s", result.text().c_str());
    if (!arguments.json.empty()) write_file(arguments.json, result.to_json().dump(2) + "\n");
    if (!arguments.html.empty()) {
      HtmlReport report("farskip bench ttft: " + options.model, "time to first token by connectivity and order");
      result.add_to(report);
      write_file(arguments.html, report.html());
    }
  });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_bench_ttft(CLI::App& bench) {
  auto arguments = std::make_shared<TtftArguments>();
  TtftOptions& options = arguments->options;
  CLI::App* command =
      bench.add_subcommand("ttft", "Time to first token and per output token, by connectivity and order");
  const auto count = CLI::Range(int64_t{1}, int64_t{1} << 20).description("");
  command->add_option("model", options.model, "Preset or config.json (random weights), or a model folder")->required();
  command->add_option("--nproc", arguments->num_ranks, "Ranks on this machine")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--layout", arguments->layout, "tp=2, ep=2 or ep=2,exchange=a2a (default: tp = ranks)");
  command->add_option("--batch", options.batch, "Prompts, of all ranks together")->capture_default_str()->check(count);
  command->add_option("--input", options.input, "Tokens of each prompt")->capture_default_str()->check(count);
  command->add_option("--output", options.output, "Tokens made for each, the first one by the prefill")
      ->capture_default_str()
      ->check(count);
  command
      ->add_option("--link", arguments->link,
                   "Emulated link: share=0.15 (of the blocking FarSkip prefill, link time),\n"
                   "rate=2gbit,latency=50us, or none")
      ->capture_default_str();
  command
      ->add_option("--modes", arguments->modes,
                   "Separated by commas: a connectivity, alone (the best order found) or with\n"
                   "-blocking, -async or -two-batch, as in last=50%/two-batch")
      ->default_str("standard and farskip in all orders");
  command
      ->add_option("--routing", arguments->routing,
                   "balanced, real (routers choose) or skewed=S (the busiest rank: S times the mean)")
      ->capture_default_str();
  command->add_option("--rounds", options.num_rounds, "Runs of each mode, interleaved")
      ->capture_default_str()
      ->check(CLI::Range(6, 100000).description(""));
  command->add_option("--dtype", arguments->dtype, "fp32 or bf16 (default: the model's)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_option("--transport", arguments->transport, "auto, loopback, gloo or nccl")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "loopback", "gloo", "nccl"}));
  command->add_option("--seed", options.seed, "Of random weights and prompts")->capture_default_str();
  command
      ->add_option("--check-one-rank", options.check_one_rank, "Compare with the whole model on one rank before timing")
      ->capture_default_str();
  command->add_option("--json", arguments->json, "Write all figures to this file");
  command->add_option("--html", arguments->html, "Write charts and timelines to this file");
  command->callback([arguments] { run_ttft(*arguments); });
}

}  // namespace farskip::cli
