// Checkpoints in another dtype, size of files and connectivity.

#include <ATen/ATen.h>

#include "config/checkpoint_folder.h"
#include "layer/export_config.h"
#include "model/block_scales.h"
#include "model/checkpoint.h"
#include "model/convert_checkpoint.h"
#include "model/initialize.h"
#include "model/safetensors.h"
#include "model/safetensors_writer.h"
#include "tests/model/memory_test.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;

/// A checkpoint with a tokenizer and things of other kinds beside it.
class Convert : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_GOLDEN("moonlight"); }

  static std::string golden(const std::string& name) { return golden_folder(name).string(); }
  ConvertReport convert(const std::string& name, const std::string& out, const ConvertOptions& options = {}) {
    return convert_checkpoint(golden(name), folder / out, options);
  }

  const TempFolder folder;
};

TEST_F(Convert, WithoutOptionsNothingChanges) {
  int64_t calls = 0;
  uint64_t last = 0;
  ConvertOptions options;
  options.on_progress = [&](uint64_t done, uint64_t total) {
    ++calls;
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
  };
  const ConvertReport report = convert("moonlight", "out", options);
  EXPECT_EQ(report.num_tensors, calls);
  EXPECT_EQ(report.bytes_read, report.bytes_written);
  const SafetensorsReader before(golden("moonlight")), after(folder / "out");
  EXPECT_EQ(after.names(), before.names());
  for (const auto& name : before.names()) {
    EXPECT_EQ(after.spec(name), before.spec(name));
    EXPECT_TRUE(at::equal(after.tensor(name), before.tensor(name))) << name;
  }
  auto config = read_json(golden("moonlight") + "/config.json");
  config["farskip"] = false;  // said in words, where AMD's key may be absent
  EXPECT_EQ(read_json(folder / "out/config.json"), config);
}

TEST_F(Convert, DtypeIsThatOfWeightsAndNotOfRouterBiases) {
  ConvertOptions options;
  options.dtype = at::kBFloat16;
  convert("moonlight", "half", options);
  const SafetensorsReader before(golden("moonlight")), after(folder / "half");
  int64_t biases = 0;
  for (const auto& name : before.names()) {
    const bool bias = name.ends_with("e_score_correction_bias");
    biases += bias;
    EXPECT_EQ(after.spec(name).dtype, bias ? at::kFloat : at::kBFloat16) << name;
    EXPECT_TRUE(at::equal(after.tensor(name), before.tensor(name).to(after.spec(name).dtype))) << name;
  }
  EXPECT_GT(biases, 0);
  EXPECT_EQ(read_json(folder / "half/config.json")
                .value("torch_dtype", read_json(folder / "half/config.json").value("dtype", "")),
            "bfloat16");
  options.dtype = at::kFloat;
  convert_checkpoint(folder / "half", folder / "whole", options);
  EXPECT_EQ(SafetensorsReader(folder / "whole").spec("lm_head.weight").dtype, at::kFloat);
}

TEST_F(Convert, ShardsAreAsLargeAsAsked) {
  ConvertOptions options;
  options.max_shard_bytes = 40'000;
  options.dtype = at::kBFloat16;
  convert("mixtral", "out", options);
  EXPECT_TRUE(fs::exists(folder / "out/model-00001-of-00003.safetensors"));
  EXPECT_TRUE(fs::exists(folder / "out/model.safetensors.index.json"));
  const SafetensorsReader before(golden("mixtral")), after(folder / "out");
  for (const auto& name : before.names()) {
    EXPECT_TRUE(at::equal(after.tensor(name), before.tensor(name).to(at::kBFloat16))) << name;
  }
  options = {};
  options.dtype = at::kFloat;
  convert_checkpoint(folder / "out", folder / "one", options);
  EXPECT_TRUE(fs::exists(folder / "one/model.safetensors")) << "and together again";
}

TEST_F(Convert, ConnectivityChangesNamesAndNoTensor) {
  ConvertOptions options;
  options.connectivity = "last=50%";
  const ConvertReport report = convert("qwen3_moe", "far", options);
  EXPECT_TRUE(report.from.is_standard());
  EXPECT_EQ(report.to.to_string(), "last=2");
  EXPECT_EQ(read_json(folder / "far/config.json")["architectures"][0], "FarSkipQwen3MoeForCausalLM");
  EXPECT_EQ(read_file(folder / "far/modeling_farskip.py"), modeling_source());
  EXPECT_EQ(read_file(folder / "far/model.safetensors"), read_file(golden("qwen3_moe") + "/model.safetensors"));
  ParameterSet set(make_table(load_model_config(folder / "far")), {});
  load_checkpoint(folder / "far", set);  // our own loader takes the name for its family

  options.connectivity = "standard";
  convert_checkpoint(folder / "far", folder / "back", options);
  EXPECT_EQ(read_json(folder / "back/config.json")["architectures"][0], "Qwen3MoeForCausalLM");
  EXPECT_FALSE(fs::exists(folder / "back/modeling_farskip.py"));
}

