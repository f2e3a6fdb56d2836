#include "model/checkpoint.h"

#include <ATen/ATen.h>
#include <sys/resource.h>

#include <csignal>
#include <deque>

#include "model/initialize.h"
#include "model/safetensors.h"
#include "model/safetensors_writer.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Same names, dtypes, shapes and bytes.
void expect_same_tensors(const SafetensorsReader& a, const SafetensorsReader& b) {
  ASSERT_EQ(a.names(), b.names());
  for (const auto& name : a.names()) {
    EXPECT_EQ(a.spec(name), b.spec(name));
    const at::Tensor x = a.tensor(name), y = b.tensor(name);
    EXPECT_EQ(std::memcmp(x.const_data_ptr(), y.const_data_ptr(), a.spec(name).num_bytes()), 0) << name;
  }
}

ParameterOptions rank_options(int64_t rank, int64_t ranks) {
  ParameterOptions options;
  options.expert_rank = rank;
  options.expert_ranks = ranks;
  return options;
}

/// A small model's folder, to be damaged.
class SmallFolder {
 public:
  explicit SmallFolder(bool tied = false) : config_(small_config()) {
    config_.tie_word_embeddings = tied;
    ParameterSet set(make_table(config_), {});
    initialize(set, {});
    save_checkpoint(folder_ / "model", {{"model_type", "deepseek_v3"}}, set);
  }
  std::string path() const { return folder_ / "model"; }

  /// Rewrites the weights.
  void change(const std::function<void(std::map<std::string, at::Tensor>&)>& edit) {
    std::map<std::string, at::Tensor> tensors;
    const SafetensorsReader reader(path());
    for (const auto& name : reader.names()) tensors[name] = reader.tensor(name).clone();
    edit(tensors);
    save_safetensors(path() + "/model.safetensors", NamedTensors(tensors.begin(), tensors.end()));
  }

  LoadReport load() const {
    ParameterSet set(make_table(config_), {});
    return load_checkpoint(path(), set);
  }

 private:
  TempFolder folder_;
  ModelConfig config_;
};

TEST(Checkpoint, GoldenModelsComeBackByteForByte) {
  for (const auto& name : golden_names) {
    REQUIRE_GOLDEN(name);
    SCOPED_TRACE(name);
    TempFolder folder;
    const auto config = read_json(golden_folder(name) / "config.json");
    ParameterSet set(make_table(golden_config(name)), {});
    const LoadReport report = load_checkpoint(golden_folder(name), set);
    EXPECT_TRUE(report.ignored.empty());
    EXPECT_EQ(report.num_tensors, static_cast<int64_t>(SafetensorsReader(golden_folder(name)).names().size()));
    save_checkpoint(folder / "out", config, set);
    expect_same_tensors(SafetensorsReader(golden_folder(name)), SafetensorsReader(folder / "out"));
    EXPECT_EQ(read_json(folder / "out/config.json"), config) << "fp32 is what it says already";
  }
}

TEST(Checkpoint, ShardedFoldersAndHalfPrecision) {
  TempFolder folder;
  const auto table = make_table(small_config());
  ParameterSet set(table, {}), again(table, {}), half(table, {});
  initialize(set, {});
  set.buffer(0).fill_(1.0 + 0x1p-20);
  SaveOptions options;
  options.max_shard_bytes = 4000;
  save_checkpoint(folder / "sharded/", {{"torch_dtype", "bfloat16"}}, set, options);
  EXPECT_TRUE(fs::exists(folder / "sharded/model.safetensors.index.json"));
  EXPECT_EQ(read_json(folder / "sharded/config.json")["torch_dtype"], "float32");
  load_checkpoint(folder / "sharded", again);
  for (int id = 0; id < set.size(); ++id)
    EXPECT_TRUE(at::equal(again.main(id), set.main(id))) << table->parameters()[id].name;
  EXPECT_TRUE(at::equal(again.buffer(0), set.buffer(0)));

  options.dtype = at::kBFloat16;
  options.max_shard_bytes = 1u << 30;
  save_checkpoint(folder / "half", nlohmann::json::object(), set, options);
  load_checkpoint(folder / "half", half);
  EXPECT_TRUE(at::equal(half.main(0), set.main(0).to(at::kBFloat16).to(at::kFloat)));
  EXPECT_TRUE(at::equal(half.buffer(0), set.buffer(0))) << "buffers stay fp32";
  EXPECT_EQ(read_json(folder / "half/config.json")["torch_dtype"], "bfloat16");
  options.dtype = at::kInt;
  expect_error([&] { save_checkpoint(folder / "int", {}, set, options); }, {"Int"});
}

