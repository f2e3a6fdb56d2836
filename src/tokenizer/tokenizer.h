#pragma once
// Text to token ids and back, whatever the format of the vocabulary.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer_config.h"

namespace farskip {

/// Thread-safe. Bytes of a text that are no UTF-8 count as U+FFFD each (replace_invalid_utf8), as they do for whoever
/// reads a text with Python's errors="replace". Special and added tokens are recognised wherever a text spells them.
class Tokenizer {
 public:
  Tokenizer(TokenizerConfig config, std::string description)
      : config_(std::move(config)), description_(std::move(description)) {}
  virtual ~Tokenizer() = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Appends the ids of `text` to `ids`; add_special: with those the format puts around a text (such as the
  /// beginning's).
  virtual void encode(std::string_view text, std::vector<int32_t>& ids, bool add_special = false) const = 0;
  std::vector<int32_t> encode(std::string_view text, bool add_special = false) const;
  /// The text of `ids`, valid UTF-8; ids without a token are left out, special tokens too where skip_special.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = false) const = 0;
  /// What an id adds to the text: bytes, perhaps a part of a character; empty for an id without a token.
  /// `is_first`: nothing stands before it.
  virtual std::string bytes_of(int32_t id, bool is_first) const = 0;

  /// One more than the largest id: what a model's vocab_size must reach.
  virtual int64_t num_ids() const = 0;
  /// -1 where there is none.
  virtual int32_t id_of(std::string_view token) const = 0;
  /// As the vocabulary spells it; empty where there is none.
  virtual std::string token_of(int32_t id) const = 0;
  virtual bool is_special(int32_t id) const = 0;

  /// -1 where the vocabulary's files name none.
  int32_t bos() const { return id_or_none(config_.bos_token); }
  int32_t eos() const { return id_or_none(config_.eos_token); }
  int32_t pad() const { return id_or_none(config_.pad_token); }

  const TokenizerConfig& config() const { return config_; }
  /// For people: "byte-level BPE of PATH".
  const std::string& description() const { return description_; }

 private:
  int32_t id_or_none(const std::string& token) const { return token.empty() ? -1 : id_of(token); }

  TokenizerConfig config_;
  std::string description_;
};

/// The tokenizer of a model's folder, or of one of its files. The first of these is taken:
///   tokenizer.json              Hugging Face's, models of type BPE
///   *.tiktoken, tiktoken.model  ranks in base64, as Kimi and Moonlight have them
///   tokenizer.model, *.model    SentencePiece
///   vocab.json + merges.txt, encoder.json + vocab.bpe    GPT-2's
/// Special tokens and chat template are of the folder's tokenizer_config.json (and chat_template.jinja). Throws Error:
/// nothing of these there, a damaged file, a component that is not supported, by name.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& folder_or_file);

/// Whether a folder holds one of these.
bool has_tokenizer(const std::string& folder);

/// Copies the files of a tokenizer, those of which transformers alone knows too (special_tokens_map.json,
/// added_tokens.json), into the folder `to`, which is there; load_tokenizer(to) is then the same tokenizer. Returns
/// their names there. Throws Error where load_tokenizer would find no file, or one cannot be written.
std::vector<std::string> copy_tokenizer(const std::string& folder_or_file, const std::string& to);

/// Text of ids that come one by one; never a part of a character. The pieces of push() and finish() together are
/// decode() of all ids, except for byte tokens of SentencePiece that are no UTF-8 (there the number of U+FFFD may
/// differ).
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}
  /// The text that is certain now.
  std::string push(int32_t id);
  /// What is left: U+FFFD where the ids ended within a character.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  bool is_first_ = true;
  std::string pending_;
};

}  // namespace farskip
