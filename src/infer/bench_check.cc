#include "infer/bench_check.h"

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "config/checkpoint_folder.h"
#include "infer/batch_run.h"
#include "schedule/hand_orders.h"

namespace farskip {
namespace {

constexpr double fp32_tolerance = 1e-4, bf16_tolerance = 1e-1;

int num_steps(const TtftOptions& options) {
  return static_cast<int>(std::min<int64_t>(num_checked_steps, options.output));
}

std::set<std::string> connectivities_of(const TtftOptions& options) {
  std::set<std::string> names;
  for (const BenchMode& mode : options.modes) names.insert(mode.connectivity);
  return names;
}

BatchAnswer plain_answer(const TtftOptions& options, const InferenceModel& model, const Communicators& communicators,
                         const std::vector<std::vector<int32_t>>& prompts, int num_microbatches) {
  BatchRun run(model, communicators, options.run_options(model.config(), num_microbatches));
  const StageGraph& graph = run.decoder().graph();
  const Schedule schedule = num_microbatches == 1 ? reference_schedule(graph) : two_batch_schedule(graph);
  return answer_of(run, prompts, num_steps(options), schedule, schedule);
}

/// Of a whole model on rank 0, as every rank of `world` needs it: its own sequences.
BatchAnswer one_rank_answer(const TtftOptions& options, const InferenceModel* whole, const Connectivity& connectivity,
                            const std::vector<std::vector<int32_t>>& prompts, const std::vector<int64_t>& own,
                            int64_t vocab_size, Transport& world) {
  at::Tensor logits = at::empty({num_steps(options), options.batch, vocab_size}, at::kFloat);
  if (whole != nullptr) {
    const Communicators alone{make_single("expert"), make_single("expert_data"), make_single("world")};
    const InferenceModel model = whole->with(connectivity);
    logits = plain_answer(options, model, alone, prompts, 1).logits.contiguous();
  }
  if (world.size() > 1) logits = world.broadcast(logits, 0, "one rank's logits").await();
  BatchAnswer answer;
  answer.logits = logits.index_select(1, at::tensor(own, at::kLong));
  for (int step = 0; step < num_steps(options); ++step) {
    const at::Tensor likeliest = answer.logits[step].argmax(-1).to(at::kInt).contiguous();
    answer.tokens.emplace_back(likeliest.data_ptr<int32_t>(), likeliest.data_ptr<int32_t>() + likeliest.numel());
  }
  return answer;
}

}  // namespace

InferenceModel load_bench_model(const TtftOptions& options, const Layout& layout, int rank) {
  InferenceModelOptions model_options;
  model_options.dtype = options.dtype;
  model_options.layout = layout;
  model_options.rank = rank;
  const std::string folder = resolve_model_folder(options.model);
  bool weights = false;
  if (std::filesystem::is_directory(folder)) {
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      weights |= entry.path().extension() == ".safetensors";
  }
  if (weights) return InferenceModel(folder, model_options);
  return InferenceModel(load_model_config(options.model), options.seed, model_options);
}

BatchAnswer answer_of(BatchRun& run, const std::vector<std::vector<int32_t>>& prompts, int num_steps,
                      const Schedule& prefill, const Schedule& decode) {
  BatchAnswer answer;
  std::vector<at::Tensor> logits;
  run.start(prompts);
  for (int step = 0; step < num_steps; ++step) {
    if (step < 2) run.decoder().set_schedule(step == 0 ? prefill : decode);
    logits.push_back(run.step().clone());
    answer.tokens.push_back(run.tokens());
  }
  answer.logits = at::stack(logits);
  return answer;
}

void check_same_bits(const BatchAnswer& expected, const BatchAnswer& answer, const std::string& what) {
  if (at::equal(expected.logits, answer.logits)) return;
  const at::Tensor differ = expected.logits.ne(answer.logits).flatten(1).any(-1).nonzero();
  fail("{}: logits of {} of {} steps differ from the blocking order's, first in step {}; no schedule may change a bit",
       what, differ.size(0), expected.logits.size(0), differ[0].item<int64_t>());
}

double answer_distance(const BatchAnswer& expected, const BatchAnswer& answer, bool tokens, Transport& world) {
  double distance = 0;
  if (expected.logits.numel() > 0) {
    const double largest = expected.logits.abs().max().item<double>();
    distance = (expected.logits - answer.logits).abs().max().item<double>() / largest;
  }
  if (tokens && expected.tokens != answer.tokens) distance = INFINITY;
  return slowest_rank(world, {distance})[0];
}

std::vector<std::string> check_across(const TtftOptions& options, const InferenceModel& model,
                                      const Communicators& communicators) {
  Transport& world = *communicators.world;
  const bool fp32 = model.dtype() == at::kFloat;
  const double tolerance = fp32 ? fp32_tolerance : bf16_tolerance;
  const std::string agree =
      fmt::format("logits within {:g} of the largest{}", tolerance, fp32 ? ", the same tokens" : "");
  const auto own = sequences_of_rank(options.batch, options.layout, model.rank());
  const int64_t num_layers = model.config().num_layers(), vocab_size = model.config().vocab_size;
  const bool one_rank = options.check_one_rank && world.size() > 1;
  std::optional<InferenceModel> whole;
  if (one_rank && world.rank() == 0) whole.emplace(load_bench_model(options, {}, 0));

  const int num_prompt_sets = options.routing.kind == BenchRouting::Kind::real ? 3 : 1;
  std::vector<std::string> checked;
  for (const std::string& name : connectivities_of(options)) {
    const Connectivity connectivity = Connectivity::parse(name, num_layers);
    const InferenceModel variant = model.with(connectivity);
    bool two_batch = false;
    for (const BenchMode& mode : options.modes) two_batch |= mode.connectivity == name && mode.num_microbatches() == 2;
    if (!two_batch && !one_rank) continue;
    double two_batch_distance = 0, one_rank_distance = 0;
    for (int set = 0;; ++set) {
      const auto prompts = random_prompts(options.batch, options.input, vocab_size, options.seed + set);
      const BatchAnswer answer = plain_answer(options, variant, communicators, prompts, 1);
      if (two_batch)
        two_batch_distance =
            answer_distance(answer, plain_answer(options, variant, communicators, prompts, 2), fp32, world);
      if (one_rank) {
        const BatchAnswer alone =
            one_rank_answer(options, whole ? &*whole : nullptr, connectivity, prompts, own, vocab_size, world);
        one_rank_distance = answer_distance(alone, answer, fp32, world);
      }
      if (std::max(two_batch_distance, one_rank_distance) <= tolerance) break;
      const std::string found =
          fmt::format("{}: two batches differ from one by {:.3g}, {} ranks from one rank by {:.3g}", name,
                      two_batch_distance, world.size(), one_rank_distance);
      if (set + 1 == num_prompt_sets)
        fail("{} of the largest logit (inf: other tokens), with {} set(s) of prompts; the tolerance is {:g}", found,
             num_prompt_sets, tolerance);
      if (world.rank() == 0) log_info(found + "; routers may have had a near tie, other prompts are tried");
    }
    if (two_batch)
      checked.push_back(fmt::format("{}: two batches give what one gives ({}; largest difference {:.2g})", name, agree,
                                    two_batch_distance));
    if (one_rank)
      checked.push_back(fmt::format("{}: {} ranks give what one rank gives ({}; largest difference {:.2g})", name,
                                    world.size(), agree, one_rank_distance));
  }
  return checked;
}

}  // namespace farskip
