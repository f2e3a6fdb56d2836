// Our reader and writer against megatron-core's. Runs where FARSKIP_MEGATRON_PYTHON holds a command that starts a
// Python with megatron-core, torch and numpy (the long tests set it); skipped elsewhere.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <stdlib.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "data/blend.h"
#include "data/indexed_dataset.h"
#include "data/samples.h"
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

std::string blend_text(const BlendIndex& index) {
  std::string text;
  for (int64_t i = 0; i < index.size(); ++i) text += fmt::format("{} {} ", index.dataset(i), index.sample(i));
  text.back() = '\n';
  return text;
}

TEST_F(MegatronPeer, BlendsAlike) {
  std::string ours;
  std::string arguments = "blend";
  for (const std::string weights : {"0.7,0.3", "1,1,1", "0.123,0.456,0.2,0.221", "30,70", "1e-4,1", "5"}) {
    std::vector<std::string> data_path;
    std::istringstream parts(weights);
    for (std::string weight; std::getline(parts, weight, ',');) data_path.insert(data_path.end(), {weight, "a"});
    ours += blend_text(BlendIndex::weighted(parse_blend(data_path).weights, 5000, folder_.string(), "blend"));
    arguments += " 5000:" + weights;
  }
  EXPECT_EQ(peer(arguments), ours);
  ours = blend_text(BlendIndex::exhaustive({3, 1}, folder_.string(), "blend")) +
         blend_text(BlendIndex::exhaustive({1000, 17, 333, 1}, folder_.string(), "blend"));
  EXPECT_EQ(peer("exhaust 3,1 1000,17,333,1"), ours);
}

TEST_F(MegatronPeer, MasksAlike) {
  const std::vector<std::vector<int32_t>> cases = {
      {1, 2, 9, 3, 4}, {9, 9, 1, 9, 2}, {1, 2, 3}, {1, 9, 9}, {9, 1, 2, 9, 9, 9, 4, 5, 9}};
  std::string ours, arguments = "masks";
  for (const auto& tokens : cases) {
    const Sample sample = make_sample(
        tokens, {}, {.reset_position_ids = true, .reset_attention_mask = true, .eod_mask_loss = true, .eod_token = 9});
    std::vector<int32_t> begins;  // the first position that each may look at
    for (size_t d = 0; d + 1 < sample.cu_seqlens.size(); ++d) {
      begins.resize(static_cast<size_t>(sample.cu_seqlens[d + 1]), sample.cu_seqlens[d]);
    }
    ours += fmt::format("{} {} {}\n", fmt::join(sample.loss_mask, " "), fmt::join(sample.position_ids, " "),
                        fmt::join(begins, " "));
    arguments += fmt::format(" 9:{}", fmt::join(tokens, ","));
  }
  EXPECT_EQ(peer(arguments), ours);
}

}  // namespace
}  // namespace farskip
