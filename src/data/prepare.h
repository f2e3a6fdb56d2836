#pragma once
// `farskip prepare`: text in, tokens in Megatron's indexed format out.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "data/documents.h"

namespace farskip {

struct PrepareOptions {
  std::vector<std::string> inputs;  ///< files in this order; "-" is standard input
  std::string output_prefix;        ///< PREFIX_text_document.{bin,idx,sha256} are written; folders are created
  DocumentRules documents;
  bool append_eod = true;        ///< end every document with ByteTokenizer::kEndOfDocument
  std::FILE* progress = stderr;  ///< nullptr: silent
};

struct PrepareSummary {
  std::string data_prefix;  ///< PREFIX_text_document, what training takes as data_path
  int64_t num_documents = 0;
  int64_t num_skipped = 0;  ///< documents of nothing but white space, which are left out
  int64_t num_tokens = 0;   ///< ends of documents included
  int64_t num_input_bytes = 0;
  int64_t num_output_bytes = 0;
  int64_t longest_document = 0;  ///< tokens
  double seconds = 0.0;
  std::string checksums;  ///< as in the .sha256 file

  /// A few lines for people.
  std::string text() const;
};

/// Tokenizes all inputs (byte-level) into one data set, one sequence per document. An error or an interrupt leaves
/// neither new files nor a changed older data set. Throws Error: an input that cannot be read, a line that is no JSON,
/// no document at all, a full disk.
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace farskip
