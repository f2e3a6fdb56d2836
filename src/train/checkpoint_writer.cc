#include "train/checkpoint_writer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "config/checkpoint_folder.h"
#include "layer/export_config.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"
#include "model/safetensors_writer.h"
#include "tokenizer/tokenizer.h"
#include "train/optimizer_state.h"

namespace farskip {

namespace fs = std::filesystem;

namespace {

std::string shard_name(const char* what, int rank, int num_ranks) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", what, rank + 1, num_ranks);
}

/// What each rank leaves in the partial folder when its files are complete, or when they cannot be.
std::string record_path(const std::string& folder, int rank) { return fmt::format("{}/rank-{:05}.json", folder, rank); }

const TensorPiece& piece_of(const ParameterTable& table, const PieceId& id) {
  return table[id.parameter].pieces[id.piece];
}

/// The optimizer state that rank `rank` writes: what it alone keeps, or its part of what all keep.
std::vector<StateRun> written_runs(const ParameterSet& parameters, const Layout& layout, int rank, bool sharded,
                                   const std::vector<PieceId>& pieces) {
  const int64_t num_experts = parameters.num_local_experts();
  auto runs = state_runs(parameters.table(), ParameterShards::slices_of(parameters, layout, rank, sharded),
                         rank % layout.ep * num_experts, num_experts);
  if (sharded) return runs;
  std::set<std::pair<int, size_t>> own;
  for (const PieceId& id : pieces) own.insert({id.parameter, id.piece});
  std::erase_if(runs, [&](const StateRun& run) { return own.count({run.parameter, run.piece}) == 0; });
  return runs;
}

/// Kinds of state: moments, and masters where nothing else holds their bits.
std::vector<std::string> kinds_of(const ParameterSet& parameters, const StateRun& run, bool sharded) {
  std::vector<std::string> kinds = {"exp_avg", "exp_avg_sq"};
  if (sharded && parameters.value(run.parameter).scalar_type() != at::kFloat) kinds.push_back("main");
  return kinds;
}

/// An index as transformers writes it.
nlohmann::json index(const std::map<std::string, std::string>& files, int64_t total_size) {
  return {{"metadata", {{"total_size", total_size}}}, {"weight_map", files}};
}

}  // namespace

nlohmann::json TrainingState::to_json() const {
  return {{"format", 1},
          {"iteration", iteration},
          {"consumed_samples", consumed_samples},
          {"optimizer_steps", optimizer_steps},
          {"seed", seed},
          {"seq_length", seq_length},
          {"global_batch_size", global_batch_size},
          {"layout", layout},
          {"schedule", schedule},
          {"extra", extra}};
}

TrainingState TrainingState::from_json(const nlohmann::json& json, const std::string& source) {
  try {
    if (json.at("format") != 1) {
      fail("{}: format {} is not known to this version; 1 is", source, json.at("format").dump());
    }
    TrainingState state;
    json.at("iteration").get_to(state.iteration);
    json.at("consumed_samples").get_to(state.consumed_samples);
    json.at("optimizer_steps").get_to(state.optimizer_steps);
    json.at("seed").get_to(state.seed);
    json.at("seq_length").get_to(state.seq_length);
    json.at("global_batch_size").get_to(state.global_batch_size);
    json.at("layout").get_to(state.layout);
    json.at("schedule").get_to(state.schedule);
    state.extra = json.at("extra");
    return state;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: {}", source, error.what());
  }
}

std::vector<std::vector<PieceId>> divide_pieces(const ParameterTable& table, const Layout& layout) {
  const int num_ranks = layout.world();
  const int64_t experts_per_rank = std::max<int64_t>(1, table.num_experts() / layout.ep);
  std::vector<std::vector<PieceId>> pieces(num_ranks);
  std::vector<int64_t> elements(num_ranks, 0);
  for (const auto& info : table.parameters()) {
    for (size_t p = 0; p < info.pieces.size(); ++p) {
      const TensorPiece& piece = info.pieces[p];
      int least = -1;
      for (int r = 0; r < num_ranks; ++r) {
        if (piece.expert >= 0 && r % layout.ep != piece.expert / experts_per_rank) continue;
        if (least < 0 || elements[r] < elements[least]) least = r;
      }
      pieces[least].push_back({info.id, p});
      elements[least] += c10::multiply_integers(piece.shape);
    }
  }
  return pieces;
}

