// Evaluations of golden models: figures that are computed by hand from the logits of the training kernels, the same
// ones in any batch and on several ranks, and after an interruption.

#include "eval/evaluate.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/files.h"
#include "eval/greedy.h"
#include "eval/metrics.h"
#include "infer/generate.h"
#include "model/fingerprint.h"
#include "model/safetensors.h"
#include "tests/base/temp_folder.h"
#include "tests/infer/sequence_logits.h"
#include "transport/loopback.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const TaskText byte_text(nullptr);
constexpr double tolerance = 2e-5;  // fp32; sums over nats of some tokens

/// Tokens of a golden model, in windows, pairs and questions with three choices.
std::vector<EvalTask> tasks_of(const std::vector<int32_t>& tokens) {
  const auto sequence = [&](int64_t begin, int64_t num, int64_t first) {
    return ScoredSequence{{tokens.begin() + begin, tokens.begin() + begin + num}, first};
  };
  EvalTask text;
  text.name = "text";
  for (int64_t i = 0; i < 5; ++i) {
    EvalItem item;
    item.scored = {sequence(i, 6 + 3 * i, 1 + i)};
    item.num_bytes = 2 * item.scored[0].num_scored();
    text.items.push_back(item);
  }
  EvalTask pairs;
  pairs.kind = TaskKind::pairs;
  pairs.name = "pairs";
  EvalTask choices;
  choices.kind = TaskKind::choices;
  choices.name = "choices";
  for (int64_t i = 0; i < 6; ++i) {
    EvalItem item;
    item.scored = {sequence(i, 5, 1), sequence(i + 3, 6, 1)};
    item.group = i % 2 ? "odd" : "even";
    pairs.items.push_back(item);
    item.scored = {sequence(i, 8, 6), sequence(i + 1, 9, 7), sequence(i + 2, 7, 5)};
    item.gold = i % 3;
    item.lengths = {1, 4, 2};
    choices.items.push_back(item);
  }
  EvalTask answers;
  answers.kind = TaskKind::answers;
  answers.name = "answers";
  answers.max_new_tokens = 5;
  for (int64_t i = 0; i < 5; ++i) {
    EvalItem item;
    item.prompt = sequence(i, 3 + 2 * i, 1).tokens;
    item.answer = "7";
    answers.items.push_back(item);
  }
  return {text, pairs, choices, answers};
}

struct Setting {
  Layout layout = {};
  EvalOptions options = {};
  bool batch_invariant = false;
  std::string against = {};  ///< a connectivity
};

class Evaluate : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(model())) GTEST_SKIP() << "no golden model at " << model();
    const at::Tensor ids =
        SafetensorsReader(model() + "/golden.safetensors").tensor("input_ids.b").flatten().to(at::kInt).contiguous();
    tokens.assign(ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel());
    tasks = tasks_of(tokens);
  }
  std::string model() const { return FARSKIP_SOURCE_DIR "/../shared/golden/" + GetParam(); }

  json run(const Setting& setting) const {
    json results;
    const json head = evaluation_head({{"model", model()}}, tasks, setting.options);
    run_ranks(setting.layout.world(), [&](World& world) {
      InferenceModelOptions options{.dtype = at::kFloat};
      options.batch_invariant = setting.batch_invariant;
      options.layout = setting.layout;
      options.rank = world.rank();
      const InferenceModel own(model(), options);
      options.connectivity = setting.against.empty() ? "standard" : setting.against;
      const InferenceModel other(model(), options);
      const json result =
          evaluate(own, setting.against.empty() ? nullptr : &other, tasks, byte_text, head, world, setting.options);
      if (world.rank() == 0) {
        results = result.at("tasks");
      } else {
        EXPECT_TRUE(result.is_null());
      }
    });
    return results;
  }
  /// Every number of two results.
  static void expect_near(const json& a, const json& b, const std::string& where) {
    ASSERT_EQ(a.type(), b.type()) << where;
    if (a.is_number_float()) {
      EXPECT_NEAR(a.get<double>(), b.get<double>(), tolerance * std::max(1.0, std::abs(b.get<double>()))) << where;
    } else if (a.is_structured()) {
      ASSERT_EQ(a.size(), b.size()) << where;
      for (const auto& [key, value] : a.items())
        expect_near(value, a.is_array() ? b.at(std::stoul(key)) : b.at(key), where + "." + key);
    } else {
      EXPECT_EQ(a, b) << where;
    }
  }

  std::vector<int32_t> tokens;
  std::vector<EvalTask> tasks;
  TempFolder folder;
};

