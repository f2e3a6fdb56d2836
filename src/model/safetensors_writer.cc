#include "model/safetensors_writer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/safetensors.h"

namespace farskip {

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorSpec> specs) : file_(path) {
  // "format" says which library's tensors these are; transformers refuses files without it.
  SafetensorsHeader header = layout_safetensors(std::move(specs), {{"format", "pt"}});
  file_.write(format_safetensors_header(header));
  entries_ = std::move(header.entries);
}

void SafetensorsWriter::write(const std::string& name, const at::Tensor& tensor) {
  const std::string expected = complete() ? "no further tensor" : entries_[next_].spec.name;
  if (name != expected) fail("{}: tensor {} is written where {} was declared", file_.path(), name, expected);
  const TensorSpec& spec = entries_[next_].spec;
  const at::IntArrayRef shape(spec.shape), given = tensor.sizes();
  const bool part = !shape.empty() && given.size() == shape.size() && given.slice(1) == shape.slice(1) &&
                    rows_ + given[0] <= shape[0];
  if (!part && (given != shape || rows_ > 0)) {
    fail("{}: tensor {} has shape {}, declared was {}", file_.path(), name, shape_text(tensor.sizes().vec()),
         shape_text(spec.shape));
  }
  const at::Tensor values = tensor.detach().to(at::kCPU, spec.dtype).contiguous();
  file_.write(values.const_data_ptr(), values.nbytes());
  if (part) rows_ += given[0];
  if (part && rows_ < shape[0]) return;
  rows_ = 0;
  ++next_;
}

void SafetensorsWriter::commit() {
  if (!complete()) {
    fail("{}: {} of {} declared tensors were not written, the first is {}", file_.path(), entries_.size() - next_,
         entries_.size(), entries_[next_].spec.name);
  }
  file_.commit();
}

void save_safetensors(const std::string& path, std::vector<std::pair<std::string, at::Tensor>> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    const auto size_a = a.second.element_size(), size_b = b.second.element_size();
    return size_a != size_b ? size_a > size_b : a.first < b.first;
  });
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  SafetensorsWriter writer(path, std::move(specs));
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.commit();
}

ShardedWriter::ShardedWriter(std::string folder, const std::vector<TensorSpec>& specs, uint64_t max_shard_bytes)
    : folder_(std::move(folder)) {
  FARSKIP_CHECK(!specs.empty());
  uint64_t bytes = 0;
  for (const auto& spec : specs) {
    if (shards_.empty() || bytes + spec.num_bytes() > max_shard_bytes) {
      shards_.emplace_back();
      bytes = 0;
    }
    bytes += spec.num_bytes();
    shards_.back().specs.push_back(spec);
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].file = shards_.size() == 1 ? std::string(safetensors_file_name)
                                          : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
  }
}

void ShardedWriter::write(const std::string& name, const at::Tensor& tensor) {
  if (current_ == shards_.size()) fail("{}: tensor {} comes after the last declared", folder_, name);
  const Shard& shard = shards_[current_];
  if (!writer_) writer_ = std::make_unique<SafetensorsWriter>(path(shard.file), shard.specs);
  writer_->write(name, tensor);
  if (writer_->complete()) {
    writer_->commit();
    writer_.reset();
    ++current_;
  }
}

void ShardedWriter::commit() {
  if (current_ < shards_.size()) {
    fail("{}: only {} of {} files of tensors are complete", folder_, current_, shards_.size());
  }
  if (shards_.size() == 1) return;
  nlohmann::json index;
  uint64_t total = 0;
  for (const auto& shard : shards_) {
    for (const auto& spec : shard.specs) {
      index["weight_map"][spec.name] = shard.file;
      total += spec.num_bytes();
    }
  }
  index["metadata"]["total_size"] = total;
  write_file(path(safetensors_index_name), index.dump(2) + "\n");
}

}  // namespace farskip
