// Steering under the same equality of bits: a skipped step is one that never was, and a batch that still grows is a
// small batch.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/equivalence/trial.h"

namespace farskip::test {
namespace {

constexpr int64_t bad_iteration = 6, num_iterations = 10;

/// A short cycle that the model learns at once; in the bad iteration the samples of the second half of the ranks are
/// noise.
SampleSource cycle_with_noise(const TrainConfig& config) {
  const SampleSource noise = synthetic_samples(config.seq_length, 48, 5);
  return [=](int64_t i) {
    const int64_t batch = config.global_batch_size;
    if (i / batch == bad_iteration && i % batch >= batch / 2) return noise(i).tokens;
    std::vector<int32_t> tokens(config.seq_length + 1);
    for (size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<int32_t>((i + static_cast<int64_t>(t)) % 4);
    return tokens;
  };
}

/// Bits of weights and biases after the run, on each rank. The verdicts are those of every rank alike.
std::vector<Bits> run_cycle(const Trial& trial, double loss_spike_factor, bool with_bad_iteration,
                            int64_t expect_skipped) {
  TrainConfig config = trial.config();
  config.loss_spike_factor = loss_spike_factor;
  config.guard_window = 3;
  config.train_iters = 20;
  std::vector<Bits> bits(trial.layout.world());
  on_ranks(trial, [&](World& world) {
    TrainingSession session(config, world, cycle_with_noise(config));
    for (int64_t i = 0; i < num_iterations; ++i) {
      if (i == bad_iteration && !with_bad_iteration) continue;
      session.step(i, reference_schedule(session.graph()));
      EXPECT_EQ(session.stats().verdict == Verdict::skip, expect_skipped == 1 && i == bad_iteration) << "step " << i;
    }
    EXPECT_EQ(session.guard().num_skipped(), expect_skipped);
    append_weights(bits[world.rank()], session.parameters());
  });
  return bits;
}

TEST(Guard, ASkippedSpikeLeavesTheBitsOfARunWithoutIt) {
  for (const auto& layout : {Layout{}, Layout{.ep = 2}, Layout{.ep = 2, .dp = 2}}) {
    const Trial trial{.layout = layout, .num_microbatches = 2};
    const auto undisturbed = run_cycle(trial, 0, false, 0);
    EXPECT_EQ(run_cycle(trial, 1.3, true, 1), undisturbed) << trial.name();
    EXPECT_NE(run_cycle(trial, 0, true, 0), undisturbed) << "the bad batch was to matter, " << trial.name();
  }
}

// Constant rates, so that steps may be compared with those of a run whose batch is small throughout.
TrainConfig constant_rates(const Trial& trial) {
  TrainConfig config = trial.config();
  config.lr_decay_style = LrDecayStyle::constant;
  config.moe_z_loss_coeff = 0.01;
  return config;
}

TEST(BatchRamp, ASmallBatchTrainsAsInARunOfItsSize) {
  for (const char* model : {"v2", "moonlight", "qwen3"}) {
    for (const auto& layout : {Layout{}, Layout{.ep = 2}}) {
      const Trial large{.model = model, .layout = layout, .num_microbatches = 3};
      const Trial small{.model = model, .layout = layout, .num_microbatches = 1};
      TrainConfig growing = constant_rates(large);
      const int64_t first = small.config().global_batch_size;
      growing.rampup_batch_size =
          fmt::format("{},{},{}", first, first, 4 * first);  // two steps of the first size, one of the next
      on_ranks(large, [&](World& world) {
        const SampleSource samples = synthetic_samples(growing.seq_length, 48, 11);
        TrainingSession ramped(growing, world, samples), plain(constant_rates(small), world, samples);
        for (int64_t i = 0; i < 2; ++i) {
          ramped.step(i, random_schedule(ramped.graph(), i));
          plain.step(i, reference_schedule(plain.graph()));
          EXPECT_EQ(ramped.stats().loss, plain.stats().loss);
          EXPECT_EQ(ramped.stats().load, plain.stats().load);
          EXPECT_EQ(ramped.stats().aux_loss, plain.stats().aux_loss);
          EXPECT_EQ(ramped.stats().z_loss, plain.stats().z_loss);
          EXPECT_EQ(ramped.stats().gradient_norm, plain.stats().gradient_norm);
        }
        for (const ParameterInfo& info : plain.parameters().table().parameters()) {
          EXPECT_TRUE(at::equal(plain.parameters().main(info.id), ramped.parameters().main(info.id))) << info.name;
        }
        EXPECT_GT(plain.stats().z_loss, 0);
        // Then two microbatches of three, from the third sample of each rank on.
        EXPECT_EQ(ramped.position(2), (BatchPosition{2 * first, 2 * first}));
        const auto batches = ramped.batches(2);
        ASSERT_EQ(batches.size(), 3u);
        EXPECT_EQ(batches[1].tokens.size(0), 1);
        EXPECT_EQ(batches[2].tokens.size(0), 0);
        EXPECT_EQ(ramped.position(3), (BatchPosition{4 * first, 3 * first}));
        EXPECT_EQ(ramped.batches(3)[2].tokens.size(0), 1);
      });
    }
  }
}

}  // namespace
}  // namespace farskip::test
