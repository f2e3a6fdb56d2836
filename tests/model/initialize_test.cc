#include "model/initialize.h"

#include <ATen/ATen.h>

#include <cmath>

#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;

ModelConfig wide_config() {
  ModelConfig config = small_config();
  config.hidden_size = 128;
  config.vocab_size = 1000;
  config.intermediate_size = 256;
  config.moe_intermediate_size = 64;
  config.shared_intermediate_size = 64;
  return config;
}

TEST(Initialize, StatisticsAreMegatrons) {
  ParameterSet set(make_table(wide_config()), {});
  initialize(set, {.seed = 3, .std = 0.02});
  for (const auto& info : set.table().parameters()) {
    const at::Tensor values = set.value(info.id).to(at::kDouble);
    if (!info.decays()) {
      EXPECT_TRUE(at::equal(values, at::ones_like(values))) << info.name;
      continue;
    }
    const double std = info.role == Role::output_weight ? 0.02 / std::sqrt(2.0 * 3) : 0.02;
    const double count = static_cast<double>(values.numel());
    // Six standard errors of the mean, the variance, the skewness and the kurtosis of a normal sample.
    const at::Tensor z = values / std;
    EXPECT_LT(std::abs(z.mean().item<double>()), 6 / std::sqrt(count)) << info.name;
    EXPECT_LT(std::abs(z.pow(2).mean().item<double>() - 1), 6 * std::sqrt(2 / count)) << info.name;
    EXPECT_LT(std::abs(z.pow(3).mean().item<double>()), 6 * std::sqrt(15 / count)) << info.name;
    EXPECT_LT(std::abs(z.pow(4).mean().item<double>() - 3), 6 * std::sqrt(96 / count)) << info.name;
    // Neighbours, also the two of one Box-Muller pair, are independent.
    const at::Tensor flat = z.flatten();
    const at::Tensor lag = flat.slice(0, 1) * flat.slice(0, 0, flat.numel() - 1);
    EXPECT_LT(std::abs(lag.mean().item<double>()), 6 / std::sqrt(count)) << info.name;
  }
}

TEST(Initialize, AnyNumberOfRanksBeginsWithTheSameModel) {
  const auto table = make_table(small_config());
  const InitOptions init{.seed = 11};
  ParameterSet whole(table, {});
  initialize(whole, init);
  for (const int64_t ranks : {2, 4}) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      ParameterOptions options;
      options.expert_rank = rank;
      options.expert_ranks = ranks;
      ParameterSet part(table, options);
      initialize(part, init);
      for (const auto& info : table->parameters()) {
        const at::Tensor& all = whole.main(info.id);
        const at::Tensor expected = info.expert ? all.narrow(0, part.first_expert(), part.num_local_experts()) : all;
        EXPECT_TRUE(at::equal(part.main(info.id), expected)) << info.name << " rank " << rank << " of " << ranks;
      }
    }
  }
}

TEST(Initialize, SeedsNamesAndDtypes) {
  const auto table = make_table(small_config());
  ParameterSet one(table, {}), other(table, {});
  initialize(one, {.seed = 1});
  initialize(other, {.seed = 2});
  EXPECT_FALSE(at::equal(one.main(0), other.main(0)));
  initialize(other, {.seed = 1});
  EXPECT_TRUE(at::equal(one.main(0), other.main(0)));
  const nn::ModelWeights weights = one.weights();
  EXPECT_FALSE(at::equal(weights.layers[1].moe.down.value[0], weights.layers[1].moe.down.value[1]));
  EXPECT_FALSE(at::equal(weights.layers[1].moe.down.value, weights.layers[2].moe.down.value));
  EXPECT_FALSE(at::equal(weights.embed_tokens.value, weights.lm_head.value));

  ParameterOptions options;
  options.dtype = at::kBFloat16;
  for (const bool keep_main : {true, false}) {
    options.keep_main = keep_main;
    ParameterSet rounded(table, options);
    initialize(rounded, {.seed = 1});
    EXPECT_TRUE(at::equal(rounded.value(0), one.main(0).to(at::kBFloat16))) << "keep_main " << keep_main;
  }
}

TEST(Initialize, SequencesDoNotDependOnLengthOrThreads) {
  std::vector<float> longer(100'003), shorter(1'001);
  fill_normal(longer.data(), 100'003, 5, "w", 1.0);
  fill_normal(shorter.data(), 1'001, 5, "w", 1.0);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

}  // namespace
}  // namespace farskip
