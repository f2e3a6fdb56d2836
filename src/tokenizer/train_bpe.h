#pragma once
// Learning a byte-level BPE vocabulary from text.

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace farskip {

struct TrainBpeOptions {
  std::vector<std::string> inputs;  ///< text files, "-" is standard input; pieces do not cross the ends of lines
  int64_t vocab_size = 0;           ///< ids in all: special tokens, 256 bytes, merges; fewer where the text gives fewer
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  ///< get the first ids
  std::string pattern;                                          ///< cuts the text into pieces; empty: GPT-2's
  int64_t min_frequency = 2;                                    ///< pairs that are rarer are not merged
  std::FILE* progress = stderr;                                 ///< nullptr: silent
};

struct BpeVocabulary {
  std::vector<std::string> tokens;                  ///< by id, in ByteAlphabet's spelling
  std::vector<std::pair<int32_t, int32_t>> merges;  ///< by rank
  std::vector<std::string> special_tokens;          ///< the first of `tokens`
  std::string pattern;
  int64_t num_bytes = 0, num_words = 0;  ///< of the text; different pieces
};

/// The most frequent pair is merged first; of equals the one of the smallest ids: the rule, and so the result, of the
/// BpeTrainer of Hugging Face's tokenizers. Throws Error: no text, a vocab_size that does not hold the 256 bytes.
BpeVocabulary train_bpe(const TrainBpeOptions& options);

/// The tokenizer.json of a vocabulary.
std::string tokenizer_json(const BpeVocabulary& vocabulary);

}  // namespace farskip
