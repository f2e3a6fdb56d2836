#pragma once
// Which tokenizer made a data set: a small file beside it, PREFIX.tokenizer, so that training knows what ends a
// document, and a copy of the tokenizer, PREFIX.vocabulary, that goes into the folders of models trained on it.

#include <cstdint>
#include <string>
#include <vector>

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

/// PREFIX.vocabulary, a folder that load_tokenizer reads.
std::string vocabulary_folder(const std::string& data_prefix);
/// The data set whose tokenizer a model trained on all of these gets: the first. Empty where one of them is of bytes,
/// has no copy of its tokenizer (written by another program or before there were such), or has another number of ids or
/// end of a document.
std::string common_vocabulary(const std::vector<std::string>& data_prefixes);

/// A copy of a tokenizer that becomes PREFIX.vocabulary, replacing an older one, when published.
class VocabularyCopy {
 public:
  /// Written aside. `tokenizer` as load_tokenizer takes it. Throws Error where it cannot be written.
  VocabularyCopy(const std::string& data_prefix, const std::string& tokenizer);
  ~VocabularyCopy();
  VocabularyCopy(const VocabularyCopy&) = delete;
  VocabularyCopy& operator=(const VocabularyCopy&) = delete;
  void publish();

 private:
  std::string folder_, aside_;
};

}  // namespace farskip
