// The staged execution against the plain model on one rank: the same bits for loss, logits and every gradient.

#include "model/plain_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "exec/executor.h"
#include "tests/exec/tiny_models.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

using namespace testing;

struct Outcome {
  at::Tensor loss, logits;
  std::vector<at::Tensor> grads;
};

Outcome run_plain(const ModelConfig& config, const Connectivity& connectivity, const ParameterSet& parameters,
                  const Batch& batch, const PlainOptions& options = {}) {
  const auto weights = differentiable_copy(parameters);
  const PlainResult result = plain_forward(config, connectivity, weights, batch, options);
  result.loss.backward();
  return {result.loss.detach(), result.logits.detach(), gradients(parameters.table(), weights)};
}

Outcome run_staged(const ModelConfig& config, const Connectivity& connectivity, ParameterSet& parameters,
                   const Batch& batch, const StageMathOptions& math_options = {}, ExecutorOptions options = {}) {
  Outcome outcome;
  run_ranks(1, [&](World& world) {
    const Layout layout;
    const StageMath math(config, parameters.weights(), batch.tokens.size(1), math_options);
    const StageGraph graph = build_graph(config, connectivity, {Phase::train, layout, 1, Scope::gradients});
    options.observe = [&](const Value& value, const at::Tensor& tensor) {
      if (value.name == "mb0.logits") outcome.logits = tensor.detach();
    };
    const Communicators communicators = Communicators::make(world, layout);
    Executor executor(graph, reference_schedule(graph), math, parameters, communicators, nullptr, options);
    outcome.loss = executor.run({batch}).losses[0].detach();
  });
  for (int id = 0; id < parameters.size(); ++id) outcome.grads.push_back(parameters.main_grad(id).clone());
  return outcome;
}

/// Names of what differs; a gradient of the staged execution is fp32, whatever the dtype of the weight.
std::vector<std::string> differences(const ParameterTable& table, const Outcome& plain, const Outcome& staged) {
  std::vector<std::string> names;
  if (!at::equal(plain.loss, staged.loss)) names.push_back("loss");
  if (!at::equal(plain.logits, staged.logits)) names.push_back("logits");
  for (int id = 0; id < table.size(); ++id) {
    if (!plain.grads[id].defined() || !at::equal(plain.grads[id].to(at::kFloat), staged.grads[id])) {
      names.push_back(table[id].name);
    }
  }
  return names;
}

using PlainCase = std::tuple<TinyModel, std::string, at::ScalarType>;

class PlainModel : public ::testing::TestWithParam<PlainCase> {};

TEST_P(PlainModel, HasTheBitsOfTheStagedExecution) {
  const auto& [model, spelling, dtype] = GetParam();
  const ModelConfig config = tiny_config(model);
  const Connectivity connectivity = Connectivity::parse(spelling, config.num_layers());
  const auto parameters = tiny_parameters(config, {.dtype = dtype});
  const Batch batch = tiny_batch(config, 3, 11);
  const Outcome plain = run_plain(config, connectivity, *parameters, batch);
  const Outcome staged = run_staged(config, connectivity, *parameters, batch);
  EXPECT_GT(plain.loss.item<double>(), 1);
  for (int id = 0; id < parameters->size(); ++id) {
    EXPECT_GT(staged.grads[id].abs().max().item<double>(), 0) << parameters->table()[id].name;
  }
  EXPECT_THAT(differences(parameters->table(), plain, staged), ::testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(All, PlainModel,
                         ::testing::Combine(::testing::ValuesIn(tiny_models), ::testing::ValuesIn(plain_connectivities),
                                            ::testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& info) {
                           std::string name = to_string(std::get<0>(info.param)) + "_" + std::get<1>(info.param) +
                                              (std::get<2>(info.param) == at::kFloat ? "_fp32" : "_bf16");
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

class PlainControl : public ::testing::Test {
 protected:
  const ModelConfig config_ = tiny_config(TinyModel::mla);
  const Connectivity farskip_ = Connectivity::farskip(config_.num_layers());
  const std::unique_ptr<ParameterSet> parameters_ = tiny_parameters(config_);
  const Batch batch_ = tiny_batch(config_, 3, 11);
};

TEST_F(PlainControl, AuxiliaryLossTrainsTheSameRouter) {
  Batch batch = batch_;
  batch.share = 0.5;
  const Outcome without = run_staged(config_, farskip_, *parameters_, batch);
  const std::vector<PlainOptions> all = {{.aux_loss_alpha = 0.01},
                                         {.aux_loss_alpha = 0.01, .aux_scope = nn::AuxScope::microbatch},
                                         {.z_loss_coeff = 0.01},
                                         {.aux_loss_alpha = 0.01, .z_loss_coeff = 0.01}};
  std::vector<Outcome> outcomes = {without};
  for (const PlainOptions& options : all) {
    const Outcome plain = run_plain(config_, farskip_, *parameters_, batch, options);
    outcomes.push_back(run_staged(config_, farskip_, *parameters_, batch,
                                  {.aux_loss_alpha = options.aux_loss_alpha,
                                   .aux_scope = options.aux_scope,
                                   .z_loss_coeff = options.z_loss_coeff}));
    EXPECT_THAT(differences(parameters_->table(), plain, outcomes.back()), ::testing::IsEmpty());
    for (size_t other = 0; other + 1 < outcomes.size(); ++other) {
      EXPECT_THAT(differences(parameters_->table(), outcomes[other], outcomes.back()),
                  ::testing::Contains("model.layers.1.mlp.gate.weight"))
          << "losses " << other << " and " << outcomes.size() - 1 << " train alike";
    }
  }
}

TEST_F(PlainControl, AnotherConnectivityDiffers) {
  const Outcome plain = run_plain(config_, farskip_, *parameters_, batch_);
  for (const auto& spelling : plain_connectivities) {
    if (spelling == "farskip") continue;
    const auto other = Connectivity::parse(spelling, config_.num_layers());
    EXPECT_THAT(differences(parameters_->table(), plain, run_staged(config_, other, *parameters_, batch_)),
                ::testing::Contains("loss"))
        << spelling;
  }
}

TEST_F(PlainControl, RefusesWhatItDoesNotKnow) {
  const auto weights = differentiable_copy(*parameters_);
  const auto wide = Connectivity::parse("skip=2,1,0", config_.num_layers());
  EXPECT_THROW(plain_forward(config_, wide, weights, batch_), Error);
}

}  // namespace
}  // namespace farskip
