#include "eval/greedy.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace farskip {
namespace {

struct Growing {
  size_t index = 0;  ///< of the prompt
  int64_t sequence = 0;
  int64_t num_read = 0;  ///< tokens of the prompt
};

class Continuation {
 public:
  Continuation(Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts, const GreedyOptions& options)
      : decoder_(decoder), prompts_(prompts), options_(options), made_(prompts.size()) {
    for (size_t i = 0; i < prompts.size(); ++i) growing_.push_back({i, decoder.add(), 0});
  }

  /// Prompts first, as many whole ones as fit in a chunk; then a token of every sequence.
  std::vector<DecoderInput> next_inputs() {
    std::vector<DecoderInput> inputs;
    active_.clear();
    int64_t room = Decoder::prompt_chunk;
    for (size_t i = 0; i < growing_.size(); ++i) {
      Growing& one = growing_[i];
      const auto& prompt = prompts_[one.index];
      const int64_t left = std::ssize(prompt) - one.num_read, num = std::min(left, Decoder::prompt_chunk);
      if (num == 0) continue;
      if (num > room) break;
      inputs.push_back({one.sequence, {prompt.begin() + one.num_read, prompt.begin() + one.num_read + num}});
      active_.push_back(i);
      room -= num;
    }
    if (!inputs.empty()) return inputs;
    for (size_t i = 0; i < growing_.size(); ++i) {
      inputs.push_back({growing_[i].sequence, {made_[growing_[i].index].back()}});
      active_.push_back(i);
    }
    return inputs;
  }

  /// logits [inputs, V] of the last inputs.
  void take(const std::vector<DecoderInput>& inputs, const at::Tensor& logits) {
    if (inputs.empty()) return;
    const auto [best, ids] = logits.max(1);
    std::vector<bool> ended(growing_.size(), false);
    for (size_t n = 0; n < inputs.size(); ++n) {
      Growing& one = growing_[active_[n]];
      const auto size = std::ssize(prompts_[one.index]);
      if (one.num_read < size) one.num_read += std::ssize(inputs[n].tokens);
      if (one.num_read < size) continue;
      const auto row = static_cast<int64_t>(n);
      if (!std::isfinite(best[row].item<float>())) fail("logits are not finite: the weights are damaged");
      ended[active_[n]] = draw(one.index, static_cast<int32_t>(ids[row].item<int64_t>()));
      if (ended[active_[n]]) decoder_.remove(one.sequence);
    }
    size_t i = 0;
    std::erase_if(growing_, [&](const Growing&) { return ended[i++]; });
  }

  std::vector<std::vector<int32_t>> made() && { return std::move(made_); }

 private:
  /// True where that ends the sequence.
  bool draw(size_t index, int32_t token) {
    const auto& ends = options_.stop_tokens;
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) return true;
    auto& tokens = made_[index];
    tokens.push_back(token);
    return (options_.stops && options_.stops(index, tokens)) || std::ssize(tokens) >= options_.max_new_tokens ||
           std::ssize(prompts_[index]) + std::ssize(tokens) >= decoder_.max_positions();
  }

  Decoder& decoder_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GreedyOptions& options_;
  std::vector<std::vector<int32_t>> made_;
  std::vector<Growing> growing_;
  std::vector<size_t> active_;  ///< of growing_, in the order of the inputs
};

}  // namespace

std::vector<std::vector<int32_t>> continue_greedily(Decoder& decoder, const InferenceModel& model,
                                                    const Communicators& communicators,
                                                    const std::vector<std::vector<int32_t>>& prompts,
                                                    const GreedyOptions& options) {
  const bool together = model.layout().tp == 1 && model.layout().ep > 1;
  Continuation continuation(decoder, prompts, options);
  while (true) {
    const std::vector<DecoderInput> inputs = continuation.next_inputs();
    DecoderStep step;
    int64_t num_tokens = 0;
    for (const DecoderInput& input : inputs) num_tokens += std::ssize(input.tokens);
    if (together) {
      const at::Tensor own = at::full({1}, num_tokens, at::kLong);
      const at::Tensor all = communicators.expert->all_gather(own, "tokens of ranks").await().contiguous();
      step.rank_tokens.assign(all.const_data_ptr<int64_t>(), all.const_data_ptr<int64_t>() + all.numel());
      num_tokens = std::accumulate(step.rank_tokens.begin(), step.rank_tokens.end(), int64_t{0});
    }
    if (num_tokens == 0) return std::move(continuation).made();
    continuation.take(inputs, decoder.step(inputs, step));
  }
}

}  // namespace farskip
