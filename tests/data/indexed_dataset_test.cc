#include "data/indexed_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/files.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Tokens = std::vector<int32_t>;

class IndexedDatasetTest : public ::testing::Test {
 protected:
  /// Three documents: {1 2 3}, {4} {} {5 6}, {7}.
  void write_small(TokenType type = TokenType::uint16) {
    IndexedDatasetWriter writer(prefix_, type);
    writer.add_document(Tokens{1, 2, 3});
    writer.add_sequence(Tokens{4});
    writer.add_sequence(Tokens{});
    writer.add_sequence(Tokens{5, 6});
    writer.end_document();
    writer.add_document(Tokens{7});
    writer.commit();
  }
  /// Replaces `size` bytes of the index of write_small() and returns what the reader says.
  template <typename T>
  std::string error_with(size_t at, T value) {
    write_small();
    std::string index = read_file(index_path(prefix_));
    std::memcpy(index.data() + at, &value, sizeof(T));
    write_file(index_path(prefix_), index);
    return reader_error();
  }
  std::string reader_error() {
    return error_of([&] { IndexedDataset data(prefix_); });
  }

  TempFolder folder_;
  const std::string prefix_ = folder_ / "small_text_document";
};

TEST_F(IndexedDatasetTest, RoundTripOfEveryType) {
  for (const TokenType type :
       {TokenType::uint8, TokenType::int8, TokenType::int16, TokenType::uint16, TokenType::int32, TokenType::int64}) {
    write_small(type);
    const IndexedDataset data(prefix_);
    EXPECT_EQ(data.token_type(), type);
    EXPECT_EQ(data.num_tokens(), 7);
    EXPECT_EQ(data.num_sequences(), 5);
    EXPECT_EQ(data.num_documents(), 3);
    EXPECT_EQ(data.document_bound(1), 1);
    EXPECT_EQ(data.document_bound(2), 4);
    EXPECT_EQ(data.sequence(0), (Tokens{1, 2, 3}));
    EXPECT_EQ(data.sequence(2), Tokens{});
    EXPECT_EQ(data.sequence(3), (Tokens{5, 6}));
    Tokens part(2);
    data.read(0, 1, part);
    EXPECT_EQ(part, (Tokens{2, 3}));
  }
}

TEST_F(IndexedDatasetTest, BytesAreThoseOfTheFormat) {
  IndexedDatasetWriter writer(prefix_, TokenType::uint16);
  writer.add_document(Tokens{258, 1});
  writer.commit();
  EXPECT_EQ(read_file(tokens_path(prefix_)), std::string("\2\1\1\0", 4));
  const std::string expected(
      "MMIDIDX\0\0"
      "\1\0\0\0\0\0\0\0"                   // version
      "\10"                                // uint16
      "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0"   // one sequence, two bounds
      "\2\0\0\0"                           // its length
      "\0\0\0\0\0\0\0\0"                   // its pointer
      "\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0",  // bounds of documents
      34 + 4 + 8 + 16);
  EXPECT_EQ(read_file(index_path(prefix_)), expected);
}

TEST_F(IndexedDatasetTest, LargestValues) {
  IndexedDatasetWriter narrow(prefix_, TokenType::uint16);
  narrow.add_document(Tokens{0, 65535});
  EXPECT_THAT(error_of([&] { narrow.add_document(Tokens{65536}); }),
              HasSubstr("token id 65536 does not fit the type uint16"));
  EXPECT_THAT(error_of([&] { narrow.add_document(Tokens{-1}); }), HasSubstr("token id -1"));
  IndexedDatasetWriter wide(prefix_, TokenType::int32);
  wide.add_document(Tokens{2147483647});
  wide.commit();
  EXPECT_EQ(IndexedDataset(prefix_).sequence(0), Tokens{2147483647});
}

TEST_F(IndexedDatasetTest, ValuesThatAreNoIdsAreErrorsWhenRead) {
  write_small(TokenType::int32);
  std::string tokens = read_file(tokens_path(prefix_));
  tokens[3] = '\xff';
  write_file(tokens_path(prefix_), tokens);
  const IndexedDataset data(prefix_);
  EXPECT_THAT(error_of([&] { data.sequence(0); }), HasSubstr("token 0 of sequence 0 is no token id"));
  EXPECT_EQ(data.sequence(3), (Tokens{5, 6}));
}

TEST_F(IndexedDatasetTest, DamagedHeaders) {
  EXPECT_THAT(error_with<char>(0, 'X'), HasSubstr("does not begin with MMIDIDX"));
  EXPECT_THAT(error_with<uint64_t>(9, 2), HasSubstr("index version 2, but only version 1"));
  EXPECT_THAT(error_with<uint8_t>(17, 9), HasSubstr("unknown token type code 9"));
  EXPECT_THAT(error_with<uint8_t>(17, 0), HasSubstr("unknown token type code 0"));
  EXPECT_THAT(error_with<uint8_t>(17, 7), HasSubstr("float32, which are no token ids"));
  EXPECT_THAT(error_with<uint64_t>(18, ~uint64_t{0}), HasSubstr("impossible counts"));
  EXPECT_THAT(error_with<uint64_t>(18, 6), HasSubstr("6 sequences and 3 documents need 138"));
  EXPECT_THAT(error_with<uint64_t>(26, 0), HasSubstr("impossible counts"));
}

