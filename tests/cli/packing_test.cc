// Documents packed into sequences, reading ahead and the global auxiliary loss, as a user meets them.

#include <fmt/format.h>

#include <set>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;

class Packing : public testing::TinyTraining {
 protected:
  /// Documents of some 50 tokens, longer than the recipe's sequences of 32.
  static constexpr const char* run = "connectivity=farskip seq_length=96 ";
  static constexpr const char* reset = "reset_attention_mask=true reset_position_ids=true eod_mask_loss=true ";
};

TEST_F(Packing, TrainsAlikeOnOneAndTwoRanksUnderEverySchedule) {
  const std::string packed = std::string(run) + reset;
  const std::string alone_log = trained(packed + "eval_iters=1");
  const auto alone = losses(alone_log);
  ASSERT_EQ(alone.size(), 8u);
  EXPECT_LT(alone.back(), alone.front() - 0.5);
  EXPECT_THAT(read_file(alone_log), HasSubstr("\"validation_loss\""));
  const std::string two = packed + "layout=ep=2 --nproc 2 ";
  const std::string two_log = trained(two + "schedule=reference");
  const auto both = losses(two_log);
  ASSERT_EQ(both.size(), alone.size());
  for (size_t i = 0; i < both.size(); ++i) EXPECT_NEAR(both[i], alone[i], 1e-4) << "step " << i;
  for (const char* schedule : {"paper", "search", "1f1b"})
    EXPECT_EQ(digits(trained(two + "schedule=" + schedule)), digits(two_log)) << schedule;
  // Controls: each of the settings is seen in the digits.
  std::set<std::vector<std::string>> results = {digits(alone_log)};
  for (const char* settings : {"", "eod_mask_loss=true", "reset_attention_mask=true reset_position_ids=true"})
    EXPECT_TRUE(results.insert(digits(trained(std::string(run) + settings))).second) << settings;
}

TEST_F(Packing, RefusesWhatCannotBe) {
  const auto positions = run_farskip(train("reset_position_ids=true"));
  EXPECT_EQ(positions.status, 1);
  EXPECT_THAT(positions.err, HasSubstr("add reset_attention_mask=true"));
  const auto open = run_farskip("prepare " + folder / "text.txt" + " -o " + folder / "open" +
                                " --no-append-eod --document-separator '\\n\\n'");
  ASSERT_EQ(open.status, 0) << open.err;
  const std::string data = " data_path=" + folder / "open_text_document";
  const auto ends = run_farskip(train("reset_attention_mask=true" + data));
  EXPECT_EQ(ends.status, 1);
  EXPECT_THAT(ends.err, HasSubstr("open_text_document: its first document ends with token 46 and not with 256"));
  EXPECT_EQ(run_farskip(train("train_iters=1" + data)).status, 0) << "as one long text";
}

TEST_F(Packing, ReadingAheadChangesNothing) {
  const auto ahead = digits(trained(run + std::string("prefetch_steps=3")));
  EXPECT_EQ(digits(trained(run + std::string("prefetch_steps=0"))), ahead);
  EXPECT_EQ(digits(trained(run + std::string("prefetch_steps=100"))), ahead);
}

TEST_F(Packing, ErrorsOfReadingAheadAreThoseOfReading) {
  // A token that the model does not have, in one document of twenty.
  std::ofstream text(folder / "rare.txt");
  for (int i = 0; i < 400; ++i) text << (i % 20 == 7 ? "~ here" : "nothing here, and some more of it") << "\n\n";
  text.close();
  ASSERT_EQ(run_farskip("prepare " + folder / "rare.txt" + " -o " + folder / "rare" +
                        " --no-append-eod --document-separator '\\n\\n'")
                .status,
            0);
  auto small = testing::tiny_model();
  small["vocab_size"] = 126;
  write_model("small", small);
  std::set<std::string> messages;
  std::set<size_t> num_steps;
  for (const int steps_ahead : {0, 3}) {
    const std::string log = folder / fmt::format("ahead{}.jsonl", steps_ahead);
    const auto result = run_farskip(
        train(fmt::format("model={} data_path={} prefetch_steps={} train_iters=50 global_batch_size=2 log_file={}",
                          folder / "small", folder / "rare_text_document", steps_ahead, log)));
    EXPECT_EQ(result.status, 1);
    const size_t begin = result.err.find("farskip: error: ");
    ASSERT_NE(begin, std::string::npos) << result.err;
    messages.insert(result.err.substr(begin));
    num_steps.insert(steps(log).size());
  }
  EXPECT_EQ(messages.size(), 1u) << *messages.begin() << "\n" << *messages.rbegin();
  EXPECT_THAT(*messages.begin(), HasSubstr("126"));
  EXPECT_EQ(num_steps.size(), 1u) << "at the same step";
  EXPECT_GT(*num_steps.begin(), 0u) << "the steps before are done";
}

TEST_F(Packing, TheGlobalAuxiliaryLossIsTheSameUnderEverySchedule) {
  const std::string two = "connectivity=farskip moe_aux_loss_coeff=0.1 layout=ep=2 --nproc 2 ";
  const std::string global = two + "moe_router_load_balancing_type=global_aux_loss ";
  const std::string log = trained(global + "schedule=reference");
  for (const auto& step : steps(log)) EXPECT_GT(step["load_balancing_loss"].get<double>(), 0.1);
  for (const char* schedule : {"paper", "async", "search", "two-batch", "1f1b"})
    EXPECT_EQ(digits(trained(global + "schedule=" + schedule)), digits(log)) << schedule;
  EXPECT_NE(digits(trained(two + "moe_router_load_balancing_type=aux_loss")), digits(log));
  EXPECT_EQ(run_farskip(train("--dry-run moe_router_load_balancing_type=global_aux_loss")).status, 0);

  // A run that goes on with another loss does not take the checkpoint's order of another graph.
  const std::string save = "schedule=search save=" + folder / "saved";
  trained(two + "train_iters=10 " + save);
  trained(global + "train_iters=14 auto_resume=true " + save);
  EXPECT_THAT(last.err, HasSubstr("going on from iteration 10"));
}

}  // namespace
}  // namespace farskip