/// log-softmax rows of a sequence's inputs, in double.
at::Tensor log_probabilities(const std::string& model, const ScoredSequence& sequence) {
  std::vector<int32_t> inputs = sequence.tokens;
  inputs.pop_back();
  return at::log_softmax(testing::sequence_logits(model, inputs).to(at::kDouble), 1);
}

double log_probability(const std::string& model, const ScoredSequence& sequence) {
  const at::Tensor log_p = log_probabilities(model, sequence);
  double sum = 0;
  for (int64_t t = sequence.first; t < std::ssize(sequence.tokens); ++t)
    sum += log_p[t - 1][sequence.tokens[t]].item<double>();
  return sum;
}

TEST_P(Evaluate, FiguresAreThoseOfTheLogits) {
  const json results = run({});
  double nats = 0, num = 0;
  for (const EvalItem& item : tasks[0].items) {
    nats -= log_probability(model(), item.scored[0]);
    num += static_cast<double>(item.scored[0].num_scored());
  }
  EXPECT_EQ(results[0].at("num_tokens"), num);
  EXPECT_NEAR(results[0].at("loss").get<double>(), nats / num, tolerance);
  EXPECT_NEAR(results[0].at("perplexity").get<double>(), std::exp(nats / num), 1e-3 * std::exp(nats / num));
  EXPECT_NEAR(results[0].at("bits_per_byte").get<double>(), nats / num / 2 / std::log(2.0), tolerance);
  int64_t better = 0, right = 0, right_norm = 0;
  for (size_t i = 0; i < 6; ++i) {
    const auto& pair = tasks[1].items[i].scored;
    better += log_probability(model(), pair[0]) > log_probability(model(), pair[1]);
    const EvalItem& question = tasks[2].items[i];
    std::vector<double> values, norm;
    for (size_t k = 0; k < 3; ++k) {
      values.push_back(log_probability(model(), question.scored[k]));
      norm.push_back(values[k] / static_cast<double>(question.lengths[k]));
    }
    right += std::max_element(values.begin(), values.end()) - values.begin() == question.gold;
    right_norm += std::max_element(norm.begin(), norm.end()) - norm.begin() == question.gold;
  }
  const auto sixth = [](int64_t n) { return static_cast<double>(n) / 6; };
  EXPECT_EQ(results[1].at("acc"), sixth(better));
  EXPECT_EQ(results[1].at("acc_stderr"), std::sqrt(sixth(better) * (1 - sixth(better)) / 5));
  EXPECT_EQ(results[1].at("acc_of_groups").size(), 2u);
  EXPECT_EQ(results[2].at("acc"), sixth(right));
  EXPECT_EQ(results[2].at("acc_norm"), sixth(right_norm));
}

TEST_P(Evaluate, NearnessToAnotherModelIsThatOfTheLogits) {
  const json same =
      run({.against = Connectivity::from_config(load_model_config(model()).raw, load_model_config(model()).num_layers())
                          .to_string()})[0];
  EXPECT_EQ(same.at("kl"), 0.0);
  EXPECT_EQ(same.at("top1_agreement"), 1.0);
  EXPECT_EQ(same.at("excess_loss"), 0.0);
  EXPECT_EQ(same.at("router_drift"), 0.0);

  // The other connectivity, as a checkpoint of its own.
  const std::string other = folder / "standard";
  std::filesystem::create_directory(other);
  json config = json::parse(read_file(model() + "/config.json"));
  for (const char* key : {"farskip", "attn_only_farskip", "mlp_only_farskip"}) config[key] = false;
  write_file(other + "/config.json", config.dump());
  std::filesystem::create_symlink(model() + "/model.safetensors", other + "/model.safetensors");
  double kl = 0, agree = 0, num = 0, nats = 0;
  for (const EvalItem& item : tasks[0].items) {
    const ScoredSequence& sequence = item.scored[0];
    const at::Tensor log_q = log_probabilities(model(), sequence), log_p = log_probabilities(other, sequence);
    for (int64_t t = sequence.first - 1; t < sequence.num_inputs(); ++t) {
      kl += (log_p[t].exp() * (log_p[t] - log_q[t])).sum().item<double>();
      agree += log_p[t].argmax().item<int64_t>() == log_q[t].argmax().item<int64_t>();
      ++num;
    }
    nats -= log_probability(other, sequence);
  }
  const json differs = run({.against = "standard"})[0];
  EXPECT_GT(kl / num, 1e-4);
  EXPECT_NEAR(differs.at("kl").get<double>(), kl / num, tolerance);
  EXPECT_NEAR(differs.at("top1_agreement").get<double>(), agree / num, 1e-12);
  EXPECT_NEAR(differs.at("against_loss").get<double>(), nats / num, tolerance);
  EXPECT_GT(differs.at("router_drift").get<double>(), 0.0);
  EXPECT_LE(differs.at("router_drift").get<double>(), 1.0);
}

