#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace farskip {

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  std::vector<int32_t> ids;
  encode(text, ids, add_special);
  return ids;
}

std::string StreamDecoder::push(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return "";
  pending_ += tokenizer_.bytes_of(id, is_first_);
  is_first_ = is_first_ && tokenizer_.token_of(id).empty();
  const size_t ready = pending_.size() - cut_utf8_bytes(pending_);
  const std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, ready));
  pending_.erase(0, ready);
  return text;
}

std::string StreamDecoder::finish() {
  const std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace farskip
