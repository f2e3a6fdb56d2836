#include "eval/task_text.h"

#include "base/sha256.h"
#include "data/byte_tokenizer.h"
#include "tokenizer/utf8.h"

namespace farskip {

std::vector<int32_t> TaskText::encode(std::string_view text) const {
  return tokenizer_ ? tokenizer_->encode(text, false) : ByteTokenizer::encode(text);
}

std::string TaskText::decode(std::span<const int32_t> tokens) const {
  return tokenizer_ ? tokenizer_->decode(tokens, true) : replace_invalid_utf8(ByteTokenizer::decode(tokens));
}

int32_t TaskText::begin_token() const {
  if (!tokenizer_) return ByteTokenizer::kEndOfDocument;
  return tokenizer_->bos() >= 0 ? tokenizer_->bos() : tokenizer_->eos();
}

bool TaskText::always_begins() const {
  if (!tokenizer_ || tokenizer_->bos() < 0) return false;
  const std::vector<int32_t> ids = tokenizer_->encode("a", true);
  return !ids.empty() && ids.front() == tokenizer_->bos();
}

int64_t TaskText::num_bytes(int32_t token) const {
  if (!tokenizer_) return token >= 0 && token < 256 ? 1 : 0;
  return tokenizer_->is_special(token) ? 0 : std::ssize(tokenizer_->bytes_of(token, false));
}

std::string TaskText::vocabulary_digest() const {
  if (!tokenizer_) return "bytes";
  Sha256 sha;
  for (int64_t id = 0; id < tokenizer_->num_ids(); ++id) {
    const std::string token = tokenizer_->token_of(static_cast<int32_t>(id));
    sha.update(token.c_str(), token.size() + 1);
  }
  return sha.hex();
}

}  // namespace farskip
