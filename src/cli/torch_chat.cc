#include "cli/torch_chat.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "base/error.h"
#include "base/progress.h"
#include "infer/decoder.h"
#include "infer/stop_text.h"
#include "tokenizer/chat_template.h"

namespace farskip::cli {
namespace {

/// One sequence of the decoder that follows the conversation.
class Conversation {
 public:
  Conversation(Decoder& decoder, const ModelText& text, const ChatOptions& options, const ChatTemplate& templ)
      : decoder_(decoder), text_(text), options_(options), template_(templ), sequence_(decoder.add()) {
    if (!options.system.empty()) messages_.push_back({"system", options.system});
  }

  void answer(const std::string& line) {
    messages_.push_back({"user", line});
    const auto& config = text_.tokenizer()->config();
    const std::vector<int32_t> prompt = text_.encode(template_.render(messages_, config, true).text, false);
    if (std::ssize(prompt) >= decoder_.max_positions()) {
      fail("the conversation has {} tokens; the model is run with {} positions (--max-model-len)", prompt.size(),
           decoder_.max_positions());
    }
    messages_.push_back({"assistant", reply(prompt)});
  }

 private:
  /// Logits behind `prompt`; what the cache has of it already is kept.
  at::Tensor read(const std::vector<int32_t>& prompt, GenerateReport& report) {
    auto common = std::mismatch(seen_.begin(), seen_.end(), prompt.begin(), prompt.end()).first - seen_.begin();
    common = std::min(common, std::ssize(prompt) - 1);  // one token at least is to be run
    decoder_.truncate(sequence_, common);
    report.prompt_tokens = std::ssize(prompt) - common;
    const double begin = monotonic_seconds();
    at::Tensor logits = decoder_.read(sequence_, std::span(prompt).subspan(common));
    report.prefill_s = monotonic_seconds() - begin;
    seen_ = prompt;
    return logits;
  }

  std::string reply(const std::vector<int32_t>& prompt) {
    GenerateReport report;
    Sampler sampler(options_.generate.sampling, num_replies_++, prompt);
    StopText stop(options_.stops);
    const auto decode = text_.decoder();
    std::string all;
    const auto show = [&](const std::string& piece) {
      all += piece;
      std::printf("%s", piece.c_str());
      std::fflush(stdout);
    };
    at::Tensor logits = read(prompt, report);
    const double begin = monotonic_seconds();
    const auto& ends = options_.generate.stop_tokens;
    for (int64_t n = 0; n < options_.generate.max_tokens && !stop.stopped(); ++n) {
      const int32_t token = sampler.next(logits);
      if (std::find(ends.begin(), ends.end(), token) != ends.end()) break;
      show(stop.push(decode(token)));
      if (decoder_.length(sequence_) >= decoder_.max_positions()) break;
      seen_.push_back(token);
      logits = decoder_.step({{sequence_, {token}}})[0];
      ++report.decode_tokens;
    }
    report.decode_s = monotonic_seconds() - begin;
    show(stop.push(decode(-1)));
    show(stop.finish());
    std::printf("\n");
    std::fflush(stdout);
    std::fprintf(stderr, "%s\n", describe_speed(report).c_str());
    return all;
  }

  Decoder& decoder_;
  const ModelText& text_;
  const ChatOptions& options_;
  const ChatTemplate& template_;
  int64_t sequence_;
  std::vector<ChatMessage> messages_;
  std::vector<int32_t> seen_;  ///< in the cache
  uint64_t num_replies_ = 0;
};

}  // namespace

std::string describe_speed(const GenerateReport& report) {
  const auto rate = [](int64_t tokens, double seconds) {
    return seconds > 0 && tokens > 0 ? fmt::format(" at {:.1f} tokens/s", static_cast<double>(tokens) / seconds) : "";
  };
  return fmt::format("prefill {} tokens{}, decode {} tokens{}", report.prompt_tokens,
                     rate(report.prompt_tokens, report.prefill_s), report.decode_tokens,
                     rate(report.decode_tokens, report.decode_s));
}

void chat(const InferenceModel& model, const ModelText& text, const ChatOptions& options) {
  const Tokenizer* tokenizer = text.tokenizer();
  const std::string source = tokenizer ? tokenizer->config().chat_template : "";
  if (source.empty()) fail("{}: no chat template, so nothing to talk by; use --prompt", model.folder());
  const ChatTemplate templ = ChatTemplate::of(source, model.folder());
  options.generate.sampling.check();
  DecoderOptions decoder_options;
  decoder_options.max_positions = options.generate.max_positions;
  const bool terminal = isatty(STDIN_FILENO) != 0;
  with_decoder(model, decoder_options, [&](Decoder& decoder) {
    Conversation conversation(decoder, text, options, templ);
    std::string line;
    for (;;) {
      if (terminal) std::printf("> ");
      std::fflush(stdout);
      if (!std::getline(std::cin, line)) break;
      if (!line.empty()) conversation.answer(line);
    }
  });
}

}  // namespace farskip::cli
