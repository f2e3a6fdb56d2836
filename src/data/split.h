#pragma once
// Training, validation and test parts of a data set.

#include <array>
#include <cstdint>
#include <string>

namespace farskip {

/// Sequences begin .. end - 1 of an indexed dataset.
struct SequenceRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const SequenceRange&) const = default;
};

struct DatasetSplit {
  SequenceRange train;
  SequenceRange valid;
  SequenceRange test;
};

/// Megatron's --split: `text` holds up to three non-negative numbers, "969,30,1" or "99,1", whose shares cut the
/// sequences in their order: bounds are round(n * cumulated share), halves to even. (One sequence is one document
/// unless a data set was written otherwise; Megatron's GPT data set cuts by sequence too.) Throws Error for anything
/// else.
DatasetSplit split_sequences(const std::string& text, int64_t num_sequences);

}  // namespace farskip
