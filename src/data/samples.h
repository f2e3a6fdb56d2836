#pragma once
// What a model trains on: sequences with their loss mask, positions and the bounds of the documents packed into them.

#include <cstdint>
#include <span>
#include <vector>

namespace farskip {

/// One sequence of T = seq_length positions. Position t reads tokens[t] and predicts tokens[t + 1].
struct Sample {
  std::vector<int32_t> tokens;        ///< [T + 1]: inputs are the first T, targets the last T
  std::vector<uint8_t> loss_mask;     ///< [T]: 1 where the prediction of tokens[t + 1] counts, else 0
  std::vector<int32_t> position_ids;  ///< [T]
  /// [D + 1]: attention stays within the positions cu_seqlens[d] .. cu_seqlens[d+1] - 1; from 0 to T, rising strictly.
  /// D = 1 unless reset_attention_mask.
  std::vector<int32_t> cu_seqlens;

  bool operator==(const Sample&) const = default;
};

/// Megatron's options of the same names. A document ends with its end-of-document token (inclusive).
struct SampleOptions {
  bool reset_position_ids = false;    ///< positions count from 0 in each document; else from 0 in the sequence
  bool reset_attention_mask = false;  ///< no attention across documents
  bool eod_mask_loss = false;         ///< no loss where eod_token is the input (the next document cannot be foreseen)
  int32_t eod_token = 256;            ///< ByteTokenizer::kEndOfDocument
};

/// `tokens` [T + 1]. `target_mask` [T + 1] holds 0 for tokens that are no targets, or is empty: all are. REQUIRES:
/// tokens.size() >= 2.
Sample make_sample(std::vector<int32_t> tokens, std::span<const int32_t> target_mask, const SampleOptions& options);

/// Samples by number. Immutable: sample i is the same whenever, by whomever and in whatever order it is asked for.
class SampleDataset {
 public:
  virtual ~SampleDataset() = default;
  virtual int64_t size() const = 0;
  virtual int64_t seq_length() const = 0;
  /// REQUIRES: 0 <= i < size(). Thread-safe.
  virtual Sample sample(int64_t i) const = 0;
};

}  // namespace farskip
