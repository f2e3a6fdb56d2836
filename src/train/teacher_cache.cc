#include "train/teacher_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/sha256.h"
#include "config/checkpoint_folder.h"
#include "exec/partial_run.h"
#include "model/safetensors_writer.h"
#include "nn/loss.h"
#include "train/sample_batch.h"
#include "train/teacher.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr const char* description_name = "cache.json";
constexpr size_t max_open_parts = 8;

std::string record_path(const std::string& part) { return part + ".json"; }

/// What all parts of a cache have in common.
nlohmann::json description(const TrainConfig& config) {
  const DistillSettings& d = config.distill;
  return {{"format", 1},
          {"teacher", teacher_fingerprint(config)},
          {"seq_length", config.seq_length},
          {"temperature", d.temperature},
          {"top_k", d.top_k},
          {"top_k_samples", d.top_k_samples},
          {"seed", config.seed}};
}

/// On rank 0: makes the folder, or compares what its description says.
void check_description(const TrainConfig& config) {
  const std::string path = config.distill.teacher_cache + "/" + description_name;
  const nlohmann::json now = description(config);
  create_parent_folders(path);
  if (!fs::exists(path)) return write_file(path, now.dump(1) + "\n");
  const auto then = nlohmann::json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!then.is_object()) fail("{}: not the description of a cache; remove the folder, or name another", path);
  for (const auto& [key, value] : now.items()) {
    if (then.value(key, nlohmann::json()) == value) continue;
    fail("teacher_cache={}: made with another {} ({}, now {}); name another folder, or remove this one",
         config.distill.teacher_cache, key == "teacher" ? "teacher's weights or connectivity" : key,
         then.value(key, nlohmann::json()).dump(), value.dump());
  }
}

struct Part {
  at::Tensor ids, weights, rest, negative_entropy, fingerprints;
};

void write_part(const std::string& path, const Part& part) {
  save_safetensors(path, {{"ids", part.ids},
                          {"weights", part.weights},
                          {"rest", part.rest},
                          {"negative_entropy", part.negative_entropy},
                          {"fingerprints", part.fingerprints}});
  const nlohmann::json record = {{"samples", part.fingerprints.size(0)}, {"file", file_record(path)}};
  write_file(record_path(path), record.dump() + "\n");
}

/// The teacher's forward pass alone, up to its logits.
class TeacherPass {
 public:
  TeacherPass(const TrainConfig& config, RankContext& context)
      : config_(config),
        model_(TeacherModel::load(config)),
        layout_(Layout::parse(config.layout)),
        communicators_(Communicators::make(context.world, layout_)),
        teacher_(config, model_, options_of(config, context, layout_), layout_, *communicators_.world),
        graph_(build_graph(model_.config, model_.connectivity, {Phase::train, layout_, 1, Scope::forward})),
        executor_(graph_, reference_schedule(graph_), teacher_.math(), communicators_, {.record_spans = false}),
        loss_(graph_.find(0, graph_.num_layers(), Pass::forward, Stage::loss)) {}

  /// Targets of some samples; called by all ranks together.
  nn::TeacherTargets targets(const std::vector<TrainSample>& samples, const std::vector<int64_t>& numbers) {
    const at::NoGradGuard no_grad;
    PartialRun run(executor_, sample_batch(samples, config_.seq_length, 1, at::kCPU));
    run.run_before(loss_);
    const at::Tensor logits = run.value(graph_.node(loss_).reads[0]).flatten(0, 1);
    const at::Tensor positions = at::arange(config_.seq_length, at::kLong);
    const at::Tensor streams = (at::tensor(numbers, at::kLong).unsqueeze(1) * config_.seq_length + positions).flatten();
    const DistillSettings& d = config_.distill;
    return nn::sparse_targets(logits, d.top_k, d.temperature, d.top_k_samples, static_cast<uint64_t>(config_.seed),
                              streams);
  }
  Transport& world() { return *communicators_.world; }

 private:
  static ParameterOptions options_of(const TrainConfig& config, RankContext& context, const Layout& layout) {
    ParameterOptions options;
    options.dtype = config.dtype == TrainDtype::bf16 ? at::kBFloat16 : at::kFloat;
    options.expert_rank = context.world.rank() % layout.ep;
    options.expert_ranks = layout.ep;
    return options;
  }

  const TrainConfig& config_;
  TeacherModel model_;
  Layout layout_;
  Communicators communicators_;
  Teacher teacher_;
  StageGraph graph_;
  Executor executor_;
  NodeId loss_;
};

}  // namespace

std::string teacher_fingerprint(const TrainConfig& config) {
  const std::string folder = teacher_folder(config);
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(".safetensors") && !name.starts_with("optimizer-")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  Sha256 sum;
  const auto add = [&](const std::string& text) { sum.update(text.data(), text.size()); };
  add(TeacherModel::load(config).connectivity.to_string());
  add(config.dtype == TrainDtype::bf16 ? " bf16" : " fp32");
  for (const auto& name : names) add("\n" + name + file_record(folder + "/" + name).dump());
  return sum.hex();
}

int64_t fingerprint(const TrainSample& sample) {
  uint64_t value = 0xcbf29ce484222325ull;
  for (const auto* numbers : {&sample.tokens, &sample.cu_seqlens}) {
    for (const int32_t number : *numbers) value = (value ^ static_cast<uint32_t>(number)) * 0x100000001b3ull;
    value = (value ^ 0xff) * 0x100000001b3ull;
  }
  return static_cast<int64_t>(value);
}

