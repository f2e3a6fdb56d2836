// Shares of the ranks of an inference layout: together they are the model, each element once where it is divided.

#include "model/tensor_share.h"

#include <ATen/ATen.h>

#include "model/initialize.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

/// Every piece filled with numbers that name its elements.
at::Tensor numbers(const TensorPiece& piece) {
  int64_t numel = 1;
  for (int64_t size : piece.shape) numel *= size;
  const double first = static_cast<double>(std::hash<std::string>{}(piece.name) % 1000003);
  return (at::arange(numel, at::kDouble) + first * 4096).view(piece.shape);
}

at::Tensor share_of(const ModelConfig& config, const ParameterInfo& info, const std::string& layout, int rank) {
  const TensorShare share(config, Layout::parse(layout), rank);
  if (!share.holds(info)) return {};
  const at::Tensor value = at::full(share.shape(info), -1.0, at::kDouble);
  share.fill(info, value, numbers);
  return value;
}

class Shares : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { REQUIRE_GOLDEN(GetParam()); }
};

/// Elements of all ranks' shares, sorted.
at::Tensor sorted(const std::vector<at::Tensor>& shares) {
  std::vector<at::Tensor> flat;
  for (const auto& share : shares) {
    if (share.defined()) flat.push_back(share.flatten());
  }
  return std::get<0>(at::cat(flat).sort());
}

TEST_P(Shares, TogetherAreTheModel) {
  const ModelConfig config = testing::golden_config(GetParam());
  const ParameterTable table(config);
  for (const ParameterInfo& info : table.parameters()) {
    const at::Tensor whole = sorted({share_of(config, info, "", 0)});
    for (const char* layout : {"tp=2", "tp=2,experts=tp", "ep=2"}) {
      const std::vector<at::Tensor> shares = {share_of(config, info, layout, 0), share_of(config, info, layout, 1)};
      const bool expert_parallel = info.expert && std::string(layout) != "tp=2,experts=tp";
      const bool head_parallel = info.division != Division::none && std::string(layout) != "ep=2" &&
                                 (!info.expert || std::string(layout) == "tp=2,experts=tp");
      if (expert_parallel || head_parallel) {
        EXPECT_TRUE(at::equal(sorted(shares), whole)) << info.name << " " << layout;
      } else {
        for (const auto& share : shares) EXPECT_TRUE(at::equal(sorted({share}), whole)) << info.name << " " << layout;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Shares, ::testing::ValuesIn(testing::golden_names),
                         [](const auto& info) { return info.param; });

TEST(TensorShare, HeadsRowsAndColumns) {
  REQUIRE_GOLDEN("qwen3_moe");
  const ModelConfig config = testing::golden_config("qwen3_moe");
  const TensorShare second(config, Layout::parse("tp=2"), 1);
  EXPECT_EQ(second.local().attention.num_heads, config.attention.num_heads / 2);
  EXPECT_EQ(second.local().attention.first_head, config.attention.num_heads / 2);
  const ParameterTable table(config);
  for (const ParameterInfo& info : table.parameters()) {
    const at::Tensor whole = share_of(config, info, "", 0), part = share_of(config, info, "tp=2", 1);
    const int64_t rows = whole.size(0) / 2;
    if (info.name.ends_with("q_proj.weight")) {
      EXPECT_TRUE(at::equal(part, whole.narrow(0, rows, rows)));
    }
    if (info.name.ends_with("o_proj.weight")) {
      EXPECT_TRUE(at::equal(part, whole.narrow(1, whole.size(1) / 2, whole.size(1) / 2)));
    }
    if (!info.expert) continue;
    EXPECT_TRUE(at::equal(part, whole.narrow(0, rows, rows))) << info.name;
    const at::Tensor sliced = share_of(config, info, "tp=2,experts=tp", 1);
    const int64_t F = config.moe_intermediate_size;
    if (info.division == Division::columns) {
      EXPECT_TRUE(at::equal(sliced, whole.narrow(2, F / 2, F / 2)));
    } else {  // the second half of gate, then of up
      EXPECT_TRUE(at::equal(sliced, at::cat({whole.narrow(1, F / 2, F / 2), whole.narrow(1, F + F / 2, F / 2)}, 1)));
    }
  }
}

}  // namespace
}  // namespace farskip
