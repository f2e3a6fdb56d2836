// farskip eval as a user meets it: every kind of task, another checkpoint, several ranks, an interruption, wrong files.

#include <cmath>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::run_farskip;

/// A model that has learned its text by heart, and one that was trained a little less.
class Eval : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    trained("connectivity=farskip train_iters=100 lr=2e-2 save=" + (folder / "run"));
    trained("connectivity=standard train_iters=60 lr=2e-2 save=" + (folder / "other"));
    std::string text;
    for (int i = 0; i < 40; ++i)
      text += "The " + std::string(i % 3 ? "quick" : "brown") + " fox number " + std::to_string(i) +
              " jumps over the lazy dog.\n\n";
    write_file(folder / "text", text);
    std::string pairs, choices;
    for (int i = 0; i < 20; ++i) {
      const std::string start = "The quick fox number " + std::to_string(i);
      pairs += json({{"UID", i % 2 ? "order" : "word"},
                     {"sentence_good", start + " jumps over the lazy dog."},
                     {"sentence_bad", start + (i % 2 ? " over jumps the lazy dog." : " jumps over the lazy cat.")}})
                   .dump() +
               "\n";
      choices += json({{"query", start + " jumps"}, {"choices", {"under the bed.", "over the lazy dog."}}, {"gold", 1}})
                     .dump() +
                 "\n";
    }
    write_file(folder / "pairs.jsonl", pairs);
    write_file(folder / "choices.jsonl", choices);
    write_file(folder / "answers.jsonl",
               json({{"question", "The quick fox number"}, {"answer", "It is 7.\n#### 7"}}).dump() + "\n" +
                   json({{"question", "The"}, {"answer", "brown"}}).dump() + "\n");
  }
  testing::ProgramResult eval(const std::string& arguments) const {
    return run_farskip("eval " + folder / "run" + " " + arguments);
  }
  json results(const std::string& arguments, const std::string& output) const {
    const auto result = eval(arguments + " -o " + folder / output);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.out, HasSubstr("results: " + folder / output));
    return json::parse(read_file(folder / output)).at("tasks");
  }
  std::string all() const {
    return "--text " + folder / "text" + " --pairs " + folder / "pairs.jsonl" + " --choices " +
           folder / "choices.jsonl" + " --answers " + folder / "answers.jsonl" + " --window 64 --max-new-tokens 12";
  }
};

TEST_F(Eval, KnowsWhatItLearned) {
  const json tasks = results(all() + " --against " + folder / "other" + " --samples " + folder / "samples.jsonl", "r");
  ASSERT_EQ(tasks.size(), 4u);
  const json& text = tasks[0];
  EXPECT_EQ(text.at("name"), "text");
  EXPECT_EQ(text.at("num_tokens"), text.at("num_bytes")) << "tokens are bytes";
  EXPECT_EQ(text.at("num_bytes"), read_file(folder / "text").size());
  EXPECT_LT(text.at("loss").get<double>(), 2.0) << "5.8 untrained";
  EXPECT_NEAR(text.at("perplexity").get<double>(), std::exp(text.at("loss").get<double>()), 1e-9);
  EXPECT_NEAR(text.at("bits_per_byte").get<double>(), text.at("loss").get<double>() / std::log(2.0), 1e-9);
  EXPECT_GT(text.at("loss_stderr").get<double>(), 0);
  EXPECT_GT(text.at("kl").get<double>(), 0);
  EXPECT_NEAR(text.at("excess_loss").get<double>(),
              text.at("loss").get<double>() - text.at("against_loss").get<double>(), 1e-9);
  EXPECT_GT(text.at("top1_agreement").get<double>(), 0.5);
  EXPECT_EQ(text.at("router_drift_of_layers").size(), 2u);
  EXPECT_EQ(text.at("router_drift_of_layers")[0].at("layer"), 1);
  EXPECT_GT(tasks[1].at("acc").get<double>(), 0.8);
  EXPECT_EQ(tasks[1].at("num_items"), 20);
  EXPECT_EQ(tasks[1].at("acc_of_groups").size(), 2u);
  EXPECT_GT(tasks[2].at("acc").get<double>(), 0.8);
  EXPECT_GT(tasks[2].at("acc_norm").get<double>(), 0.8);
  EXPECT_TRUE(tasks[3].contains("exact_match"));
  std::istringstream samples(read_file(folder / "samples.jsonl"));
  std::vector<json> lines;
  for (std::string line; std::getline(samples, line);) lines.push_back(json::parse(line));
  ASSERT_GT(lines.size(), 42u);
  EXPECT_EQ(lines.back().at("task"), "answers");
  EXPECT_FALSE(lines.back().at("text").get<std::string>().empty());

  // The same again is there already; another one is not mistaken for it.
  const auto again = eval(all() + " --against " + folder / "other" + " -o " + folder / "r");
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(again.err.find("of weights"), std::string::npos) << "nothing was loaded";
  EXPECT_THAT(again.out, HasSubstr("router_drift"));
  const auto other = eval(all() + " -o " + folder / "r");
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.err, AllOf(HasSubstr("is of another evaluation"), HasSubstr("against"), HasSubstr("--overwrite")));
  EXPECT_EQ(results(all() + " --overwrite", "r").size(), 4u);
}

