// DeepSeek's 8-bit weights with block scales.

#include "model/block_scales.h"

#include <ATen/ATen.h>

#include "model/checkpoint.h"
#include "model/initialize.h"
#include "model/safetensors_writer.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;
using Tensors = std::map<std::string, at::Tensor>;

constexpr int64_t block_rows = 6, block_columns = 5;  // that divide none of the matrices

ModelConfig scaled_config() {
  ModelConfig config = small_config();
  config.weight_block = {block_rows, block_columns};
  return config;
}

bool is_scaled(const std::string& name) {
  return name.find("_proj") != std::string::npos && name.find("layers.") != std::string::npos;
}

/// Element by element, as the format says it: weight[i][j] * scale[i / rows][j / columns], rounded to bf16.
at::Tensor by_hand(const at::Tensor& weight, const at::Tensor& scale) {
  const at::Tensor wide = weight.to(at::kFloat), result = at::empty_like(wide);
  for (int64_t i = 0; i < wide.size(0); ++i) {
    for (int64_t j = 0; j < wide.size(1); ++j) result[i][j] = wide[i][j] * scale[i / block_rows][j / block_columns];
  }
  return result.to(at::kBFloat16);
}

/// A checkpoint whose projections are 8-bit, as DeepSeek publishes them, with an additional layer.
class ScaledFolder {
 public:
  ScaledFolder() {
    ParameterSet set(make_table(scaled_config()), {});
    initialize(set, {.seed = 3, .std = 0.5});
    save_checkpoint(path(), nlohmann::json::object(), set);
    const SafetensorsReader reader(path());
    uint64_t seed = 0;
    for (const auto& name : reader.names()) {
      const at::Tensor tensor = reader.tensor(name).clone();
      if (!is_scaled(name)) {
        tensors[name] = tensor;
        continue;
      }
      const int64_t rows = (tensor.size(0) + block_rows - 1) / block_rows;
      const int64_t columns = (tensor.size(1) + block_columns - 1) / block_columns;
      at::Tensor scale = at::empty({rows, columns});
      fill_normal(scale.data_ptr<float>(), scale.numel(), ++seed, name, 1);
      tensors[name] = (tensor * 16).to(at::kFloat8_e4m3fn);
      tensors[scale_name(name)] = scale;
    }
    tensors["model.layers.3.eh_proj.weight"] = at::ones({16, 32}).to(at::kFloat8_e4m3fn);
    tensors["model.layers.3.eh_proj.weight_scale_inv"] = at::ones({3, 7});
    tensors["model.layers.3.enorm.weight"] = at::arange(16).to(at::kBFloat16);
    write();
  }

  std::string path() const { return folder_ / "model"; }
  void write() const { save_safetensors(path() + "/model.safetensors", {tensors.begin(), tensors.end()}); }
  LoadReport load(ParameterSet& set) const { return load_checkpoint(path(), set); }
  LoadReport load(const ModelConfig& config = scaled_config()) const {
    ParameterSet set(make_table(config), {});
    return load(set);
  }

  Tensors tensors;

 private:
  TempFolder folder_;
};

TEST(BlockScales, WeightsAreReadAsBf16OnAnyRank) {
  const ScaledFolder folder;
  int num_compared = 0;
  for (const int64_t ranks : {1, 2}) {
    for (int64_t rank = 0; rank < ranks; ++rank) {
      ParameterSet set(make_table(scaled_config()), {.expert_rank = rank, .expert_ranks = ranks});
      const LoadReport report = folder.load(set);
      EXPECT_EQ(report.ignored.size(), 3u);
      for (const auto& info : set.table().parameters()) {
        set.for_each_piece(info.id, set.main(info.id), [&](const TensorPiece& piece, const at::Tensor& block) {
          const at::Tensor stored = folder.tensors.at(piece.name);
          if (!is_scaled(piece.name)) {
            EXPECT_TRUE(at::equal(block, stored)) << piece.name;
            return;
          }
          ++num_compared;
          EXPECT_TRUE(at::equal(block, by_hand(stored, folder.tensors.at(scale_name(piece.name))).to(at::kFloat)))
              << piece.name;
        });
      }
    }
  }
  EXPECT_EQ(num_compared, 3 * (3 * 4 + 3 + 2 * 3) + 2 * 4 * 3 * 2) << "replicated three times, experts twice";
}

