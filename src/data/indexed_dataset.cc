#include "data/indexed_dataset.h"

#include <bit>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "data/indexed_layout.h"

namespace farskip {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian and mapped as they are");

/// Reads an integer that need not be aligned.
template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

/// Copies tokens to int32. Returns the index of the first that is no token id, or -1.
template <typename T>
int64_t widen(const std::byte* from, std::span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const T value = load<T>(from + i * sizeof(T));
    if constexpr (std::numeric_limits<T>::is_signed) {
      if (value < 0) return static_cast<int64_t>(i);
    }
    if constexpr (sizeof(T) > sizeof(int32_t)) {
      if (value > std::numeric_limits<int32_t>::max()) return static_cast<int64_t>(i);
    }
    out[i] = static_cast<int32_t>(value);
  }
  return -1;
}

}  // namespace

int64_t token_bytes(TokenType type) {
  switch (type) {
    case TokenType::uint8:
    case TokenType::int8:
      return 1;
    case TokenType::int16:
    case TokenType::uint16:
      return 2;
    case TokenType::int32:
    case TokenType::float32:
      return 4;
    case TokenType::int64:
    case TokenType::float64:
      return 8;
  }
  return 0;
}

const char* token_type_name(TokenType type) {
  constexpr const char* kNames[] = {"uint8", "int8", "int16", "int32", "int64", "float64", "float32", "uint16"};
  const auto code = static_cast<size_t>(type);
  return code >= 1 && code <= std::size(kNames) ? kNames[code - 1] : "unknown";
}

TokenType token_type_for(int64_t vocab_size) { return vocab_size < 65500 ? TokenType::uint16 : TokenType::int32; }

std::string index_path(const std::string& prefix) { return prefix + ".idx"; }
std::string tokens_path(const std::string& prefix) { return prefix + ".bin"; }

IndexedDataset::IndexedDataset(const std::string& prefix)
    : prefix_(prefix), index_(index_path(prefix)), tokens_(tokens_path(prefix)) {
  read_header();
  check_sequences();
  check_documents();
}

void IndexedDataset::read_header() {
  const std::string& path = index_.path();
  if (index_.size() < kIndexHeaderBytes) {
    fail("{}: {} bytes, but the header of an indexed dataset alone has {}; the file is cut off or something else", path,
         index_.size(), kIndexHeaderBytes);
  }
  const std::byte* header = index_.data();
  if (std::memcmp(header, kIndexMagic.data(), kIndexMagic.size()) != 0) {
    fail("{}: not an index of Megatron's (it does not begin with MMIDIDX); give the prefix of a .bin/.idx pair", path);
  }
  const auto version = load<uint64_t>(header + 9);
  if (version != kIndexVersion) {
    fail("{}: index version {}, but only version {} is known; write the data anew", path, version, kIndexVersion);
  }
  const auto code = load<uint8_t>(header + 17);
  type_ = static_cast<TokenType>(code);
  if (token_bytes(type_) == 0) fail("{}: unknown token type code {} (1 to 8 are known)", path, code);
  if (type_ == TokenType::float32 || type_ == TokenType::float64) {
    fail("{}: the values are {}, which are no token ids", path, token_type_name(type_));
  }
  const auto num_sequences = load<uint64_t>(header + 18);
  const auto num_bounds = load<uint64_t>(header + 26);
  // Counts that would overflow the sum below cannot be those of a real file.
  constexpr uint64_t kMaxCount = uint64_t{1} << 56;
  if (num_sequences > kMaxCount || num_bounds > kMaxCount || num_bounds == 0) {
    fail("{}: impossible counts: {} sequences, {} document bounds; the file is damaged", path, num_sequences,
         num_bounds);
  }
  num_sequences_ = static_cast<int64_t>(num_sequences);
  num_bounds_ = static_cast<int64_t>(num_bounds);
  const int64_t expected = kIndexHeaderBytes + 12 * num_sequences_ + 8 * num_bounds_;
  if (index_.size() == expected + num_sequences_ && num_sequences_ > 0) {
    fail("{}: a multimodal index (one mode per sequence), which is not supported", path);
  }
  if (index_.size() != expected) {
    fail("{}: {} bytes, but {} sequences and {} documents need {}; the file is cut off or damaged", path, index_.size(),
         num_sequences_, num_bounds_ - 1, expected);
  }
}

