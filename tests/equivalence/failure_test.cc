// A collective that fails in the middle of a step: every rank's step throws, nobody hangs, and what is in flight is
// dropped without stopping the program.

#include <gtest/gtest.h>

#include <atomic>

#include "base/error.h"
#include "tests/equivalence/trial.h"
#include "transport/c10d.h"
#include "transport/clock.h"
#include "transport/loopback.h"
#include "transport/probes.h"

namespace farskip::test {
namespace {

constexpr double timeout_s = 1;

/// Runs one step in which collective number `at` of rank 1 fails. Returns how many ranks threw, and the texts.
std::vector<std::string> fail_step(const Trial& trial, Failure failure) {
  const int num_ranks = trial.layout.world();
  const TransportOptions options{.timeout_s = timeout_s};
  Worlds worlds = trial.gloo ? make_gloo_threads(num_ranks, options) : make_loopback(num_ranks, options);
  worlds[1] = with_failure(std::move(worlds[1]), failure);
  std::vector<std::string> errors(num_ranks);
  run_ranks(worlds, [&](World& world) {
    TrainingSession session = make_session(trial, world);
    const Schedule schedule = random_schedule(session.graph(), 3);  // with several collectives in flight
    for (int attempt = 0; attempt < 2; ++attempt) {                 // the second finds the first error
      try {
        session.step(0, schedule);
        errors[world.rank()] += "no error";
      } catch (const Error& error) {
        errors[world.rank()] = error.what();
      }
    }
  });
  return errors;
}

void expect_failure(const Trial& trial, Failure failure) {
  const double begin_us = now_us();
  const auto errors = fail_step(trial, failure);
  for (const std::string& error : errors) {
    EXPECT_EQ(error.find("no error"), std::string::npos) << "collective " << failure.at << ": " << error;
    EXPECT_FALSE(error.empty());
  }
  EXPECT_LT(now_us() - begin_us, (timeout_s + 4) * 1e6) << "collective " << failure.at;
}

int64_t num_collectives(const Trial& trial) {
  const TrainingModel model = TrainingModel::load(trial.config());
  const StageGraph graph =
      build_graph(model.config, model.connectivity, {Phase::train, trial.layout, trial.num_microbatches, Scope::step});
  return static_cast<int64_t>(collective_order(graph, reference_schedule(graph)).size());
}

TEST(Failure, OfAnyCollectiveEndsTheStepOnAllRanks) {
  const Trial trial;
  const int64_t last = num_collectives(trial) - 1;
  ASSERT_GT(last, 20);
  for (int64_t at = 0; at <= last; ++at) expect_failure(trial, {.how = Failure::How::fail, .at = at});
  expect_failure({.layout = {.ep = 2, .dp = 2}}, {.how = Failure::How::fail, .at = last});
}

TEST(Failure, OverGlooEndsTheStepOnAllRanks) {
  const Trial trial{.gloo = true};
  for (const int64_t at : {0, 9, 20}) expect_failure(trial, {.how = Failure::How::fail, .at = at});
}

TEST(Failure, OfARankThatNeverComesEndsWithTheTimeout) {
  expect_failure({}, {.how = Failure::How::hang, .at = 9});
  expect_failure({.gloo = true}, {.how = Failure::How::hang, .at = 9});
}

TEST(Failure, OfAStageEndsTheOtherRanks) {
  const Trial trial;
  std::atomic<int> num_thrown = 0;
  const double begin_us = now_us();
  try {
    on_ranks(trial, [&](World& world) {
      TrainingSession session = make_session(trial, world);
      auto batches = session.batches(0);
      if (world.rank() == 1) batches[1].tokens.fill_(1000);
      ParameterShards shards(session.parameters(), session.layout(), world.rank(), /*sharded=*/false);
      TrainingStep hooks(session.model().config, session.parameters(), shards, session.config(), session.layout(),
                         world.rank());
      Executor executor(session.graph(), random_schedule(session.graph(), 3), session.math(), session.parameters(),
                        session.communicators(), &hooks);
      try {
        executor.run(batches);
      } catch (const Error&) {
        ++num_thrown;
        throw;
      }
    });
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("token ids"), std::string::npos) << error.what();
  }
  EXPECT_EQ(num_thrown, 2);
  EXPECT_LT(now_us() - begin_us, 5e6);
}

}  // namespace
}  // namespace farskip::test
