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
  /// PREFIX_text_document.{bin,idx,sha256} are written, for chats PREFIX_mask_document.* too (uint8, sequence by
  /// sequence as long: 1 for targets); folders are created.
  std::string output_prefix;
  DocumentRules documents;
  std::string tokenizer;        ///< a model's folder or vocabulary (load_tokenizer); empty: bytes
  std::string end_of_document;  ///< the token that ends documents; empty: the tokenizer's eos, of bytes 256
  bool append_eod = true;       ///< end every document with it (in chats no target), unless a chat ends so already
  int workers = 0;  ///< threads that parse and tokenize; 0: one per core. The output is the same for any number.
  std::FILE* progress = stderr;  ///< nullptr: silent
};

struct PrepareSummary {
  std::string data_prefix;  ///< PREFIX_text_document, what training takes as data_path
  std::string mask_prefix;  ///< PREFIX_mask_document for chats, else empty
  int64_t num_documents = 0;
  int64_t num_skipped = 0;  ///< documents of nothing but white space, which are left out
  int64_t num_tokens = 0;   ///< ends of documents included
  std::string tokenizer;    ///< its description; "bytes"
  int64_t num_ids = 0;      ///< of the tokenizer
  int64_t num_targets = 0;  ///< tokens with a loss; num_tokens but for chats
  int64_t num_input_bytes = 0;
  int64_t num_output_bytes = 0;
  int64_t longest_document = 0;  ///< tokens
  double seconds = 0.0;
  std::string checksums;  ///< as in the .sha256 file

  /// A few lines for people.
  std::string text() const;
};

/// Tokenizes all inputs into one data set, one sequence per document; PREFIX_text_document.tokenizer says by what, and
/// PREFIX_text_document.vocabulary is a copy of it (bytes: no such file, no such folder). Chats are written as the
/// tokenizer's chat template says, if it has one. Memory: a few batches of 1 MiB per worker, or of the longest
/// document. An error or an interrupt (SIGKILL too) leaves neither new files (but perhaps
/// PREFIX_text_document.vocabulary.tmp) nor a changed older data set; between the renames at the very end the older
/// index is gone and the new one not there yet. Throws Error: a tokenizer that cannot be used, an input that cannot be
/// read, a line that is no JSON, no document at all, a full disk.
PrepareSummary prepare(const PrepareOptions& options);

/// Opens the data sets PREFIX... and compares their files, masks too, with their checksums. Returns lines for people;
/// throws Error for the first that differs.
std::string verify_data(const std::vector<std::string>& prefixes);

}  // namespace farskip
