// An independent check on one rank: several steps of whole-graph autograd with AdamW leave the weights that the staged
// execution leaves, bit for bit, whatever its order.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/plain_model.h"
#include "tests/equivalence/trial.h"

namespace farskip::test {
namespace {

/// One step of training without stages: the gradients of all microbatches, then AdamW. Returns the loss.
double plain_step(TrainingSession& session, AdamW& optimizer, int64_t iteration) {
  ParameterSet& parameters = session.parameters();
  const StageMathOptions& math = session.math().options();
  parameters.zero_grad();
  double loss = 0;
  std::vector<at::Tensor> load;
  for (const Batch& batch : session.batches(iteration)) {
    const nn::ModelWeights weights = differentiable_copy(parameters);
    const PlainResult result = plain_forward(session.model().config, session.model().connectivity, weights, batch,
                                             {math.aux_loss_alpha, math.aux_scope, math.z_loss_coeff, &load});
    result.loss.backward();
    loss += result.loss.item<double>();
    const auto grads = gradients(parameters.table(), weights);
    for (int id = 0; id < parameters.size(); ++id) parameters.main_grad(id).add_(grads[id]);
  }
  const auto norms = optimizer.squared_norms();
  optimizer.step(session.config().rates(session.position(iteration)), std::sqrt(norms.replicated + norms.experts));
  return loss;
}

class Plain : public ::testing::TestWithParam<Trial> {};

TEST_P(Plain, AutogradLeavesTheWeightsOfTheStagedExecution) {
  const Trial& trial = GetParam();
  on_ranks(trial, [&](World& world) {
    TrainingSession plain = make_session(trial, world), staged = make_session(trial, world);
    ParameterShards shards(plain.parameters(), plain.layout(), 0, /*sharded=*/false);
    AdamW optimizer(plain.parameters(), shards, plain.config());
    for (int step = 0; step < trial.num_steps; ++step) {
      const double loss = plain_step(plain, optimizer, step);
      staged.step(step, random_schedule(staged.graph(), step));
      EXPECT_EQ(loss, staged.stats().loss) << "step " << step;
    }
    for (const ParameterInfo& info : plain.parameters().table().parameters()) {
      EXPECT_TRUE(at::equal(plain.parameters().main(info.id), staged.parameters().main(info.id))) << info.name;
    }
  });
}

std::vector<Trial> trials() {
  std::vector<Trial> trials;
  for (const char* model : {"v2", "qwen3", "llama4"}) {  // whose routers have no bias that the step would move
    for (const char* connectivity : {"standard", "farskip", "attn-only", "mlp-only"}) {
      for (const bool bf16 : {false, true}) {
        trials.push_back({.model = model, .connectivity = connectivity, .layout = {}, .bf16 = bf16, .num_steps = 4});
      }
    }
    for (const bool bf16 : {false, true}) {
      trials.push_back({.model = model, .layout = {}, .bf16 = bf16, .num_steps = 4, .packed = true});
    }
  }
  trials.push_back({.model = "v2",
                    .layout = {},
                    .num_microbatches = 3,
                    .num_steps = 4,
                    .balancing = LoadBalancing::global_aux_loss});
  return trials;
}

INSTANTIATE_TEST_SUITE_P(All, Plain, ::testing::ValuesIn(trials()), [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace farskip::test
