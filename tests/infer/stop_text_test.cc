// Text up to a stop string, however it is cut into pieces.

#include "infer/stop_text.h"

#include <gtest/gtest.h>

namespace farskip {
namespace {

std::string through(StopText& stop, const std::string& text, size_t piece) {
  std::string shown;
  for (size_t i = 0; i < text.size(); i += piece) shown += stop.push(text.substr(i, piece));
  return shown + stop.finish();
}

TEST(StopText, EndsBeforeTheFirstStop) {
  for (size_t piece = 1; piece < 12; ++piece) {
    StopText stop({"END", "\n\n", ""});
    EXPECT_EQ(through(stop, "the ENEND of\n\nit", piece), "the EN");
    EXPECT_TRUE(stop.stopped());
    StopText none({"END", "\n\n"});
    EXPECT_EQ(through(none, "EN\nD\nEN", piece), "EN\nD\nEN");
    EXPECT_FALSE(none.stopped());
  }
}

TEST(StopText, ShowsWhatIsCertain) {
  StopText stop({"abc", "bd"});
  EXPECT_EQ(stop.push("xa"), "x");
  EXPECT_EQ(stop.push("b"), "");
  EXPECT_EQ(stop.push("x"), "abx");
  EXPECT_EQ(stop.push("ab"), "");
  EXPECT_EQ(stop.push("d"), "a");
  EXPECT_TRUE(stop.stopped());
  EXPECT_EQ(stop.push("more"), "");
}

}  // namespace
}  // namespace farskip
