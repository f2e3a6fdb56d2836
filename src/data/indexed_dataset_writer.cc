#include <filesystem>
#include <limits>

#include "base/error.h"
#include "data/indexed_dataset.h"
#include "data/indexed_layout.h"

namespace farskip {
namespace {

std::string checksums_path(const std::string& prefix) { return prefix + ".sha256"; }

/// One line of sha256sum: the file is named without its folder, as the sums lie beside it.
std::string checksum_line(const std::string& hex, const std::string& path) {
  return hex + "  " + std::filesystem::path(path).filename().string() + "\n";
}

/// Appends the bytes of a value.
template <typename T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

/// Appends tokens as T. Returns the index of the first that T cannot hold, or -1.
template <typename T>
int64_t narrow(std::span<const int32_t> tokens, std::string& bytes) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    const T value = static_cast<T>(tokens[i]);
    if (tokens[i] < 0 || static_cast<int64_t>(value) != tokens[i]) return static_cast<int64_t>(i);
    append(bytes, value);
  }
  return -1;
}

std::string file_checksum(const std::string& path) {
  const MappedFile file(path);
  Sha256 hash;
  hash.update(file.data(), file.bytes().size());
  return hash.hex();
}

}  // namespace

IndexedDatasetWriter::IndexedDatasetWriter(const std::string& prefix, TokenType type)
    : prefix_(prefix),
      type_(type),
      tokens_(tokens_path(prefix)),
      index_(index_path(prefix)),
      checksums_(checksums_path(prefix)),
      lengths_(prefix),
      bounds_(prefix) {
  bounds_.push_back(0);
  if (type == TokenType::float32 || type == TokenType::float64) {
    fail("{}: token ids cannot be written as {}; choose uint16 or int32", prefix, token_type_name(type));
  }
}

void IndexedDatasetWriter::add_sequence(std::span<const int32_t> tokens) {
  if (tokens.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    fail("{}: a sequence of {} tokens, but the format holds at most {}; split it into documents", prefix_,
         tokens.size(), std::numeric_limits<int32_t>::max());
  }
  packed_.clear();
  int64_t bad = -1;
  switch (type_) {
    case TokenType::uint8:
      bad = narrow<uint8_t>(tokens, packed_);
      break;
    case TokenType::int8:
      bad = narrow<int8_t>(tokens, packed_);
      break;
    case TokenType::int16:
      bad = narrow<int16_t>(tokens, packed_);
      break;
    case TokenType::uint16:
      bad = narrow<uint16_t>(tokens, packed_);
      break;
    case TokenType::int32:
      bad = narrow<int32_t>(tokens, packed_);
      break;
    case TokenType::int64:
      bad = narrow<int64_t>(tokens, packed_);
      break;
    case TokenType::float32:
    case TokenType::float64:
      FARSKIP_CHECK(false, "refused by the constructor");
  }
  if (bad >= 0) {
    fail("{}: token id {} does not fit the type {}; write the data set with a wider type", prefix_,
         tokens[static_cast<size_t>(bad)], token_type_name(type_));
  }
  tokens_hash_.update(packed_.data(), packed_.size());
  tokens_.write(packed_);
  lengths_.push_back(static_cast<int32_t>(tokens.size()));
  num_tokens_ += static_cast<int64_t>(tokens.size());
}

void IndexedDatasetWriter::end_document() { bounds_.push_back(num_sequences()); }

void IndexedDatasetWriter::put(std::string_view bytes) {
  index_hash_.update(bytes.data(), bytes.size());
  index_.write(bytes);
}

void IndexedDatasetWriter::write_index() {
  std::string header{kIndexMagic};
  append(header, kIndexVersion);
  append(header, static_cast<uint8_t>(type_));
  append(header, static_cast<uint64_t>(lengths_.size()));
  append(header, static_cast<uint64_t>(bounds_.size()));
  put(header);
  const auto put_block = [this](auto values) {
    put({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  };
  lengths_.for_each_block(put_block);
  int64_t pointer = 0;
  lengths_.for_each_block([&](std::span<const int32_t> lengths) {
    std::vector<int64_t> pointers;
    for (const int32_t length : lengths) {
      pointers.push_back(pointer);
      pointer += length * token_bytes(type_);
    }
    put_block(std::span<const int64_t>(pointers));
  });
  bounds_.for_each_block(put_block);
}

std::string IndexedDatasetWriter::finish() {
  if (num_tokens_ == 0) fail("{}: there is not one token to write", prefix_);
  if (bounds_.back() != num_sequences()) end_document();
  write_index();
  const std::string sums =
      checksum_line(tokens_hash_.hex(), tokens_path(prefix_)) + checksum_line(index_hash_.hex(), index_path(prefix_));
  checksums_.write(sums);
  tokens_.sync();
  index_.sync();
  checksums_.sync();
  return sums;
}

void IndexedDatasetWriter::publish() {
  // An older index goes first: at no moment does it stand beside newer tokens.
  remove_index(prefix_);
  tokens_.commit();
  index_.commit();
  checksums_.commit();
}

std::string IndexedDatasetWriter::commit() {
  std::string sums = finish();
  publish();
  return sums;
}

void remove_index(const std::string& prefix) {
  std::error_code ignored;
  std::filesystem::remove(checksums_path(prefix), ignored);
  std::filesystem::remove(index_path(prefix), ignored);
}

void remove_dataset(const std::string& prefix) {
  remove_index(prefix);
  std::error_code ignored;
  std::filesystem::remove(tokens_path(prefix), ignored);
}

void verify_checksums(const std::string& prefix) {
  const std::string sums_path = checksums_path(prefix);
  if (!std::filesystem::exists(sums_path)) {
    fail("{} does not exist, so {} cannot be checked; make it with sha256sum, or prepare the data again", sums_path,
         prefix);
  }
  const std::string sums = read_file(sums_path);
  for (const std::string& path : {tokens_path(prefix), index_path(prefix)}) {
    const std::string line = checksum_line(file_checksum(path), path);
    if (sums.find(line) == std::string::npos) {
      fail("{}: its SHA-256 is not the one in {}; the file was changed or damaged, prepare the data again", path,
           sums_path);
    }
  }
}

}  // namespace farskip
