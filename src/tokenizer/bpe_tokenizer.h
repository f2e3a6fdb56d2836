#pragma once
// The tokenizer of BPE vocabularies: added tokens, normalizer, pre-tokenizer, model and decoder in a row.

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace farskip {

struct BpeTokenizerParts {
  std::unique_ptr<Normalizer> normalizer;  ///< null: none
  PreTokenization pre_tokenization;
  BpeParts model;  ///< its byte_level is taken from pre_tokenization
  std::vector<AddedToken> added_tokens;
  TokenDecoder decoder = TokenDecoder::byte_level();
  std::vector<int32_t> prefix, suffix;  ///< ids around a text with add_special
};

class BpeTokenizer : public Tokenizer {
 public:
  /// `where` begins errors.
  BpeTokenizer(BpeTokenizerParts parts, TokenizerConfig config, std::string description, const std::string& where);
  ~BpeTokenizer() override;

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, bool add_special) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override;
  std::string bytes_of(int32_t id, bool is_first) const override;
  int64_t num_ids() const override;
  int32_t id_of(std::string_view token) const override;
  std::string token_of(int32_t id) const override;
  bool is_special(int32_t id) const override;

 private:
  struct Scratch;
  class Lease;
  std::string_view spelling(int32_t id) const;
  void encode_part(std::string_view part, bool is_first, Scratch& scratch, std::vector<int32_t>& ids) const;
  void encode_pieces(std::string_view text, bool is_first, Scratch& scratch, std::vector<int32_t>& ids) const;

  std::unique_ptr<Normalizer> normalizer_;
  PreTokenization pre_tokenization_;
  Bpe model_;
  AddedTokens added_;
  TokenDecoder decoder_;
  std::vector<int32_t> prefix_, suffix_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;  ///< a thread that encodes borrows one
};

}  // namespace farskip
