// farskip bench serving: requests that arrive over time, against the engine in this process.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/torch_bench.h"
#include "infer/bench_check.h"
#include "infer/bench_serving.h"
#include "train/launch.h"

namespace farskip::cli {
namespace {

struct ServingArguments {
  ServingOptions options;
  EngineOptions engine;
  TtftOptions model;
  std::string layout, connectivity, request_rate = "inf", goodput, link = "none", dtype, transport = "auto", json;
  int num_ranks = 1;
  int64_t num_warm_up = 2;
};

/// Requests that are not counted, then those that are; the engine stops whatever happens.
ServingResult load(const ServingArguments& arguments, Engine& engine, int64_t vocab_size) {
  struct Stop {
    Engine& engine;
    ~Stop() { engine.stop(); }
  } stop{engine};
  ServingOptions warm_up = arguments.options;
  warm_up.num_prompts = arguments.num_warm_up;
  warm_up.request_rate = 0;
  warm_up.seed += 1;
  if (warm_up.num_prompts > 0) bench_serving(warm_up, engine, vocab_size);
  return bench_serving(arguments.options, engine, vocab_size);
}

void serve_and_measure(const ServingArguments& arguments, RankContext& context) {
  InferenceModel model = load_bench_model(arguments.model, arguments.model.layout, context.world.rank());
  if (!arguments.connectivity.empty())
    model = model.with(Connectivity::parse(arguments.connectivity, model.config().num_layers()));
  Engine engine(model, context.world, arguments.engine);
  if (context.world.rank() != 0) return engine.run();
  ServingResult result;
  std::exception_ptr client_error, engine_error;
  std::thread client([&] {
    try {
      result = load(arguments, engine, model.config().vocab_size);
    } catch (...) {
      client_error = std::current_exception();
    }
  });
  try {
    engine.run();
  } catch (...) {
    engine_error = std::current_exception();
  }
  client.join();
  for (const std::exception_ptr& error : {engine_error, client_error})
    if (error) std::rethrow_exception(error);
  result.model = arguments.model.model;
  std::printf("%s, %s, layout %s, link %s\n%s", result.model.c_str(), model.connectivity().to_string().c_str(),
              arguments.model.layout.to_string().c_str(), arguments.link.c_str(), render_text(result.table()).c_str());
  if (!arguments.json.empty()) write_file(arguments.json, result.to_json().dump(2) + "\n");
  const int64_t failed = arguments.options.num_prompts - result.completed();
  if (failed > 0) std::fprintf(stderr, "%ld of the requests failed\n", static_cast<long>(failed));
}

void run_serving(ServingArguments& arguments) {
  keep_freed_memory();
  ServingOptions& options = arguments.options;
  if (arguments.request_rate != "inf") {
    char* end = nullptr;
    options.request_rate = std::strtod(arguments.request_rate.c_str(), &end);
    if (*end != '\0' || !(options.request_rate > 0))
      fail("--request-rate {}: expected a positive number of requests a second, or inf", arguments.request_rate);
  }
  if (!arguments.goodput.empty()) options.goodput = ServingOptions::parse_goodput(arguments.goodput);
  options.check();
  LaunchOptions launch;
  launch.num_ranks = arguments.num_ranks;
  launch.transport = transport_of(arguments.transport);
  launch.link = LinkSpec::parse(arguments.link);
  const int world = world_size(launch);
  Layout& layout = arguments.model.layout;
  layout = Layout::parse(arguments.layout.empty() ? fmt::format("tp={}", world) : arguments.layout);
  if (layout.world() != world) {
    fail("layout {} needs {} ranks, --nproc (or the launcher) starts {}", layout.to_string(), layout.world(), world);
  }
  const ModelConfig config = load_model_config(arguments.model.model);
  layout.check(config, Phase::prefill);
  if (!arguments.dtype.empty()) arguments.model.dtype = dtype_of(arguments.dtype);
  const double longest = static_cast<double>(options.input + options.output) * (1 + options.range_ratio);
  if (arguments.engine.max_model_len == 0) {
    arguments.engine.max_model_len =
        std::min<int64_t>(config.max_position_embeddings, static_cast<int64_t>(longest) + 2);
  }
  const int status = run_on_ranks(launch, [&](RankContext& context) { serve_and_measure(arguments, context); });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_bench_serving(CLI::App& bench) {
  auto arguments = std::make_shared<ServingArguments>();
  ServingOptions& options = arguments->options;
  CLI::App* command = bench.add_subcommand("serving", "Requests that arrive over time, with vLLM's metrics");
  const auto count = CLI::Range(int64_t{1}, int64_t{1} << 20).description("");
  command->add_option("model", arguments->model.model, "Preset or config.json (random weights), or a model folder")
      ->required();
  command->add_option("--nproc", arguments->num_ranks, "Ranks on this machine")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--layout", arguments->layout, "tp=2, ep=2 or ep=2,exchange=a2a (default: tp = ranks)");
  command->add_option("--connectivity", arguments->connectivity, "Instead of what the config.json says");
  command->add_option("--num-prompts", options.num_prompts, "Requests")->capture_default_str()->check(count);
  command->add_option("--request-rate", arguments->request_rate, "Arrivals a second (a Poisson process), or inf")
      ->capture_default_str();
  command->add_option("--max-concurrency", options.max_concurrency, "Requests under way at a time; 0: any number")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--random-input-len", options.input, "Tokens of each prompt")
      ->capture_default_str()
      ->check(count);
  command->add_option("--random-output-len", options.output, "Tokens made for each")
      ->capture_default_str()
      ->check(count);
  command->add_option("--random-range-ratio", options.range_ratio, "Part by which lengths vary, up and down")
      ->capture_default_str();
  command->add_option("--metric-percentiles", options.percentiles, "Percentiles of all metrics")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--goodput", arguments->goodput, "Most ms of a good request, as in ttft:200,tpot:50,e2el:5000");
  command->add_option("--num-warmups", arguments->num_warm_up, "Requests before, which are not counted")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--max-num-seqs", arguments->engine.max_num_seqs, "Sequences in a step")
      ->capture_default_str()
      ->check(count);
  command->add_option("--max-num-batched-tokens", arguments->engine.max_num_batched_tokens, "Tokens in a step")
      ->capture_default_str()
      ->check(count);
  command->add_option("--link", arguments->link, "Emulated link: rate=2gbit,latency=50us, or none")
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "fp32 or bf16 (default: the model's)")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command->add_option("--transport", arguments->transport, "auto, loopback, gloo or nccl")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "loopback", "gloo", "nccl"}));
  command->add_option("--seed", options.seed, "Of weights, prompts and arrivals")->capture_default_str();
  command->add_option("--save-result,--json", arguments->json, "Write vLLM's result keys to this file");
  command->callback([arguments] {
    arguments->model.seed = arguments->options.seed;
    run_serving(*arguments);
  });
}

}  // namespace farskip::cli
