#include "infer/generate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "infer/decoder.h"

namespace farskip {
namespace {

void check_prompts(const ModelConfig& config, const std::vector<std::vector<int32_t>>& prompts, int64_t max_positions) {
  for (const auto& prompt : prompts) {
    if (prompt.empty()) fail("the prompt is empty; give at least one token to continue");
    if (std::ssize(prompt) >= max_positions) {
      fail("a prompt of {} tokens leaves no room for others: the model is run with {} positions", prompt.size(),
           max_positions);
    }
    for (const int32_t id : prompt) {
      if (id < 0 || id >= config.vocab_size)
        fail("prompt token {} is outside the model's vocabulary of {}", id, config.vocab_size);
    }
  }
}

/// The sequences that are still growing, in the order of the prompts.
class Generation {
 public:
  Generation(Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options,
             const OnToken& on_token, GenerateReport& report)
      : decoder_(decoder), prompts_(prompts), options_(options), on_token_(on_token), report_(report) {
    for (size_t i = 0; i < prompts.size(); ++i) samplers_.emplace_back(options.sampling, i, prompts[i]);
    report_.sequences.resize(prompts.size());
    sequence_.resize(prompts.size());
  }

  /// Prompts one by one: together they would be no faster, and their first tokens would come later.
  void prefill() {
    const double begin = monotonic_seconds();
    for (size_t i = 0; i < prompts_.size() && options_.max_tokens > 0; ++i) {
      sequence_[i] = decoder_.add();
      report_.prompt_tokens += std::ssize(prompts_[i]);
      active_.push_back(i);
      draw(i, decoder_.read(sequence_[i], prompts_[i]));
    }
    report_.prefill_s = monotonic_seconds() - begin;
    forget_ended();
  }

  void decode() {
    const double begin = monotonic_seconds();
    while (!active_.empty()) {
      std::vector<DecoderInput> inputs;
      for (const size_t i : active_) inputs.push_back(next_input(i));
      const at::Tensor logits = decoder_.step(inputs);
      report_.decode_tokens += std::ssize(active_);
      for (size_t n = 0; n < active_.size(); ++n) draw(active_[n], logits[static_cast<int64_t>(n)]);
      forget_ended();
    }
    report_.decode_s = monotonic_seconds() - begin;
  }

 private:
  DecoderInput next_input(size_t i) {
    const auto& made = report_.sequences[i].tokens;
    if (options_.use_cache) return {sequence_[i], {made.back()}};
    decoder_.truncate(sequence_[i], 0);
    std::vector<int32_t> all = prompts_[i];
    all.insert(all.end(), made.begin(), made.end());
    return {sequence_[i], std::move(all)};
  }

  void draw(size_t i, const at::Tensor& logits) {
    GeneratedSequence& sequence = report_.sequences[i];
    const int32_t token = samplers_[i].next(logits);
    const auto& stops = options_.stop_tokens;
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      sequence.finish_reason = "stop";
      return;
    }
    sequence.tokens.push_back(token);
    if (on_token_ && !on_token_(i, token)) {
      sequence.finish_reason = "stop";
    } else if (std::ssize(sequence.tokens) >= options_.max_tokens ||
               std::ssize(prompts_[i]) + std::ssize(sequence.tokens) >= decoder_.max_positions()) {
      sequence.finish_reason = "length";
    }
  }

  void forget_ended() {
    std::erase_if(active_, [&](size_t i) {
      if (report_.sequences[i].finish_reason.empty()) return false;
      decoder_.remove(sequence_[i]);
      return true;
    });
  }

  Decoder& decoder_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GenerateOptions& options_;
  const OnToken& on_token_;
  GenerateReport& report_;
  std::vector<Sampler> samplers_;
  std::vector<int64_t> sequence_;
  std::vector<size_t> active_;
};

void add_end_tokens(const nlohmann::json& config, std::vector<int32_t>& ids) {
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return;
  const nlohmann::json list = found->is_array() ? *found : nlohmann::json::array({*found});
  for (const auto& id : list) {
    if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
  }
}

}  // namespace

GenerateReport generate(const InferenceModel& model, const std::vector<std::vector<int32_t>>& prompts,
                        const GenerateOptions& options, const OnToken& on_token) {
  options.sampling.check();
  int64_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max<int64_t>(longest, std::ssize(prompt));
  const int64_t limit = options.max_positions > 0 ? options.max_positions : model.config().max_position_embeddings;
  check_prompts(model.config(), prompts, limit);
  GenerateReport report;
  DecoderOptions decoder_options;
  decoder_options.max_positions = std::min(limit, longest + options.max_tokens);
  decoder_options.cache_positions =
      pages_of(decoder_options.max_positions) * page_positions * static_cast<int64_t>(prompts.size());
  with_decoder(model, decoder_options, [&](Decoder& decoder) {
    Generation generation(decoder, prompts, options, on_token, report);
    generation.prefill();
    generation.decode();
  });
  return report;
}

std::vector<int32_t> end_tokens(const InferenceModel& model) {
  std::vector<int32_t> ids;
  const std::string path = model.folder() + "/generation_config.json";
  if (std::filesystem::exists(path)) add_end_tokens(nlohmann::json::parse(read_file(path)), ids);
  add_end_tokens(model.config().raw, ids);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace farskip
