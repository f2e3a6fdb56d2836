#include <ATen/ATen.h>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "config/checkpoint_folder.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "train/checkpoint_writer.h"
#include "train/load_cost.h"

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
    const SafetensorsReader moments(folder + "/optimizer.safetensors.index.json");
    for (const auto& info : parameters.table().parameters()) {
      auto restore = [&](const char* moment, const at::Tensor& tensor) {
        parameters.for_each_piece(info.id, tensor, [&](const TensorPiece& piece, at::Tensor block) {
          const std::string name = fmt::format("{}.{}", moment, piece.name);
          block.copy_(moments.tensor(name));
          moments.release(name);
        });
      };
      restore("exp_avg", optimizer.exp_avg(info.id));
      restore("exp_avg_sq", optimizer.exp_avg_sq(info.id));
    }
    optimizer.set_num_steps(state.optimizer_steps);
    report.bytes_read += moments.bytes_read();
    report.bytes_in_folder += moments.bytes_in_all();
    report.seconds += monotonic_seconds() - begin_s;
    log_load_cost(folder, report, world);
    return state;
  }
  fail("{}: none of its checkpoints is sound; start without load, or bring a backup back", root);
}

}  // namespace farskip
