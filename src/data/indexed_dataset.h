#pragma once
// Megatron's indexed dataset: PREFIX.bin holds the tokens of all sequences one after another, PREFIX.idx says where
// each begins and which sequences make a document (docs/formats.md; megatron/core/datasets/indexed_dataset.py).

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/sha256.h"
#include "data/split.h"
#include "data/spool.h"

namespace farskip {

/// Megatron's codes. Reading accepts the integers only; tokens are handed out as int32.
enum class TokenType : uint8_t {
  uint8 = 1,
  int8 = 2,
  int16 = 3,
  int32 = 4,
  int64 = 5,
  float64 = 6,
  float32 = 7,
  uint16 = 8
};

/// Bytes of one token.
int64_t token_bytes(TokenType type);
/// "uint16".
const char* token_type_name(TokenType type);
/// Megatron's choice: uint16 for fewer than 65,500 ids, else int32.
TokenType token_type_for(int64_t vocab_size);

std::string index_path(const std::string& prefix);   ///< PREFIX.idx
std::string tokens_path(const std::string& prefix);  ///< PREFIX.bin

/// Reads an indexed dataset through two memory maps. Immutable, so any number of threads may share one.
class IndexedDataset {
 public:
  /// Checks the whole index against the sizes of both files. Throws Error that names the file and what disagrees.
  explicit IndexedDataset(const std::string& prefix);

  const std::string& prefix() const { return prefix_; }
  TokenType token_type() const { return type_; }
  int64_t num_sequences() const { return num_sequences_; }
  int64_t num_documents() const { return num_bounds_ - 1; }
  int64_t num_tokens() const { return tokens_.size() / token_bytes(type_); }

  /// Tokens of a sequence. REQUIRES: 0 <= sequence < num_sequences().
  int64_t sequence_length(int64_t sequence) const;
  /// Tokens of a range of sequences.
  int64_t num_tokens(SequenceRange range) const;
  /// SHA-256 of the lengths of a range of sequences, as they stand in the index.
  std::string lengths_digest(SequenceRange range) const;
  bool has_lengths_of(const IndexedDataset& other) const;
  /// Document d is the sequences document_bound(d) .. document_bound(d+1) - 1. REQUIRES: 0 <= i <= num_documents().
  int64_t document_bound(int64_t i) const;

  /// Tokens offset .. offset + out.size() - 1 of a sequence. REQUIRES: they are inside it. Throws Error for a value
  /// that is no token id (negative, or above int32).
  void read(int64_t sequence, int64_t offset, std::span<int32_t> out) const;
  std::vector<int32_t> sequence(int64_t sequence) const;

 private:
  int64_t sequence_pointer(int64_t sequence) const;
  void read_header();
  void check_sequences() const;
  void check_documents() const;

  std::string prefix_;
  MappedFile index_;
  MappedFile tokens_;
  TokenType type_ = TokenType::int32;
  int64_t num_sequences_ = 0;
  int64_t num_bounds_ = 0;
};

/// Writes an indexed dataset as the tokens come; the lists of the index wait in nameless files, so memory does not
/// grow. Both files, and PREFIX.sha256 with their checksums in the form of sha256sum, appear with commit() and not
/// before.
class IndexedDatasetWriter {
 public:
  IndexedDatasetWriter(const std::string& prefix, TokenType type);

  /// Throws Error for a token that `type` cannot hold, or a full disk.
  void add_sequence(std::span<const int32_t> tokens);
  /// The sequences since the last call are one document.
  void end_document();
  void add_document(std::span<const int32_t> tokens) {
    add_sequence(tokens);
    end_document();
  }

  int64_t num_sequences() const { return lengths_.size(); }
  int64_t num_documents() const { return bounds_.size() - 1; }
  int64_t num_tokens() const { return num_tokens_; }

  /// Replaces an older dataset of the same prefix. Sequences after the last end_document() are a document. Throws Error
  /// if there is no token at all. Returns the text of PREFIX.sha256.
  std::string commit();

  /// The two halves of commit(), for data sets that belong together: all of one first, then all of the other. After
  /// finish() everything is on the disk without a name.
  std::string finish();
  void publish();

 private:
  void write_index();
  void put(std::string_view bytes);

  std::string prefix_;
  TokenType type_;
  AtomicFile tokens_;
  AtomicFile index_;
  AtomicFile checksums_;
  SpooledList<int32_t> lengths_;
  SpooledList<int64_t> bounds_;
  int64_t num_tokens_ = 0;
  std::string packed_;  ///< tokens of one sequence as they stand in the file
  Sha256 tokens_hash_, index_hash_;
};

/// Removes PREFIX.sha256 and PREFIX.idx, so that whatever happens to PREFIX.bin, nobody takes it for a data set.
void remove_index(const std::string& prefix);
/// Removes all files of a data set; it need not exist.
void remove_dataset(const std::string& prefix);

/// Reads PREFIX.bin and PREFIX.idx and compares them with PREFIX.sha256; throws Error naming the file that differs.
void verify_checksums(const std::string& prefix);

}  // namespace farskip