TEST_P(Evaluate, BatchesAndRanksChangeNoScore) {
  const Setting whole{.against = "standard"};
  const json expected = run(whole);
  Setting single = whole;
  single.options.batch_tokens = 1;
  single.options.max_num_seqs = 1;
  expect_near(run(single), expected, "single");
  for (const char* layout : {"dp=2", "dp=3", "tp=2", "ep=2", "ep=2,exchange=a2a"}) {
    Setting setting = single;
    setting.layout = Layout::parse(layout);
    expect_near(run(setting), expected, layout);
  }
}

TEST_P(Evaluate, BatchInvariantBitsAreTheSameInAnyBatchAndOnAnyRank) {
  Setting setting{.batch_invariant = true, .against = "standard"};
  const json expected = run(setting);
  setting.options.batch_tokens = 1;
  setting.options.max_num_seqs = 2;
  EXPECT_EQ(run(setting), expected);
  setting.layout.dp = 2;
  EXPECT_EQ(run(setting), expected);
}

TEST_P(Evaluate, AnswersAreGreedy) {
  const InferenceModel one(model(), {.dtype = at::kFloat});
  std::vector<std::vector<int32_t>> prompts;
  for (const EvalItem& item : tasks[3].items) prompts.push_back(item.prompt);
  GenerateOptions limit;
  limit.max_tokens = 5;
  const GenerateReport expected = generate(one, prompts, limit);
  for (const char* name : {"", "tp=2", "ep=2"}) {
    const Layout layout = Layout::parse(name);
    std::vector<std::vector<int32_t>> made(prompts.size());
    run_ranks(layout.world(), [&](World& world) {
      InferenceModelOptions options{.dtype = at::kFloat};
      options.layout = layout;
      options.rank = world.rank();
      const InferenceModel own(model(), options);
      const Communicators communicators = Communicators::make(world, layout);
      Decoder decoder(own, communicators, {.max_positions = 64, .cache_positions = 64 * 8});
      std::vector<std::vector<int32_t>> mine;
      std::vector<size_t> numbers;
      for (size_t i = 0; i < prompts.size(); ++i) {
        // With ep the second rank has nothing to do for a while.
        if (layout.ep > 1 && (i < 4) != (world.rank() == 0)) continue;
        mine.push_back(prompts[i]);
        numbers.push_back(i);
      }
      GreedyOptions greedy{.max_new_tokens = 5};
      const auto result = continue_greedily(decoder, own, communicators, mine, greedy);
      for (size_t i = 0; i < numbers.size() && (layout.ep > 1 || world.rank() == 0); ++i) made[numbers[i]] = result[i];
    });
    for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(made[i], expected.sequences[i].tokens) << name << " " << i;
  }
}

TEST_P(Evaluate, AnInterruptedRunGoesOn) {
  Setting setting;
  setting.options.batch_tokens = 16;
  setting.options.max_num_seqs = 2;
  setting.options.output = folder / "undisturbed.json";
  const json expected = run(setting);
  const std::string undisturbed = read_file(setting.options.output);
  EXPECT_FALSE(std::filesystem::exists(setting.options.output + journal_suffix));

  setting.options.output = folder / "resumed.json";
  setting.options.samples = folder / "nowhere/samples.jsonl";  // it fails when all is done but the results
  EXPECT_THROW(run(setting), Error);
  const std::string journal = setting.options.output + journal_suffix;
  ASSERT_TRUE(std::filesystem::exists(journal));
  EXPECT_FALSE(std::filesystem::exists(setting.options.output));
  std::ifstream in(journal);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  ASSERT_GT(lines.size(), 6u);
  setting.options.samples.clear();
  for (const size_t kept : {size_t{1}, size_t{4}, lines.size() - 1}) {
    std::string cut;
    for (size_t i = 0; i < kept; ++i) cut += lines[i] + "\n";
    cut += lines[kept].substr(0, lines[kept].size() / 2);  // the process died within this line
    write_file(journal, cut);
    EXPECT_EQ(run(setting), expected) << kept;
    EXPECT_EQ(read_file(setting.options.output), undisturbed) << kept;
    EXPECT_FALSE(std::filesystem::exists(journal));
    std::filesystem::remove(setting.options.output);
  }

  // What is done is not done again: a score that was changed in the journal stays changed.
  json line = json::parse(lines[1]);
  ASSERT_EQ(line.at("task"), "text");
  line["results"][0][1] = line["results"][0][1].get<double>() + 100;
  write_file(journal, lines[0] + "\n" + line.dump() + "\n");
  EXPECT_GT(run(setting)[0].at("loss").get<double>(), expected[0].at("loss").get<double>() + 1);

  // And on several ranks.
  std::filesystem::remove(setting.options.output);
  write_file(journal, lines[0] + "\n" + lines[1] + "\n" + lines[3] + "\n");
  setting.layout.dp = 2;
  expect_near(run(setting), expected, "dp=2");
}

