// Documents packed into one sequence against the same documents apart: logits of each, and gradients as their sum.

#include <gtest/gtest.h>

#include "exec/executor.h"
#include "model/plain_model.h"
#include "tests/exec/tiny_models.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

using namespace testing;

const std::vector<int64_t> lengths = {5, 1, 13, 2, 9};
constexpr int64_t packed_length = 30;

struct PackedOutcome {
  double loss = 0;
  std::vector<at::Tensor> logits;  ///< per batch
  std::vector<at::Tensor> grads;   ///< sums over the batches
};

/// Batches as microbatches of one step.
PackedOutcome run_packed(const ModelConfig& config, const Connectivity& connectivity, ParameterSet& parameters,
                         const std::vector<Batch>& batches) {
  PackedOutcome outcome;
  outcome.logits.resize(batches.size());
  run_ranks(1, [&](World& world) {
    const StageMath math(config, parameters.weights(), packed_length, {});
    const int num = static_cast<int>(batches.size());
    const StageGraph graph = build_graph(config, connectivity, {Phase::train, {}, num, Scope::gradients});
    ExecutorOptions options;
    options.observe = [&](const Value& value, const at::Tensor& tensor) {
      for (int m = 0; m < num; ++m) {
        if (value.name == fmt::format("mb{}.logits", m)) outcome.logits[m] = tensor.detach();
      }
    };
    const Communicators communicators = Communicators::make(world, {});
    Executor executor(graph, reference_schedule(graph), math, parameters, communicators, nullptr, options);
    for (const auto& loss : executor.run(batches).losses) outcome.loss += loss.item<double>();
  });
  for (int id = 0; id < parameters.size(); ++id) outcome.grads.push_back(parameters.main_grad(id).clone());
  return outcome;
}

/// One sequence of all documents, each of which predicts the tokens behind its first.
Batch packed_batch(const ModelConfig& config) {
  Batch batch = tiny_batch(config, 1, packed_length);
  batch.positions = at::empty({1, packed_length}, at::kLong);
  int64_t begin = 0;
  for (const int64_t n : lengths) {
    batch.positions[0].narrow(0, begin, n).copy_(at::arange(n, at::kLong));
    batch.targets[0][begin + n - 1] = nn::ignored_target;
    begin += n;
  }
  batch.documents = {lengths};
  return batch;
}

std::vector<Batch> batches_apart(const Batch& packed) {
  std::vector<Batch> batches;
  int64_t begin = 0;
  for (const int64_t n : lengths) {
    batches.push_back(
        {packed.tokens.narrow(1, begin, n).clone(), packed.targets.narrow(1, begin, n).clone(), packed.denominator});
    begin += n;
  }
  return batches;
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

struct Difference {
  double logits = 0, gradients = 0;  ///< largest difference over largest value: of a document, of a weight
};

Difference difference(const PackedOutcome& packed, const PackedOutcome& apart) {
  Difference worst;
  int64_t begin = 0;
  for (size_t d = 0; d < lengths.size(); ++d) {
    const at::Tensor part = packed.logits[0].narrow(1, begin, lengths[d]);
    worst.logits = std::max(worst.logits, relative(part, apart.logits[d]));
    begin += lengths[d];
  }
  for (size_t id = 0; id < apart.grads.size(); ++id)
    worst.gradients = std::max(worst.gradients, relative(packed.grads[id], apart.grads[id]));
  return worst;
}

class Packing : public ::testing::TestWithParam<std::tuple<TinyModel, std::string>> {};

TEST_P(Packing, GivesEachDocumentWhatItHasAlone) {
  const auto& [model, spelling] = GetParam();
  const ModelConfig config = tiny_config(model);
  const Connectivity connectivity = Connectivity::parse(spelling, config.num_layers());
  const auto parameters = tiny_parameters(config);
  const Batch batch = packed_batch(config);
  const PackedOutcome packed = run_packed(config, connectivity, *parameters, {batch});
  const PackedOutcome apart = run_packed(config, connectivity, *parameters, batches_apart(batch));
  const Difference found = difference(packed, apart);
  fmt::print("{} {}: logits {:.1e}, gradients {:.1e}\n", to_string(model), spelling, found.logits, found.gradients);
  EXPECT_NEAR(packed.loss, apart.loss, 1e-6 * apart.loss);
  EXPECT_LT(found.logits, 1e-5);
  EXPECT_LT(found.gradients, 1e-4);

  // Controls: without the bounds, and without the positions, documents get something else.
  Batch open = batch, running = batch;
  open.documents.clear();
  EXPECT_GT(difference(run_packed(config, connectivity, *parameters, {open}), apart).logits, 1e-2);
  running.documents.clear();
  running.positions.reset();
  EXPECT_GT(difference(run_packed(config, connectivity, *parameters, {running}), apart).logits, 1e-2);
  // Rotary embedding knows distances only: inside a document running positions are as good as new ones. The temperature
  // of queries knows the position itself.
  running.documents = batch.documents;
  const double moved = difference(run_packed(config, connectivity, *parameters, {running}), apart).logits;
  if (config.attention.rotary.temperature) {
    EXPECT_GT(moved, 1e-2);
  } else {
    EXPECT_LT(moved, 1e-4);
  }
}

TEST_P(Packing, PlainModelHasTheSameBits) {
  const auto& [model, spelling] = GetParam();
  const ModelConfig config = tiny_config(model);
  const Connectivity connectivity = Connectivity::parse(spelling, config.num_layers());
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto parameters = tiny_parameters(config, {.dtype = dtype});
    const Batch batch = packed_batch(config);
    const PackedOutcome staged = run_packed(config, connectivity, *parameters, {batch});
    const auto weights = differentiable_copy(*parameters);
    const PlainResult plain = plain_forward(config, connectivity, weights, batch);
    plain.loss.backward();
    EXPECT_TRUE(at::equal(plain.logits.detach(), staged.logits[0]));
    const auto grads = gradients(parameters->table(), weights);
    for (int id = 0; id < parameters->size(); ++id)
      EXPECT_TRUE(at::equal(grads[id].to(at::kFloat), staged.grads[id])) << parameters->table()[id].name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Packing,
                         ::testing::Combine(::testing::ValuesIn(tiny_models), ::testing::Values("standard", "farskip")),
                         [](const auto& info) {
                           return to_string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                         });

}  // namespace
}  // namespace farskip
