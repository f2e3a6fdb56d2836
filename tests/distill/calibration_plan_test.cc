// What is told before a calibration, against what it then holds and does.

#include "distill/calibration_plan.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "config/model_config.h"
#include "distill/linear_map.h"

namespace farskip {
namespace {

TEST(CalibrationPlan, StatisticsAreThoseOfTheMaps) {
  for (const int64_t parts : {1, 2, 3}) {
    const MapStatistics fitted(24, parts);
    EXPECT_EQ(map_statistics_bytes(24, parts),
              2 * static_cast<double>(fitted.student_student.nbytes() + fitted.teacher_student.nbytes()));
  }
}

TEST(CalibrationPlan, GrowsWithTokens) {
  const ModelConfig model = load_model_config("deepseek-v2-lite");
  const CalibrationPlan one = plan_calibration(model, 1 << 16, 4096), two = plan_calibration(model, 1 << 17, 4096);
  EXPECT_DOUBLE_EQ(two.forward_flops, 2 * one.forward_flops);
  EXPECT_DOUBLE_EQ(two.waiting_bytes, 2 * one.waiting_bytes);
  EXPECT_EQ(two.statistics_bytes, one.statistics_bytes);
  // Solutions do not grow with tokens, sums do.
  EXPECT_GT(two.statistics_flops, one.statistics_flops);
  EXPECT_LT(two.statistics_flops, 2 * one.statistics_flops);
  // Teacher and student go through all tokens once: at least 2 FLOPs for each active weight and token.
  EXPECT_GT(two.forward_flops, 2 * 2 * 2.0e9 * (1 << 17));
  EXPECT_GT(expected_seconds(two, 64), expected_seconds(one, 64) / 2);
}

TEST(CalibrationPlan, IsALineWithMemoryAndTime) {
  const ModelConfig model = load_model_config("small-moonlight");
  EXPECT_THAT(
      describe_calibration(model, 4096, 256, {}, "/spool"),
      ::testing::MatchesRegex("calibration on 4096 tokens: .* of weights in fp32, .* of statistics, .* of streams "
                              "in /spool; about .*"));
}

}  // namespace
}  // namespace farskip
