#pragma once
// A model for tests of schedulers: its cache remembers of each position which tokens led to it, and its next token is a
// function of those. So a page that is lost, shared wrongly or used twice is seen at once.

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "infer/scheduler.h"

namespace farskip::testing {

/// A plan with what ranks are told beside it.
struct PretendedStep {
  StepPlan plan;
  std::map<uint64_t, std::vector<int32_t>> tokens;  ///< of those admitted

  explicit PretendedStep(Scheduler& scheduler) : plan(scheduler.schedule()) {
    for (const auto& admission : plan.admitted) tokens[admission.id] = scheduler.tokens(admission.id);
  }
};

class PretendedModel {
 public:
  explicit PretendedModel(const SchedulerOptions& options)
      : options_(options),
        caches_(options.num_caches, std::vector(options.num_pages, std::vector<uint64_t>(options.page_positions))) {}

  static uint64_t longer(uint64_t prefix, int32_t token) {
    uint64_t x = prefix * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(token) + 1;
    x ^= x >> 29;
    return x * 0xbf58476d1ce4e5b9;
  }
  /// What follows: 0 to 7.
  static int32_t draw(uint64_t prefix) { return static_cast<int32_t>(prefix >> 40 & 7); }

  /// The tokens drawn, -1 where none is, or where `fails` says so.
  template <typename Fails>
  std::vector<int32_t> run(const PretendedStep& step, Fails fails) {
    for (const uint64_t id : step.plan.removed) sequences_.erase(id);
    for (const auto& admission : step.plan.admitted) {
      sequences_[admission.id] = {admission.cache, step.tokens.at(admission.id), {}};
    }
    for (const ScheduledChunk& chunk : step.plan.chunks) {
      Sequence& sequence = sequences_.at(chunk.id);
      EXPECT_EQ(sequence.cache, chunk.cache);
      sequence.pages.insert(sequence.pages.end(), chunk.new_pages.begin(), chunk.new_pages.end());
      const auto prefixes = prefixes_of(sequence, chunk.end());
      for (int64_t p = chunk.position; p < chunk.end(); ++p) slot(sequence, p) = prefixes[p];
    }
    std::vector<int32_t> drawn;
    for (const ScheduledChunk& chunk : step.plan.chunks) {
      Sequence& sequence = sequences_.at(chunk.id);
      const auto prefixes = prefixes_of(sequence, chunk.end());
      for (int64_t p = 0; p < chunk.end(); ++p) {
        EXPECT_EQ(slot(sequence, p), prefixes[p]) << "position " << p << " of sequence " << chunk.id;
      }
      drawn.push_back(chunk.samples && !fails() ? draw(prefixes.back()) : -1);
      if (chunk.samples) sequence.tokens.push_back(std::max(0, drawn.back()));
    }
    return drawn;
  }

 private:
  struct Sequence {
    int64_t cache;
    std::vector<int32_t> tokens, pages;
  };
  uint64_t& slot(const Sequence& sequence, int64_t position) {
    const int32_t page = sequence.pages.at(position / options_.page_positions);
    return caches_.at(sequence.cache).at(page).at(position % options_.page_positions);
  }
  static std::vector<uint64_t> prefixes_of(const Sequence& sequence, int64_t end) {
    std::vector<uint64_t> result;
    for (int64_t i = 0; i < end; ++i) result.push_back(longer(i > 0 ? result.back() : 1, sequence.tokens.at(i)));
    return result;
  }

  SchedulerOptions options_;
  std::vector<std::vector<std::vector<uint64_t>>> caches_;
  std::map<uint64_t, Sequence> sequences_;
};

/// What a request gives when it is alone.
struct Ending {
  std::vector<int32_t> tokens;
  FinishReason finished = FinishReason::none;
  bool operator==(const Ending&) const = default;
};

inline Ending alone(const ScheduledRequest& request, int64_t max_model_len) {
  Ending ending;
  uint64_t prefix = 1;
  for (const int32_t token : request.prompt) prefix = PretendedModel::longer(prefix, token);
  int64_t length = std::ssize(request.prompt);
  for (int64_t i = 0; i < request.max_tokens && length < max_model_len; ++i, ++length) {
    const int32_t token = PretendedModel::draw(prefix);
    if (std::find(request.stop_tokens.begin(), request.stop_tokens.end(), token) != request.stop_tokens.end()) {
      ending.finished = FinishReason::stop;
      return ending;
    }
    ending.tokens.push_back(token);
    prefix = PretendedModel::longer(prefix, token);
  }
  ending.finished = FinishReason::length;
  return ending;
}

}  // namespace farskip::testing
