#pragma once
// Byte-pair encoding of one piece of text.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace farskip {

/// What a tokenizer's file says about the model.
struct BpeParts {
  std::vector<std::string> tokens;  ///< by id, as spelled in the file; empty where an id has none
  /// Pairs of token ids and the id they merge into, by rank.
  struct Merge {
    int32_t left, right, merged;
  };
  std::vector<Merge> merges;
  bool byte_level = false;     ///< symbols are bytes in ByteAlphabet's spelling, else characters
  bool ignore_merges = false;  ///< a piece that is a token as a whole is that token
  bool byte_fallback = false;  ///< characters without a token become those of their bytes, <0x00> to <0xFF>
  bool fuse_unk = false;
  int32_t unk = -1;  ///< for characters without a token; -1: they vanish
};

/// Ids by their spelling, in one block of memory.
class TokenMap {
 public:
  explicit TokenMap(const std::vector<std::string>& tokens);
  /// -1 where there is none.
  int32_t find(std::string_view token) const;

 private:
  struct Hash {
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string_view, int32_t, Hash> ids_;
};

/// What one thread needs to encode: results of recent pieces, and the lists of a merge.
class BpeScratch {
 public:
  BpeScratch();

 private:
  friend class Bpe;
  struct Slot {  // one line of the processor's cache
    static constexpr size_t kKeyBytes = 31, kIds = 7;
    std::array<char, kKeyBytes> key;
    uint8_t num_bytes;  ///< 0: empty
    std::array<int32_t, kIds> ids;
    uint32_t num_ids;
  };
  struct Symbol {
    int32_t id, previous, next;
  };
  std::vector<Slot> slots_;
  std::vector<int32_t> ids_;
  std::vector<uint64_t> found_;
  std::vector<Symbol> symbols_;
  std::vector<std::array<int32_t, 4>> heap_;
};

/// Thread-safe; a BpeScratch belongs to one Bpe.
class Bpe {
 public:
  /// Throws Error for a merge whose ids do not exist.
  explicit Bpe(BpeParts parts, const std::string& where);
  Bpe(const Bpe&) = delete;
  Bpe& operator=(const Bpe&) = delete;

  /// Appends the ids of a piece: the pair of the lowest rank is merged first, the leftmost of equals. A piece is a
  /// piece of text, bytes where byte_level.
  void encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  const std::vector<std::string>& tokens() const { return parts_.tokens; }
  const TokenMap& ids() const { return ids_; }
  bool byte_level() const { return parts_.byte_level; }

 private:
  struct Entry {
    uint64_t pair = ~uint64_t{0};
    int32_t rank = 0, merged = 0;
  };
  const Entry* find(int32_t left, int32_t right) const;
  void add(const BpeParts::Merge& merge, int32_t rank);
  void add_symbols(std::string_view piece, std::vector<int32_t>& ids) const;
  void merge_few(BpeScratch& scratch) const;
  void merge_many(BpeScratch& scratch) const;
  int32_t whole(std::string_view piece) const;

  BpeParts parts_;
  TokenMap ids_;
  std::unordered_map<std::string, int32_t> whole_;  ///< byte_level and ignore_merges: ids by bytes
  std::array<int32_t, 256> byte_ids_;
  std::vector<Entry> table_;
};

}  // namespace farskip