TEST(Checkpoint, RanksTogetherHoldTheWhole) {
  REQUIRE_GOLDEN("moonlight");
  const auto table = make_table(golden_config("moonlight"));
  ParameterSet whole(table, {});
  load_checkpoint(golden_folder("moonlight"), whole);
  for (const int64_t ranks : {2, 4}) {
    std::vector<ParameterSet> parts;
    int64_t num_expert_tensors = 0;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      parts.emplace_back(table, rank_options(rank, ranks));
      num_expert_tensors += load_checkpoint(golden_folder("moonlight"), parts.back()).num_tensors;
    }
    for (const auto& info : table->parameters()) {
      std::vector<at::Tensor> blocks;
      for (const auto& part : parts) blocks.push_back(part.main(info.id));
      const at::Tensor joined = info.expert ? at::cat(blocks) : blocks.back();
      EXPECT_TRUE(at::equal(joined, whole.main(info.id))) << info.name;
    }

    // Saving: the other ranks first, their blocks in a queue each, then rank 0.
    TempFolder folder;
    std::vector<std::deque<at::Tensor>> sent(ranks);
    const nlohmann::json config = read_json(golden_folder("moonlight") / "config.json");
    for (int64_t rank = ranks - 1; rank >= 0; --rank) {
      SaveOptions options;
      options.gather = [&](const at::Tensor& block, int64_t owner) {
        if (owner == rank) sent[owner].push_back(block);
        if (rank > 0) return at::Tensor();
        const at::Tensor received = sent[owner].front();
        sent[owner].pop_front();
        return received;
      };
      save_checkpoint(folder / "out", config, parts[rank], options);
      EXPECT_EQ(fs::exists(folder / "out"), rank == 0) << "rank 0 alone writes";
    }
    expect_same_tensors(SafetensorsReader(golden_folder("moonlight")), SafetensorsReader(folder / "out"));
  }
}

TEST(Checkpoint, ValuesWithoutMasters) {
  REQUIRE_GOLDEN("moonlight");
  ParameterOptions options;
  options.dtype = at::kBFloat16;
  options.keep_main = false;
  ParameterSet set(make_table(golden_config("moonlight")), options);
  load_checkpoint(golden_folder("moonlight"), set);
  const at::Tensor embedding = SafetensorsReader(golden_folder("moonlight")).tensor("model.embed_tokens.weight");
  EXPECT_TRUE(at::equal(set.weights().embed_tokens.value, embedding.to(at::kBFloat16)));
}

TEST(Checkpoint, TellsAllThatIsWrong) {
  SmallFolder folder;
  folder.change([](auto& tensors) {
    tensors.erase("model.norm.weight");
    tensors.erase("model.layers.1.mlp.gate.e_score_correction_bias");
    tensors["model.layers.1.mlp.experts.4.up_proj.weight"] = at::zeros({8, 16});
    tensors["model.layers.0.self_attn.o_proj.weight"] = at::zeros({16, 17});
    tensors["model.layers.2.mlp.experts.3.up_proj.weight"] = at::zeros({8, 16}, at::kLong);
    tensors["lm_head.weight"] = tensors["lm_head.weight"].to(at::kFloat8_e4m3fn);
  });
  expect_error([&] { folder.load(); },
               {folder.path(), "2 missing: ", "model.norm.weight", "e_score_correction_bias",
                "1 unexpected: ", "model.layers.1.mlp.experts.4.up_proj.weight", "3 of wrong shape or dtype",
                "[16, 17]", "[16, 16]", "I64", "lm_head.weight (F8_E4M3; convert"});
  folder.change([](auto& tensors) { tensors.clear(); });
  expect_error([&] { folder.load(); }, {"missing: model.embed_tokens.weight", ", ..."});
  expect_error([&] { folder.change([](auto&) {}), fs::remove(folder.path() + "/model.safetensors"), folder.load(); },
               {"neither"});
}

