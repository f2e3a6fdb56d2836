#include <gtest/gtest.h>

#include "base/files.h"
#include "config/train_config.h"

namespace farskip {
namespace {

TEST(SettingsPage, IsWhatTheTableSays) {
  EXPECT_EQ(read_file(FARSKIP_SOURCE_DIR "/docs/settings.md"), train_settings_markdown())
      << "docs/settings.md is generated: write train_settings_markdown() to it again";
}

}  // namespace
}  // namespace farskip
