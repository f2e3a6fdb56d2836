// Weights that a recipe freezes: they and what is trained beside them have the bits that they should have, and cost
// neither memory nor traffic.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "tests/equivalence/trial.h"

namespace farskip::test {
namespace {

constexpr const char* half = "*.mlp.experts.* *.o_proj.weight model.embed_tokens.weight";

std::vector<Trial> layouts(const std::string& freeze) {
  std::vector<Trial> trials;
  for (const Layout& layout : {Layout{}, Layout{.ep = 2}, Layout{.dp = 2}, Layout{.ep = 2, .dp = 2}}) {
    for (const bool sharded : {false, true}) {
      if (sharded && layout.world() == 1) continue;
      trials.push_back({.layout = layout, .bf16 = sharded && layout.ep == 1, .sharded = sharded, .freeze = freeze});
    }
  }
  trials.push_back({.model = "qwen3", .layout = {.dp = 2}, .gloo = true, .sharded = true, .freeze = freeze});
  return trials;
}

TEST(FrozenWeights, LeaveTheSameBitsInEveryOrder) {
  for (const Trial& trial : layouts(half)) {
    const auto outcomes =
        run_orders(trial, {reference_order(), random_order(1), random_order(2), named_order("paper")});
    for (size_t i = 1; i < outcomes.size(); ++i)
      EXPECT_EQ(first_difference(outcomes[0], outcomes[i]), "nothing") << trial.name();
  }
}

using Gradients = std::map<std::string, uint64_t>;

/// Hashes of a rank's gradients after the first step, by parameter.
std::vector<Gradients> first_gradients(const Trial& trial) {
  std::vector<Gradients> gradients(trial.layout.world());
  on_ranks(trial, [&](World& world) {
    TrainingSession session = make_session(trial, world);
    const ParameterTable& table = session.parameters().table();
    session.step(0, reference_schedule(session.graph()));
    for (int id = 0; id < table.size(); ++id) {
      if (session.parameters().has_grad(id))
        gradients[world.rank()][table[id].name] = hash_of(session.parameters().main_grad(id));
    }
  });
  return gradients;
}

TEST(FrozenWeights, ChangeNoOtherGradient) {
  for (Trial trial : layouts(half)) {
    const auto some = first_gradients(trial);
    trial.freeze.clear();
    const auto all = first_gradients(trial);
    for (size_t rank = 0; rank < all.size(); ++rank) {
      EXPECT_GT(some[rank].size(), 10u);
      EXPECT_LT(some[rank].size(), all[rank].size());
      for (const auto& [name, hash] : some[rank]) EXPECT_EQ(hash, all[rank].at(name)) << trial.name() << " " << name;
    }
  }
}

TEST(FrozenWeights, HaveNeitherCompanionsNorTraffic) {
  for (const Trial& trial : layouts(half)) {
    on_ranks(trial, [&](World& world) {
      TrainingSession session = make_session(trial, world);
      ParameterSet& parameters = session.parameters();
      std::vector<uint64_t> before;
      for (int id = 0; id < parameters.size(); ++id) before.push_back(hash_of(parameters.value(id)));
      std::map<std::string, int64_t> bytes;  // sent for a step's weights, by stage
      for (int step = 0; step < 3; ++step) {
        for (const CollectiveReport& report : session.step(step, reference_schedule(session.graph())).reports) {
          const Node& node = session.graph().node(session.graph().find(report.name));
          if (node.pass == Pass::step && node.stage != Stage::stats)
            bytes[std::string(to_string(node.stage))] += report.bytes_sent;
        }
      }
      session.gather_weights();
      for (int id = 0; id < parameters.size(); ++id) {
        EXPECT_EQ(parameters.has_grad(id), !parameters.frozen(id)) << parameters.table()[id].name;
        if (parameters.frozen(id)) {
          EXPECT_TRUE(parameters.stored(id).is_same(parameters.value(id)));
        }
        EXPECT_EQ(hash_of(parameters.value(id)) == before[id], parameters.frozen(id)) << parameters.table()[id].name;
      }
      for (const auto& [stage, sent] : bytes)
        EXPECT_EQ(sent > 0, !stage.ends_with("_experts")) << trial.name() << stage;
      EXPECT_EQ(bytes.empty(), trial.layout.world() == 1);
      const AdamW& optimizer = session.optimizer();
      for (size_t i = 0; i < optimizer.shards().slices().size(); ++i) {
        const auto& slice = optimizer.shards().slices()[i];
        EXPECT_FALSE(parameters.frozen(slice.id)) << parameters.table()[slice.id].name;
        EXPECT_EQ(optimizer.exp_avg(i).numel(), slice.size);
      }
    });
  }
}

}  // namespace
}  // namespace farskip::test