TEST(BlockScales, OneMatrix) {
  const at::Tensor weight = at::arange(-60, 60).to(at::kFloat).view({10, 12}).to(at::kFloat8_e4m3fn);
  const at::Tensor scale = at::tensor({0.1f, 1.7f, -3.0f, 1e-4f, 2.0f, 9.0f}).view({2, 3});
  const at::Tensor ours = dequantize(weight, scale, {block_rows, block_columns});
  EXPECT_EQ(ours.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(ours, by_hand(weight, scale)));
}

TEST(BlockScales, MissingOrWrongScalesAreNamed) {
  const std::string weight = "model.layers.1.mlp.experts.2.up_proj.weight";
  {
    ScaledFolder folder;
    folder.tensors.erase(scale_name(weight));
    folder.write();
    expect_error([&] { folder.load(); }, {weight + " (F8_E4M3; without " + scale_name(weight)});
  }
  ScaledFolder folder;
  folder.tensors[scale_name(weight)] = at::ones({1, 1});
  folder.write();
  expect_error([&] { folder.load(); }, {scale_name(weight) + " is F32 [1, 1]", "[6, 5]", "F32 [2, 4]"});
  folder.tensors[scale_name(weight)] = at::ones({2, 4}, at::kBFloat16);
  folder.write();
  expect_error([&] { folder.load(); }, {scale_name(weight) + " is BF16 [2, 4]"});
  expect_error([&] { folder.load(small_config()); }, {"quantization_config", "weight_block_size"});
}

TEST(BlockScales, AScaleOfAnotherWeightIsUnexpected) {
  ScaledFolder folder;
  folder.tensors["model.norm.weight_scale_inv"] = at::ones({1});
  folder.write();
  expect_error([&] { folder.load(); }, {"1 unexpected: model.norm.weight_scale_inv"});
}

TEST(Carried, LayersPastTheLastAreCopiedUntouched) {
  const ScaledFolder folder;
  const std::vector<std::string> expected = {"model.layers.3.eh_proj.weight", "model.layers.3.eh_proj.weight_scale_inv",
                                             "model.layers.3.enorm.weight"};
  const auto table = make_table(scaled_config());
  EXPECT_EQ(carried_tensors(SafetensorsReader(folder.path()), *table), expected);
  ParameterSet set(table, {});
  const LoadReport report = folder.load(set);
  EXPECT_THAT(report.unused(), ::testing::HasSubstr("3 of its tensors are not used (model.layers.3.eh_proj.weight"));
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const uint64_t shard : {uint64_t{1} << 30, uint64_t{4000}}) {
      TempFolder out;
      SaveOptions options;
      options.dtype = dtype;
      options.carry_from = folder.path();
      options.max_shard_bytes = shard;
      save_checkpoint(out / "out", {{"quantization_config", {{"quant_method", "fp8"}}}}, set, options);
      const SafetensorsReader written(out / "out"), read(folder.path());
      for (const auto& name : expected) {
        EXPECT_EQ(written.spec(name), read.spec(name));
        EXPECT_EQ(std::memcmp(written.tensor(name).const_data_ptr(), read.tensor(name).const_data_ptr(),
                              read.spec(name).num_bytes()),
                  0);
      }
      EXPECT_EQ(written.spec("lm_head.weight").dtype, dtype);
      EXPECT_FALSE(written.contains("model.layers.1.self_attn.o_proj.weight_scale_inv"));
      EXPECT_FALSE(read_json(out / "out/config.json").contains("quantization_config")) << "it is none any more";
      ParameterSet again(table, {});
      EXPECT_EQ(load_checkpoint(out / "out", again).ignored, expected);
    }
  }
  EXPECT_EQ(LoadReport{}.unused(), "");
}

TEST(Carried, AFolderThatIsNotThereLeavesTheOldOne) {
  TempFolder folder;
  ParameterSet set(make_table(small_config()), {});
  SaveOptions options;
  options.carry_from = folder / "absent";
  expect_error([&] { save_checkpoint(folder / "out", nlohmann::json::object(), set, options); }, {"absent"});
  EXPECT_FALSE(fs::exists(folder / "out") || fs::exists(folder / "out.tmp"));
}

}  // namespace
}  // namespace farskip
