// Our reader and writer against megatron-core's. Runs where FARSKIP_MEGATRON_PYTHON holds a command that starts a
// Python with megatron-core, torch and numpy (the long tests set it); skipped elsewhere.

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "data/indexed_dataset.h"
#include "data/split.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

constexpr int64_t kNumDocuments = 50;

std::vector<int32_t> tokens_of(int64_t document, int64_t sequence) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < (document * 7 + sequence * 5) % 23; ++i) {
    tokens.push_back(static_cast<int32_t>((document * 31 + sequence * 17 + i * 13) % 120));
  }
  return tokens;
}

int64_t sequences_in(int64_t document) { return 1 + document % 3; }

class MegatronPeer : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* python = ::getenv("FARSKIP_MEGATRON_PYTHON");
    if (python == nullptr) GTEST_SKIP() << "FARSKIP_MEGATRON_PYTHON is not set: no Python with megatron-core";
    command_ = std::string(python) + " " FARSKIP_SOURCE_DIR "/tests/data/megatron_peer.py ";
  }

  /// Runs the peer and returns what it prints; a failure of it fails the test.
  std::string peer(const std::string& arguments) {
    std::FILE* pipe = ::popen((command_ + arguments).c_str(), "r");
    std::string text;
    for (int c; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
    EXPECT_EQ(::pclose(pipe), 0) << arguments;
    return text;
  }

  std::string command_;
  TempFolder folder_;
};

constexpr TokenType kTypes[] = {TokenType::uint8, TokenType::int16, TokenType::uint16, TokenType::int32,
                                TokenType::int64};
// A Python with megatron-core starts slowly: one start serves all types.
constexpr const char* kTypeNames = " uint8 int16 uint16 int32 int64";

TEST_F(MegatronPeer, ReadsWhatWeWrite) {
  for (const TokenType type : kTypes) {
    IndexedDatasetWriter writer(folder_ / token_type_name(type), type);
    for (int64_t document = 0; document < kNumDocuments; ++document) {
      for (int64_t i = 0; i < sequences_in(document); ++i) writer.add_sequence(tokens_of(document, i));
      writer.end_document();
    }
    writer.commit();
  }
  peer("check " + folder_.string() + kTypeNames);
}

TEST_F(MegatronPeer, WritesWhatWeRead) {
  peer("write " + folder_.string() + kTypeNames);
  for (const TokenType type : kTypes) {
    const IndexedDataset data(folder_ / token_type_name(type));
    EXPECT_EQ(data.token_type(), type);
    ASSERT_EQ(data.num_documents(), kNumDocuments);
    for (int64_t document = 0; document < kNumDocuments; ++document) {
      const int64_t first = data.document_bound(document);
      ASSERT_EQ(data.document_bound(document + 1) - first, sequences_in(document));
      for (int64_t i = 0; i < sequences_in(document); ++i) EXPECT_EQ(data.sequence(first + i), tokens_of(document, i));
    }
  }
}

TEST_F(MegatronPeer, SplitsAlike) {
  std::vector<std::pair<int64_t, std::string>> cases;
  std::string arguments = "split";
  for (const int64_t num_sequences : {5, 66, 1189, 123457}) {
    for (const char* text : {"969,30,1", "99,1", "1", "949,50,1", "0.5,0.25,0.25", "90,0,10", "1,1"}) {
      cases.emplace_back(num_sequences, text);
      arguments += fmt::format(" {}:{}", num_sequences, text);
    }
  }
  std::istringstream theirs(peer(arguments));
  for (const auto& [num_sequences, text] : cases) {
    const DatasetSplit ours = split_sequences(text, num_sequences);
    for (SequenceRange part : {ours.train, ours.valid, ours.test}) {
      if (part.size() == 0) part = {0, 0};
      SequenceRange expected{-1, -1};
      theirs >> expected.begin >> expected.end;
      if (expected.size() == 0) expected = {0, 0};
      EXPECT_EQ(part, expected) << text << " of " << num_sequences;
    }
  }
}

}  // namespace
}  // namespace farskip
