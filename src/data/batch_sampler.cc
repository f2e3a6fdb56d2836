#include "data/batch_sampler.h"

#include "base/error.h"

namespace farskip {

BatchSampler::BatchSampler(int64_t global_batch_size, int64_t micro_batch_size, int64_t data_parallel_size)
    : global_batch_size_(global_batch_size),
      micro_batch_size_(micro_batch_size),
      data_parallel_size_(data_parallel_size) {
  if (global_batch_size < 1) fail("global_batch_size={}: must be at least 1", global_batch_size);
  if (micro_batch_size < 1) fail("micro_batch_size={}: must be at least 1", micro_batch_size);
  FARSKIP_CHECK(data_parallel_size >= 1);
  const int64_t per_round = micro_batch_size * data_parallel_size;
  if (global_batch_size % per_round != 0) {
    const int64_t larger = (global_batch_size / per_round + 1) * per_round;
    fail(
        "global_batch_size={} cannot be divided by micro_batch_size={} times {} data-parallel ranks ({}); the nearest "
        "that can: {}",
        global_batch_size, micro_batch_size, data_parallel_size, per_round,
        global_batch_size > per_round ? fmt::format("{} and {}", larger - per_round, larger) : std::to_string(larger));
  }
  samples_per_rank_ = global_batch_size / data_parallel_size;
}

std::vector<int64_t> BatchSampler::samples_after(int64_t consumed_samples, int64_t microbatch, int64_t rank) const {
  FARSKIP_CHECK(consumed_samples >= 0 && microbatch >= 0 && microbatch < num_microbatches());
  FARSKIP_CHECK(rank >= 0 && rank < data_parallel_size_);
  const int64_t first = consumed_samples + rank * samples_per_rank_ + microbatch * micro_batch_size_;
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < micro_batch_size_; ++i) indices.push_back(first + i);
  return indices;
}

}  // namespace farskip
