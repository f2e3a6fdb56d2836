#pragma once
// Samples of training steps, read ahead in the background.

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "data/prefetcher.h"
#include "nn/distill_loss.h"

namespace farskip {

/// What a model is trained on: [seq_length + 1] tokens and, where not every prediction counts, [seq_length] flags of
/// those that do. A source gives flags with all of its samples or with none.
struct TrainSample {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> loss_mask;
  std::vector<int32_t> position_ids = {};  ///< [seq_length]; empty: 0, 1, 2, ...
  std::vector<int32_t> cu_seqlens = {};    ///< bounds of documents, as in Sample; empty: one document
  std::shared_ptr<const nn::TeacherTargets> teacher = nullptr;         ///< rows [seq_length], from a cache
  TrainSample(std::vector<int32_t> t, std::vector<uint8_t> mask = {})  // NOLINT: tokens alone are a sample
      : tokens(std::move(t)), loss_mask(std::move(mask)) {}
};
/// Where samples come from. Called from any thread.
using SampleSource = std::function<TrainSample(int64_t i)>;
/// One rank's samples of a step, per microbatch.
using StepSamples = std::vector<std::vector<TrainSample>>;

/// Reads the samples of a step while earlier steps run. What a step gets depends on its number alone: not on the speed
/// of either side, nor on where a run begins.
class SampleReader {
 public:
  /// Called by the reader's thread and by the owner's. It must not refer to the owner, which may be moved.
  using Read = std::function<StepSamples(int64_t iteration)>;

  /// Reads at most `ahead` steps before they are asked for, and none from step `end` on. 0: nothing runs in the
  /// background.
  SampleReader(Read read, int64_t end, int64_t ahead) : read_(std::move(read)), end_(end), ahead_(ahead) {}

  /// Of a step. Throws what reading it threw. Steps in order are read ahead; any other begins a new order.
  StepSamples next(int64_t iteration);
  /// The same, now.
  StepSamples read(int64_t iteration) const { return read_(iteration); }

 private:
  Read read_;
  int64_t end_, ahead_;
  std::unique_ptr<Prefetcher<StepSamples>> background_;
};

}  // namespace farskip
