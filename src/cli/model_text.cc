#include "cli/model_text.h"

#include "base/error.h"
#include "data/byte_tokenizer.h"

namespace farskip::cli {

void check_byte_model(const std::string& what, const std::string& folder, const ModelConfig& model) {
  // Any text of a model with another tokenizer would be noise to it.
  if (model.vocab_size >= ByteTokenizer::kNumIds && model.vocab_size <= ByteTokenizer::kVocabSize) return;
  fail(
      "{}: {} holds no tokenizer, and bytes are no tokens of a model with a vocabulary of {} (byte models have {} to "
      "{}); put the model's tokenizer there, or name one (of data: the PREFIX of PREFIX.bin and PREFIX.idx that "
      "`farskip prepare` or Megatron made with it)",
      what, folder, model.vocab_size, ByteTokenizer::kNumIds, ByteTokenizer::kVocabSize);
}

ModelText::ModelText(const std::string& folder, const std::string& tokenizer, const ModelConfig& model) {
  if (!tokenizer.empty() || has_tokenizer(folder)) {
    tokenizer_ = load_tokenizer(tokenizer.empty() ? folder : tokenizer);
    if (tokenizer_->num_ids() > model.vocab_size) {
      fail("{} has {} tokens, the model's vocabulary {}: it is another model's", tokenizer_->description(),
           tokenizer_->num_ids(), model.vocab_size);
    }
  } else {
    check_byte_model("the prompt", folder, model);
  }
}

std::vector<int32_t> ModelText::encode(const std::string& text, bool add_special) const {
  return tokenizer_ ? tokenizer_->encode(text, add_special) : ByteTokenizer::encode(text);
}

std::vector<int32_t> ModelText::end_tokens() const {
  if (!tokenizer_) return {ByteTokenizer::kEndOfDocument};
  if (tokenizer_->eos() < 0) return {};
  return {tokenizer_->eos()};
}

std::function<std::string(int32_t)> ModelText::decoder() const {
  if (!tokenizer_) {
    return [](int32_t id) { return id < 0 ? "" : ByteTokenizer::decode(std::vector<int32_t>{id}); };
  }
  return [stream = std::make_shared<StreamDecoder>(*tokenizer_, true)](int32_t id) {
    return id < 0 ? stream->finish() : stream->push(id);
  };
}

}  // namespace farskip::cli
