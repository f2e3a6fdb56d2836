#include "model/parameters.h"

#include <ATen/ATen.h>

#include <set>

#include "model/parameter_set.h"
#include "model/safetensors.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;

std::map<std::string, std::vector<int64_t>> tensors_of(const ParameterTable& table, bool with_buffers) {
  std::map<std::string, std::vector<int64_t>> tensors;
  for (const auto& info : table.parameters()) {
    for (const auto& [name, shape] : info.tensors()) EXPECT_TRUE(tensors.emplace(name, shape).second) << name;
  }
  for (const auto& buffer : table.buffers()) {
    if (with_buffers) tensors.emplace(buffer.name, buffer.shape);
  }
  return tensors;
}

TEST(ParameterTable, NamesAndShapesOfGoldenModels) {
  for (const auto& name : golden_names) {
    REQUIRE_GOLDEN(name);
    SCOPED_TRACE(name);
    const ModelConfig config = golden_config(name);
    const ParameterTable table(config);
    const SafetensorsReader model(golden_folder(name)), golden(golden_folder(name) / "golden.safetensors");
    std::map<std::string, std::vector<int64_t>> expected, gradients;
    for (const auto& tensor : model.names()) expected[tensor] = model.spec(tensor).shape;
    for (const auto& tensor : golden.names()) {
      if (tensor.rfind("grad.", 0) == 0) gradients[tensor.substr(5)] = golden.spec(tensor).shape;
    }
    EXPECT_EQ(tensors_of(table, true), expected);
    EXPECT_EQ(tensors_of(table, false), gradients) << "buffers are no parameters";
    EXPECT_EQ(table.num_parameters(), config.num_parameters());
  }
}

TEST(ParameterTable, StackedExpertsAreOneTensor) {
  const ParameterTable table(small_llama4_config());
  int num_stacks = 0;
  for (const auto& info : table.parameters()) {
    EXPECT_EQ(!info.stack.empty(), info.expert) << info.name;
    if (info.stack.empty()) continue;
    ++num_stacks;
    const at::Tensor whole = at::arange(info.numel()).reshape(info.shape);
    const auto tensors = info.tensors_of(whole);
    ASSERT_EQ(tensors.size(), 1u);
    EXPECT_EQ(tensors[0].first, info.tensors()[0].first);
    EXPECT_EQ(tensors[0].second.sizes(), at::IntArrayRef(info.tensors()[0].second));
    for (const auto& piece : info.pieces)
      EXPECT_TRUE(at::equal(tensors[0].second[piece.expert].t(), piece.of(whole))) << piece.name;
  }
  EXPECT_EQ(num_stacks, 4);
}

TEST(ParameterTable, NamesOfTheWholeLlama4HaveAPrefix) {
  const ParameterTable table(small_llama4_config("Llama4ForConditionalGeneration"));
  for (const auto& [name, shape] : tensors_of(table, true)) EXPECT_EQ(name.rfind("language_model.", 0), 0u) << name;
  EXPECT_TRUE(table.carries("vision_model.patch_embedding.linear.weight"));
  EXPECT_TRUE(table.carries("language_model.model.layers.3.eh_proj.weight"));
  EXPECT_FALSE(table.carries("language_model.model.layers.2.eh_proj.weight"));
  EXPECT_FALSE(table.carries("language_model.model.norm.bias"));
  EXPECT_FALSE(ParameterTable(small_config()).carries("vision_model.patch_embedding.linear.weight"));
}

TEST(ParameterTable, RolesAndStages) {
  const ParameterTable table(small_config());
  int num_outputs = 0, num_norms = 0, num_fp32 = 0;
  for (const auto& info : table.parameters()) {
    const bool norm = info.name.find("norm") != std::string::npos;
    EXPECT_EQ(info.role == Role::norm, norm) << info.name;
    EXPECT_EQ(info.decays(), !norm) << info.name;
    EXPECT_EQ(info.expert, info.stage == Stage::experts) << info.name;
    EXPECT_EQ(info.fp32, info.stage == Stage::route) << info.name;
    num_outputs += info.role == Role::output_weight;
    num_norms += norm;
    num_fp32 += info.fp32;
  }
  EXPECT_EQ(num_outputs, 3 + 1 + 2 * 2) << "o_proj; down of dense; down of shared and routed experts";
  EXPECT_EQ(num_norms, 3 * 3 + 1);
  EXPECT_EQ(num_fp32, 2);
  EXPECT_EQ(table.of_stage(-1, Stage::embed), std::vector<int>{0});
  EXPECT_EQ(table.of_stage(3, Stage::head), (std::vector<int>{table.size() - 2, table.size() - 1}))
      << "final norm, head";
  EXPECT_EQ(table.of_stage(1, Stage::experts).size(), 2u);
  EXPECT_EQ(table.of_stage(0, Stage::experts).size(), 0u);
  EXPECT_EQ(table.of_stage(0, Stage::qkv).size(), 5u) << "the norm, three projections, the latent norm";
}

