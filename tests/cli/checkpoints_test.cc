// farskip inspect and farskip convert as a user meets them.

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_farskip;
using testing::with_libtorch;

TEST(Inspect, TellsShapeReadersMemoryAndWhatHidesWhat) {
  if (!with_libtorch()) GTEST_SKIP() << "a build without libtorch has no farskip inspect";
  const auto result = run_farskip("inspect instella-moe-16b-a3b");
  EXPECT_EQ(result.status, 0) << result.err;
  for (const char* part : {"InstellaMoEForCausalLM", "parameters", "of which a token uses", "dense", "MoE with",
                           "connectivity  farskip", "routed experts of the layer before", "ep=8", "weights bf16",
                           "training bf16", "dispatch", "combine", "attn_core, attn_out", "exposed"}) {
    EXPECT_THAT(result.out, HasSubstr(part));
  }
  EXPECT_THAT(result.out, Not(HasSubstr("other tools"))) << "its name says which keys to read";
  EXPECT_THAT(run_farskip("inspect qwen3-30b-a3b").out, HasSubstr("connectivity  standard"));
  auto config = testing::tiny_model();
  config["farskip"] = true;
  const TempFolder folder;
  write_file(folder / "config.json", config.dump());
  EXPECT_THAT(
      run_farskip("inspect " + folder / "config.json").out,
      HasSubstr("other tools take DeepseekV3ForCausalLM for a standard model; `farskip convert` names it FarSkip"));
  const auto no_weights = run_farskip("inspect qwen3-30b-a3b --text " FARSKIP_SOURCE_DIR "/README.md");
  EXPECT_EQ(no_weights.status, 1);
  EXPECT_THAT(no_weights.err, HasSubstr("holds no weights"));
}

/// A FarSkip model that has learned its text.
class Checkpoints : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    trained("connectivity=farskip train_iters=120 save=" + (folder / "run"));
    text = " --text " + folder / "text.txt" + " --max-tokens 4096";
  }
  testing::ProgramResult convert(const std::string& arguments) { return run_farskip("convert " + arguments); }
  std::string text;
};

TEST_F(Checkpoints, TheTextTellsTheGraphTheyWereTrainedWith) {
  const auto right = run_farskip("inspect " + folder / "run" + text);
  EXPECT_EQ(right.status, 0) << right.err;
  EXPECT_THAT(right.out,
              AllOf(HasSubstr("none missing, none unknown"), HasSubstr("(declared)"),
                    HasSubstr("The weights were trained as declared: farskip."), Not(HasSubstr("other tools"))));

  const auto quantised = run_farskip("inspect " + folder / "run" + text + " --quantization int8 --quantization int4");
  EXPECT_EQ(quantised.status, 0) << quantised.err;
  EXPECT_THAT(quantised.out,
              AllOf(HasSubstr("perplexity"), HasSubstr("as they are"), HasSubstr("int8"), HasSubstr("int4")));

  // Declared otherwise, with the consequence and both losses told.
  const std::string wrong = folder / "wrong";
  const auto changed = convert(folder / "run" + " " + wrong + " --connectivity standard --text " + folder / "text.txt");
  ASSERT_EQ(changed.status, 0) << changed.err;
  EXPECT_THAT(changed.out, AllOf(HasSubstr("changed from farskip to standard"), HasSubstr("fluent but wrong"),
                                 HasSubstr(" with farskip, "), HasSubstr(" with standard")));
  const auto mismatch = run_farskip("inspect " + wrong + text);
  EXPECT_EQ(mismatch.status, 1);
  EXPECT_THAT(mismatch.err, AllOf(HasSubstr("declares standard"), HasSubstr("trained with another graph: farskip"),
                                  HasSubstr("farskip convert " + wrong + " OUT --connectivity farskip")));

  // The cure is one.
  ASSERT_EQ(convert(wrong + " " + folder / "cured" + " --connectivity farskip").status, 0);
  const auto cured = run_farskip("inspect " + folder / "cured" + text);
  EXPECT_EQ(cured.status, 0) << cured.err;
  EXPECT_THAT(cured.out, HasSubstr("trained as declared: farskip"));
  // Prepared data is a text, too.
  EXPECT_EQ(run_farskip("inspect " + wrong + " --text " + folder / "data_text_document").status, 1);
}

