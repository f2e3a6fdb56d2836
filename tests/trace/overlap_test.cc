#include "trace/overlap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "sample_timeline.h"

namespace farskip {
namespace {

using testing::HasSubstr;

Span compute(const char* stage, double begin, double end, int rank = 0) {
  return {rank, "compute", std::string("mb0.l0.fwd.") + stage, stage, "fwd", SpanKind::compute, begin, end};
}
Span collective(const char* stage, const char* pass, double begin, double end, int rank = 0) {
  return {rank, "ep", std::string("mb0.l0.") + pass + "." + stage, stage, pass, SpanKind::collective, begin, end};
}
Span wait(const char* stage, const char* pass, double begin, double end, int rank = 0) {
  return {rank, "compute", std::string("mb0.l0.") + pass + "." + stage, stage, pass, SpanKind::wait, begin, end};
}

TEST(Overlap, NumbersOfHandMadeSpans) {
  const Timeline timeline{
      "hand",
      {compute("qkv", 0, 100), collective("dispatch", "fwd", 90, 190), compute("attn_core", 100, 150),
       wait("dispatch", "fwd", 150, 190), collective("combine", "fwd", 190, 290), wait("combine", "fwd", 190, 290),
       collective("combine", "bwd", 300, 350), compute("experts", 290, 400), collective("counts", "fwd", 400, 410),
       compute("shared", 405, 407), wait("counts", "fwd", 407, 410)}};
  const auto measured = measure_overlap(timeline);
  ASSERT_EQ(measured.size(), 4u);

  EXPECT_EQ(measured[0].name, "mb0.l0.fwd.dispatch");
  EXPECT_DOUBLE_EQ(measured[0].duration_us, 100);
  EXPECT_DOUBLE_EQ(measured[0].exposed_us, 40);
  EXPECT_DOUBLE_EQ(measured[0].window_us, 60);  // 10 of qkv and 50 of attn_core
  EXPECT_EQ(measured[0].reason, Exposure::window_too_short);

  EXPECT_DOUBLE_EQ(measured[1].exposed_us, 100);
  EXPECT_DOUBLE_EQ(measured[1].window_us, 0);
  EXPECT_EQ(measured[1].reason, Exposure::no_window);

  EXPECT_DOUBLE_EQ(measured[2].exposed_us, 0);
  EXPECT_DOUBLE_EQ(measured[2].window_us, 50);
  EXPECT_EQ(measured[2].reason, Exposure::none);

  EXPECT_DOUBLE_EQ(measured[3].exposed_us, 3);
  EXPECT_EQ(measured[3].reason, Exposure::host_sync);

  const OverlapSummary summary = summarize(measured);
  ASSERT_EQ(summary.kinds.size(), 4u);
  EXPECT_DOUBLE_EQ(summary.kinds[0].hidden(), 0.6);
  EXPECT_EQ(summary.kinds[1].reason_text(), "no window");
  EXPECT_EQ(summary.forward.count, 3);
  EXPECT_DOUBLE_EQ(summary.forward.duration_us, 210);
  EXPECT_DOUBLE_EQ(summary.forward.exposed_us, 143);
  EXPECT_DOUBLE_EQ(summary.backward.hidden(), 1);
  EXPECT_DOUBLE_EQ(summary.total.duration_us, 260);
  EXPECT_EQ(summary.forward.main_reason(), "mostly no window");
}

TEST(Overlap, SmallWaitsNeedNoReasonButCount) {
  const Timeline timeline{"", {collective("dispatch", "fwd", 0, 1000), wait("dispatch", "fwd", 992, 1000)}};
  const auto measured = measure_overlap(timeline);
  EXPECT_EQ(measured[0].reason, Exposure::none);
  EXPECT_DOUBLE_EQ(measured[0].exposed_us, 8);
  EXPECT_DOUBLE_EQ(summarize(measured).total.hidden(), 0.992);
}

TEST(Overlap, RanksAndStepsWithTheSameNames) {
  Timeline timeline;
  for (int rank : {1, 0}) {
    for (double step : {0.0, 500.0}) {
      const double end = step + 100 + 100 * rank;
      timeline.spans.push_back(collective("dispatch", "fwd", step, end, rank));
      if (step > 0) timeline.spans.push_back(wait("dispatch", "fwd", end - 50, end, rank));
      timeline.spans.push_back(compute("attn_core", step, end - 50, rank));
    }
  }
  const auto measured = measure_overlap(timeline);
  ASSERT_EQ(measured.size(), 4u);
  EXPECT_EQ(measured[0].rank, 0);
  EXPECT_DOUBLE_EQ(measured[0].exposed_us, 0);
  EXPECT_DOUBLE_EQ(measured[1].exposed_us, 50);
  EXPECT_DOUBLE_EQ(measured[1].window_us, 50);
  EXPECT_DOUBLE_EQ(measured[3].window_us, 150);
  const Table table = overlap_table(summarize(measured), 2);
  EXPECT_EQ(table.rows[0], (std::vector<std::string>{"dispatch", "fwd", "1", "150 µs", "25.0 µs", "83.3 %",
                                                     "window too short (2 of 4)"}));
}

TEST(Overlap, HintsDecideAndTakeOutWhatNoOrderHides) {
  const Timeline timeline = sample_timeline("hinted", 3, 2);
  const auto hint = [](const CollectiveTiming& c) {
    return c.name == "mb0.l2.fwd.combine" ? Exposure::first_or_last_layer : Exposure::none;
  };
  const OverlapSummary with = summarize(measure_overlap(timeline, hint)),
                       without = summarize(measure_overlap(timeline));
  EXPECT_EQ(with.forward.count, 9);
  EXPECT_EQ(with.hideable_forward.count, 8);
  EXPECT_DOUBLE_EQ(with.forward.exposed_us, without.forward.exposed_us);
  EXPECT_DOUBLE_EQ(with.forward.duration_us - with.hideable_forward.duration_us, 160);
  EXPECT_GT(with.hideable_forward.hidden(), with.forward.hidden());
  EXPECT_THAT(with.forward.reason_text(), HasSubstr("first or last layer (1 of 9)"));
  EXPECT_EQ(without.hideable_forward.count, 9);
}

TEST(Overlap, WaitForSomethingNeverLaunchedIsRefused) {
  const Timeline timeline{"lost", {compute("qkv", 0, 10), wait("dispatch", "fwd", 10, 20)}};
  try {
    measure_overlap(timeline);
    FAIL() << "a wait without its collective was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("mb0.l0.fwd.dispatch"));
  }
}

TEST(Overlap, EmptyTimeline) {
  const OverlapSummary summary = summarize(measure_overlap({}));
  EXPECT_EQ(summary.total.count, 0);
  EXPECT_DOUBLE_EQ(summary.total.hidden(), 1);
  EXPECT_THAT(render_text(summary), HasSubstr("hideable"));
  EXPECT_THROW(overlap_table(summary, 0), Error);
}

TEST(Overlap, ReasonsHaveOneSpelling) {
  using enum Exposure;
  for (Exposure exposure : {none, no_window, window_too_short, first_or_last_layer, host_sync, not_enabled}) {
    EXPECT_EQ(parse_exposure(to_string(exposure)), exposure);
  }
  EXPECT_THROW(parse_exposure("bad luck"), Error);
}

}  // namespace
}  // namespace farskip
