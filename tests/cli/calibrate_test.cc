// farskip convert --calibrate as a user meets it.

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CalibrateCommand : public testing::TinyTraining {
 protected:
  testing::ProgramResult convert(const std::string& arguments) {
    return testing::run_farskip("convert " + folder / "run" + " " + folder / "out" + " " + arguments);
  }
  std::string text() const { return " --calibrate " + folder / "text.txt"; }
};

TEST_F(CalibrateCommand, FitsATrainedModelToFarSkip) {
  ASSERT_EQ(testing::run_farskip(train("train_iters=60 save=" + folder / "run")).status, 0);
  const auto made = convert("--connectivity farskip --calibrate-seq-length 32" + text());
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("calibration on 4096 tokens"));  // 128 for each of 32 channels
  EXPECT_THAT(made.out, HasSubstr("in memory; about "));
  EXPECT_THAT(made.out, HasSubstr("feed-forward"));
  EXPECT_THAT(made.out, HasSubstr("KL to the model as it was"));
  EXPECT_THAT(made.out, HasSubstr("Calibration has repaired a part of the damage only"));
  const auto verdict = testing::run_farskip("inspect " + folder / "out");
  EXPECT_EQ(verdict.status, 0) << verdict.err;
  EXPECT_THAT(verdict.out, HasSubstr("farskip"));

  // Without --calibrate the same conversion changes no weight, with it these do.
  ASSERT_EQ(testing::run_farskip("convert " + folder / "run" + " " + folder / "plain --connectivity farskip").status,
            0);
  EXPECT_NE(read_file(folder / "out/model.safetensors"), read_file(folder / "plain/model.safetensors"));
}

TEST_F(CalibrateCommand, RanksShareTheTextAndTheExperts) {
  ASSERT_EQ(testing::run_farskip(train("train_iters=60 save=" + folder / "run")).status, 0);
  auto convert_to = [&](const std::string& out, const std::string& more) {
    return testing::run_farskip("convert " + folder / "run" + " " + folder / out +
                                " --connectivity farskip --calibrate-seq-length 32 " + more + text());
  };
  ASSERT_EQ(convert_to("one", "").status, 0);
  for (const std::string layout : {"--nproc 2", "--layout dp=2", "--nproc 2 --transport gloo"}) {
    std::filesystem::remove_all(folder / "two");
    const auto made = convert_to("two", layout);
    ASSERT_EQ(made.status, 0) << made.err;
    EXPECT_THAT(made.out, HasSubstr("calibration on 2048 tokens on each of 2 ranks"));
    EXPECT_FALSE(std::filesystem::exists(folder / "two.calibrated"));
    const auto compared =
        testing::run_farskip("eval " + folder / "two" + " --against " + folder / "one" +
                             " --text t=" + folder / "text.txt" + " --window 32 --overwrite -o " + folder / "c.json");
    ASSERT_EQ(compared.status, 0) << compared.err;
    const auto task = nlohmann::json::parse(read_file(folder / "c.json")).at("tasks").at(0);
    EXPECT_LT(task.at("kl").get<double>(), 1e-6) << layout;
    EXPECT_GT(task.at("num_tokens").get<double>(), 1000) << layout;
  }
  // Somebody else's folder is not what waits for the end of a conversion.
  std::filesystem::create_directory(folder / "three.calibrated");
  write_file(folder / "three.calibrated/notes.txt", "mine");
  const auto taken = convert_to("three", "--nproc 2");
  EXPECT_EQ(taken.status, 1);
  EXPECT_THAT(taken.err, HasSubstr("three.calibrated: exists already"));
  EXPECT_EQ(read_file(folder / "three.calibrated/notes.txt"), "mine");
  std::filesystem::remove_all(folder / "three.calibrated");
  const auto there = convert_to("two", "--nproc 2");
  EXPECT_EQ(there.status, 1);
  EXPECT_THAT(there.err, HasSubstr("exists already"));
  EXPECT_THAT(there.out, Not(HasSubstr("calibration on"))) << "said before the work";
  EXPECT_THAT(convert_to("three", "--nproc 2 --layout ep=3").err,
              HasSubstr("--layout ep=3 is for 3 ranks, and there are 2"));
  EXPECT_THAT(convert_to("three", "--layout ep=3").err, HasSubstr("4 experts cannot be divided over 3 ranks"));
  EXPECT_THAT(convert_to("three", "--nproc 2 --calibrate-tokens 100").err,
              HasSubstr("at least two sequences of 32 on each of 2 ranks"));
  EXPECT_FALSE(std::filesystem::exists(folder / "three"));
  const auto alone = testing::run_farskip("convert " + folder / "run" + " " + folder / "three --nproc 2");
  EXPECT_EQ(alone.status, 2);
  EXPECT_THAT(alone.err, HasSubstr("--calibrate"));
}

TEST_F(CalibrateCommand, SaysWhatIsMissing) {
  ASSERT_EQ(testing::run_farskip(train("save=" + folder / "run")).status, 0);
  const auto none = convert(text());
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("give --connectivity"));
  const auto same = convert("--connectivity standard" + text());
  EXPECT_EQ(same.status, 1);
  EXPECT_THAT(same.err, HasSubstr("there is nothing to calibrate"));
  const auto few = convert("--connectivity farskip --calibrate-tokens 40 --calibrate-seq-length 32" + text());
  EXPECT_EQ(few.status, 1);
  EXPECT_THAT(few.err, HasSubstr("40 tokens; calibration needs at least two sequences of 32"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

}  // namespace
}  // namespace farskip
