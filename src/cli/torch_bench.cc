// farskip bench train: what overlap brings on this machine, with the proof.

#include <cstdio>
#include <memory>

#include "base/files.h"
#include "base/log.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/torch_bench.h"
#include "layer/connectivity.h"
#include "sim/search.h"
#include "trace/render.h"
#include "trace/report.h"
#include "train/bench.h"

namespace farskip::cli {
namespace {

struct BenchArguments {
  BenchOptions options;
  std::string model = "small-moonlight", connectivity = "farskip", layout, schedule = "search", link = "share=0.25",
              dtype = "fp32";
  std::string transport = "auto", json, html;
  int64_t micro_batch_size = 2, num_microbatches = 1, seq_length = 256;
  int num_ranks = 2;
};

void run_bench(BenchArguments& arguments) {
  keep_freed_memory();
  LaunchOptions launch;
  launch.num_ranks = arguments.num_ranks;
  const int world = world_size(launch);
  const int64_t batch = arguments.micro_batch_size * arguments.num_microbatches * world;
  TrainConfig& config = arguments.options.config;
  config = load_train_config(
      "", {"model=" + arguments.model, "connectivity=" + arguments.connectivity,
           "layout=" + (arguments.layout.empty() ? fmt::format("ep={}", world) : arguments.layout),
           "schedule=" + arguments.schedule, "dtype=" + arguments.dtype, "transport=" + arguments.transport,
           fmt::format("micro_batch_size={}", arguments.micro_batch_size), fmt::format("global_batch_size={}", batch),
           fmt::format("seq_length={}", arguments.seq_length), "train_iters=100000", "lr=1e-4"});
  config.resolve(world);
  launch.transport = config.transport;
  arguments.options.link = BenchLink::parse(arguments.link);
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const BenchResult result = bench_train(arguments.options, context);
    if (context.world.rank() != 0) return;
    std::printf("%s, %s, layout %s, %ld x %ld tokens a rank and microbatch, %ld microbatches, %s\n%s",
                arguments.model.c_str(), arguments.connectivity.c_str(), config.layout.c_str(),
                static_cast<long>(arguments.micro_batch_size), static_cast<long>(arguments.seq_length),
                static_cast<long>(arguments.num_microbatches), arguments.dtype.c_str(), result.text().c_str());
    if (!arguments.json.empty()) write_file(arguments.json, result.to_json().dump(2) + "\n");
    if (!arguments.html.empty()) {
      HtmlReport report("farskip bench train: " + arguments.model, arguments.connectivity + ", " + result.schedule);
      report.add_bar_chart(overlap_bars("Communication per collective", result.overlap, result.num_rounds));
      report.add_table(overlap_table(result.overlap, result.num_rounds));
      report.add_timeline(render_svg({result.simulated, result.measured}), "simulated above, measured below, rank 0");
      write_file(arguments.html, report.html());
    }
  });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure what overlap brings on this machine");
  bench->require_subcommand(1);
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = bench->add_subcommand("train", "Training steps: blocking, overlapped, and with a free link");
  command->add_option("--preset,--model", arguments->model, "Preset or model folder")->capture_default_str();
  command->add_option("--connectivity", arguments->connectivity, Connectivity::help())->capture_default_str();
  command->add_option("--nproc", arguments->num_ranks, "Ranks on this machine")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--layout", arguments->layout, "ep=2,dp=1 (default: ep = ranks)");
  command
      ->add_option("--link", arguments->link,
                   "Emulated link: share=0.25 (of the blocking step, link time), rate=2gbit,latency=50us, or none")
      ->capture_default_str();
  command->add_option("--schedule", arguments->schedule, schedule_help())->capture_default_str();
  command->add_option("--transport", arguments->transport, "auto, loopback, gloo or nccl")->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "fp32 or bf16")->capture_default_str();
  command->add_option("--micro-batch-size", arguments->micro_batch_size, "Sequences a rank and microbatch")
      ->capture_default_str();
  command->add_option("--microbatches", arguments->num_microbatches, "Per rank and step")->capture_default_str();
  command->add_option("--seq-length", arguments->seq_length, "Tokens a sequence")->capture_default_str();
  command->add_option("--rounds", arguments->options.num_rounds, "Steps of each kind")
      ->capture_default_str()
      ->check(CLI::Range(6, 100000));
  command->add_option("--json", arguments->json, "Write all figures to this file");
  command->add_option("--html", arguments->html, "Write charts and timelines to this file");
  command->callback([arguments] { run_bench(*arguments); });
  add_bench_ttft(*bench);
  add_bench_serving(*bench);
}

}  // namespace farskip::cli
