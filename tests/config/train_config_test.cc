// Recipes of `farskip train`.

#include "config/train_config.h"

#include <gmock/gmock.h>

#include "helpers.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TrainConfigTest : public ::testing::Test {
 protected:
  std::string recipe(const std::string& yaml) {
    const auto path = std::filesystem::path(::testing::TempDir()) /
                      (std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + ".yaml");
    std::ofstream(path) << yaml;
    return path.string();
  }
  TrainConfig load(const std::string& yaml, std::vector<std::string> overrides = {}) {
    return load_train_config(recipe(yaml), overrides);
  }
  std::string refusal(const std::string& yaml, std::vector<std::string> overrides = {}) {
    return error_of([&] { load(yaml, overrides); });
  }
};

TEST_F(TrainConfigTest, RecipeThenOverrides) {
  const TrainConfig config = load(
      "model: small-moonlight\nlr: 3.0e-4\nmin_lr: 3.0e-5\nlr_decay_style: linear\nsplit: 90,10\n"
      "global_batch_size: 16\ndtype: bf16\n",
      {"lr=1e-3", "seed=7"});
  EXPECT_EQ(config.model, "small-moonlight");
  EXPECT_EQ(config.lr, 1e-3);
  EXPECT_EQ(config.min_lr, 3e-5);
  EXPECT_EQ(config.lr_decay_style, LrDecayStyle::linear);
  EXPECT_EQ(config.split, "90,10");
  EXPECT_EQ(config.dtype, TrainDtype::bf16);
  EXPECT_EQ(config.seed, 7);
  EXPECT_FALSE(config.moe_aux_loss_coeff.has_value());
}

TEST_F(TrainConfigTest, UnknownNamesOfMegatronAreAnswered) {
  EXPECT_THAT(refusal("model: m\nmicro_batchsize: 2\n"),
              AllOf(HasSubstr(".yaml:2"), HasSubstr("did you mean \"micro_batch_size\"?")));
  EXPECT_THAT(refusal("model: m\n", {"micro-batch-size=2"}), HasSubstr("did you mean \"micro_batch_size\"?"));
}

TEST_F(TrainConfigTest, LayoutIsAShorthand) {
  TrainConfig config = load("model: m\nlayout: ep=2,dp=3\nglobal_batch_size: 24\nmicro_batch_size: 2\n");
  EXPECT_EQ(config.expert_model_parallel_size, 2);
  config.resolve(6);
  EXPECT_EQ(config.data_parallel, 3);
  EXPECT_EQ(config.num_microbatches(), 2);
  EXPECT_EQ(load("model: m\nlayout: ep=2\nexpert_model_parallel_size: 2\n").expert_model_parallel_size, 2);
}

TEST_F(TrainConfigTest, LayoutConflictsAreRefused) {
  EXPECT_THAT(refusal("model: m\nlayout: ep=2\n", {"expert_model_parallel_size=4"}),
              AllOf(HasSubstr(".yaml:2: layout = ep=2"), HasSubstr("command line: expert_model_parallel_size = 4")));
  // The default of expert_model_parallel_size contradicts nothing; saying another number does.
  EXPECT_EQ(load("model: m\nlayout: ep=2\n").expert_model_parallel_size, 2);
  EXPECT_THAT(refusal("model: m\nlayout: ep=2\nexpert_model_parallel_size: 1\n"), HasSubstr("contradicts"));
  EXPECT_THAT(refusal("model: m\nlayout: cp=2\n"), HasSubstr("cp=2"));
  EXPECT_THAT(refusal("model: m\nlayout: ep\n"), HasSubstr("positive integer"));
  EXPECT_THAT(refusal("model: m\nlayout: ep=0\n"), HasSubstr("positive integer"));
  EXPECT_THAT(refusal("model: m\nlayout: ep=2,ep=2\n"), HasSubstr("twice"));
  EXPECT_THAT(refusal("model: m\nlayout: tp=2\n"), HasSubstr("tp"));
}

TEST_F(TrainConfigTest, PositionsBeginAnewOnlyWhereAttentionDoes) {
  EXPECT_TRUE(load("model: m\nreset_attention_mask: true\nreset_position_ids: true\n").reset_position_ids);
  EXPECT_TRUE(load("model: m\nreset_attention_mask: true\n").reset_attention_mask);
  EXPECT_THAT(
      refusal("model: m\nreset_position_ids: true\n", {"reset_attention_mask=false"}),
      AllOf(HasSubstr(".yaml:2: reset_position_ids = true"), HasSubstr("command line: reset_attention_mask = false"),
            HasSubstr("add reset_attention_mask=true")));
  EXPECT_THAT(refusal("model: m\nprefetch_steps: -1\n"), HasSubstr("prefetch_steps"));
}