TEST(Checkpoint, FailedLoadChangesNothing) {
  SmallFolder folder;
  folder.change([](auto& tensors) { tensors.erase("lm_head.weight"); });
  ParameterSet set(make_table(small_config()), {});
  expect_error([&] { load_checkpoint(folder.path(), set); }, {"lm_head.weight"});
  for (int id = 0; id < set.size(); ++id) EXPECT_EQ(set.main(id).abs().sum().item<float>(), 0.0f);
}

TEST(Checkpoint, IgnoresAndReports) {
  SmallFolder folder;
  folder.change([](auto& tensors) {
    tensors["model.layers.3.eh_proj.weight"] = at::zeros({16, 32});
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::zeros({2});
  });
  EXPECT_EQ(folder.load().ignored, (std::vector<std::string>{"model.layers.0.self_attn.rotary_emb.inv_freq",
                                                             "model.layers.3.eh_proj.weight"}));
  folder.change([](auto& tensors) { tensors["model.layers.2.eh_proj.weight"] = at::zeros({16, 32}); });
  expect_error([&] { folder.load(); }, {"1 unexpected: model.layers.2.eh_proj.weight"});
}

TEST(Checkpoint, TiedEmbeddings) {
  SmallFolder folder(/*tied=*/true);
  EXPECT_FALSE(SafetensorsReader(folder.path()).contains("lm_head.weight"));
  EXPECT_TRUE(folder.load().ignored.empty());
  folder.change([](auto& tensors) { tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]; });
  EXPECT_EQ(folder.load().ignored, std::vector<std::string>{"lm_head.weight"});
  folder.change([](auto& tensors) { tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1; });
  expect_error([&] { folder.load(); }, {"tie_word_embeddings", "lm_head.weight differs"});
}

TEST(Checkpoint, ReplacesAFolderAsAWhole) {
  TempFolder folder;
  ParameterSet set(make_table(small_config()), {}), read(make_table(small_config()), {});
  SaveOptions sharded;
  sharded.max_shard_bytes = 4000;
  sharded.extra = [](const std::string& temporary) { write_file(temporary + "/state.json", "{}"); };
  save_checkpoint(folder / "out", {{"a", 1}}, set, sharded);
  EXPECT_TRUE(fs::exists(folder / "out/state.json"));
  initialize(set, {});
  expect_error([&] { save_checkpoint(folder / "out", {{"a", 2}}, set); }, {"state.json", "would be lost"});
  EXPECT_EQ(read_json(folder / "out/config.json")["a"], 1);
  fs::remove(folder / "out/state.json");
  save_checkpoint(folder / "out", {{"a", 2}}, set);
  EXPECT_EQ(read_json(folder / "out/config.json")["a"], 2);
  EXPECT_FALSE(fs::exists(folder / "out/model.safetensors.index.json")) << "nothing of the old folder is left";
  load_checkpoint(folder / "out", read);
  EXPECT_TRUE(at::equal(read.main(0), set.main(0)));
  EXPECT_FALSE(fs::exists(folder / "out.tmp"));
  fs::create_directories(folder / "out.tmp/left-by-a-killed-run");
  save_checkpoint(folder / "out", {{"a", 3}}, set);
  EXPECT_EQ(read_json(folder / "out/config.json")["a"], 3);
  write_file(folder / "file", "");
  expect_error([&] { save_checkpoint(folder / "file", {}, set); }, {"not a folder"});
  sharded.extra = [](const std::string&) { fail("no room for the optimizer"); };
  expect_error([&] { save_checkpoint(folder / "out", {{"a", 4}}, set, sharded); }, {"no room"});
  EXPECT_EQ(read_json(folder / "out/config.json")["a"], 3);
  EXPECT_FALSE(fs::exists(folder / "out.tmp"));
}

/// A limit on the size of files stands for a full disk: write() fails in the middle of the weights.
TEST(Checkpoint, FullDiskKeepsTheOldFolder) {
  TempFolder folder;
  ParameterSet set(make_table(small_config()), {});
  save_checkpoint(folder / "out", {{"a", 1}}, set);
  const std::string before = read_file(folder / "out/model.safetensors");
  initialize(set, {});
  struct rlimit old {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 20'000, old.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_error([&] { save_checkpoint(folder / "out", {{"a", 2}}, set); }, {"out.tmp", "cannot write"});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(read_json(folder / "out/config.json")["a"], 1);
  EXPECT_TRUE(read_file(folder / "out/model.safetensors") == before);
  EXPECT_FALSE(fs::exists(folder / "out.tmp"));
}

}  // namespace
}  // namespace farskip
