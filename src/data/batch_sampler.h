#pragma once
// Which samples a rank reads in a microbatch of a step.

#include <cstdint>
#include <vector>

namespace farskip {

/// After `consumed_samples` samples, the next step trains on the samples consumed_samples .. consumed_samples +
/// global_batch_size - 1 of the data set, whatever the number of ranks and the micro batch size. Data-parallel rank r
/// of R has the r-th of R equal runs of them, microbatch m the m-th micro_batch_size samples of that run. So
/// consumed_samples alone says where training goes on, and which samples a step sees.
class BatchSampler {
 public:
  /// Throws Error unless micro_batch_size * data_parallel_size divides global_batch_size.
  BatchSampler(int64_t global_batch_size, int64_t micro_batch_size, int64_t data_parallel_size);

  /// Of one rank in one step.
  int64_t num_microbatches() const { return samples_per_rank_ / micro_batch_size_; }
  /// micro_batch_size indices into the data set. REQUIRES: microbatch < num_microbatches(), rank < data_parallel_size.
  std::vector<int64_t> samples_after(int64_t consumed_samples, int64_t microbatch, int64_t rank) const;
  /// Of a step among steps that all have this global batch size.
  std::vector<int64_t> samples(int64_t step, int64_t microbatch, int64_t rank) const {
    return samples_after(step * global_batch_size_, microbatch, rank);
  }

 private:
  int64_t global_batch_size_;
  int64_t micro_batch_size_;
  int64_t data_parallel_size_;
  int64_t samples_per_rank_ = 0;
};

}  // namespace farskip