struct CheckpointWriter::Part {
  int64_t iteration;
  std::vector<std::pair<std::string, at::Tensor>> model, optimizer;  ///< of this rank
  // On rank 0, what completes the checkpoint:
  nlohmann::json config, state;
  std::string tokenizer;
  std::map<std::string, std::string> model_files, optimizer_files;  ///< tensor -> file, of all ranks
  int64_t model_bytes = 0, optimizer_bytes = 0;
};

CheckpointWriter::CheckpointWriter(std::string root, const Layout& layout, int rank, int64_t keep, double timeout_s)
    : root_(std::move(root)), layout_(layout), rank_(rank), keep_(keep), timeout_s_(timeout_s) {
  if (rank_ != 0) return;
  create_parent_folders(root_ + "/iter");
  remove_partial_checkpoints(root_);
}

CheckpointWriter::~CheckpointWriter() {
  if (writing_.valid()) writing_.wait();
}

void CheckpointWriter::start(const ParameterSet& parameters, const AdamW& optimizer, nlohmann::json config,
                             const TrainingState& state, const std::string& tokenizer) {
  wait();
  const ParameterTable& table = parameters.table();
  const auto pieces = divide_pieces(table, layout_);
  const int num_ranks = layout_.world();
  auto part = std::make_shared<Part>();
  part->iteration = state.iteration;
  const bool sharded = optimizer.shards().sharded();
  auto copy = [](const at::Tensor& tensor) { return tensor.to(at::kCPU, tensor.scalar_type(), false, /*copy=*/true); };
  for (size_t i = 0; rank_ == 0 && i < table.buffers().size(); ++i) {
    part->model.emplace_back(table.buffers()[i].name, copy(parameters.buffer(static_cast<int>(i))));
  }
  for (const PieceId& id : pieces[rank_]) {
    const TensorPiece& piece = piece_of(table, id);
    const int64_t first = parameters.first_expert();
    part->model.emplace_back(piece.name, copy(piece.of(parameters.stored(id.parameter), first)));
  }
  for (const StateRun& run : written_runs(parameters, layout_, rank_, sharded, pieces[rank_])) {
    for (const std::string& kind : kinds_of(parameters, run, sharded)) {
      const at::Tensor& slice = kind == "exp_avg"      ? optimizer.exp_avg(run.slice)
                                : kind == "exp_avg_sq" ? optimizer.exp_avg_sq(run.slice)
                                                       : optimizer.shards().main(run.slice);
      part->optimizer.emplace_back(run.name(kind), copy(slice.narrow(0, run.at, run.size).view(run.stored_shape())));
    }
  }
  if (rank_ == 0) {
    note_dtype(config, parameters.stored_dtype());
    config.erase("quantization_config");  // of what was read
    part->config = std::move(config);
    part->state = state.to_json();
    part->tokenizer = tokenizer;
    for (const auto& buffer : table.buffers()) {
      part->model_files[buffer.name] = shard_name("model", 0, num_ranks);
      part->model_bytes += 4 * c10::multiply_integers(buffer.shape);
    }
    for (int r = 0; r < num_ranks; ++r) {
      for (const PieceId& id : pieces[r]) {
        const TensorPiece& piece = piece_of(table, id);
        part->model_files[piece.name] = shard_name("model", r, num_ranks);
        part->model_bytes +=
            c10::multiply_integers(piece.shape) * static_cast<int64_t>(parameters.stored(id.parameter).element_size());
      }
      for (const StateRun& run : written_runs(parameters, layout_, r, sharded, pieces[r])) {
        for (const std::string& kind : kinds_of(parameters, run, sharded)) {
          part->optimizer_files[run.name(kind)] = shard_name("optimizer", r, num_ranks);
          part->optimizer_bytes += 4 * run.size;
        }
      }
    }
  }
  writing_ = std::async(std::launch::async, [this, part] { write(*part); });
}

