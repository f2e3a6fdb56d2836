// Inference on several ranks: whatever the layout, the schedule and the number of microbatches, the function is that of
// one rank.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "infer/decoder.h"
#include "model/safetensors.h"
#include "schedule/hand_orders.h"
#include "tests/infer/golden_models.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

using testing::families, testing::golden;

/// Some prompts of several lengths, and then a few tokens each, the same whatever the logits say.
struct Script {
  std::vector<std::vector<int32_t>> prompts;
  int num_decodes = 3;

  static Script of(const std::string& folder, int num_prompts) {
    const at::Tensor ids =
        SafetensorsReader(folder + "/golden.safetensors").tensor("input_ids.b").flatten().to(at::kInt).contiguous();
    const std::vector<int32_t> all(ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel());
    const size_t lengths[] = {5, 1, 12, 3};
    Script script;
    for (int i = 0; i < num_prompts; ++i)
      script.prompts.emplace_back(all.end() - static_cast<int64_t>(lengths[i]), all.end());
    return script;
  }
  int32_t token(size_t prompt, int step) const {
    return prompts[prompt][static_cast<size_t>(step) % prompts[prompt].size()];
  }
};

struct Setting {
  Layout layout;
  int num_microbatches = 1;
  std::function<Schedule(const StageGraph&)> schedule = reference_schedule;
  std::string connectivity = "";
};

bool own_sequences(const Layout& layout) { return layout.ep > 1; }

/// Logits of each prompt and step, [prompts, steps, V], as the ranks that have the sequence give them: with tensor
/// parallelism all must agree to the bit.
at::Tensor logits_of(const std::string& folder, const Script& script, const Setting& setting) {
  const auto num_prompts = static_cast<int64_t>(script.prompts.size());
  const int num_ranks = setting.layout.world();
  std::vector<at::Tensor> of_rank(num_ranks);
  run_ranks(num_ranks, [&](World& world) {
    InferenceModelOptions options{.dtype = at::kFloat, .layout = setting.layout, .rank = world.rank()};
    if (!setting.connectivity.empty()) options.connectivity = setting.connectivity;
    const InferenceModel model(folder, options);
    const Communicators communicators = Communicators::make(world, setting.layout);
    Decoder decoder(model, communicators,
                    {.max_positions = 64, .cache_positions = 1024, .num_microbatches = setting.num_microbatches});
    decoder.set_schedule(setting.schedule(decoder.graph()));
    std::vector<size_t> own;
    for (size_t i = 0; i < script.prompts.size(); ++i) {
      if (!own_sequences(setting.layout) || static_cast<int>(i) % num_ranks == world.rank()) own.push_back(i);
    }
    std::vector<DecoderInput> inputs;
    for (size_t i : own) inputs.push_back({decoder.add(), script.prompts[i]});
    at::Tensor result = at::zeros({num_prompts, script.num_decodes + 1, model.config().vocab_size});
    for (int step = 0; step <= script.num_decodes; ++step) {
      const at::Tensor logits = decoder.step(inputs);
      for (size_t k = 0; k < own.size(); ++k) {
        result[static_cast<int64_t>(own[k])][step].copy_(logits[static_cast<int64_t>(k)]);
        inputs[k].tokens = {script.token(own[k], step)};
      }
    }
    of_rank[world.rank()] = result;
  });
  if (!own_sequences(setting.layout)) {
    for (const at::Tensor& other : of_rank) EXPECT_TRUE(at::equal(other, of_rank[0])) << "ranks differ";
    return of_rank[0];
  }
  at::Tensor sum = of_rank[0];
  for (int r = 1; r < num_ranks; ++r) sum = sum + of_rank[r];
  return sum;
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
}

class Layouts : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no golden model at " << folder();
  }
  std::string folder() const { return golden(GetParam()); }
};

constexpr double tolerance = 3e-5;  // fp32, of the largest logit: partial sums are added in another order

TEST_P(Layouts, GiveTheLogitsOfOneRank) {
  const Script script = Script::of(folder(), 4);
  const at::Tensor expected = logits_of(folder(), script, {});
  for (const char* layout : {"tp=2", "tp=2,experts=tp", "ep=2", "ep=2,exchange=a2a", "ep=4", "dp=2", "ep=2,dp=2"}) {
    if (load_model_config(folder()).num_experts % Layout::parse(layout).ep != 0) continue;
    const at::Tensor logits = logits_of(folder(), script, {.layout = Layout::parse(layout)});
    EXPECT_LT(distance(logits, expected), tolerance) << layout;
    EXPECT_TRUE(at::equal(logits.argmax(-1), expected.argmax(-1))) << layout;
  }
}

TEST_P(Layouts, EmptyRanksAndOneToken) {
  const Script script = Script::of(folder(), 1);
  Script one_token = script;
  one_token.prompts[0].resize(1);
  for (const Script& each : {script, one_token}) {
    const at::Tensor expected = logits_of(folder(), each, {});
    for (const char* layout : {"tp=2", "ep=2", "ep=2,exchange=a2a"}) {
      for (int microbatches : {1, 2}) {
        const at::Tensor logits =
            logits_of(folder(), each, {.layout = Layout::parse(layout), .num_microbatches = microbatches});
        EXPECT_LT(distance(logits, expected), tolerance) << layout << " " << microbatches;
      }
    }
  }
}

// One layout of each exchange, under the connectivity that the checkpoint has and another.
TEST_P(Layouts, NoScheduleChangesABit) {
  const Script script = Script::of(folder(), 3);
  for (const char* layout : {"tp=2", "ep=2", "ep=2,exchange=a2a"}) {
    for (const char* connectivity : {"", "farskip", "standard"}) {
      Setting setting{.layout = Layout::parse(layout), .connectivity = connectivity};
      const at::Tensor expected = logits_of(folder(), script, setting);
      setting.schedule = paper_schedule;
      EXPECT_TRUE(at::equal(logits_of(folder(), script, setting), expected)) << layout << " " << connectivity;
      setting.schedule = [](const StageGraph& graph) { return random_schedule(graph, 11); };
      EXPECT_TRUE(at::equal(logits_of(folder(), script, setting), expected)) << layout << " " << connectivity;
    }
  }
}

TEST_P(Layouts, TwoMicrobatchesAreTheSameFunction) {
  const Script script = Script::of(folder(), 4);
  const at::Tensor expected = logits_of(folder(), script, {});
  for (const char* layout : {"tp=2", "ep=2"}) {
    Setting setting{.layout = Layout::parse(layout), .num_microbatches = 2};
    const at::Tensor logits = logits_of(folder(), script, setting);
    EXPECT_LT(distance(logits, expected), tolerance) << layout;
    setting.schedule = two_batch_schedule;
    EXPECT_TRUE(at::equal(logits_of(folder(), script, setting), logits)) << layout;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Layouts, ::testing::ValuesIn(families), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace farskip
