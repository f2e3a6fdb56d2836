#include "model/parameter_shards.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"

namespace farskip {

BucketId bucket_of(const ParameterTable& table, const ParameterInfo& info) {
  const bool with_head = table.tied() && info.stage == Stage::embed;
  return {with_head ? table.num_layers() : info.layer, info.stage == Stage::experts};
}

std::vector<int> trained_parameters(const ParameterSet& parameters, BucketId bucket) {
  const ParameterTable& table = parameters.table();
  std::vector<int> ids;
  for (const auto& info : table.parameters()) {
    if (bucket_of(table, info) == bucket && !parameters.frozen(info.id)) ids.push_back(info.id);
  }
  return ids;
}

int64_t ParameterShards::numel(const ParameterSet& parameters, int id) {
  return c10::multiply_integers(parameters.local_shape(parameters.table()[id]));
}

std::map<BucketId, ParameterShards::Bucket> ParameterShards::divide(const ParameterSet& parameters,
                                                                    const Layout& layout, int rank, bool sharded) {
  const ParameterTable& table = parameters.table();
  std::map<BucketId, Bucket> buckets;
  for (const auto& info : table.parameters()) {
    Bucket& bucket = buckets[bucket_of(table, info)];
    if (sharded) {
      bucket.ranks = info.stage == Stage::experts ? layout.dp : layout.world();
      bucket.rank = info.stage == Stage::experts ? rank / layout.ep : rank;
    }
    if (parameters.frozen(info.id)) continue;
    const at::ScalarType dtype = parameters.value(info.id).scalar_type();
    auto segment = std::find_if(bucket.segments.begin(), bucket.segments.end(),
                                [&](const Segment& s) { return s.dtype == dtype; });
    if (segment == bucket.segments.end()) segment = bucket.segments.insert(segment, Segment{dtype, {}, 0, 0});
    segment->ids.push_back(info.id);
    segment->size += numel(parameters, info.id);
  }
  for (auto& [id, bucket] : buckets) {
    for (Segment& segment : bucket.segments) segment.part = (segment.size + bucket.ranks - 1) / bucket.ranks;
  }
  return buckets;
}

std::vector<ParameterSlice> ParameterShards::slices_of(const ParameterSet& parameters, const Bucket& bucket,
                                                       const Segment& segment) {
  std::vector<ParameterSlice> slices;
  const int64_t first = bucket.rank * segment.part, last = first + segment.part;
  int64_t at = 0;
  for (int id : segment.ids) {
    const int64_t size = numel(parameters, id);
    const int64_t begin = std::max(at, first), end = std::min(at + size, last);
    if (begin < end) slices.push_back({id, begin - at, end - begin});
    at += size;
  }
  return slices;
}

std::vector<ParameterSlice> ParameterShards::slices_of(const ParameterSet& parameters, const Layout& layout, int rank,
                                                       bool sharded) {
  std::vector<ParameterSlice> all;
  for (const auto& [id, bucket] : divide(parameters, layout, rank, sharded)) {
    for (const Segment& segment : bucket.segments) {
      const auto slices = slices_of(parameters, bucket, segment);
      all.insert(all.end(), slices.begin(), slices.end());
    }
  }
  return all;
}

ParameterShards::ParameterShards(ParameterSet& parameters, const Layout& layout, int rank, bool sharded)
    : parameters_(parameters), sharded_(sharded), buckets_(divide(parameters, layout, rank, sharded)) {
  const at::NoGradGuard no_grad;
  for (auto& [id, bucket] : buckets_) {
    for (const Segment& segment : bucket.segments) {
      for (const ParameterSlice& slice : slices_of(parameters, bucket, segment)) {
        const at::Tensor run = parameters.main(slice.id).view(-1).narrow(0, slice.begin, slice.size);
        const bool copied = bucket.ranks > 1 && segment.dtype != at::kFloat;  // the rest is to be released
        bucket.slices.push_back(slices_.size());
        slices_.push_back(slice);
        mains_.push_back(copied ? run.clone() : run);
      }
      for (int parameter : segment.ids) {
        if (bucket.ranks > 1) parameters.release_main(parameter);
      }
    }
  }
  gradients_.resize(slices_.size());
}

std::vector<BucketId> ParameterShards::buckets() const {
  std::vector<BucketId> ids;
  for (const auto& [id, bucket] : buckets_) {
    if (bucket.ranks > 1 && !bucket.segments.empty()) ids.push_back(id);
  }
  return ids;
}

at::Tensor ParameterShards::gradient(size_t slice) {
  if (gradients_.at(slice).defined()) return gradients_[slice];
  const auto& [id, begin, size] = slices_[slice];
  return parameters_.main_grad(id).view(-1).narrow(0, begin, size);
}

at::Tensor ParameterShards::pack_gradients(BucketId id) {
  const Bucket& bucket = buckets_.at(id);
  std::vector<at::Tensor> parts;
  for (const Segment& segment : bucket.segments) {
    std::vector<at::Tensor> flat;
    for (int parameter : segment.ids) flat.push_back(parameters_.main_grad(parameter).view(-1));
    if (const int64_t rest = bucket.ranks * segment.part - segment.size; rest > 0)
      flat.push_back(at::zeros({rest}, flat.front().options()));
    parts.push_back(at::cat(flat).view({bucket.ranks, segment.part}));
  }
  if (parts.empty()) return at::empty({0}, at::TensorOptions().dtype(at::kFloat).device(parameters_.options().device));
  return (parts.size() == 1 ? parts.front() : at::cat(parts, 1)).view(-1);
}

void ParameterShards::take_gradients(BucketId id, const at::Tensor& part) {
  const Bucket& bucket = buckets_.at(id);
  size_t next = 0;
  int64_t segment_begin = 0;
  for (const Segment& segment : bucket.segments) {
    int64_t at = segment_begin;
    for (const ParameterSlice& slice : slices_of(parameters_, bucket, segment)) {
      gradients_[bucket.slices[next++]] = part.narrow(0, at, slice.size);
      at += slice.size;
    }
    segment_begin += segment.part;
  }
}

at::Tensor ParameterShards::pack_values(BucketId id) const {
  const Bucket& bucket = buckets_.at(id);
  std::vector<at::Tensor> bytes{
      at::empty({0}, at::TensorOptions().dtype(at::kByte).device(parameters_.options().device))};
  size_t next = 0;
  for (const Segment& segment : bucket.segments) {
    int64_t filled = 0;
    for (const ParameterSlice& slice : slices_of(parameters_, bucket, segment)) {
      bytes.push_back(mains_[bucket.slices[next++]].to(segment.dtype).view(at::kByte));
      filled += slice.size;
    }
    if (filled < segment.part) {
      const auto options = parameters_.value(segment.ids.front()).options();
      bytes.push_back(at::zeros({segment.part - filled}, options).view(at::kByte));
    }
  }
  return at::cat(bytes);
}

void ParameterShards::take_values(BucketId id, const at::Tensor& all) {
  const at::NoGradGuard no_grad;
  const Bucket& bucket = buckets_.at(id);
  const at::Tensor rows = all.view({bucket.ranks, all.numel() / bucket.ranks});
  int64_t byte = 0;
  for (const Segment& segment : bucket.segments) {
    const int64_t width = segment.part * static_cast<int64_t>(c10::elementSize(segment.dtype));
    const at::Tensor flat = rows.narrow(1, byte, width).contiguous().view(segment.dtype).view(-1);
    int64_t at = 0;
    for (int parameter : segment.ids) {
      const at::Tensor& value = parameters_.value(parameter);
      value.copy_(flat.narrow(0, at, value.numel()).view_as(value));
      at += value.numel();
    }
    byte += width;
  }
}

}  // namespace farskip