TEST_F(TrainConfigTest, ResolvingToRanks) {
  TrainConfig config = load("model: m\nexpert_model_parallel_size: 2\nglobal_batch_size: 8\n");
  config.resolve(4);
  EXPECT_EQ(config.data_parallel, 2);
  EXPECT_EQ(config.layout, "ep=2,dp=2");
  EXPECT_EQ(config.num_microbatches(), 2);
  EXPECT_THAT(error_of([&] { config.resolve(3); }), AllOf(HasSubstr("3 ranks"), HasSubstr("2")));
  TrainConfig fixed = load("model: m\nlayout: ep=2,dp=1\n");
  EXPECT_THAT(error_of([&] { fixed.resolve(4); }), AllOf(HasSubstr("ep=2,dp=1"), HasSubstr("4 were started")));
  TrainConfig uneven = load("model: m\nglobal_batch_size: 3\n");
  EXPECT_THAT(error_of([&] { uneven.resolve(2); }), HasSubstr("global_batch_size = 3"));
}

TEST_F(TrainConfigTest, ContradictionsAreRefused) {
  EXPECT_THAT(refusal("lr: 1\n"), HasSubstr("model is not given"));
  EXPECT_THAT(refusal("model: m\nlr: 1e-4\nmin_lr: 1e-3\n"), AllOf(HasSubstr(":3: min_lr"), HasSubstr(":2: lr")));
  EXPECT_THAT(refusal("model: m\nglobal_batch_size: 3\nmicro_batch_size: 2\n"), HasSubstr("not a multiple"));
  EXPECT_THAT(refusal("model: m\nsave_interval: 5\n"), HasSubstr("save=FOLDER"));
  EXPECT_THAT(refusal("model: m\nadam_beta2: 1\n"), HasSubstr("below 1"));
  EXPECT_THAT(refusal("model: m\nlr_decay_iters: 5\nlr_warmup_iters: 5\n"), HasSubstr("warm-up"));
  EXPECT_THAT(refusal("model: m\ntokenizer_type: bpe\n"), HasSubstr("byte"));
  EXPECT_THAT(refusal("model: m\ntransport: glo\n"), HasSubstr("did you mean gloo?"));
}

TEST_F(TrainConfigTest, BatchRampIsChecked) {
  TrainConfig config = load("model: m\nglobal_batch_size: 24\nmicro_batch_size: 2\nrampup_batch_size: 8,8,100\n");
  EXPECT_EQ(config.batch_ramp().at(0).batch_size, 8);
  config.resolve(4);
  TrainConfig uneven = load("model: m\nglobal_batch_size: 24\nmicro_batch_size: 2\nrampup_batch_size: 8,8,100\n");
  EXPECT_THAT(error_of([&] { uneven.resolve(3); }), AllOf(HasSubstr("first batch 8"), HasSubstr("2 * 3 = 6")));
  EXPECT_THAT(refusal("model: m\nglobal_batch_size: 24\nrampup_batch_size: 8,5,100\n"), HasSubstr("24 - 8 = 16"));
}

TEST_F(TrainConfigTest, SpikeFactorsAreAboveOne) {
  EXPECT_THAT(refusal("model: m\nloss_spike_factor: 0.9\n"), AllOf(HasSubstr(":2: "), HasSubstr("more than 1")));
  EXPECT_THAT(refusal("model: m\ngrad_spike_factor: 1\n"), HasSubstr("more than 1"));
  EXPECT_EQ(load("model: m\ngrad_spike_factor: 4\n").grad_spike_factor, 4);
}

TEST_F(TrainConfigTest, PrintedRecipeIsReadBack) {
  TrainConfig config =
      load("model: small-moonlight\n", {"adam_eps=1e-9", "expert_model_parallel_size=2", "transport=gloo"});
  config.resolve(4);
  const TrainConfig copy = load(train_recipe(config));
  EXPECT_EQ(copy.adam_eps, 1e-9);
  EXPECT_EQ(copy.layout, "ep=2,dp=2");
  EXPECT_EQ(copy.transport, TransportKind::gloo);
  EXPECT_EQ(copy.lr, config.lr);
  EXPECT_FALSE(copy.lr_decay_iters.has_value());
}

TEST_F(TrainConfigTest, EverySettingIsDocumented) {
  for (const std::string& text : {train_settings_help(), train_settings_markdown()}) {
    EXPECT_THAT(text, AllOf(HasSubstr("micro_batch_size"), HasSubstr("moe_aux_loss_coeff"), HasSubstr("report")));
  }
}

}  // namespace
}  // namespace farskip
