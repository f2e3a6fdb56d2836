// farskip convert --calibrate as a user meets it.

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

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
