#pragma once
// Documents as token ids with their targets: by bytes, or by a vocabulary.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/documents.h"
#include "tokenizer/tokenizer.h"

namespace farskip {

/// What turns documents into ids; null tokenizer: bytes.
struct DocumentTokenizer {
  std::shared_ptr<const Tokenizer> tokenizer;
  int32_t end_of_document = 0;

  /// `end_of_document_token` empty: the tokenizer's end of text. Throws Error where there is none. `path` empty: bytes.
  static DocumentTokenizer open(const std::string& path, const std::string& end_of_document_token);

  int64_t num_ids() const;
  std::string description() const;

  /// Appends the ids of a document. Where `document.targets` is not empty, `targets` gets 1 for each id whose last byte
  /// is a target, else 0. (Where a vocabulary changes the text, as normalizers and SentencePiece do, ids cannot be laid
  /// over it; there the stretches of targets and of others are encoded each for itself.)
  void encode(const Document& document, std::vector<int32_t>& ids, std::vector<int32_t>& targets) const;
};

}  // namespace farskip
