#include "base/progress.h"

#include <gtest/gtest.h>

#include <string>

namespace farskip {
namespace {

std::string contents_of(std::FILE* file) {
  std::rewind(file);
  std::string text;
  for (int c; (c = std::fgetc(file)) != EOF;) text += static_cast<char>(c);
  return text;
}

TEST(Progress, Formats) {
  EXPECT_EQ(format_bytes(-1), "unknown");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes((int64_t{1} << 20) - 1), "1.0 MiB");
  EXPECT_EQ(format_duration(0.0123), "12 ms");
  EXPECT_EQ(format_duration(12.34), "12.3 s");
  EXPECT_EQ(format_duration(59.99), "1 min 00 s");
  EXPECT_EQ(format_duration(7380), "2 h 03 min");
}

TEST(Progress, PlainLinesWhereThereIsNoTerminal) {
  double now = 100.0;
  std::FILE* out = std::tmpfile();
  {
    Progress progress({.what = "prepare", .total = 4096, .out = out, .clock = [&now] { return now; }});
    progress.update(0);
    now = 102.0;
    progress.update(1024);
    now = 103.0;
    progress.update(2048);  // too soon after the last line
    now = 112.0;
    progress.update(3072);
  }
  EXPECT_EQ(contents_of(out),
            "prepare: 1.0 KiB of 4.0 KiB (25 %), 512 B/s, 6.0 s left\n"
            "prepare: 3.0 KiB of 4.0 KiB (75 %), 256 B/s, 4.0 s left\n");
  std::fclose(out);
}

TEST(Progress, UnknownTotal) {
  double now = 0.0;
  Progress progress({.what = "stdin", .out = nullptr, .clock = [&now] { return now; }});
  now = 2.0;
  progress.update(2048);
  EXPECT_EQ(progress.line(2048), "stdin: 2.0 KiB, 1.0 KiB/s");
}

}  // namespace
}  // namespace farskip
