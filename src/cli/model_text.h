#pragma once
// Text as the tokens of a model, and back piece by piece: the tokenizer of its folder, or bytes.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "tokenizer/tokenizer.h"

namespace farskip::cli {

class ModelText {
 public:
  /// `tokenizer`: a folder or vocabulary; empty: the model folder's. Throws Error where there is none and the model's
  /// vocabulary is not that of bytes.
  ModelText(const std::string& folder, const std::string& tokenizer, const ModelConfig& model);

  /// Special tokens are recognised; `add_special`: with those the tokenizer puts around a text.
  std::vector<int32_t> encode(const std::string& text, bool add_special) const;
  /// Ids that end a text, by the vocabulary.
  std::vector<int32_t> end_tokens() const;
  /// Turns ids that come one by one into text; called with -1 it gives what is left.
  std::function<std::string(int32_t)> decoder() const;
  /// nullptr: bytes.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
};

/// Throws Error where bytes are no tokens of the model. `what` begins it.
void check_byte_model(const std::string& what, const std::string& folder, const ModelConfig& model);

}  // namespace farskip::cli