/// Biases exist in no golden model, so their names are spelled out here.
TEST(ParameterTable, AttentionBiases) {
  ModelConfig config = small_config();
  const auto biases = [&] {
    std::set<std::string> names;
    const ParameterTable table(config);
    for (const auto& info : table.parameters()) {
      if (info.role == Role::bias && info.layer == 1)
        names.insert(info.name.substr(strlen("model.layers.1.self_attn.")));
    }
    return names;
  };
  EXPECT_TRUE(biases().empty());
  config.attention.bias = true;
  EXPECT_EQ(biases(), (std::set<std::string>{"kv_a_proj_with_mqa.bias", "o_proj.bias"}));
  config.attention.q_lora_rank = 6;
  EXPECT_EQ(biases(), (std::set<std::string>{"kv_a_proj_with_mqa.bias", "o_proj.bias", "q_a_proj.bias"}));
  config.attention.kind = AttentionKind::gqa;
  EXPECT_EQ(biases(), (std::set<std::string>{"q_proj.bias", "k_proj.bias", "v_proj.bias", "o_proj.bias"}));
}

TEST(ParameterTable, PiecesCoverParametersInOrder) {
  const ParameterTable table(small_config());
  for (const auto& info : table.parameters()) {
    const at::Tensor numbers = at::arange(info.numel()).reshape(info.shape);
    std::vector<at::Tensor> parts;
    for (const auto& piece : info.pieces) {
      parts.push_back(piece.of(numbers).flatten());
      EXPECT_EQ(piece.of(numbers).sizes(), at::IntArrayRef(piece.shape)) << piece.name;
    }
    EXPECT_TRUE(at::equal(at::cat(parts), numbers.flatten())) << info.name;
  }
}

TEST(ParameterSet, EveryParameterHasItsOwnPlace) {
  for (const bool tied : {false, true}) {
    ModelConfig config = small_config();
    config.tie_word_embeddings = tied;
    const ParameterSet set(make_table(config), {});
    const nn::ModelWeights weights = set.weights();
    nn::ModelWeights copy = weights;
    for (const auto& info : set.table().parameters()) {
      EXPECT_EQ(info.slot(copy).id, info.id) << info.name << " shares a slot with another parameter";
      EXPECT_TRUE(info.slot(copy).value.is_same(set.value(info.id)));
    }
    EXPECT_EQ(weights.lm_head.id, tied ? weights.embed_tokens.id : set.size() - 1);
    EXPECT_TRUE(weights.lm_head.defined());
    EXPECT_THAT(set.table().of_stage(3, Stage::head),
                ::testing::UnorderedElementsAre(weights.norm.id, weights.lm_head.id));
    EXPECT_TRUE(weights.layers[1].moe.correction_bias.defined());
    EXPECT_FALSE(weights.layers[0].moe.correction_bias.defined());
    EXPECT_FALSE(weights.layers[0].moe.router.defined());
    EXPECT_FALSE(weights.layers[1].dense.down.defined());
    EXPECT_FALSE(weights.layers[1].attention.q_a_proj.defined());
  }
}

TEST(ParameterSet, MastersValuesAndGradients) {
  ParameterOptions options;
  options.dtype = at::kBFloat16;
  ParameterSet set(make_table(small_config()), options);
  for (int id = 0; id < set.size(); ++id) {
    const bool fp32 = set.table()[id].fp32;
    EXPECT_EQ(set.main(id).scalar_type(), at::kFloat);
    EXPECT_EQ(set.value(id).scalar_type(), fp32 ? at::kFloat : at::kBFloat16);
    EXPECT_EQ(set.value(id).is_same(set.main(id)), fp32);
    set.main(id).fill_(1.0 + 0x1p-20);
    EXPECT_FALSE(set.has_grad(id));
  }
  set.update_values();
  EXPECT_TRUE(at::equal(set.value(0), at::ones_like(set.value(0)))) << "rounded to bf16";
  set.main_grad(3).fill_(7.0);
  EXPECT_TRUE(set.has_grad(3));
  EXPECT_EQ(set.main_grad(3).sizes(), set.main(3).sizes());
  EXPECT_EQ(set.main_grad(3).scalar_type(), at::kFloat);
  set.zero_grad();
  EXPECT_EQ(set.main_grad(3).abs().sum().item<float>(), 0.0f);
}

TEST(ParameterSet, ExpertsAreDivided) {
  ParameterOptions options;
  options.expert_ranks = 2;
  options.expert_rank = 1;
  const ParameterSet set(make_table(small_config()), options);
  const nn::ModelWeights weights = set.weights();
  EXPECT_EQ(weights.layers[2].moe.gate_up.value.sizes(), at::IntArrayRef({2, 16, 16}));
  EXPECT_EQ(weights.layers[2].moe.router.value.size(0), 4) << "the router knows all experts";
  EXPECT_EQ(set.first_expert(), 2);
  options.expert_ranks = 3;
  expect_error([&] { ParameterSet(make_table(small_config()), options); }, {"4 experts", "3 expert ranks"});
}

}  // namespace
}  // namespace farskip
