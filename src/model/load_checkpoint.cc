#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "config/checkpoint_folder.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"

namespace farskip {
namespace {

/// Collects what is wrong with a folder, so that one error tells all of it.
class Complaints {
 public:
  void missing(const std::string& name) { missing_.push_back(name); }
  void unexpected(const std::string& name) { unexpected_.push_back(name); }
  void wrong(const std::string& text) { wrong_.push_back(text); }

  void raise(const std::string& source) const {
    if (missing_.empty() && unexpected_.empty() && wrong_.empty()) return;
    fail("{}: does not fit the model of its config.json:{}{}{}", source, list("missing", missing_),
         list("unexpected", unexpected_), list("of wrong shape or dtype", wrong_));
  }

 private:
  static std::string list(const char* what, const std::vector<std::string>& names) {
    constexpr size_t shown = 5;
    if (names.empty()) return "";
    const size_t count = std::min(names.size(), shown);
    return fmt::format("\n  {} {}: {}{}", names.size(), what, fmt::join(names.begin(), names.begin() + count, ", "),
                       names.size() > shown ? ", ..." : "");
  }

  std::vector<std::string> missing_, unexpected_, wrong_;
};

/// N of "model.layers.N.", or -1.
int64_t layer_of(const std::string& name) {
  constexpr std::string_view prefix = "model.layers.";
  if (name.rfind(prefix, 0) != 0) return -1;
  int64_t layer = -1;
  std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
  return layer;
}

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

void check_tensor(const SafetensorsReader& reader, const std::string& name, const std::vector<int64_t>& shape,
                  Complaints& complaints) {
  if (!reader.contains(name)) return complaints.missing(name);
  const TensorSpec& spec = reader.spec(name);
  if (spec.shape != shape) {
    complaints.wrong(fmt::format("{} ({}, the model has {})", name, shape_text(spec.shape), shape_text(shape)));
  } else if (c10::elementSize(spec.dtype) == 1 || !c10::isFloatingType(spec.dtype)) {
    // 8-bit weights come with scales; read as they are, they would be another model.
    complaints.wrong(fmt::format("{} ({}; convert the checkpoint to BF16 first)", name, safetensors_dtype(spec.dtype)));
  }
}

/// Compares the folder's tensors with the whole table, also with experts of other ranks, so that all ranks agree.
std::vector<std::string> check_folder(const SafetensorsReader& reader, const ParameterTable& table) {
  Complaints complaints;
  std::set<std::string> expected;
  const auto expect = [&](const std::string& name, const std::vector<int64_t>& shape) {
    expected.insert(name);
    check_tensor(reader, name, shape, complaints);
  };
  for (const auto& info : table.parameters()) {
    for (const auto& piece : info.pieces) expect(piece.name, piece.shape);
  }
  for (const auto& buffer : table.buffers()) expect(buffer.name, buffer.shape);
  std::vector<std::string> ignored;
  for (const auto& name : reader.names()) {
    if (expected.count(name)) continue;
    const bool tied_head = table.tied() && name == "lm_head.weight";
    if (layer_of(name) >= table.num_layers() || ends_with(name, "rotary_emb.inv_freq") || tied_head) {
      ignored.push_back(name);
    } else {
      complaints.unexpected(name);
    }
  }
  complaints.raise(reader.source());
  const std::string embedding = table[0].pieces[0].name;
  for (const auto& name : ignored) {
    if (name == "lm_head.weight" && !at::equal(reader.tensor(name), reader.tensor(embedding))) {
      fail("{}: config.json says tie_word_embeddings, but {} differs from {}; set it to false", reader.source(), name,
           embedding);
    }
  }
  return ignored;
}

}  // namespace

LoadReport load_checkpoint(const std::string& folder, ParameterSet& parameters) {
  const at::NoGradGuard no_grad;
  const double begin_s = monotonic_seconds();
  const SafetensorsReader reader(resolve_model_folder(folder));
  const ParameterTable& table = parameters.table();
  LoadReport report;
  report.ignored = check_folder(reader, table);
  const auto read = [&](const std::string& name, const at::Tensor& to) {
    to.copy_(reader.tensor(name));
    reader.release(name);
    ++report.num_tensors;
  };
  for (const auto& info : table.parameters()) {
    parameters.for_each_piece(info.id, parameters.stored(info.id),
                              [&](const TensorPiece& piece, const at::Tensor& block) { read(piece.name, block); });
  }
  for (size_t i = 0; i < table.buffers().size(); ++i) {
    read(table.buffers()[i].name, parameters.buffer(static_cast<int>(i)));
  }
  parameters.update_values();
  report.bytes_read = reader.bytes_read();
  report.bytes_in_folder = reader.bytes_in_all();
  report.seconds = monotonic_seconds() - begin_s;
  return report;
}

}  // namespace farskip
