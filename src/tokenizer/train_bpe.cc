#include "tokenizer/train_bpe.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <queue>
#include <system_error>
#include <unordered_map>

#include "base/error.h"
#include "base/progress.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

using Pair = std::pair<int32_t, int32_t>;
struct PairHash {
  size_t operator()(const Pair& pair) const {
    const auto key = static_cast<uint64_t>(pair.first) << 32 | static_cast<uint32_t>(pair.second);
    return (key ^ (key >> 29)) * 0x9e3779b97f4a7c15u;
  }
};

/// Pieces of text and how often they occur.
class WordCounts : public PieceSink {
 public:
  void add(std::string_view piece) override { ++counts_[std::string(piece)]; }
  std::vector<std::pair<std::string, int64_t>> sorted() const {
    std::vector<std::pair<std::string, int64_t>> words(counts_.begin(), counts_.end());
    std::sort(words.begin(), words.end());
    return words;
  }

 private:
  std::unordered_map<std::string, int64_t> counts_;
};

void count_words(const TrainBpeOptions& options, BpeVocabulary& vocabulary, WordCounts& words) {
  const PreTokenization pre = byte_level_pre_tokenization(vocabulary.pattern);
  MatchScratch scratch;
  int64_t total = 0;
  for (const auto& input : options.inputs) {
    if (input == "-" || !fs::is_regular_file(input)) {
      total = -1;
      break;
    }
    total += static_cast<int64_t>(fs::file_size(input));
  }
  Progress progress({.what = "read", .total = total, .out = options.progress});
  for (const auto& input : options.inputs) {
    std::ifstream file;
    if (input != "-") {
      if (fs::is_directory(input)) fail("input {} is a folder; name the files in it", input);
      file.open(input, std::ios::binary);
      if (!file) fail("cannot open {}: {}", input, std::generic_category().message(errno));
    }
    std::istream& in = input == "-" ? std::cin : file;
    for (std::string line; std::getline(in, line);) {
      if (!in.eof()) line += '\n';
      vocabulary.num_bytes += static_cast<int64_t>(line.size());
      if (!is_utf8(line)) line = replace_invalid_utf8(line);
      pre.cut->cut(line, true, scratch, words);
      progress.update(vocabulary.num_bytes);
    }
    if (in.bad()) fail("cannot read {}", input);
  }
}

/// Merges until the vocabulary is full.
class Merger {
 public:
  Merger(std::vector<Word> words, const TrainBpeOptions& options, BpeVocabulary& vocabulary)
      : words_(std::move(words)), options_(options), vocabulary_(vocabulary) {
    for (size_t id = 0; id < vocabulary_.tokens.size(); ++id) ids_[vocabulary_.tokens[id]] = static_cast<int32_t>(id);
    Places places;
    for (size_t w = 0; w < words_.size(); ++w) {
      const auto& symbols = words_[w].symbols;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) change({symbols[i], symbols[i + 1]}, w, 1, places);
    }
    push(places);
  }

  void run() {
    double next_line = monotonic_seconds() + 2.0;
    while (static_cast<int64_t>(vocabulary_.tokens.size()) < options_.vocab_size && !queue_.empty()) {
      Candidate top = queue_.top();
      queue_.pop();
      if (const int64_t count = counts_[top.pair]; count != top.count) {  // it has changed since
        top.count = count;
        queue_.push(std::move(top));
        continue;
      }
      if (top.count < std::max<int64_t>(1, options_.min_frequency)) break;
      merge(top);
      if (options_.progress != nullptr && monotonic_seconds() > next_line) {
        std::fprintf(options_.progress, "merge: %zu of %lld tokens\n", vocabulary_.tokens.size(),
                     static_cast<long long>(options_.vocab_size));
        next_line = monotonic_seconds() + 10.0;
      }
    }
  }

 private:
  using Places = std::unordered_map<Pair, std::vector<size_t>, PairHash>;
  struct Candidate {
    Pair pair;
    int64_t count;
    std::vector<size_t> places;  ///< words that may hold it, each once
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  /// `times` more (or fewer) of a pair in word w; more make w one of its places.
  void change(const Pair& pair, size_t w, int64_t times, Places& places) {
    counts_[pair] += times * words_[w].count;
    if (times < 0) return;
    auto& of_pair = places[pair];
    if (of_pair.empty() || of_pair.back() != w) of_pair.push_back(w);
  }

  void push(Places& places) {
    for (auto& [pair, of_pair] : places) {
      if (const int64_t count = counts_[pair]; count > 0) queue_.push({pair, count, std::move(of_pair)});
    }
  }

  void merge(const Candidate& top) {
    const auto [left, right] = top.pair;
    const std::string token =
        vocabulary_.tokens[static_cast<size_t>(left)] + vocabulary_.tokens[static_cast<size_t>(right)];
    const auto [known, is_new] = ids_.try_emplace(token, static_cast<int32_t>(vocabulary_.tokens.size()));
    if (is_new) vocabulary_.tokens.push_back(token);
    const int32_t merged = known->second;
    vocabulary_.merges.push_back(top.pair);
    Places places;
    for (const size_t w : top.places) {
      auto& symbols = words_[w].symbols;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) {
        if (symbols[i] != left || symbols[i + 1] != right) continue;
        if (i > 0) {
          change({symbols[i - 1], left}, w, -1, places);
          change({symbols[i - 1], merged}, w, 1, places);
        }
        symbols[i] = merged;
        symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        if (i + 1 < symbols.size()) {
          change({right, symbols[i + 1]}, w, -1, places);
          change({merged, symbols[i + 1]}, w, 1, places);
        }
      }
    }
    push(places);
  }

  std::vector<Word> words_;
  const TrainBpeOptions& options_;
  BpeVocabulary& vocabulary_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_map<Pair, int64_t, PairHash> counts_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

