#pragma once
// A global batch that grows while the run goes on, as Megatron-LM's rampup_batch_size
// (megatron/core/num_microbatches_calculator.py). Everything is a function of the iteration, so a resumed run knows
// its place.

#include <cstdint>
#include <string>

namespace farskip {

/// Where a run stands before an iteration.
struct BatchPosition {
  int64_t consumed_samples = 0;  ///< by the iterations before
  int64_t batch_size = 0;        ///< of this iteration, over all ranks
  bool operator==(const BatchPosition&) const = default;
};

/// The batch has `start` sequences at first and `increment` more each time another samples / n sequences are consumed,
/// n = (full - start) / increment, until it is full. (Megatron divides in floating point, here the division is exact.)
class BatchRamp {
 public:
  /// Always the full batch.
  explicit BatchRamp(int64_t full) : BatchRamp(full, full, 1, 0) {}
  /// Throws Error unless 0 < start <= full, increment > 0 divides full - start, and samples >= 0.
  BatchRamp(int64_t full, int64_t start, int64_t increment, int64_t samples);
  /// Reads "START,INCREMENT,SAMPLES", the three numbers of Megatron's option; empty: always the full batch.
  static BatchRamp parse(const std::string& text, int64_t full);

  /// Throws Error unless every batch size is a multiple of micro_batch_size * ranks.
  void check_divides(int64_t micro_batch_size, int64_t ranks) const;

  /// Size of the batch that begins when so many samples are consumed.
  int64_t batch_size(int64_t consumed_samples) const;
  /// Of iteration `iteration`, from 0.
  BatchPosition at(int64_t iteration) const;
  /// The first iteration before which at least `samples` are consumed: how many iterations so many samples take.
  int64_t iterations_for(int64_t samples) const;
  int64_t full() const { return full_; }

 private:
  /// Calls visit(consumed samples, batch size, iterations of this size) for each size in turn, the last one without
  /// end (-1), until it returns false.
  template <typename Visit>
  void walk(Visit visit) const;

  int64_t full_, start_, increment_, samples_, num_increments_;
};

}  // namespace farskip
