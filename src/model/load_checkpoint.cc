#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "config/checkpoint_folder.h"
#include "model/block_scales.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"

namespace farskip {
namespace {

/// Counts, and as many names as one error should have.
std::string list(const char* what, const std::vector<std::string>& names) {
  constexpr size_t shown = 5;
  if (names.empty()) return "";
  const size_t count = std::min(names.size(), shown);
  return fmt::format("\n  {} {}: {}{}", names.size(), what, fmt::join(names.begin(), names.begin() + count, ", "),
                     names.size() > shown ? ", ..." : "");
}

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

void check_tensor(const SafetensorsReader& reader, const std::string& name, const std::vector<int64_t>& shape,
                  const std::vector<int64_t>& weight_block, TensorCheck& check) {
  if (!reader.contains(name)) return check.missing.push_back(name);
  const TensorSpec& spec = reader.spec(name);
  if (spec.shape != shape) {
    check.wrong.push_back(fmt::format("{} ({}, the model has {})", name, shape_text(spec.shape), shape_text(shape)));
  } else if (is_block_scaled(reader, name)) {
    const std::string problem = scale_problem(reader, name, weight_block);
    if (!problem.empty()) check.wrong.push_back(fmt::format("{} (F8_E4M3; {})", name, problem));
  } else if (c10::elementSize(spec.dtype) == 1 || !c10::isFloatingType(spec.dtype)) {
    // 8-bit weights come with scales; read as they are, they would be another model.
    check.wrong.push_back(
        fmt::format("{} ({}; convert the checkpoint to BF16 first)", name, safetensors_dtype(spec.dtype)));
  }
}

/// Stacked experts are in training checkpoints one by one, as ranks write their own.
bool comes_in_pieces(const SafetensorsReader& reader, const ParameterInfo& info) {
  return info.stack.empty() || (!reader.contains(info.stack) && reader.contains(info.pieces[0].name));
}

}  // namespace

std::string TensorCheck::to_string() const {
  return list("missing", missing) + list("unexpected", unexpected) + list("of wrong shape or dtype", wrong);
}

TensorCheck check_tensors(const SafetensorsReader& reader, const ParameterTable& table) {
  TensorCheck check;
  std::set<std::string> expected;
  const auto expect = [&](const std::string& name, const std::vector<int64_t>& shape) {
    expected.insert(name);
    check_tensor(reader, name, shape, table.weight_block(), check);
    if (reader.contains(name) && is_block_scaled(reader, name)) expected.insert(scale_name(name));
  };
  for (const auto& info : table.parameters()) {
    if (comes_in_pieces(reader, info)) {
      for (const auto& piece : info.pieces) expect(piece.name, piece.shape);
    } else {
      for (const auto& [name, shape] : info.tensors()) expect(name, shape);
    }
  }
  for (const auto& buffer : table.buffers()) expect(buffer.name, buffer.shape);
  for (const auto& name : reader.names()) {
    if (expected.count(name)) continue;
    const bool tied_head = table.tied() && ends_with(name, "lm_head.weight");
    if (table.carries(name) || ends_with(name, "rotary_emb.inv_freq") || tied_head) {
      check.ignored.push_back(name);
    } else {
      check.unexpected.push_back(name);
    }
  }
  if (!check.ok()) return check;
  const std::string embedding = table[0].pieces[0].name;
  for (const auto& name : check.ignored) {
    if (ends_with(name, "lm_head.weight") && !at::equal(reader.tensor(name), reader.tensor(embedding))) {
      fail("{}: config.json says tie_word_embeddings, but {} differs from {}; set it to false", reader.source(), name,
           embedding);
    }
  }
  return check;
}

std::vector<std::string> carried_tensors(const SafetensorsReader& reader, const ParameterTable& table) {
  std::vector<std::string> names = reader.names();
  std::erase_if(names, [&](const std::string& name) { return !table.carries(name); });
  return names;
}

std::string LoadReport::unused() const {
  if (ignored.empty()) return "";
  return fmt::format(
      "{} of its tensors are not used ({}{}): layers past the model's last, images, or what follows from "
      "the others",
      ignored.size(), ignored[0], ignored.size() > 1 ? ", ..." : "");
}

at::Tensor PieceReader::read(const ParameterInfo& info, const TensorPiece& piece) {
  release();
  const bool pieces = comes_in_pieces(reader_, info);
  held_ = pieces ? piece.name : info.stack;
  if (held_ != counted_) ++num_tensors_;
  counted_ = held_;
  return pieces ? read_weight(reader_, piece.name, table_.weight_block()) : reader_.slice(info.stack, piece.expert).t();
}

void PieceReader::release() {
  if (!held_.empty()) reader_.release(held_);
  held_.clear();
}

LoadReport load_checkpoint(const std::string& folder, ParameterSet& parameters) {
  const at::NoGradGuard no_grad;
  const double begin_s = monotonic_seconds();
  const SafetensorsReader reader(resolve_model_folder(folder));
  const ParameterTable& table = parameters.table();
  LoadReport report;
  // Experts of other ranks, too, so that all ranks agree.
  const TensorCheck check = check_tensors(reader, table);
  if (!check.ok()) fail("{}: does not fit the model of its config.json:{}", reader.source(), check.to_string());
  report.ignored = check.ignored;
  {
    PieceReader pieces(reader, table);
    for (const auto& info : table.parameters()) {
      parameters.for_each_piece(info.id, parameters.stored(info.id), [&](const TensorPiece& piece, at::Tensor block) {
        const at::Tensor read = pieces.read(info, piece);
        block.copy_(read);
        report.num_rounded += parameters.frozen(info.id) && read.scalar_type() != block.scalar_type() &&
                              !at::equal(block.to(at::kFloat), read.to(at::kFloat));
      });
    }
    report.num_tensors = pieces.num_tensors();
  }
  for (size_t i = 0; i < table.buffers().size(); ++i) {
    const std::string& name = table.buffers()[i].name;
    at::Tensor buffer = parameters.buffer(static_cast<int>(i));
    buffer.copy_(reader.tensor(name));
    reader.release(name);
    ++report.num_tensors;
  }
  parameters.update_values();
  report.bytes_read = reader.bytes_read();
  report.bytes_in_folder = reader.bytes_in_all();
  report.seconds = monotonic_seconds() - begin_s;
  return report;
}

}  // namespace farskip
