// Layouts: spelling, derived sizes, and what a model cannot take.

#include "layer/layout.h"

#include <gmock/gmock.h>

#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

TEST(Layout, SpellingRoundTrips) {
  for (const char* text : {"ep=8,dp=1", "ep=8,dp=2", "ep=1,dp=1,tp=4", "ep=2,dp=1,pp=2", "ep=4,dp=1,exchange=a2a",
                           "ep=1,dp=1,tp=2,experts=tp"}) {
    EXPECT_EQ(Layout::parse(text).to_string(), text);
  }
  EXPECT_EQ(Layout::parse(""), Layout{});
  EXPECT_EQ(Layout::parse("dp=2,ep=8"), Layout::parse("ep=8,dp=2,pp=1,tp=1"));
  EXPECT_EQ(Layout::parse("ep=8,exchange=gather"), Layout::parse("ep=8"));
}

TEST(Layout, SizesFollow) {
  const Layout layout = Layout::parse("ep=8,dp=2");
  EXPECT_EQ(layout.world(), 16);
  EXPECT_EQ(layout.expert_ranks(Phase::train), 8);
  EXPECT_EQ(layout.exchange(Phase::train), Exchange::all_to_all);
  EXPECT_EQ(layout.exchange(Phase::prefill), Exchange::gather);
  EXPECT_EQ(Layout::parse("ep=8,exchange=a2a").exchange(Phase::decode), Exchange::all_to_all);
  EXPECT_EQ(Layout::parse("tp=4").exchange(Phase::prefill), Exchange::all_reduce);
  EXPECT_EQ(Layout::parse("tp=4").expert_ranks(Phase::prefill), 4);
  EXPECT_EQ(Layout::parse("tp=4").expert_divisor(Phase::prefill), 4);
  EXPECT_EQ(Layout::parse("tp=4,experts=tp").expert_ranks(Phase::prefill), 4);
  EXPECT_EQ(Layout::parse("tp=4,experts=tp").expert_divisor(Phase::prefill), 1);
}

TEST(Layout, BadSpellingsAreNamed) {
  auto error = [](const char* text) { return error_of([&] { Layout::parse(text); }); };
  EXPECT_THAT(error("ep"), HasSubstr("ep is ''"));
  EXPECT_THAT(error("ep=0"), HasSubstr("ep is '0'; expected a number of ranks"));
  EXPECT_THAT(error("ep=-1"), HasSubstr("ep is '-1'"));
  EXPECT_THAT(error("ep=8x"), HasSubstr("ep is '8x'"));
  EXPECT_THAT(error("ep=99999999999"), HasSubstr("ep is '99999999999'"));
  EXPECT_THAT(error("cp=2"), HasSubstr("'cp=2' is unknown; expected ep, dp, tp, pp, exchange or experts"));
  EXPECT_THAT(error("ep=2,,dp=1"), HasSubstr("'' is unknown"));
  EXPECT_THAT(error("ep=2,ep=4"), HasSubstr("ep is given twice"));
  EXPECT_THAT(error("exchange=nccl"), HasSubstr("exchange is 'nccl'; expected a2a or gather"));
  EXPECT_THAT(error("tp=2,experts=all"), HasSubstr("experts is 'all'; expected ep or tp"));
  EXPECT_THAT(error("ep=1000000,dp=1000000"), HasSubstr("1000000000000 ranks"));
  EXPECT_THAT(error_of([] { parse_phase("inference"); }), HasSubstr("expected train, prefill or decode"));
}

TEST(Layout, ModelsMustDivide) {
  const ModelConfig model = testing::tiny_model("dm");
  auto error = [&](const char* text, Phase phase) {
    return error_of([&] { Layout::parse(text).check(model, phase); });
  };
  EXPECT_THAT(error("ep=16", Phase::train), HasSubstr("8 experts cannot be divided over 16 ranks"));
  EXPECT_THAT(error("tp=2", Phase::train), HasSubstr("tp=2 in training is not built yet"));
  EXPECT_THAT(error("tp=8", Phase::prefill), HasSubstr("4 attention heads"));
  EXPECT_THAT(error("tp=2,ep=2", Phase::prefill), HasSubstr("ep must be 1"));
  EXPECT_THAT(error("tp=2,exchange=a2a", Phase::prefill), HasSubstr("leave exchange=a2a out"));
  EXPECT_THAT(error("experts=tp", Phase::prefill), HasSubstr("give tp=N"));
  ModelConfig odd = model;
  odd.num_experts = 3;
  EXPECT_THAT(error_of([&] { Layout::parse("tp=2").check(odd, Phase::prefill); }),
              HasSubstr("3 experts cannot be divided over 2 ranks; choose a divisor of 3, or experts=tp"));
  odd.intermediate_size = 33;
  EXPECT_THAT(error_of([&] { Layout::parse("tp=2,experts=tp").check(odd, Phase::prefill); }),
              HasSubstr("dense feed-forwards of width 33 cannot be divided over tp=2"));
  odd.layers.assign(odd.layers.size(), LayerKind::moe);
  odd.moe_intermediate_size = 7;
  EXPECT_THAT(error_of([&] { Layout::parse("tp=2,experts=tp").check(odd, Phase::prefill); }),
              HasSubstr("experts of width 7 cannot be divided over tp=2"));
  EXPECT_THAT(error("pp=2", Phase::train), HasSubstr("pp=2 is not built yet"));
  Layout::parse("ep=3").check(testing::tiny_model("dd"), Phase::train);  // no experts, nothing to divide
  Layout::parse("ep=8,dp=3").check(model, Phase::train);
}

}  // namespace
}  // namespace farskip
