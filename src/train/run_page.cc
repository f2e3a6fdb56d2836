#include "train/run_page.h"

#include <algorithm>

#include "base/error.h"
#include "base/progress.h"
#include "base/stats.h"
#include "trace/render.h"
#include "trace/report.h"
#include "train/load_stats.h"
#include "train/rank_times.h"

namespace farskip {
namespace {

/// Spans that a page draws of a step; what comes behind them is left out, and said to be.
constexpr size_t kMaxSpans = 6000;

struct CurveName {
  const char* key;  ///< of RunHistory
  const char* name;
};
struct ChartPlan {
  const char* title;
  const char* unit;
  std::vector<CurveName> curves;
};

const std::vector<ChartPlan>& progress_charts() {
  static const std::vector<ChartPlan> plans = {
      {"Loss", "nats per token", {{"lm_loss", "training"}, {"validation_loss", "validation"}}},
      {"KL to the teacher", "nats per token", {{"kl", "training"}, {"held_out.kl", "held out"}}},
      {"Same likeliest token as the teacher's, held out", "share", {{"held_out.top1_agreement", "agreement"}}},
      {"Router drift: tokens with other experts than the teacher's",
       "share, mean of layers",
       {{"router_drift", "training"}, {"held_out.router_drift", "held out"}}},
      {"Distance of hidden states", "|s - t|^2 / |t|^2", {{"hidden", "hidden states"}}},
      {"Learning rate", "", {{"learning_rate", "learning rate"}}},
      {"Norm of the gradient, before clipping", "", {{"grad_norm", "norm"}}},
      {"Throughput", "tokens per second", {{"tokens_per_second", "tokens per second"}}},
      {"Time of a step", "ms", {{"step_ms", "step"}}}};
  return plans;
}

const std::vector<ChartPlan>& router_charts() {
  static const std::vector<ChartPlan> plans = {
      {"Busiest expert over the mean",
       "rows / mean rows",
       {{"load_max_over_mean.worst", "worst layer"}, {"load_max_over_mean.mean", "mean of layers"}}},
      {"Entropy of the load (1: even)",
       "entropy / ln(experts)",
       {{"entropy.worst", "worst layer"}, {"entropy.mean", "mean of layers"}}},
      {"Experts without a row", "share in the worst layer", {{"unused.worst", "unused"}}},
      {"Losses of the router", "", {{"load_balancing_loss", "load balancing"}, {"z_loss", "z-loss"}}}};
  return plans;
}

void add_charts(HtmlReport& report, const RunHistory& history, const std::vector<ChartPlan>& plans) {
  for (const ChartPlan& plan : plans) {
    LineChart chart{plan.title, "iteration", plan.unit, {}, false, false};
    for (const CurveName& curve : plan.curves) {
      Series series{curve.name, history.curve(curve.key).points()};
      if (!series.points.empty()) chart.series.push_back(std::move(series));
    }
    if (!chart.series.empty()) report.add_line_chart(chart);
  }
}

std::string state_text(const RunPage& page) {
  const std::string where = fmt::format("iteration {} of {}", page.history.iteration(), page.train_iters);
  switch (page.state) {
    case RunState::running:
      return fmt::format("Running: {}. Written {}; {}", where, page.written_at,
                         page.refresh_s > 0 ? fmt::format("the run renews this page every {}. Where that time is long "
                                                          "past, it was killed.",
                                                          format_duration(page.refresh_s))
                                            : "not renewed before the run ends.");
    case RunState::finished:
      return fmt::format("Finished: {}. {} Written {}.", where, page.ending, page.written_at);
    case RunState::stopped:
      return fmt::format("Stopped by a signal: {}. {} Written {}.", where, page.ending, page.written_at);
    case RunState::failed:
      return fmt::format("Failed: {}. {} Written {}.", where, page.ending, page.written_at);
  }
  return "";
}

void add_figures(HtmlReport& report, const RunPage& page) {
  const RunHistory& history = page.history;
  std::vector<std::pair<std::string, std::string>> figures;
  const int64_t done = history.iteration();
  figures.emplace_back(fmt::format("{} / {}", done, page.train_iters), "iterations");
  figures.emplace_back(fmt::format("{:.0f} %", 100.0 * static_cast<double>(done) /
                                                   static_cast<double>(std::max<int64_t>(1, page.train_iters))),
                       "done");
  figures.emplace_back(format_duration(page.elapsed_s), "since this start");
  if (page.state == RunState::running && page.left_s > 0) figures.emplace_back(format_duration(page.left_s), "left");
  const auto add = [&](const char* key, const char* meaning, int digits) {
    if (const auto value = history.curve(key).last())
      figures.emplace_back(fmt::format("{:.{}f}", *value, digits), meaning);
  };
  add("lm_loss", "training loss", 4);
  add("validation_loss", "validation loss", 4);
  add("held_out.kl", "KL to the teacher, held out", 4);
  add("held_out.router_drift", "router drift, held out", 3);
  add("tokens_per_second", "tokens per second", 0);
  if (page.overlap.total.duration_us > 0)
    figures.emplace_back(fmt::format("{:.1f} %", 100 * page.overlap.total.hidden()), "of communication hidden");
  figures.emplace_back(std::to_string(history.num_skipped()), "steps left out by the guard");
  if (page.last_saved >= 0) figures.emplace_back(std::to_string(page.last_saved), "iteration of the last checkpoint");
  report.add_figures(figures);
}

void add_experts(HtmlReport& report, const RunPage& page) {
  Table table{
      {"layer", "busiest / mean", "entropy", "unused"}, {}, "Of the last step. Entropy: 1 is even, 0 one expert."};
  for (size_t layer = 0; layer < page.load.size(); ++layer) {
    if (page.load[layer].empty()) continue;
    const LoadStats stats = load_stats(page.load[layer]);
    table.rows.push_back({std::to_string(layer), fmt::format("{:.2f}", stats.max_over_mean()),
                          fmt::format("{:.3f}", stats.entropy), fmt::format("{:.1f} %", 100 * stats.unused)});
  }
  if (table.rows.empty()) return;
  report.add_heading("Experts");
  report.add_heatmap(expert_load_heatmap(page.load));
  add_charts(report, page.history, router_charts());
  report.add_table(table);
}

void add_ranks(HtmlReport& report, const RunPage& page) {
  if (page.rank_ms.empty() || page.rank_ms.back().second.size() < 2) return;
  Heatmap heatmap{"Computing time of the ranks", "iteration", "rank", {}, {}, {}, "x median", 1.0};
  for (size_t rank = 0; rank < page.rank_ms.back().second.size(); ++rank)
    heatmap.columns.push_back(std::to_string(rank));
  for (const auto& [iteration, ms_of_rank] : page.rank_ms) {
    heatmap.rows.push_back(std::to_string(iteration));
    const double usual = median(ms_of_rank);
    heatmap.values.emplace_back();
    for (const double ms : ms_of_rank) heatmap.values.back().push_back(ms / usual);
  }
  report.add_heading("Ranks");
  const auto straggler = find_straggler(page.rank_ms.back().second);
  report.add_paragraph(straggler ? straggler->to_string() : "No rank computes much longer than the others.");
  report.add_heatmap(heatmap);
}

/// Both timelines up to the moment by which kMaxSpans spans of one have begun; the caption says so.
void add_timelines(HtmlReport& report, const RunPage& page) {
  std::vector<Timeline> timelines;
  SvgOptions options;
  for (const Timeline* timeline : {&page.simulated, &page.measured}) {
    if (timeline->spans.empty()) continue;
    timelines.push_back(*timeline);
    if (timeline->spans.size() <= kMaxSpans) continue;
    std::vector<double> begins;
    for (const Span& span : timeline->spans) begins.push_back(span.begin_us);
    std::sort(begins.begin(), begins.end());
    const double until = begins[kMaxSpans] - begins[0];
    options.to_us = options.to_us > 0 ? std::min(options.to_us, until) : until;
  }
  if (timelines.empty()) return;
  report.add_heading("Timeline of a step");
  report.add_timeline(
      render_svg(timelines, options),
      fmt::format("{}, rank 0{}", timelines.size() == 2 ? "simulated above, measured below" : "measured",
                  options.to_us > 0 ? ", only the beginning" : ""));
}

void add_events(HtmlReport& report, const RunHistory& history) {
  if (history.events().empty()) return;
  report.add_heading("Events");
  Table table{{"iteration", "what happened"}, {}, ""};
  for (auto event = history.events().rbegin(); event != history.events().rend(); ++event) {
    table.rows.push_back({std::to_string(event->iteration), event->text});
  }
  if (table.rows.size() == RunHistory::max_events) table.note = "The newest; log_file has all.";
  report.add_table(table);
}

}  // namespace

Heatmap expert_load_heatmap(const std::vector<std::vector<int64_t>>& load) {
  Heatmap heatmap{"Expert load of the last step", "layer", "expert", {}, {}, {}, "rows", std::nullopt};
  for (size_t layer = 0; layer < load.size(); ++layer) {
    if (load[layer].empty()) continue;
    heatmap.rows.push_back(std::to_string(layer));
    heatmap.values.emplace_back(load[layer].begin(), load[layer].end());
    heatmap.columns.clear();
    for (size_t e = 0; e < heatmap.values[0].size(); ++e) heatmap.columns.push_back(std::to_string(e));
  }
  return heatmap;
}

std::string run_page_html(const RunPage& page) {
  HtmlReport report(fmt::format("farskip {}: {}", page.command, page.model),
                    fmt::format("{}, layout {}, schedule {}", page.connectivity, page.layout, page.schedule));
  if (page.state == RunState::running) report.reload_after(page.refresh_s);
  report.add_paragraph(state_text(page));
  add_figures(report, page);
  add_charts(report, page.history, progress_charts());
  add_events(report, page.history);
  add_experts(report, page);
  add_ranks(report, page);
  if (!page.overlap.kinds.empty()) {
    report.add_heading("Overlap of a step");
    report.add_bar_chart(overlap_bars("Communication per collective", page.overlap));
    report.add_table(overlap_table(page.overlap));
  }
  add_timelines(report, page);
  report.add_heading("Recipe");
  report.add_details("settings", page.recipe);
  return report.html();
}

}  // namespace farskip
