#include "data/samples.h"

#include <utility>

#include "base/error.h"

namespace farskip {

Sample make_sample(std::vector<int32_t> tokens, std::span<const int32_t> target_mask, const SampleOptions& options) {
  FARSKIP_CHECK(tokens.size() >= 2 && (target_mask.empty() || target_mask.size() == tokens.size()));
  const size_t length = tokens.size() - 1;
  Sample sample;
  sample.tokens = std::move(tokens);
  sample.loss_mask.assign(length, 1);
  sample.position_ids.reserve(length);
  sample.cu_seqlens = {0};
  int32_t position = 0;
  for (size_t t = 0; t < length; ++t) {
    if (!target_mask.empty() && target_mask[t + 1] == 0) sample.loss_mask[t] = 0;
    sample.position_ids.push_back(position++);
    if (sample.tokens[t] != options.eod_token) continue;
    if (options.eod_mask_loss) sample.loss_mask[t] = 0;
    if (options.reset_position_ids) position = 0;
    if (options.reset_attention_mask && t + 1 < length) sample.cu_seqlens.push_back(static_cast<int32_t>(t + 1));
  }
  sample.cu_seqlens.push_back(static_cast<int32_t>(length));
  return sample;
}

}  // namespace farskip
