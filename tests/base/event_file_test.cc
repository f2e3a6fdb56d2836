// Event files, taken apart by a reader of its own: framing, checksums, fields.

#include "base/event_file.h"

#include <gmock/gmock.h>

#include <bit>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/error.h"
#include "base/files.h"
#include "temp_folder.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

TEST(Crc32c, KnownValues) {  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
}

template <typename Integer>
Integer fixed(const std::string& bytes, size_t at) {
  Integer value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  return (rotated >> 17) | (rotated << 15);
}

/// The records of a file; a failure of the test where a checksum is wrong.
std::vector<std::string> records(const std::string& bytes) {
  std::vector<std::string> result;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = fixed<uint64_t>(bytes, at);
    EXPECT_EQ(unmasked(fixed<uint32_t>(bytes, at + 8)), crc32c(bytes.substr(at, 8)));
    result.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(unmasked(fixed<uint32_t>(bytes, at + 12 + length)), crc32c(result.back()));
    at += 16 + length;
  }
  return result;
}

/// Fields of a message in their order, as raw bytes.
std::vector<std::pair<int, std::string>> fields(const std::string& message) {
  std::vector<std::pair<int, std::string>> result;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint();
    std::string value;
    if ((key & 7) == 0) {
      const uint64_t number = varint();
      value.assign(reinterpret_cast<const char*>(&number), 8);
    } else {
      const size_t length = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : varint();
      value = message.substr(at, length);
      at += length;
    }
    result.emplace_back(static_cast<int>(key >> 3), value);
  }
  return result;
}

TEST(EventFile, HoldsWhatWasAdded) {
  const TempFolder folder;
  const std::string runs = folder / "runs/a";
  EventFile file(runs);
  EXPECT_THAT(file.path(), HasSubstr(runs + "/events.out.tfevents."));
  file.add(7, {{"lm loss", 2.5}, {"learning-rate", 1e-3}});
  file.add(300, {{"lm loss", -0.125}});
  file.flush();
  const auto events = records(read_file(file.path()));
  ASSERT_EQ(events.size(), 3u);

  const auto version = fields(events[0]);
  ASSERT_EQ(version.size(), 2u);
  EXPECT_GT(std::bit_cast<double>(fixed<uint64_t>(version[0].second, 0)), 1.7e9) << "seconds since 1970";
  EXPECT_EQ(version[1], (std::pair<int, std::string>{3, "brain.Event:2"}));

  const auto first = fields(events[1]);
  ASSERT_EQ(first.size(), 3u);
  EXPECT_EQ(first[0].first, 1);
  EXPECT_EQ(first[1].first, 2);
  EXPECT_EQ(fixed<int64_t>(first[1].second, 0), 7);
  EXPECT_EQ(first[2].first, 5);
  std::map<std::string, float> scalars;
  for (const auto& [number, value] : fields(first[2].second)) {
    EXPECT_EQ(number, 1);
    const auto point = fields(value);
    ASSERT_EQ(point.size(), 2u);
    scalars[point[0].second] = std::bit_cast<float>(fixed<uint32_t>(point[1].second, 0));
  }
  EXPECT_EQ(scalars, (std::map<std::string, float>{{"lm loss", 2.5f}, {"learning-rate", 1e-3f}}));
  EXPECT_EQ(fixed<int64_t>(fields(events[2])[1].second, 0), 300) << "two bytes of varint";
}

// Encoded by TensorFlow's protocol buffers: Event(step=300, summary=Summary(value=[Value(tag="a", simple_value=-2)])),
// whose wall_time is left out here.
TEST(EventFile, HasTheBytesOfTheProtocolBuffer) {
  const TempFolder folder;
  EventFile file(folder.string());
  file.add(300, {{"a", -2.0}});
  file.flush();
  const std::string event = records(read_file(file.path())).at(1);
  const std::string expected("\x10\xac\x02\x2a\x0a\x0a\x08\x0a\x01\x61\x15\x00\x00\x00\xc0", 15);
  EXPECT_EQ(event.substr(9), expected);
  EXPECT_EQ(event[0], '\x09');
}

TEST(EventFile, EachRunHasAFileOfItsOwn) {
  const TempFolder folder;
  EventFile first(folder.string()), second(folder.string());
  EXPECT_NE(first.path(), second.path());
  EXPECT_EQ(records(read_file(second.path())).size(), 1u);
}

TEST(EventFile, RefusesAFolderThatCannotBe) {
  const TempFolder folder;
  write_file(folder / "taken", "x");
  try {
    EventFile file(folder / "taken/runs");
    FAIL() << "an error was expected";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("taken/runs"));
  }
}

}  // namespace
}  // namespace farskip