void IndexedDataset::check_sequences() const {
  int64_t expected = 0;
  for (int64_t i = 0; i < num_sequences_; ++i) {
    const int64_t length = sequence_length(i);
    if (length < 0) fail("{}: sequence {} has the length {}; the file is damaged", index_.path(), i, length);
    if (sequence_pointer(i) != expected) {
      fail("{}: sequence {} is said to begin at byte {}, but those before it end at {}; the file is damaged",
           index_.path(), i, sequence_pointer(i), expected);
    }
    expected += length * token_bytes(type_);
  }
  if (tokens_.size() != expected) {
    fail(
        "{}: {} bytes, but {} speaks of {} ({} tokens of type {}); the two files do not belong together, or one is cut "
        "off",
        tokens_.path(), tokens_.size(), index_.path(), expected, expected / token_bytes(type_), token_type_name(type_));
  }
}

void IndexedDataset::check_documents() const {
  if (document_bound(0) != 0) {
    fail("{}: the first document begins at sequence {} instead of 0; the file is damaged", index_.path(),
         document_bound(0));
  }
  for (int64_t i = 1; i < num_bounds_; ++i) {
    if (document_bound(i) < document_bound(i - 1)) {
      fail("{}: document {} ends at sequence {}, before it begins at {}; the file is damaged", index_.path(), i - 1,
           document_bound(i), document_bound(i - 1));
    }
  }
  if (document_bound(num_bounds_ - 1) != num_sequences_) {
    fail("{}: the documents hold {} sequences, but there are {}; the file is damaged", index_.path(),
         document_bound(num_bounds_ - 1), num_sequences_);
  }
}

int64_t IndexedDataset::sequence_length(int64_t sequence) const {
  return load<int32_t>(index_.data() + kIndexHeaderBytes + 4 * sequence);
}

int64_t IndexedDataset::num_tokens(SequenceRange range) const {
  if (range.size() == 0) return 0;
  const int64_t last = range.end - 1;
  const int64_t bytes = sequence_pointer(last) - sequence_pointer(range.begin);
  return bytes / token_bytes(type_) + sequence_length(last);
}

std::string IndexedDataset::lengths_digest(SequenceRange range) const {
  Sha256 hash;
  hash.update(index_.data() + kIndexHeaderBytes + 4 * range.begin, static_cast<size_t>(4 * range.size()));
  return hash.hex();
}

bool IndexedDataset::has_lengths_of(const IndexedDataset& other) const {
  return num_sequences_ == other.num_sequences_ &&
         std::memcmp(index_.data() + kIndexHeaderBytes, other.index_.data() + kIndexHeaderBytes,
                     static_cast<size_t>(4 * num_sequences_)) == 0;
}

int64_t IndexedDataset::sequence_pointer(int64_t sequence) const {
  return load<int64_t>(index_.data() + kIndexHeaderBytes + 4 * num_sequences_ + 8 * sequence);
}

int64_t IndexedDataset::document_bound(int64_t i) const {
  return load<int64_t>(index_.data() + kIndexHeaderBytes + 12 * num_sequences_ + 8 * i);
}

void IndexedDataset::read(int64_t sequence, int64_t offset, std::span<int32_t> out) const {
  FARSKIP_CHECK(sequence >= 0 && sequence < num_sequences_);
  FARSKIP_CHECK(offset >= 0 && offset + static_cast<int64_t>(out.size()) <= sequence_length(sequence));
  const std::byte* from = tokens_.data() + sequence_pointer(sequence) + offset * token_bytes(type_);
  int64_t bad = -1;
  switch (type_) {
    case TokenType::uint8:
      bad = widen<uint8_t>(from, out);
      break;
    case TokenType::int8:
      bad = widen<int8_t>(from, out);
      break;
    case TokenType::int16:
      bad = widen<int16_t>(from, out);
      break;
    case TokenType::uint16:
      bad = widen<uint16_t>(from, out);
      break;
    case TokenType::int32:
      bad = widen<int32_t>(from, out);
      break;
    case TokenType::int64:
      bad = widen<int64_t>(from, out);
      break;
    case TokenType::float32:
    case TokenType::float64:
      FARSKIP_CHECK(false, "refused by the constructor");
  }
  if (bad >= 0) {
    fail("{}: token {} of sequence {} is no token id (negative, or above 2147483647)", tokens_.path(), offset + bad,
         sequence);
  }
}

std::vector<int32_t> IndexedDataset::sequence(int64_t sequence) const {
  std::vector<int32_t> tokens(static_cast<size_t>(sequence_length(sequence)));
  read(sequence, 0, tokens);
  return tokens;
}

}  // namespace farskip
