#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "config/checkpoint_folder.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "train/checkpoint_writer.h"
#include "train/load_cost.h"
#include "train/optimizer_state.h"

namespace farskip {
namespace {

/// Rank 0's list on every rank: folders may change while others look.
std::vector<int64_t> agreed_iterations(const std::string& root, Transport& world) {
  std::vector<int64_t> iterations;
  if (world.rank() == 0) iterations = checkpoint_iterations(root);
  auto share = [&](std::vector<int64_t> values) {
    if (world.size() == 1) return values;
    const at::Tensor shared = world.broadcast(at::tensor(values, at::kLong), 0, "checkpoints").await();
    return std::vector<int64_t>(shared.data_ptr<int64_t>(), shared.data_ptr<int64_t>() + shared.numel());
  };
  const int64_t size = share({static_cast<int64_t>(iterations.size())})[0];
  iterations.resize(size);
  return size > 0 ? share(iterations) : iterations;
}

/// The ranks check the sums of the files in turns; true where all of them found all of theirs sound.
bool is_sound(const std::string& folder, Transport& world) {
  std::string problem;
  try {
    int turn = 0;
    const nlohmann::json state = read_training_state(folder);
    for (const auto& [name, record] : state.at("files").items()) {
      if (turn++ % world.size() == world.rank() && problem.empty()) problem = file_problem(folder, name, record);
    }
  } catch (const std::exception& error) {
    problem = error.what();
  }
  if (!problem.empty()) log_warning(fmt::format("{}: not used: {}", folder, problem));
  at::Tensor problems = at::full({1}, problem.empty() ? 0.0 : 1.0, at::kDouble);
  if (world.size() > 1) problems = world.all_reduce(problems, "checkpoint_problems").await();
  return problems.item<double>() == 0;
}

}  // namespace

TrainingState restore_checkpoint(const std::string& root, ParameterSet& parameters, AdamW& optimizer,
                                 Transport& world) {
  const at::NoGradGuard no_grad;
  for (int64_t iteration : agreed_iterations(root, world)) {
    const std::string folder = iteration_folder(root, iteration);
    if (!is_sound(folder, world)) continue;
    const TrainingState state =
        TrainingState::from_json(read_training_state(folder), folder + "/" + training_state_name);
    LoadReport report = load_checkpoint(folder, parameters);
    const double begin_s = monotonic_seconds();
    const StateReader state_of(folder + "/optimizer.safetensors.index.json");
    const SafetensorsReader weights(resolve_model_folder(folder));
    const ParameterShards& shards = optimizer.shards();
    const at::Tensor none = at::zeros({1});
    int64_t without_moments = 0;
    for (const StateRun& run :
         state_runs(parameters.table(), shards.slices(), parameters.first_expert(), parameters.num_local_experts())) {
      auto part = [&](const at::Tensor& slice) { return slice.narrow(0, run.at, run.size); };
      const bool there = state_of.contains("exp_avg", run.tensor);
      part(optimizer.exp_avg(run.slice)).copy_(there ? state_of.read("exp_avg", run) : none);
      part(optimizer.exp_avg_sq(run.slice)).copy_(there ? state_of.read("exp_avg_sq", run) : none);
      without_moments += !there;
      const at::Tensor& main = shards.main(run.slice);
      if (state_of.contains("main", run.tensor)) {
        part(main).copy_(state_of.read("main", run));
      } else if (!main.is_alias_of(parameters.stored(run.parameter))) {
        part(main).copy_(weights.tensor(run.tensor).reshape({-1}).narrow(0, run.begin, run.size));
      }
    }
    if (without_moments > 0)
      log_warning(fmt::format("{}: {} tensors have no moments there, they were frozen; theirs begin at 0", folder,
                              without_moments));
    parameters.update_values();
    optimizer.set_num_steps(state.optimizer_steps);
    report.bytes_read += state_of.reader().bytes_read();
    report.bytes_in_folder += state_of.reader().bytes_in_all();
    report.seconds += monotonic_seconds() - begin_s;
    log_load_cost(folder, report, world);
    return state;
  }
  fail("{}: none of its checkpoints is sound; start without load, or bring a backup back", root);
}

}  // namespace farskip
