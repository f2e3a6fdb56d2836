// farskip generate as a user meets it: sampling, several prompts, stop strings, quantised weights, a conversation.

#include <regex>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;
using ::testing::StartsWith;

/// A model that has learned its text by heart.
class Generate : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    trained("connectivity=farskip train_iters=150 lr=2e-2 save=" + (folder / "run"));
  }
  testing::ProgramResult generate(const std::string& arguments, const std::string& input = "/dev/null") const {
    return run_farskip("generate " + folder / "run" + " " + arguments, input);
  }
  std::string text(const std::string& arguments) const {
    const auto result = generate("--max-tokens 24 " + arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return result.out;
  }
};

TEST_F(Generate, ContinuesPromptsAloneAndTogether) {
  const std::string alone = text("--prompt 'The quick'");
  EXPECT_THAT(alone, StartsWith("The quick"));
  EXPECT_EQ(text("--prompt 'The quick' --no-cache"), alone);
  EXPECT_EQ(text("--prompt 'The quick' --batch-invariant"), alone);
  const std::string together = text("--prompt 'The quick' --prompt 'The brown fox num' --prompt J");
  EXPECT_THAT(together, StartsWith("=== 0 ("));
  EXPECT_THAT(together, HasSubstr(alone.substr(0, alone.size() - 1)));
  EXPECT_THAT(together, HasSubstr("\n=== 1 ("));
  EXPECT_THAT(together, HasSubstr("\nThe brown fox num"));
  EXPECT_THAT(generate("--prompt 'The quick'").err, HasSubstr("prefill 9 tokens at "));
}

TEST_F(Generate, StopsAndSamples) {
  const std::string all = text("--prompt 'The quick'"), stopped = text("--prompt 'The quick' --stop 'x n' --stop zz");
  ASSERT_THAT(all, HasSubstr("x n")) << "it has learned its text";
  EXPECT_EQ(stopped, all.substr(0, all.find("x n")) + "\n");
  const std::string draw = "--prompt The --temperature 1.5 --ignore-eos --seed ";
  EXPECT_EQ(text(draw + "1"), text(draw + "1"));
  EXPECT_NE(text(draw + "1"), text(draw + "2"));
  EXPECT_EQ(text(draw + "1 --top-k 1"), text("--prompt The --ignore-eos"));
  EXPECT_EQ(text(draw + "1 --top-p 1e-9"), text("--prompt The --ignore-eos"));
  EXPECT_EQ(text(draw + "1 --min-p 1"), text("--prompt The --ignore-eos"));
  EXPECT_NE(text("--prompt The --repetition-penalty 3"), text("--prompt The"));
  EXPECT_NE(text("--prompt The --frequency-penalty 2"), text("--prompt The"));
}

TEST_F(Generate, QuantisedWeightsTakeLessMemory) {
  const std::regex size("([0-9.]+) KiB of weights");
  std::vector<double> kib;
  for (const std::string kind : {"none", "int8", "int4"}) {
    const auto result = generate("--prompt 'The quick' --quantization " + kind);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, StartsWith("The quick"));
    std::smatch found;
    ASSERT_TRUE(std::regex_search(result.err, found, size)) << result.err;
    kib.push_back(std::stod(found[1]));
  }
  EXPECT_LT(kib[1], 0.7 * kib[0]) << "the embedding stays";
  EXPECT_LT(kib[2], kib[1]);
}

TEST_F(Generate, TalksByTheChatTemplateAndReadsWhatIsNewAlone) {
  const std::string run = folder / "run";
  ASSERT_EQ(generate("--chat").status, 1);
  EXPECT_THAT(generate("--chat").err, HasSubstr("no chat template"));
  std::string newest;
  for (const auto& entry : std::filesystem::directory_iterator(run)) {
    if (entry.is_directory()) newest = entry.path();
  }
  const auto trained = run_farskip("tokenizer train " + folder / "text.txt" + " --vocab-size 300 -o " + newest +
                                   "/tokenizer.json --special-tokens '<bos>' --special-tokens '<eos>'");
  ASSERT_EQ(trained.status, 0) << trained.err;
  const std::string templ =
      "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
      "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
      "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
      "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";
  write_file(newest + "/tokenizer_config.json",
             nlohmann::json({{"bos_token", "<bos>"}, {"eos_token", "<eos>"}, {"chat_template", templ}}).dump());
  const std::string system = "zyxwvutsrqponmlkjihgfedcba zyxwvutsrqponmlkjihgfedcba";
  write_file(folder / "lines", "hello\n\nand now\n");
  const auto talk = generate("--chat --system '" + system + "' --max-tokens 4 --ignore-eos", folder / "lines");
  ASSERT_EQ(talk.status, 0) << talk.err;
  // The first answer is what the rendered conversation is continued with.
  const std::string rendered = "<bos>" + system + "\n\nUser: hello\n\nAssistant:";
  const auto by_hand = run_farskip("generate " + newest + " --max-tokens 4 --ignore-eos --prompt \"$(printf '" +
                                   "<bos>" + system + "\\n\\nUser: hello\\n\\nAssistant:" + "')\"");
  ASSERT_EQ(by_hand.status, 0) << by_hand.err;
  EXPECT_EQ(talk.out.substr(0, talk.out.find('\n')),
            by_hand.out.substr(rendered.size(), by_hand.out.find('\n', rendered.size()) - rendered.size()));
  const std::regex prefill("prefill ([0-9]+) tokens");
  std::vector<int> read;
  for (auto it = std::sregex_iterator(talk.err.begin(), talk.err.end(), prefill); it != std::sregex_iterator(); ++it)
    read.push_back(std::stoi((*it)[1]));
  ASSERT_EQ(read.size(), 2u) << talk.err;
  EXPECT_GT(read[0], 50);
  EXPECT_LT(read[1], 50) << "the answer and the new line, without what was before";
}

TEST_F(Generate, WrongUseIsExplained) {
  EXPECT_THAT(generate("").err, HasSubstr("--prompt TEXT"));
  EXPECT_THAT(generate("--prompt ''").err, HasSubstr("prompt is empty"));
  EXPECT_THAT(generate("--prompt The --top-p 0").err, HasSubstr("top_p is 0"));
  EXPECT_THAT(generate("--prompt 'The quick' --max-model-len 5").err, HasSubstr("5 positions"));
  EXPECT_NE(generate("--prompt The --quantization int3").status, 0);
  const std::string golden = FARSKIP_SOURCE_DIR "/../shared/golden/mixtral";
  if (!std::filesystem::exists(golden)) GTEST_SKIP() << "no golden model at " << golden;
  EXPECT_THAT(run_farskip("generate " + golden + " --prompt The").err, HasSubstr("holds no tokenizer"));
}

}  // namespace
}  // namespace farskip
