#pragma once
// A step's plan as it crosses ranks: what a rank must know to carry it out, beside what the plans before told it.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/engine.h"
#include "infer/scheduler.h"

namespace farskip {

/// A sequence as ranks are told of it when it is admitted, also where it is computed again.
struct SequenceState {
  uint64_t id = 0;
  int64_t cache = 0;            ///< the rank that holds it
  std::vector<int32_t> tokens;  ///< prompt, then those drawn
  int64_t num_prompt = 0;
  SamplingOptions sampling;
  uint64_t stream = 0;
  int64_t num_logprobs = -1;
};

struct StepMessage {
  enum class Kind : uint8_t {
    step,
    idle,  ///< nothing to do; a sign of life
    stop,  ///< the last one
  };
  Kind kind = Kind::idle;
  StepPlan plan;
  std::vector<SequenceState> admitted;  ///< those of plan.admitted

  /// A flat form of whole numbers.
  std::vector<int64_t> encode() const;
  /// Throws Error for numbers that no encode() made.
  static StepMessage decode(std::span<const int64_t> numbers);
};

}  // namespace farskip