TEST_F(IndexedDatasetTest, DamagedArrays) {
  const size_t lengths = 34, pointers = lengths + 5 * 4, bounds = pointers + 5 * 8;
  EXPECT_THAT(error_with<int32_t>(lengths, -3), HasSubstr("sequence 0 has the length -3"));
  EXPECT_THAT(error_with<int32_t>(lengths, 4),
              HasSubstr("sequence 1 is said to begin at byte 6, but those before it end at 8"));
  EXPECT_THAT(error_with<int32_t>(lengths + 16, 2), HasSubstr("14 bytes, but"));
  EXPECT_THAT(error_with<int64_t>(pointers + 8, 1 << 20), HasSubstr("begin at byte 1048576"));
  EXPECT_THAT(error_with<int64_t>(bounds, 1), HasSubstr("first document begins at sequence 1"));
  EXPECT_THAT(error_with<int64_t>(bounds + 8, 5), HasSubstr("ends at sequence 4, before it begins at 5"));
  EXPECT_THAT(error_with<int64_t>(bounds + 24, 6), HasSubstr("documents hold 6 sequences, but there are 5"));
}

TEST_F(IndexedDatasetTest, EveryTruncationIsSeen) {
  write_small();
  const std::string index = read_file(index_path(prefix_));
  for (size_t size = index.size(); size-- > 0;) {
    std::filesystem::resize_file(index_path(prefix_), size);
    EXPECT_THAT(reader_error(), HasSubstr(index_path(prefix_))) << size;
  }
  write_file(index_path(prefix_), index + "xxxxx");
  EXPECT_THAT(reader_error(), HasSubstr("multimodal"));
  write_file(index_path(prefix_), index + "x");
  EXPECT_THAT(reader_error(), HasSubstr("cut off or damaged"));
  write_file(index_path(prefix_), index);
  const std::string tokens = read_file(tokens_path(prefix_));
  for (size_t size = tokens.size(); size-- > 0;) {
    std::filesystem::resize_file(tokens_path(prefix_), size);
    EXPECT_THAT(reader_error(), HasSubstr("do not belong together")) << size;
  }
  std::filesystem::remove(tokens_path(prefix_));
  EXPECT_THAT(reader_error(), HasSubstr("cannot open " + tokens_path(prefix_)));
}

TEST_F(IndexedDatasetTest, NothingAppearsWithoutCommit) {
  {
    IndexedDatasetWriter writer(prefix_, TokenType::uint16);
    writer.add_document(Tokens{1});
  }
  EXPECT_THAT(folder_.names(), IsEmpty());
  IndexedDatasetWriter empty(prefix_, TokenType::uint16);
  EXPECT_THAT(error_of([&] { empty.commit(); }), HasSubstr("not one token"));
  EXPECT_THAT(error_of([&] { IndexedDatasetWriter floats(prefix_, TokenType::float32); }), HasSubstr("float32"));
}

TEST_F(IndexedDatasetTest, FullDiskKeepsTheOlderDataset) {
  write_small();
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string text = error_of([&] {
      IndexedDatasetWriter writer(prefix_, TokenType::uint16);
      for (int i = 0; i < 100; ++i) writer.add_document(Tokens(10000, 1));
      writer.commit();
    });
    ::_exit(text.find("File too large") != std::string::npos ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(IndexedDataset(prefix_).num_tokens(), 7);
  EXPECT_THAT(folder_.names(),
              ElementsAre("small_text_document.bin", "small_text_document.idx", "small_text_document.sha256"));
}

TEST_F(IndexedDatasetTest, ChecksumsAreThoseOfSha256sum) {
  write_small();
  EXPECT_EQ(::system(("cd " + folder_.string() + " && sha256sum --quiet -c small_text_document.sha256").c_str()), 0);
  verify_checksums(prefix_);
  std::string tokens = read_file(tokens_path(prefix_));
  tokens[0] ^= 1;
  write_file(tokens_path(prefix_), tokens);
  EXPECT_THAT(error_of([&] { verify_checksums(prefix_); }), HasSubstr(".bin: its SHA-256 is not the one in"));
}

TEST(TokenType, Choice) {
  EXPECT_EQ(token_type_for(257), TokenType::uint16);
  EXPECT_EQ(token_type_for(65499), TokenType::uint16);
  EXPECT_EQ(token_type_for(65500), TokenType::int32);
}

}  // namespace
}  // namespace farskip
