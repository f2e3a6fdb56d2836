// farskip show as a user meets it.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "tests/cli/run_program.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_farskip;

const std::string kSmall = "show small-deepseek-v2-lite --layout ep=4 ";

std::string shown(const std::string& arguments) {
  const auto result = run_farskip(arguments);
  EXPECT_EQ(result.status, 0) << arguments << "\n" << result.err;
  EXPECT_EQ(result.err, "");
  return result.out;
}

TEST(Show, SummaryTellsModelStagesOrdersAndTimeline) {
  const std::string out = shown(kSmall + "--connectivity farskip");
  for (const char* part :
       {"DeepseekV2ForCausalLM", "connectivity  farskip", "1 dense, 11 MoE with 8 experts",
        "attention : shared : routed", "routed experts of the layer before", "attention of this layer",
        "Stages of a MoE layer", "reference", "async", "paper", "search (from", "no order takes less than",
        "Communication under 'search", "dispatch", "layer 6 forward", "layer 6 backward"}) {
    EXPECT_THAT(out, HasSubstr(part));
  }
  EXPECT_THAT(out, Not(HasSubstr("two-batch")));
}

TEST(Show, ConnectivityComesFromTheConfigUnlessGiven) {
  EXPECT_THAT(shown(kSmall), HasSubstr("connectivity  standard"));
  EXPECT_THAT(shown("show instella-moe-16b-a3b"), HasSubstr("connectivity  farskip"));
  EXPECT_THAT(shown(kSmall + "--connectivity last=50%"), HasSubstr("connectivity  last=6"));
}

TEST(Show, MicrobatchesBringTheRivals) {
  EXPECT_THAT(shown(kSmall + "--microbatches 2"), AllOf(HasSubstr("two-batch"), HasSubstr("1f1b")));
  EXPECT_THAT(shown(kSmall + "--microbatches 2 --phase prefill"),
              AllOf(HasSubstr("two-batch"), Not(HasSubstr("1f1b"))));
}

TEST(Show, EveryFamilyInEveryPhase) {
  for (const char* model : {"deepseek-v3", "mixtral-8x7b", "olmoe-1b-7b", "qwen3-30b-a3b", "small-moonlight"}) {
    for (const char* run : {"--phase train", "--phase prefill", "--phase prefill --layout tp=4", "--phase decode",
                            "--phase decode --layout ep=8,exchange=a2a"}) {
      EXPECT_THAT(shown(fmt::format("show {} --connectivity farskip --schedule paper {}", model, run)),
                  HasSubstr("Communication under 'paper'"));
    }
  }
}

TEST(Show, AScheduleCanBePrintedEditedAndReadBack) {
  const std::string path = ::testing::TempDir() + "farskip_show_" + std::to_string(getpid()) + ".txt";
  EXPECT_EQ(shown(kSmall + "--schedule paper --format schedule -o " + path), "");
  std::stringstream written;
  written << std::ifstream(path).rdbuf();
  EXPECT_EQ(written.str().rfind("run mb0.fwd.embed\n", 0), 0u);
  EXPECT_EQ(shown(kSmall + "--format schedule --schedule " + path), written.str());
  EXPECT_THAT(shown(kSmall + "--schedule " + path), HasSubstr("Communication under '" + path));

  // The same file on another graph is refused, naming what does not fit.
  const auto other = run_farskip("show small-deepseek-v2-lite --layout ep=4,dp=2 --schedule " + path);
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.err, HasSubstr("grad_reduce_experts"));
  std::ofstream(path, std::ios::app) << "run nonsense\n";
  EXPECT_THAT(run_farskip(kSmall + "--schedule " + path).err, HasSubstr("the graph has no node 'nonsense'"));
}

TEST(Show, DrawsTheWholeStep) {
  const std::string svg = shown(kSmall + "--format svg");
  EXPECT_EQ(svg.rfind("<svg", 0), 0u) << svg.substr(0, 100);
  EXPECT_THAT(svg, HasSubstr("mb0.l11.bwd.dispatch"));
  EXPECT_THAT(shown(kSmall + "--format chrome"), AllOf(HasSubstr("traceEvents"), HasSubstr("mb0.l11.bwd.dispatch")));
  EXPECT_THAT(shown(kSmall + "--format text"), AllOf(HasSubstr("compute"), HasSubstr("one column is")));
}

TEST(Show, TheGraphNamesReadsWritesAndSums) {
  const std::string out = shown(kSmall + "--connectivity farskip --format graph");
  EXPECT_THAT(out, HasSubstr("mb0.l2.fwd.dispatch on expert ("));
  EXPECT_THAT(out, HasSubstr("  reads mb0.l2.rows mb0.l2.plan\n  writes mb0.l2.received\n"));
  EXPECT_THAT(out, HasSubstr("  mb0.x2 = mb0.h1 + mb0.ff1\n"));
  EXPECT_THAT(out, HasSubstr("step.optimizer on compute"));
}

TEST(Show, BadInputIsNamed) {
  auto error = [](const std::string& arguments, int status) {
    const auto result = run_farskip(arguments);
    EXPECT_EQ(result.status, status) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_EQ(result.err.rfind("farskip: error: ", 0), 0u) << result.err;
    return result.err;
  };
  EXPECT_THAT(error("show", 2), HasSubstr("model is required"));
  EXPECT_THAT(error("show deepseek-v2-lte", 1), HasSubstr("did you mean deepseek-v2-lite?"));
  EXPECT_THAT(error("show small-moonlight --layout ep=3", 1), HasSubstr("8 experts cannot be divided over 3 ranks"));
  EXPECT_THAT(error("show small-moonlight --layout ranks=3", 1), HasSubstr("'ranks=3' is unknown"));
  EXPECT_THAT(error("show small-moonlight --phase training", 1), HasSubstr("expected train, prefill or decode"));
  EXPECT_THAT(error("show small-moonlight --connectivity far", 1), HasSubstr("connectivity 'far' is unknown"));
  EXPECT_THAT(error("show small-moonlight --connectivity last=99", 1), HasSubstr("the model has only"));
  EXPECT_THAT(error("show small-moonlight --machine abacus", 1), HasSubstr("'abacus' is not a known machine"));
  EXPECT_THAT(error("show small-moonlight --schedule papre", 1), HasSubstr("neither a name nor a readable file"));
  EXPECT_THAT(error("show small-moonlight --format png", 2), HasSubstr("png"));
  EXPECT_THAT(error("show small-moonlight --sequences 0", 2), HasSubstr("--sequences"));
  EXPECT_THAT(error("show small-moonlight --microbatches 65", 2), HasSubstr("--microbatches"));
  EXPECT_THAT(error("show small-moonlight --seq-length 1000000", 1), HasSubstr("longer than the"));
  EXPECT_THAT(error("show small-moonlight -o /no/such/folder/x", 1), HasSubstr("/no/such/folder"));
}

}  // namespace
}  // namespace farskip
