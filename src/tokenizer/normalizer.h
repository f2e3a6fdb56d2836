#pragma once
// Normalizers of a tokenizer.json: what becomes of a text before it is split.

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tokenizer/pattern.h"

namespace farskip {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// `text` normalised, in place. REQUIRES: valid UTF-8.
  virtual void apply(std::string& text, MatchScratch& scratch) const = 0;
};

/// NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip and Sequence. `where` begins errors; null means none: a
/// null pointer. Throws Error for others.
std::unique_ptr<Normalizer> parse_normalizer(const nlohmann::json& json, const std::string& where);

}  // namespace farskip
