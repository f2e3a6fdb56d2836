#pragma once
// Which tokenizer made a data set: a small file beside it, PREFIX.tokenizer, so that training knows what ends a
// document.

#include <cstdint>
#include <string>

namespace farskip {

struct VocabularyRecord {
  std::string tokenizer;  ///< for people, "byte-level BPE of PATH"
  int64_t num_ids = 0;
  int32_t end_of_document = -1;  ///< -1: documents have no end
};

/// PREFIX.tokenizer.
std::string vocabulary_record_path(const std::string& data_prefix);
void write_vocabulary_record(const std::string& data_prefix, const VocabularyRecord& record);
/// Bytes where there is no record. Throws Error for a damaged one.
VocabularyRecord read_vocabulary_record(const std::string& data_prefix);

}  // namespace farskip