void CheckpointWriter::wait() {
  if (writing_.valid()) writing_.get();
}

bool CheckpointWriter::idle() const {
  return !writing_.valid() || writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

void CheckpointWriter::write(const Part& part) const {
  const std::string folder = partial_folder(root_, part.iteration);
  try {
    create_parent_folders(folder + "/rank");
    nlohmann::json records;
    const std::pair<const char*, const std::vector<std::pair<std::string, at::Tensor>>*> kinds[] = {
        {"model", &part.model}, {"optimizer", &part.optimizer}};
    for (const auto& [kind, tensors] : kinds) {
      if (tensors->empty()) continue;
      const std::string name = shard_name(kind, rank_, layout_.world());
      std::vector<TensorSpec> specs;
      for (const auto& [tensor, value] : *tensors) specs.push_back({tensor, value.scalar_type(), value.sizes().vec()});
      SafetensorsWriter writer(folder + "/" + name, specs);
      for (const auto& [tensor, value] : *tensors) writer.write(tensor, value);
      writer.commit();
      records[name] = file_record(folder + "/" + name);
    }
    write_file(record_path(folder, rank_), nlohmann::json{{"files", records}}.dump() + "\n");
    if (rank_ == 0) complete(part);
  } catch (const std::exception& error) {
    std::error_code ignored;
    if (rank_ == 0) {
      fs::remove_all(folder, ignored);
    } else {
      // Makes room before it tells rank 0.
      for (const char* kind : {"model", "optimizer"})
        fs::remove(folder + "/" + shard_name(kind, rank_, layout_.world()), ignored);
      try {
        write_file(record_path(folder, rank_), nlohmann::json{{"error", error.what()}}.dump() + "\n");
      } catch (const std::exception&) {  // then rank 0 finds out by its timeout
      }
    }
    fail("checkpoint of iteration {}: {}", part.iteration, error.what());
  }
}

void CheckpointWriter::complete(const Part& part) const {
  const std::string folder = partial_folder(root_, part.iteration);
  nlohmann::json files;
  auto add = [&](const std::string& name, const std::string& text) {
    write_file(folder + "/" + name, text);
    files[name] = file_record(folder + "/" + name);
  };
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s_);
  for (int r = 0; r < layout_.world(); ++r) {
    while (!fs::exists(record_path(folder, r))) {
      if (std::chrono::steady_clock::now() > until)
        fail("rank {} has not written its part within {} s; do all ranks see the folder {}?", r, timeout_s_, root_);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const nlohmann::json record = nlohmann::json::parse(read_file(record_path(folder, r)));
    if (record.contains("error")) fail("rank {}: {}", r, record["error"].get<std::string>());
    files.update(record["files"]);
    fs::remove(record_path(folder, r));
  }
  add("config.json", part.config.dump(2) + "\n");
  if (needs_modeling_file(part.config)) add(modeling_file_name, std::string(modeling_source()));
  if (!part.tokenizer.empty()) {
    for (const auto& name : copy_tokenizer(part.tokenizer, folder)) files[name] = file_record(folder + "/" + name);
  }
  add(safetensors_index_name, index(part.model_files, part.model_bytes).dump(1) + "\n");
  add("optimizer.safetensors.index.json", index(part.optimizer_files, part.optimizer_bytes).dump(1) + "\n");
  nlohmann::json state = part.state;
  state["files"] = files;
  write_file(folder + "/" + training_state_name, state.dump(1) + "\n");
  publish_checkpoint(root_, part.iteration, keep_);
}

}  // namespace farskip
