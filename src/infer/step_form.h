#pragma once
// How steps of inference are run: into how many microbatches their tokens are divided, and in which order stages run.
// Graph and schedule are made once for all steps of a bucket.

#include <compare>
#include <cstdint>
#include <functional>
#include <string>

#include "layer/layout.h"
#include "schedule/schedule.h"

namespace farskip {

/// Steps that are alike.
struct StepBucket {
  Phase phase = Phase::decode;  ///< decode: a token of each sequence; prefill: some have more
  int64_t tokens = 1;           ///< of the rank that has most, rounded up to a power of two

  static StepBucket of(int64_t tokens, int64_t longest_chunk);
  auto operator<=>(const StepBucket&) const = default;
};

struct StepForm {
  int num_microbatches = 1;  ///< two-batch overlap: 2
  std::function<Schedule(const StageGraph&)> schedule = reference_schedule;
};

/// Asked once per bucket, on all ranks alike.
using ChooseForm = std::function<StepForm(const StepBucket&)>;

/// The same for all steps: reference, async or paper, or two-batch with two microbatches. Throws Error for other names,
/// whose orders need measured times.
ChooseForm named_form(const std::string& schedule);

}  // namespace farskip