TEST_F(Convert, FilesBesideTheWeightsComeAlong) {
  fs::create_directory(folder / "in");
  for (const std::string file : {"config.json", "model.safetensors"}) {
    fs::copy_file(golden("olmoe") + "/" + file, folder / ("in/" + file));
  }
  fs::permissions(folder / "in/config.json", fs::perms::owner_write, fs::perm_options::add);
  for (const std::string file :
       {"tokenizer.json", "generation_config.json", "README.md", "pytorch_model.bin",
        "optimizer-00001-of-00001.safetensors", "optimizer.safetensors.index.json", ".hidden"}) {
    write_file(folder / ("in/" + file), file);
  }
  const ConvertReport report = convert_checkpoint(folder / "in", folder / "out", {});
  EXPECT_EQ(report.copied, (std::vector<std::string>{"README.md", "generation_config.json", "tokenizer.json"}));
  EXPECT_EQ(read_file(folder / "out/tokenizer.json"), "tokenizer.json");
  EXPECT_FALSE(fs::exists(folder / "out/pytorch_model.bin"));
  EXPECT_THAT(report.left_out, ::testing::Contains("pytorch_model.bin"));
}

TEST_F(Convert, BlockScaledWeightsBecomePlainOnes) {
  fs::create_directory(folder / "in");
  auto config = read_json(golden("moonlight") + "/config.json");
  config["quantization_config"] = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {16, 16}}};
  write_file(folder / "in/config.json", config.dump());
  const SafetensorsReader original(golden("moonlight"));
  std::map<std::string, at::Tensor> tensors;
  int num_scaled = 0;
  for (const auto& name : original.names()) {
    const at::Tensor tensor = original.tensor(name);
    const bool scaled = name.find("_proj.weight") != std::string::npos;
    tensors[name] = scaled ? tensor.to(at::kFloat8_e4m3fn) : tensor;
    const auto blocks = [&](int64_t dim) { return (tensor.size(dim) + 15) / 16; };
    if (scaled) tensors[scale_name(name)] = at::full({blocks(0), blocks(1)}, 0.5f + 0.25f * (num_scaled++ % 3));
  }
  save_safetensors(folder / "in/model.safetensors", {tensors.begin(), tensors.end()});
  const auto report = convert_checkpoint(folder / "in", folder / "out", {});
  const SafetensorsReader in(folder / "in"), out(folder / "out");
  EXPECT_GT(num_scaled, 20);
  EXPECT_EQ(out.names(), original.names());
  EXPECT_EQ(report.bytes_read, in.bytes_in_all());
  EXPECT_FALSE(read_json(folder / "out/config.json").contains("quantization_config"));
  for (const auto& name : out.names()) {
    EXPECT_EQ(out.spec(name).dtype, is_block_scaled(in, name) ? at::kBFloat16 : in.spec(name).dtype) << name;
  }
  const auto table = make_table(golden_config("moonlight"));
  ParameterSet direct(make_table(load_model_config(folder / "in")), {}), converted(table, {});
  load_checkpoint(folder / "in", direct);
  load_checkpoint(folder / "out", converted);
  for (int id = 0; id < direct.size(); ++id) EXPECT_TRUE(at::equal(direct.value(id), converted.value(id)));
}

TEST_F(Convert, RefusesAndLeavesNothing) {
  fs::create_directory(folder / "there");
  expect_error([&] { convert("olmoe", "there"); }, {"there", "exists already", "choose another name"});
  ConvertOptions wrong;
  wrong.connectivity = "last=99";
  expect_error([&] { convert("olmoe", "out", wrong); }, {"last=99", "layers"});
  expect_error([&] { convert_checkpoint(folder / "absent", folder / "out", {}); }, {"absent"});

  fs::create_directory(folder / "in");
  fs::copy_file(golden("olmoe") + "/config.json", folder / "in/config.json");
  save_safetensors(folder / "in/model.safetensors", {{"model.norm.weight", at::ones({3})}, {"odd", at::ones({1})}});
  expect_error([&] { convert_checkpoint(folder / "in", folder / "out", {}); }, {"missing", "1 unexpected: odd", "[3]"});
  save_safetensors(folder / "in/model.safetensors", {{"w", at::ones({3}).to(at::kFloat8_e4m3fn)}});
  expect_error([&] { convert_checkpoint(folder / "in", folder / "out", {}); }, {"F8_E4M3", "BF16"});
  EXPECT_FALSE(fs::exists(folder / "out"));
  EXPECT_FALSE(fs::exists(folder / "out.tmp"));
}

// 48 MiB of experts in tensors of 128 KiB are converted in a fraction of that.
TEST(ConvertDeathTest, MemoryIsThatOfTheLargestTensor) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const TempFolder folder;
  REQUIRE_GOLDEN("moonlight");
  auto raw = read_json(golden_folder("moonlight") / "config.json");
  raw["n_routed_experts"] = 256;
  raw["hidden_size"] = 128;
  raw["moe_intermediate_size"] = 128;
  const ModelConfig config = parse_model_config(raw, "many experts");
  const auto table = make_table(config);
  uint64_t bytes = 0, largest = 0;
  {
    const ParameterSet whole(table, {});
    save_checkpoint(folder / "in", raw, whole);
    const SafetensorsReader reader(folder / "in");
    bytes = reader.bytes_in_all();
    for (const auto& name : reader.names()) largest = std::max(largest, reader.spec(name).num_bytes());
  }
  ASSERT_GT(bytes, uint64_t{48} << 20);
  ASSERT_LT(largest, uint64_t{1} << 20);
  EXPECT_EXIT(expect_memory(0, 12 << 20,
                            [&] {
                              ConvertOptions options;
                              options.dtype = at::kBFloat16;
                              convert_checkpoint(folder / "in", folder / "out", options);
                              fs::remove_all(folder.string());  // nobody else does: the process ends here
                            }),
              ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace farskip