BpeVocabulary train_bpe(const TrainBpeOptions& options) {
  if (options.inputs.empty()) fail("no input; name text files or - for standard input");
  BpeVocabulary vocabulary;
  vocabulary.special_tokens = options.special_tokens;
  vocabulary.pattern = options.pattern.empty() ? kByteLevelPattern : options.pattern;
  vocabulary.tokens = options.special_tokens;
  const ByteAlphabet alphabet;
  std::vector<std::string> spellings;
  for (int byte = 0; byte < 256; ++byte) spellings.push_back(alphabet.spelling(static_cast<uint8_t>(byte)));
  std::vector<std::string> in_order = spellings;
  std::sort(in_order.begin(), in_order.end());  // of UTF-8: by code point
  vocabulary.tokens.insert(vocabulary.tokens.end(), in_order.begin(), in_order.end());
  const auto smallest = static_cast<int64_t>(vocabulary.tokens.size());
  if (options.vocab_size < smallest) {
    fail("--vocab-size {}: 256 bytes and {} special tokens need {}", options.vocab_size, options.special_tokens.size(),
         smallest);
  }
  WordCounts counts;
  count_words(options, vocabulary, counts);
  if (vocabulary.num_bytes == 0) fail("there is no text in {} input(s)", options.inputs.size());

  std::unordered_map<std::string, int32_t> ids;
  for (size_t id = options.special_tokens.size(); id < vocabulary.tokens.size(); ++id) {
    ids[vocabulary.tokens[id]] = static_cast<int32_t>(id);
  }
  std::vector<Word> words;
  for (const auto& [text, count] : counts.sorted()) {
    Word word{{}, count};
    for (const char byte : text) word.symbols.push_back(ids.at(spellings[static_cast<unsigned char>(byte)]));
    words.push_back(std::move(word));
  }
  vocabulary.num_words = static_cast<int64_t>(words.size());
  Merger(std::move(words), options, vocabulary).run();
  return vocabulary;
}

std::string tokenizer_json(const BpeVocabulary& vocabulary) {
  using Json = nlohmann::ordered_json;
  const bool gpt2 = vocabulary.pattern == kByteLevelPattern;
  const auto byte_level = [](bool use_regex) {
    return Json{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
  };
  Json added = Json::array(), tokens = Json::object(), merges = Json::array();
  for (size_t id = 0; id < vocabulary.special_tokens.size(); ++id) {
    added.push_back({{"id", id},
                     {"content", vocabulary.special_tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  // ordered_json looks a key up by walking: straight into its list instead.
  auto& list = tokens.get_ref<Json::object_t&>();
  list.reserve(vocabulary.tokens.size());
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    static_cast<std::vector<Json::object_t::value_type>&>(list).emplace_back(vocabulary.tokens[id], id);
  }
  for (const auto& [left, right] : vocabulary.merges) {
    merges.push_back({vocabulary.tokens[static_cast<size_t>(left)], vocabulary.tokens[static_cast<size_t>(right)]});
  }
  Json cut = byte_level(gpt2);
  if (!gpt2) {
    const Json split{
        {"type", "Split"}, {"pattern", {{"Regex", vocabulary.pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
    cut = Json{{"type", "Sequence"}, {"pretokenizers", {split, cut}}};
  }
  const Json document{{"version", "1.0"},
                      {"truncation", nullptr},
                      {"padding", nullptr},
                      {"added_tokens", added},
                      {"normalizer", nullptr},
                      {"pre_tokenizer", cut},
                      {"post_processor", nullptr},
                      {"decoder", byte_level(true)},
                      {"model",
                       {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", false},
                        {"vocab", tokens},
                        {"merges", merges}}}};
  return document.dump(1) + "\n";
}

}  // namespace farskip