TEST_F(Checkpoints, ATokenizerBesideTheWeightsIsUsed) {
  const std::string model = folder / "with_tokenizer";
  ASSERT_EQ(convert(folder / "run" + " " + model).status, 0);
  const std::string all = " --text " + folder / "text.txt" + " --max-tokens 1000000";
  const auto bytes = run_farskip("inspect " + model + all);
  ASSERT_EQ(run_farskip("tokenizer train " + folder / "text.txt" + " --vocab-size 300 -o " + model + "/tokenizer.json")
                .status,
            0);
  const auto tokens = run_farskip("inspect " + model + all);
  const auto count = [](const std::string& out) {
    const auto at = out.find(" tokens)");
    return at == std::string::npos ? 0 : std::stoi(out.substr(out.rfind('(', at) + 1));
  };
  EXPECT_GT(count(tokens.out), 0) << tokens.err;
  EXPECT_LT(count(tokens.out), count(bytes.out));
}

TEST_F(Checkpoints, UntrainedWeightsTellNothing) {
  trained("connectivity=farskip train_iters=1 lr=1.0e-9 save=" + (folder / "new"));
  const auto result = run_farskip("inspect " + folder / "new" + text);
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("Neither graph is clearly better"));
}

TEST_F(Checkpoints, ExportsHaveTheirOwnNameAndAreUsed) {
  const auto config = nlohmann::json::parse(read_file(folder / "run/iter_0000120/config.json"));
  EXPECT_EQ(config["architectures"][0], "FarSkipDeepseekV3ForCausalLM");
  EXPECT_THAT(read_file(folder / "run/iter_0000120/modeling_farskip.py"), HasSubstr("class FarSkipModel"));
  const auto half = convert(folder / "run" + " " + folder / "half" + " --dtype bf16 --shard-size 30KB");
  ASSERT_EQ(half.status, 0) << half.err;
  EXPECT_THAT(half.out,
              AllOf(HasSubstr("left behind: "), HasSubstr("connectivity farskip"), Not(HasSubstr("changed"))));
  EXPECT_FALSE(std::filesystem::exists(folder / "half/training_state.json"));
  const auto made = run_farskip("generate " + folder / "half" + " --prompt 'The quick' --max-tokens 8");
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(run_farskip("inspect " + folder / "half" + text).out, HasSubstr("BF16 ("));
}

TEST_F(Checkpoints, BadRequestsAreAnswered) {
  const auto there = convert(folder / "run" + " " + folder / "model");
  EXPECT_EQ(there.status, 1);
  EXPECT_THAT(there.err, HasSubstr("exists already"));
  for (const std::string size : {"5XB", "GB", "-1GB", "0", "nan"}) {
    EXPECT_EQ(convert(folder / "run" + " " + folder / "out" + " --shard-size=" + size).status, 2) << size;
  }
  EXPECT_EQ(convert(folder / "run" + " " + folder / "out" + " --dtype int8").status, 2);
  const auto spelling = convert(folder / "run" + " " + folder / "out" + " --connectivity sideways");
  EXPECT_EQ(spelling.status, 1);
  EXPECT_THAT(spelling.err, HasSubstr("sideways"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));

  // Tensors that are not the model's.
  ASSERT_EQ(convert(folder / "run" + " " + folder / "copy").status, 0);
  auto config = nlohmann::json::parse(read_file(folder / "copy/config.json"));
  config["num_hidden_layers"] = 4;
  write_file(folder / "copy/config.json", config.dump());
  const auto torn = run_farskip("inspect " + folder / "copy");
  EXPECT_EQ(torn.status, 1);
  EXPECT_THAT(torn.out, HasSubstr("missing: model.layers.3."));
  EXPECT_THAT(torn.err, HasSubstr("do not fit"));

  // A text for which no tokens are at hand.
  config["num_hidden_layers"] = 3;
  config["vocab_size"] = 102400;
  write_file(folder / "copy/config.json", config.dump());
  const auto bytes = convert(folder / "copy" + " " + folder / "out" + " --text " + folder / "text.txt");
  EXPECT_EQ(bytes.status, 1);
  EXPECT_THAT(bytes.err, AllOf(HasSubstr("102400"), HasSubstr("farskip prepare")));
}

}  // namespace
}  // namespace farskip
