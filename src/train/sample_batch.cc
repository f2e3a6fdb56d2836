#include "train/sample_batch.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "nn/loss.h"

namespace farskip {
namespace {

/// Bounds of documents -> their lengths. `cu_seqlens` may be empty: one document.
std::vector<int64_t> document_lengths(const std::vector<int32_t>& cu_seqlens, int64_t seq_length) {
  if (cu_seqlens.empty()) return {seq_length};
  std::vector<int64_t> lengths;
  for (size_t d = 0; d + 1 < cu_seqlens.size(); ++d) lengths.push_back(cu_seqlens[d + 1] - cu_seqlens[d]);
  return lengths;
}

/// Documents and positions of a batch in which some sample has more than one document.
void add_documents(Batch& batch, const std::vector<TrainSample>& samples) {
  if (std::all_of(samples.begin(), samples.end(), [](const auto& sample) { return sample.cu_seqlens.empty(); })) return;
  const int64_t length = batch.tokens.size(1);
  const at::Tensor positions = at::arange(length, at::kLong).repeat({batch.tokens.size(0), 1});
  for (size_t row = 0; row < samples.size(); ++row) {
    const auto& ids = samples[row].position_ids;
    std::copy(ids.begin(), ids.end(), positions.data_ptr<int64_t>() + static_cast<int64_t>(row) * length);
    batch.documents.push_back(document_lengths(samples[row].cu_seqlens, length));
  }
  batch.positions = positions.to(batch.tokens.device());
}

/// A teacher's targets of all rows of a batch; either all samples have some or none.
void add_teacher(Batch& batch, const std::vector<TrainSample>& samples) {
  if (samples.empty() || !samples[0].teacher) return;
  const auto together = [&](at::Tensor nn::TeacherTargets::*part) {
    std::vector<at::Tensor> rows;
    for (const auto& sample : samples) rows.push_back((*sample.teacher).*part);
    return at::cat(rows).to(batch.tokens.device());
  };
  batch.teacher.ids = together(&nn::TeacherTargets::ids);
  batch.teacher.weights = together(&nn::TeacherTargets::weights);
  batch.teacher.rest = together(&nn::TeacherTargets::rest);
  batch.teacher.negative_entropy = together(&nn::TeacherTargets::negative_entropy);
}

}  // namespace

Batch sample_batch(const std::vector<TrainSample>& samples, int64_t seq_length, double num_sequences,
                   const at::Device& device) {
  const auto rows = static_cast<int64_t>(samples.size());
  at::Tensor all = at::empty({rows, seq_length + 1}, at::kLong);
  auto* out = all.data_ptr<int64_t>();
  for (const auto& sample : samples) out = std::copy(sample.tokens.begin(), sample.tokens.end(), out);
  at::Tensor targets = all.narrow(1, 1, seq_length).clone();  // of one row it would share the tokens' memory
  for (int64_t row = 0; row < rows; ++row) {
    auto* target = targets.data_ptr<int64_t>() + row * seq_length;
    const auto& mask = samples[row].loss_mask;
    for (size_t t = 0; t < mask.size(); ++t) {
      if (mask[t] == 0) target[t] = nn::ignored_target;
    }
  }
  Batch batch{all.narrow(1, 0, seq_length).contiguous().to(device), targets.to(device),
              num_sequences * static_cast<double>(seq_length), static_cast<double>(rows) / num_sequences};
  add_documents(batch, samples);
  add_teacher(batch, samples);
  return batch;
}

}  // namespace farskip
