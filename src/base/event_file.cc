#include "base/event_file.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace farskip {
namespace {

constexpr std::array<uint32_t, 256> crc_table = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78u : 0);
    table[byte] = value;
  }
  return table;
}();

/// Checksums inside records are masked, so that a record of records is not a run of equal checksums.
uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename Integer>
std::string little_endian(Integer value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof value; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
  return bytes + static_cast<char>(value);
}

// Fields of a protocol buffer: number and wire type (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes).
std::string key(int field, int type) { return varint(static_cast<uint64_t>(field << 3 | type)); }
std::string field_int(int field, int64_t value) { return key(field, 0) + varint(static_cast<uint64_t>(value)); }
std::string field_double(int field, double value) {
  return key(field, 1) + little_endian(std::bit_cast<uint64_t>(value));
}
std::string field_float(int field, float value) {
  return key(field, 5) + little_endian(std::bit_cast<uint32_t>(value));
}
std::string field_bytes(int field, const std::string& value) { return key(field, 2) + varint(value.size()) + value; }

// Event: 1 wall_time (double), 2 step (int64), 3 file_version (string), 5 summary. Summary: 1 value (repeated).
// Value: 1 tag (string), 2 simple_value (float).
std::string event_head() {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  return field_double(1, now.count());
}

std::string new_name() {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return fmt::format("events.out.tfevents.{:010}.{}.{}", std::chrono::duration_cast<std::chrono::seconds>(now).count(),
                     host, getpid());
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<unsigned char>(c)) & 0xFF];
  return ~crc;
}

EventFile::EventFile(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail("tensorboard_dir: cannot create the folder {}: {}", folder, error.message());
  const std::string name = (std::filesystem::path(folder) / new_name()).string();
  path_ = name;
  for (int n = 1; !(file_ = std::fopen(path_.c_str(), "wbx")); ++n) {  // another one of this second
    if (errno != EEXIST) fail_io();
    path_ = fmt::format("{}.{}", name, n);
  }
  write_record(event_head() + field_bytes(3, "brain.Event:2"));
  flush();
}

EventFile::~EventFile() { std::fclose(file_); }

void EventFile::add(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  FARSKIP_CHECK(!scalars.empty());
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += field_bytes(1, field_bytes(1, tag) + field_float(2, static_cast<float>(value)));
  write_record(event_head() + field_int(2, step) + field_bytes(5, summary));
}

void EventFile::flush() {
  if (std::fflush(file_) != 0) fail_io();
}

/// uint64 length, masked CRC of the length, data, masked CRC of the data.
void EventFile::write_record(const std::string& data) {
  const std::string length = little_endian(static_cast<uint64_t>(data.size()));
  const std::string record = length + little_endian(masked_crc(length)) + data + little_endian(masked_crc(data));
  if (std::fwrite(record.data(), 1, record.size(), file_) != record.size()) fail_io();
}

void EventFile::fail_io() const { fail("cannot write {}: {}", path_, std::strerror(errno)); }

}  // namespace farskip
