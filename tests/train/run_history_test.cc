#include "train/run_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "train/run_page.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

TEST(Curve, KeepsEveryPointOfAShortRunAndTheSpikesOfALongOne) {
  Curve curve;
  EXPECT_FALSE(curve.last());
  curve.add(1, 5.0);
  curve.add(2, NAN);
  curve.add(3, 4.0);
  EXPECT_THAT(curve.points(), ElementsAre(Pair(1, 5.0), Pair(3, 4.0)));
  EXPECT_EQ(curve.last(), 4.0);

  Curve longer;
  const int64_t steps = 1'000'000;
  for (int64_t i = 1; i <= steps; ++i) longer.add(i, i == 123'456 ? 100.0 : i == 500'000 ? -100.0 : std::sin(0.01 * i));
  const auto points = longer.points();
  EXPECT_LE(points.size(), 2 * Curve::max_pieces);
  EXPECT_GT(points.size(), Curve::max_pieces / 2);
  EXPECT_THAT(points, ::testing::Contains(Pair(123'456, 100.0)));
  EXPECT_THAT(points, ::testing::Contains(Pair(500'000, -100.0)));
  EXPECT_TRUE(std::is_sorted(points.begin(), points.end()));
  // Evenly dense: no stretch of a hundredth of the run is without points.
  for (size_t i = 1; i < points.size(); ++i) EXPECT_LT(points[i].first - points[i - 1].first, steps / 100);
}

json step(int64_t iteration, double loss) {
  return {{"iteration", iteration},
          {"lm_loss", loss},
          {"step_ms", 50.0},
          {"batch_size", 4},
          {"experts",
           {{{"layer", 1}, {"max_load", 30}, {"mean_load", 10}, {"entropy", 0.5}, {"unused", 0.25}},
            {{"layer", 2}, {"max_load", 10}, {"mean_load", 10}, {"entropy", 1.0}, {"unused", 0.0}}}}};
}

TEST(RunHistory, DrawsFromLinesOfTheLog) {
  RunHistory history(100);
  history.add(step(1, 5.0));
  json skipped = step(2, NAN);
  skipped["skipped"] = "the loss is nan";
  history.add(json::parse(skipped.dump()));  // as a file has it: nan is null
  history.add({{"iteration", 2}, {"validation_loss", 4.5}, {"samples", 8}});
  history.add({{"iteration", 2}, {"event", "weights are again those of iteration 1"}});
  EXPECT_EQ(history.iteration(), 2);
  EXPECT_THAT(history.curve("lm_loss").points(), ElementsAre(Pair(1, 5.0)));
  EXPECT_THAT(history.curve("validation_loss").points(), ElementsAre(Pair(2, 4.5)));
  EXPECT_DOUBLE_EQ(*history.curve("tokens_per_second").last(), 4 * 100 / 0.050);
  EXPECT_DOUBLE_EQ(*history.curve("load_max_over_mean.worst").last(), 3);
  EXPECT_DOUBLE_EQ(*history.curve("load_max_over_mean.mean").last(), 2);
  EXPECT_DOUBLE_EQ(*history.curve("entropy.worst").last(), 0.5);
  EXPECT_DOUBLE_EQ(*history.curve("entropy.mean").last(), 0.75);
  EXPECT_DOUBLE_EQ(*history.curve("unused.worst").last(), 0.25);
  EXPECT_TRUE(history.curve("z_loss").points().empty());
  EXPECT_EQ(history.num_skipped(), 1);
  ASSERT_EQ(history.events().size(), 2u);
  EXPECT_EQ(history.events()[0].text, "changed nothing: the loss is nan");
  EXPECT_EQ(history.events()[1].text, "weights are again those of iteration 1");
}

TEST(RunHistory, SurvivesWhateverALogHolds) {
  RunHistory history(100);
  for (const char* line :
       {"3", "[]", "{}", "null", R"({"iteration": "one", "lm_loss": 1})", R"({"iteration": -5, "lm_loss": 1})",
        R"({"iteration": 1, "lm_loss": "low", "experts": 7, "skipped": 1, "event": {}})",
        R"({"iteration": 2, "lm_loss": 1, "experts": [1, {}, {"max_load": 1, "mean_load": 0}]})"}) {
    history.add(json::parse(line));
  }
  EXPECT_EQ(history.iteration(), 2);
  EXPECT_EQ(history.curve("lm_loss").points().size(), 1u);
  EXPECT_TRUE(history.events().empty());
  for (int64_t i = 0; i < 1000; ++i) history.add({{"iteration", i}, {"event", std::to_string(i)}});
  ASSERT_EQ(history.events().size(), RunHistory::max_events);
  EXPECT_EQ(history.events().back().text, "999");
}

TEST(RunPage, SaysWhatBecameOfTheRun) {
  RunPage page;
  page.model = "a<b";
  page.train_iters = 10;
  page.refresh_s = 4.6;
  page.written_at = "today";
  page.history.add(step(5, 3.0));
  page.load = {{}, {3, 1, 0, 0}};
  page.rank_ms = {{5, {10.0, 10.0, 14.0}}};
  const std::string running = run_page_html(page);
  EXPECT_THAT(running, HasSubstr("Running: iteration 5 of 10. Written today"));
  EXPECT_THAT(running, HasSubstr("<meta http-equiv=\"refresh\" content=\"5\">"));
  EXPECT_THAT(running, HasSubstr("a&lt;b"));
  EXPECT_THAT(running, HasSubstr("50 %"));
  EXPECT_THAT(running, HasSubstr("rank 2 computes 14.0 ms a step, 40 % more than the others"));
  EXPECT_THAT(running, HasSubstr("<td class=\"number\">3.00</td>")) << "busiest over mean";
  EXPECT_THAT(running, Not(HasSubstr("Timeline"))) << "nothing was recorded yet";
  page.ending = "the disk melted";
  for (const auto& [state, text] : {std::pair{RunState::finished, "Finished: iteration 5"},
                                    std::pair{RunState::stopped, "Stopped by a signal: iteration 5"},
                                    std::pair{RunState::failed, "Failed: iteration 5 of 10. the disk melted"}}) {
    page.state = state;
    const std::string ended = run_page_html(page);
    EXPECT_THAT(ended, HasSubstr(text));
    EXPECT_THAT(ended, Not(HasSubstr("http-equiv=\"refresh\"")));
  }
}

/// Thousands of stages in a step do not make a page that browsers choke on.
TEST(RunPage, DrawsABoundedPartOfALongStep) {
  RunPage page;
  for (int i = 0; i < 50'000; ++i) {
    page.measured.spans.push_back(
        {0, "compute", "mb0.l0.fwd.route", "route", "fwd", SpanKind::compute, 2.0 * i, 2.0 * i + 1});
  }
  const std::string html = run_page_html(page);
  EXPECT_THAT(html, HasSubstr("only the beginning"));
  EXPECT_LT(html.size(), 4u << 20);
}

}  // namespace
}  // namespace farskip
