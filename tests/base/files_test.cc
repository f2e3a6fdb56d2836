#include "base/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FilesTest : public ::testing::Test {
 protected:
  std::string in(const std::string& name) const { return folder_ / name; }
  std::vector<std::string> names() const { return folder_.names(); }

  TempFolder folder_;
};

TEST_F(FilesTest, AppearsOnlyWithCommit) {
  AtomicFile file(in("a"));
  file.write("hello ");
  file.sync();
  EXPECT_FALSE(std::filesystem::exists(in("a")));
  file.write("world");
  EXPECT_EQ(file.size(), 11);
  file.commit();
  EXPECT_EQ(read_file(in("a")), "hello world");
  EXPECT_THAT(names(), ElementsAre("a"));
}

TEST_F(FilesTest, WithoutCommitNothingIsLeftAndTheOldFileStays) {
  write_file(in("a"), "old");
  {
    AtomicFile file(in("a"));
    file.write("new");
  }
  EXPECT_EQ(read_file(in("a")), "old");
  EXPECT_THAT(names(), ElementsAre("a"));
  write_file(in("a"), "new");
  EXPECT_EQ(read_file(in("a")), "new");
  EXPECT_THAT(names(), ElementsAre("a"));
}

TEST_F(FilesTest, LargeWritesAndManySmallOnesKeepTheirOrder) {
  const std::string large(3 << 20, 'x');
  std::string expected;
  AtomicFile file(in("a"));
  for (int i = 0; i < 1000; ++i) {
    file.write(std::to_string(i));
    expected += std::to_string(i);
  }
  file.write(large);
  file.write("end");
  expected += large + "end";
  EXPECT_EQ(file.size(), static_cast<int64_t>(expected.size()));
  file.commit();
  EXPECT_TRUE(read_file(in("a")) == expected);
}

TEST_F(FilesTest, FollowsLinksAndWritesToDevices) {
  write_file(in("target"), "old");
  std::filesystem::create_symlink(in("target"), in("link"));
  write_file(in("link"), "new");
  EXPECT_EQ(read_file(in("target")), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(in("link")));
  write_file("/dev/null", "gone");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

TEST_F(FilesTest, ErrorsNameThePathAndTheCure) {
  EXPECT_THAT(error_of([&] { AtomicFile file(in("missing/a")); }), HasSubstr("does not exist; create it"));
  EXPECT_THAT(error_of([&] { AtomicFile file(folder_.string()); }), HasSubstr("it is a folder"));
  EXPECT_THAT(error_of([&] { read_file(in("a")); }), HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { read_file(folder_.string()); }), HasSubstr("cannot read"));
  EXPECT_THAT(error_of([&] { MappedFile file(in("a")); }), HasSubstr(in("a")));
  EXPECT_THAT(error_of([&] { MappedFile file(folder_.string()); }), HasSubstr("not a regular file"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(FilesTest, FullDiskSaysHowMuchIsFree) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const std::string text = error_of([] { write_file("/dev/full", "x"); });
  EXPECT_THAT(text, HasSubstr("No space left on device after 0 B written"));
  EXPECT_THAT(text, HasSubstr("free; make room"));
}

// A limit on file sizes stands for the full disk: the same path through the code, whatever file system is there.
TEST_F(FilesTest, WritingTooMuchLeavesNothingBehind) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = error_of([&] { write_file(in("a"), std::string(5 << 20, 'x')); });
    ::_exit(text.find("File too large after 1.0 MiB written") != std::string::npos ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(FilesTest, MapsTheWholeFile) {
  write_file(in("a"), "mapped");
  MappedFile first(in("a"));
  MappedFile second = std::move(first);
  ASSERT_EQ(second.size(), 6);
  EXPECT_EQ(static_cast<char>(second.bytes()[5]), 'd');
  write_file(in("empty"), "");
  second = MappedFile(in("empty"));
  EXPECT_EQ(second.size(), 0);
}

TEST_F(FilesTest, AMappedFileIsFilledInAnyOrder) {
  const std::string path = folder_ / "mapped";
  {
    AtomicFile dropped(path);
    dropped.map(10);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  AtomicFile file(path);
  const std::span<std::byte> bytes = file.map(5000);
  ASSERT_EQ(bytes.size(), 5000u);
  bytes[4999] = std::byte{'z'};
  bytes[0] = std::byte{'a'};
  file.commit();
  EXPECT_EQ(read_file(path), "a" + std::string(4998, '\0') + "z");
  if (std::filesystem::exists("/dev/null")) {
    EXPECT_THAT(error_of([] { AtomicFile("/dev/null").map(1); }), HasSubstr("not a regular file"));
  }
}

TEST_F(FilesTest, CreatesFolders) {
  create_parent_folders(in("x/y/z"));
  EXPECT_TRUE(std::filesystem::is_directory(in("x/y")));
  EXPECT_GT(free_bytes(in("x/y/z")), 0);
  write_file(in("plain"), "");
  EXPECT_THAT(error_of([&] { create_parent_folders(in("plain/y/z")); }), HasSubstr("cannot create the folder"));
}

}  // namespace
}  // namespace farskip