std::string CachedTargets::part_path(int64_t first) const {
  return fmt::format("{}/{}-{:010}.safetensors", folder_, name_, first);
}

bool CachedTargets::has_part(int64_t first, int64_t num_samples) const {
  const std::string path = part_path(first);
  if (!fs::exists(record_path(path))) return false;
  const auto record = nlohmann::json::parse(read_file(record_path(path)), nullptr, /*allow_exceptions=*/false);
  if (!record.is_object() || !record.contains("file") || record.value("samples", int64_t{0}) < num_samples)
    return false;
  const std::string problem = file_problem(folder_, fs::path(path).filename(), record["file"]);
  if (!problem.empty()) log_warning(fmt::format("teacher_cache: {}; it is computed again", problem));
  return problem.empty();
}

nn::TeacherTargets CachedTargets::targets(int64_t i, const TrainSample& sample) const {
  const int64_t first = i / samples_per_part * samples_per_part;
  std::shared_ptr<const SafetensorsReader> part;
  {
    const std::lock_guard lock(mutex_);
    if (open_.size() >= max_open_parts && open_.count(first) == 0) open_.erase(open_.begin());
    auto& entry = open_[first];
    if (!entry) entry = std::make_shared<SafetensorsReader>(part_path(first));
    part = entry;
  }
  const int64_t row = i - first;
  if (row >= part->spec("fingerprints").shape[0]) fail("{}: has no sample {}", part->source(), i);
  if (part->slice("fingerprints", row).item<int64_t>() != fingerprint(sample)) {
    fail(
        "{}: sample {} is of other data (another data_path, split, or order); name another teacher_cache, or remove "
        "this one",
        part->source(), i);
  }
  nn::TeacherTargets targets;
  targets.ids = part->slice("ids", row).to(at::kLong);
  targets.weights = part->slice("weights", row).clone();
  targets.rest = part->slice("rest", row).clone();
  targets.negative_entropy = part->slice("negative_entropy", row).clone();
  return targets;
}

void fill_cache(const TrainConfig& config, RankContext& context, const SampleSource& samples, int64_t num_samples,
                const std::string& name) {
  const auto world = context.world.all("cache");
  const int rank = world->rank(), ranks = world->size();
  if (rank == 0) check_description(config);
  world->barrier("cache");
  const CachedTargets cached(config.distill.teacher_cache, name);
  constexpr int64_t each = CachedTargets::samples_per_part;
  if (num_samples > 0 && cached.has_part(0, 1)) cached.targets(0, samples(0));  // of these data
  std::vector<int64_t> missing;
  for (int64_t first = 0; first < num_samples; first += each) {
    if (!cached.has_part(first, std::min(each, num_samples - first))) missing.push_back(first);
  }
  world->barrier("cache");  // nobody writes while somebody still looks
  if (missing.empty()) return;
  TeacherPass pass(config, context);
  const int64_t at_once = config.micro_batch_size, length = config.seq_length;
  const int64_t width = config.distill.top_k + config.distill.top_k_samples;
  const auto num_missing = static_cast<int64_t>(missing.size());
  if (rank == 0) {
    log_info(fmt::format("teacher_cache={}: {} parts of {} samples of {} to be computed, {} a token",
                         config.distill.teacher_cache, num_missing, each, name, format_bytes(8 * width + 8)));
  }
  for (int64_t round = 0; round < num_missing; round += ranks) {
    // A rank without a part of its own computes along with the others.
    const bool idle = round + rank >= num_missing;
    const int64_t first = missing[static_cast<size_t>(idle ? round : round + rank)];
    const int64_t count = std::min(each, num_samples - first);
    Part part{at::empty({count, length, width}, at::kInt), at::empty({count, length, width}, at::kFloat),
              at::empty({count, length}, at::kFloat), at::empty({count, length}, at::kFloat),
              at::empty({count}, at::kLong)};
    int64_t longest = 0;  // of this round's parts: every rank makes as many passes
    for (int64_t r = round; r < std::min(round + ranks, num_missing); ++r)
      longest = std::max(longest, std::min(each, num_samples - missing[static_cast<size_t>(r)]));
    for (int64_t begin = 0; begin < longest; begin += at_once) {
      std::vector<TrainSample> rows;
      std::vector<int64_t> numbers;
      for (int64_t i = begin; i < std::min(begin + at_once, count); ++i) {
        rows.push_back(samples(first + i));
        numbers.push_back(first + i);
        part.fingerprints[i] = fingerprint(rows.back());
      }
      const auto num_rows = static_cast<int64_t>(rows.size());
      if (rows.empty()) {
        rows.push_back(samples(first));
        numbers.push_back(first);
      }
      const nn::TeacherTargets targets = pass.targets(rows, numbers);
      if (num_rows == 0) continue;
      const auto put = [&](at::Tensor& whole, const at::Tensor& of_rows) {
        const at::Tensor place = whole.narrow(0, begin, num_rows);
        place.copy_(of_rows.view(place.sizes()));
      };
      put(part.ids, targets.ids);
      put(part.weights, targets.weights);
      put(part.rest, targets.rest);
      put(part.negative_entropy, targets.negative_entropy);
    }
    if (!idle) write_part(cached.part_path(first), part);
  }
  world->barrier("cache");
}

SampleSource with_targets(SampleSource samples, std::shared_ptr<const CachedTargets> targets) {
  return [samples = std::move(samples), targets = std::move(targets)](int64_t i) {
    TrainSample sample = samples(i);
    sample.teacher = std::make_shared<const nn::TeacherTargets>(targets->targets(i, sample));
    return sample;
  };
}

}  // namespace farskip
