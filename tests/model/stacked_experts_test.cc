// Llama-4's checkpoints: the experts of a layer in one tensor, and names with a prefix beside a vision model's.

#include <ATen/ATen.h>

#include <deque>

#include "model/checkpoint.h"
#include "model/initialize.h"
#include "model/safetensors_writer.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;

const std::string gate_up = "model.layers.1.feed_forward.experts.gate_up_proj";
const std::string down = "model.layers.1.feed_forward.experts.down_proj";

ParameterOptions rank_of(int64_t rank, int64_t ranks) { return {.expert_rank = rank, .expert_ranks = ranks}; }

class Stacked : public ::testing::Test {
 protected:
  void SetUp() override {
    initialize(whole_, {.seed = 5, .std = 0.5});
    save_checkpoint(path(), nlohmann::json::object(), whole_);
  }
  std::string path() const { return folder_ / "model"; }

  TempFolder folder_;
  const std::shared_ptr<const ParameterTable> table_ = make_table(small_llama4_config());
  ParameterSet whole_{table_, {}};
};

TEST_F(Stacked, MatricesAreTransposedGateBesideUp) {
  const SafetensorsReader reader(path());
  ASSERT_EQ(reader.spec(gate_up).shape, (std::vector<int64_t>{4, 16, 2 * 8}));
  ASSERT_EQ(reader.spec(down).shape, (std::vector<int64_t>{4, 8, 16}));
  nn::ModelWeights weights = whole_.weights();
  const nn::MoeWeights& moe = weights.layers[1].moe;
  for (int64_t e = 0; e < 4; ++e) {
    EXPECT_TRUE(at::equal(reader.tensor(gate_up)[e], moe.gate_up.value[e].t()));
    EXPECT_TRUE(at::equal(reader.slice(down, e), moe.down.value[e].t()));
  }
}

TEST_F(Stacked, EachRankReadsItsOwnSlices) {
  const SafetensorsReader reader(path());
  uint64_t in_all = 0, of_experts = 0;
  for (const auto& name : reader.names()) {
    in_all += reader.spec(name).num_bytes();
    if (name.find(".experts.") != std::string::npos) of_experts += reader.spec(name).num_bytes();
  }
  for (const int64_t ranks : {1, 2, 4}) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      ParameterSet part(table_, rank_of(rank, ranks));
      const LoadReport report = load_checkpoint(path(), part);
      EXPECT_EQ(report.bytes_read, in_all - of_experts + of_experts / ranks);
      EXPECT_EQ(report.num_tensors, static_cast<int64_t>(reader.names().size()));
      for (const auto& info : table_->parameters()) {
        at::Tensor expected = whole_.main(info.id);
        if (info.expert) expected = expected.narrow(0, part.first_expert(), part.num_local_experts());
        EXPECT_TRUE(at::equal(part.main(info.id), expected)) << info.name;
      }
    }
  }
}

TEST_F(Stacked, RanksWriteOneTensorTogether) {
  std::vector<std::deque<at::Tensor>> sent(2);
  for (int64_t rank = 1; rank >= 0; --rank) {
    ParameterSet part(table_, rank_of(rank, 2));
    load_checkpoint(path(), part);
    SaveOptions options;
    options.gather = [&](const at::Tensor& block, int64_t owner) {
      if (owner == rank) sent[owner].push_back(block);
      if (rank > 0) return at::Tensor();
      const at::Tensor received = sent[owner].front();
      sent[owner].pop_front();
      return received;
    };
    save_checkpoint(folder_ / "out", nlohmann::json::object(), part, options);
  }
  EXPECT_TRUE(read_file(folder_ / "out/model.safetensors") == read_file(path() + "/model.safetensors"));
}

// As ranks write them while they train.
TEST_F(Stacked, ExpertsMayComeOneByOne) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& info : table_->parameters()) {
    for (const auto& piece : info.pieces) tensors.emplace_back(piece.name, piece.of(whole_.main(info.id)));
  }
  save_safetensors(folder_ / "pieces.safetensors", tensors);
  ParameterSet again(table_, {});
  load_checkpoint(folder_ / "pieces.safetensors", again);
  for (const auto& info : table_->parameters()) EXPECT_TRUE(at::equal(again.main(info.id), whole_.main(info.id)));
  save_checkpoint(folder_ / "out", nlohmann::json::object(), again);
  EXPECT_TRUE(read_file(folder_ / "out/model.safetensors") == read_file(path() + "/model.safetensors"));
}

TEST_F(Stacked, WrongShapesAreNamed) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const SafetensorsReader reader(path());
  for (const auto& name : reader.names()) {
    if (name != down) tensors.emplace_back(name, reader.tensor(name).clone());
  }
  tensors.emplace_back(down, at::zeros({4, 16, 8}));
  save_safetensors(folder_ / "wrong.safetensors", tensors);
  ParameterSet set(table_, {});
  expect_error([&] { load_checkpoint(folder_ / "wrong.safetensors", set); }, {down, "[4, 16, 8]", "[4, 8, 16]"});
  tensors.pop_back();
  save_safetensors(folder_ / "wrong.safetensors", tensors);
  expect_error([&] { load_checkpoint(folder_ / "wrong.safetensors", set); }, {"1 missing: " + down});
}

TEST_F(Stacked, TheWholeModelsCheckpointCarriesItsImages) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const SafetensorsReader reader(path());
  for (const auto& name : reader.names()) tensors.emplace_back("language_model." + name, reader.tensor(name));
  tensors.emplace_back("vision_model.class_embedding", at::arange(8).to(at::kBFloat16));
  tensors.emplace_back("multi_modal_projector.linear_1.weight", at::ones({2, 3}));
  save_safetensors(folder_ / "whole.safetensors", tensors);
  ParameterSet set(make_table(small_llama4_config("Llama4ForConditionalGeneration")), {});
  const LoadReport report = load_checkpoint(folder_ / "whole.safetensors", set);
  EXPECT_EQ(report.ignored,
            (std::vector<std::string>{"multi_modal_projector.linear_1.weight", "vision_model.class_embedding"}));
  for (const auto& info : table_->parameters()) EXPECT_TRUE(at::equal(set.main(info.id), whole_.main(info.id)));
  SaveOptions options;
  options.carry_from = folder_ / "whole.safetensors";
  save_checkpoint(folder_ / "out", nlohmann::json::object(), set, options);
  const SafetensorsReader before(folder_ / "whole.safetensors"), after(folder_ / "out");
  ASSERT_EQ(before.names(), after.names());
  for (const auto& name : before.names()) EXPECT_TRUE(at::equal(before.tensor(name), after.tensor(name))) << name;
}

TEST(SafetensorsWriter, RowsFollowEachOther) {
  TempFolder folder;
  SafetensorsWriter writer(folder / "a.safetensors", {{"a", at::kFloat, {3, 2}}, {"b", at::kFloat, {2}}});
  const at::Tensor a = at::arange(6).to(at::kFloat).view({3, 2});
  writer.write("a", a.narrow(0, 0, 1));
  expect_error([&] { writer.write("b", at::zeros({2})); }, {"b", "a was declared"});
  expect_error([&] { writer.write("a", a); }, {"[3, 2]"});
  writer.write("a", a.narrow(0, 1, 2));
  expect_error([&] { writer.commit(); }, {"1 of 2"});
  writer.write("b", at::ones({2}));
  writer.commit();
  EXPECT_TRUE(at::equal(SafetensorsReader(folder / "a.safetensors").tensor("a"), a));
}

}  // namespace
}  // namespace farskip
