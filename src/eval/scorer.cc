#include "eval/scorer.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "schedule/hand_orders.h"

namespace farskip {
namespace {

constexpr int64_t rows_at_once = 256;  // of logits, so that their probabilities stay in the processor's caches

void append(std::vector<double>& all, const at::Tensor& values) {
  const at::Tensor plain = values.to(at::kCPU, at::kDouble).contiguous();
  all.insert(all.end(), plain.const_data_ptr<double>(), plain.const_data_ptr<double>() + plain.numel());
}

at::Tensor column(std::span<const int32_t> targets, const at::Tensor& like) {
  return at::tensor(std::vector<int64_t>(targets.begin(), targets.end()), at::kLong).unsqueeze(1).to(like.device());
}

}  // namespace

Scorer::Scorer(const InferenceModel& model, const Communicators& communicators, int64_t num_pages,
               int64_t max_positions, bool keep_experts)
    : alone_(model.layout().expert_group() == 1), decoder_(model, communicators, [&] {
        DecoderOptions options;
        options.max_positions = max_positions;
        options.cache_positions = num_pages * page_positions;
        if (keep_experts) {
          options.on_experts = [this](int64_t layer, const at::Tensor& ids) {
            experts_[layer] = std::get<0>(ids.sort(1));
          };
        }
        return options;
      }()) {
  // What the ranks exchange stands under computation; no bit depends on it.
  if (!alone_) decoder_.set_schedule(paper_schedule(decoder_.graph()));
}

at::Tensor Scorer::logits(std::span<const ScoredSequence* const> sequences) {
  experts_.clear();
  if (sequences.empty() && alone_) return {};
  std::vector<nn::PageTable> pages(sequences.size());
  std::vector<PagedInput> inputs;
  std::vector<int64_t> rows;
  int64_t num_tokens = 0;
  int32_t next_page = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const ScoredSequence& sequence = *sequences[i];
    for (int64_t n = pages_of(sequence.num_inputs()); n > 0; --n) pages[i].push_back(next_page++);
    const std::span<const int32_t> tokens(sequence.tokens.data(), static_cast<size_t>(sequence.num_inputs()));
    inputs.push_back({&pages[i], 0, tokens, sequence.num_scored()});
    for (int64_t t = sequence.first - 1; t < sequence.num_inputs(); ++t) rows.push_back(num_tokens + t);
    num_tokens += sequence.num_inputs();
  }
  at::Tensor logits = decoder_.run(inputs);
  if (std::ssize(rows) == num_tokens) return logits;
  for (auto& [layer, ids] : experts_) ids = ids.index_select(0, at::tensor(rows, at::kLong).to(ids.device()));
  return logits;
}

std::vector<double> target_logprobs(const at::Tensor& logits, std::span<const int32_t> targets) {
  std::vector<double> result;
  for (int64_t begin = 0; begin < std::ssize(targets); begin += rows_at_once) {
    const int64_t num = std::min<int64_t>(rows_at_once, std::ssize(targets) - begin);
    const at::Tensor log_p = at::log_softmax(logits.narrow(0, begin, num), 1);
    append(result, log_p.gather(1, column(targets.subspan(begin, num), logits)));
  }
  return result;
}

LogitComparison compare_logits(const at::Tensor& logits, const at::Tensor& against, std::span<const int32_t> targets) {
  LogitComparison result;
  for (int64_t begin = 0; begin < std::ssize(targets); begin += rows_at_once) {
    const int64_t num = std::min<int64_t>(rows_at_once, std::ssize(targets) - begin);
    const at::Tensor target = column(targets.subspan(begin, num), logits);
    const at::Tensor own = logits.narrow(0, begin, num), other = against.narrow(0, begin, num);
    const at::Tensor log_q = at::log_softmax(own, 1), log_p = at::log_softmax(other, 1);
    append(result.logprobs, log_q.gather(1, target));
    append(result.against_logprobs, log_p.gather(1, target));
    append(result.kl, (log_p.exp() * (log_p - log_q)).sum(1));
    const at::Tensor same = (own.argmax(1) == other.argmax(1)).to(at::kCPU).contiguous();
    result.agree.insert(result.agree.end(), same.const_data_ptr<bool>(), same.const_data_ptr<bool>() + num);
  }
  return result;
}

}  // namespace farskip