TEST_F(Eval, RanksAndQuantisedWeights) {
  const json one = results(all() + " --batch-invariant", "one");
  EXPECT_EQ(results(all() + " --batch-invariant --nproc 2", "two"), one);
  EXPECT_EQ(results(all() + " --batch-invariant --nproc 2 --transport gloo", "processes"), one);
  const json split = results(all() + " --layout tp=2", "tp");
  EXPECT_NEAR(split[0].at("loss").get<double>(), one[0].at("loss").get<double>(), 1e-4);
  EXPECT_EQ(split[2].at("acc"), one[2].at("acc"));
  const json itself =
      results("--text " + folder / "text" + " --window 64 --quantization int4 --against " + folder / "run", "int4");
  EXPECT_GT(itself[0].at("kl").get<double>(), 0) << "the model itself, with all its bits";
  EXPECT_GT(itself[0].at("top1_agreement").get<double>(), 0.8);
}

TEST_F(Eval, GoesOnWhereItWasInterrupted) {
  const std::string arguments = all() + " --batch-tokens 100";
  const json undisturbed = results(arguments, "undisturbed");
  EXPECT_EQ(eval(arguments + " -o " + folder / "r" + " --samples " + folder / "nowhere/s").status, 1);
  std::string journal = read_file(folder / "r.partial");
  write_file(folder / "r.partial", journal.substr(0, journal.size() / 2));
  const auto resumed = eval(arguments + " -o " + folder / "r");
  EXPECT_EQ(resumed.status, 0);
  EXPECT_THAT(resumed.err, HasSubstr("batches are done"));
  EXPECT_EQ(read_file(folder / "r"), read_file(folder / "undisturbed"));
  EXPECT_FALSE(std::filesystem::exists(folder / "r.partial"));
  EXPECT_EQ(json::parse(read_file(folder / "r")).at("tasks"), undisturbed);

  // Refused with other data and other weights.
  std::filesystem::remove(folder / "r");
  write_file(folder / "r.partial", journal.substr(0, journal.size() / 2));
  write_file(folder / "text", read_file(folder / "text") + "more");
  EXPECT_THAT(eval(arguments + " -o " + folder / "r").err,
              AllOf(HasSubstr("r.partial is of another evaluation"), HasSubstr("tasks.text.data_sha256")));
  const auto weights = run_farskip("eval " + folder / "other" + " " + arguments + " -o " + folder / "undisturbed");
  EXPECT_EQ(weights.status, 1);
  EXPECT_THAT(weights.err, HasSubstr("is of another evaluation"));
}

TEST_F(Eval, PreparedDataAndNames) {
  const json tasks = results("--text a=" + folder / "data_text_document" + " --text b=" + folder / "text" +
                                 " --max-tokens 500 --window 50 --stride 25",
                             "r");
  EXPECT_EQ(tasks[0].at("name"), "a");
  EXPECT_EQ(tasks[0].at("num_tokens"), 500);
  EXPECT_LT(tasks[0].at("num_bytes").get<int>(), 500) << "what ends documents is no text";
  EXPECT_EQ(tasks[1].at("name"), "b");
  EXPECT_EQ(tasks[1].at("num_items"), 19);
}

TEST_F(Eval, WrongUseIsExplained) {
  const auto error = [&](const std::string& arguments) {
    const auto result = eval(arguments);
    EXPECT_EQ(result.status, 1) << arguments;
    return result.err;
  };
  const std::string text = "--text " + folder / "text";
  EXPECT_THAT(error(""), HasSubstr("give --text, --pairs, --choices or --answers"));
  EXPECT_THAT(error("--text " + folder / "nothing"), HasSubstr("nothing"));
  EXPECT_THAT(error("--pairs " + folder / "choices.jsonl"),
              AllOf(HasSubstr("choices.jsonl: line 1"), HasSubstr("sentence_good")));
  EXPECT_THAT(error(text + " --window 1000"), AllOf(HasSubstr("--window 1000"), HasSubstr("128 positions")));
  EXPECT_THAT(error(text + " --window 10 --stride 11"), HasSubstr("stride of 11"));
  EXPECT_THAT(error("--pairs " + folder / "pairs.jsonl" + " --against " + folder / "other"), HasSubstr("--text FILE"));
  EXPECT_THAT(error("--choices " + folder / "choices.jsonl" + " --answers " + folder / "answers.jsonl" + " --fewshot " +
                    folder / "choices.jsonl"),
              HasSubstr("--fewshot"));
  EXPECT_THAT(error(text + " --layout tp=2 --nproc 3"), HasSubstr("2 ranks"));
  EXPECT_THAT(error(text + " " + text), HasSubstr("two tasks are called text"));
  EXPECT_EQ(eval("--no-such-option").status, 2);
  auto config = testing::tiny_model();
  config["vocab_size"] = 512;
  write_model("larger", config);
  EXPECT_THAT(error(text + " --against " + folder / "larger"), AllOf(HasSubstr("320"), HasSubstr("512")));
}

}  // namespace
}  // namespace farskip