TEST_P(Evaluate, WhatStandsThereMustBeTheSameEvaluation) {
  const EvalOptions options{.output = folder / "results.json"};
  const auto head = [&](const std::string& fingerprint) {
    return evaluation_head({{"model", {{"fingerprint", fingerprint}}}}, tasks, options);
  };
  EXPECT_TRUE(finished_results(head("a"), options).is_null());
  write_file(options.output, json{{"evaluation", head("a")}, {"tasks", json::array()}}.dump());
  EXPECT_FALSE(finished_results(head("a"), options).is_null());
  EXPECT_THAT(error_of([&] { finished_results(head("b"), options); }),
              ::testing::AllOf(HasSubstr("results.json"), HasSubstr("models.model.fingerprint"), HasSubstr("\"a\""),
                               HasSubstr("\"b\""), HasSubstr("--overwrite")));
  EXPECT_TRUE(finished_results(head("b"), {.output = options.output, .overwrite = true}).is_null());
  write_file(options.output + journal_suffix, head("a").dump() + "\n");
  tasks[1].items.pop_back();
  EXPECT_THAT(error_of([&] { read_journal(options.output, head("a")); }), HasSubstr("tasks.pairs.data_sha256"));
  write_file(options.output, "no JSON");
  EXPECT_THAT(error_of([&] { finished_results(head("a"), options); }), HasSubstr("no evaluation's results"));
  tasks.push_back(tasks.back());
  EXPECT_THAT(error_of([&] { head("a"); }), HasSubstr("two tasks are called answers"));
}

INSTANTIATE_TEST_SUITE_P(Golden, Evaluate, ::testing::Values("qwen3_moe_farskip", "deepseek_v3_farskip"),
                         [](const auto& info) { return info.param; });

TEST(Fingerprint, TellsWeightsAndConfigsApart) {
  const std::string golden = FARSKIP_SOURCE_DIR "/../shared/golden/mixtral";
  if (!std::filesystem::exists(golden)) GTEST_SKIP() << "no golden model at " << golden;
  TempFolder folder;
  const std::string copy = folder / "copy";
  std::filesystem::create_directory(copy);
  for (const char* name : {"config.json", "model.safetensors"})
    write_file(copy + "/" + name, read_file(golden + "/" + name));
  const std::string own = checkpoint_fingerprint(golden);
  EXPECT_EQ(checkpoint_fingerprint(copy), own);
  std::string weights = read_file(copy + "/model.safetensors");
  weights[weights.size() / 2] = static_cast<char>(weights[weights.size() / 2] ^ 1);
  write_file(copy + "/model.safetensors", weights);
  const std::string other = checkpoint_fingerprint(copy);
  EXPECT_NE(other, own);
  write_file(copy + "/config.json", read_file(copy + "/config.json") + " ");
  EXPECT_NE(checkpoint_fingerprint(copy), other);
  EXPECT_THAT(error_of([&] { checkpoint_fingerprint(folder.string()); }), HasSubstr("neither model.safetensors"));
}

TEST(Metrics, RatiosHaveTheErrorOfTheirUnits) {
  const Ratio ratio = ratio_of({2, 4, 6}, {1, 1, 1});
  EXPECT_EQ(ratio.value, 4);
  EXPECT_NEAR(ratio.error, 2 / std::sqrt(3.0), 1e-12) << "standard deviation 2 of three units";
  EXPECT_EQ(ratio_of({2, 4}, {1, 2}).error, 0) << "the same in every unit";
  EXPECT_TRUE(std::isnan(ratio_of({2}, {1}).error));
  EXPECT_NEAR(binomial_error(0.25, 101), std::sqrt(0.25 * 0.75 / 100), 1e-12);
}

}  // namespace
}  // namespace farskip
