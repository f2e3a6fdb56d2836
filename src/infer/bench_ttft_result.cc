// What the benchmark found, as JSON, as text and for a page.
#include "infer/bench_ttft.h"

#include <algorithm>

#include "trace/render.h"

namespace farskip {
namespace {

std::string percent(double part) { return fmt::format("{:.1f} %", 100 * part); }
std::string percent_of(const OverlapRow& row) { return row.duration_us > 0 ? percent(row.hidden()) : "-"; }

/// "1.342 [1.331, 1.350]"; "" where the mode to compare with is not among them.
std::string ratio(const Estimate& estimate) { return estimate.num_samples > 0 ? to_text(estimate, 3) : ""; }

nlohmann::json table_json(const Table& table) {
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& row : table.rows) rows.push_back(row);
  return {{"columns", table.columns}, {"rows", rows}};
}

nlohmann::json collective_json(const PhaseFigures& phase) {
  nlohmann::json list = nlohmann::json::array();
  for (const OverlapRow& row : phase.overlap.kinds) {
    nlohmann::json item = to_json(row, phase.num_steps);
    const auto found = std::find_if(phase.hideable.kinds.begin(), phase.hideable.kinds.end(),
                                    [&](const OverlapRow& other) { return other.stage == row.stage; });
    const OverlapRow none{};
    const OverlapRow& hideable = found == phase.hideable.kinds.end() ? none : *found;
    item["hideable_ms"] = hideable.duration_us / 1e3 / phase.num_steps;
    item["hideable_exposed_ms"] = hideable.exposed_us / 1e3 / phase.num_steps;
    item["hideable_count_per_step"] = static_cast<double>(hideable.count) / phase.num_steps;
    list.push_back(std::move(item));
  }
  return list;
}

nlohmann::json phase_json(const PhaseFigures& phase, const char* time) {
  nlohmann::json json{{"schedule", phase.schedule},
                      {"schedule_hash", fmt::format("{:016x}", phase.schedule_hash)},
                      {time, to_json(phase.time)},
                      {"t_compute", to_json(phase.compute)},
                      {"t_comm", phase.comm},
                      {"t_comm_unhideable", phase.unhideable},
                      {"unhideable", phase.unhideable_names},
                      {"share", phase.share},
                      {"hidden", to_json(phase.hidden)},
                      {"hidden_hideable_mean", phase.hideable.total.hidden()},
                      {"hidden_all_mean", phase.overlap.total.hidden()},
                      {"bound", phase.bound},
                      {"efficiency", to_json(phase.efficiency)},
                      {"ideal", phase.ideal},
                      {"possible", phase.possible},
                      {"waited", phase.waited},
                      {"rank_skew", phase.skew},
                      {"cpu", phase.cpu},
                      {"transport_cpu", phase.transport_cpu},
                      {"collectives", collective_json(phase)}};
  const auto add = [&](const char* name, const Estimate& estimate) {
    if (estimate.num_samples > 0) json[name] = to_json(estimate);
  };
  add("speedup_over_standard_blocking", phase.speedup_standard);
  add("speedup_over_blocking", phase.speedup_blocking);
  add("saved_over_standard_blocking", phase.saved_standard);
  add("saved_over_blocking", phase.saved_blocking);
  return json;
}

std::string protocol(const TtftResult& result) {
  const TtftOptions& o = result.options;
  return fmt::format("{} prompt{} of {} random tokens, {} token{} made for each", o.batch, o.batch == 1 ? "" : "s",
                     o.input, o.output, o.output == 1 ? "" : "s");
}

}  // namespace

nlohmann::json TtftResult::to_json() const {
  nlohmann::json json{{"model", options.model},
                      {"machine", machine},
                      {"layout", options.layout.to_string()},
                      {"link", link.to_string()},
                      {"share", options.link.share},
                      {"share_of", share_of},
                      {"batch", options.batch},
                      {"input", options.input},
                      {"output", options.output},
                      {"routing", options.routing.to_string()},
                      {"rounds", options.num_rounds},
                      {"checked", checked},
                      {"unit", "ms"},
                      {"remarks", remarks()},
                      {"table", table_json(table())}};
  for (const ModeFigures& figures : modes) {
    nlohmann::json mode = phase_json(figures.prefill, "ttft");
    mode["mode"] = figures.mode.name;
    mode["connectivity"] = figures.mode.connectivity;
    if (figures.decode.num_steps > 0) mode["decode"] = phase_json(figures.decode, "tpot");
    json["modes"].push_back(std::move(mode));
  }
  return json;
}

Table TtftResult::table() const {
  Table table{{"mode", "first token", "over standard", "over blocking", "ideal", "possible", "hidden", "of all",
               "compute", "comm", "bound", "efficiency", "per token", "over blocking"},
              {},
              ""};
  for (const auto& [mode, prefill, decode] : modes) {
    table.rows.push_back(
        {mode.name, to_text(prefill.time), ratio(prefill.speedup_standard), ratio(prefill.speedup_blocking),
         fmt::format("{:.3f}", prefill.ideal), fmt::format("{:.3f}", prefill.possible),
         prefill.hideable.total.count > 0 ? percent(prefill.hidden.value) : "-", percent_of(prefill.overlap.total),
         prefill.compute.num_samples > 0 ? fmt::format("{:.2f}", prefill.compute.value) : "",
         fmt::format("{:.2f}", prefill.comm), fmt::format("{:.2f}", prefill.bound),
         fmt::format("{:.3f}", prefill.efficiency.value), decode.num_steps > 0 ? to_text(decode.time) : "",
         decode.num_steps > 0 ? ratio(decode.speedup_blocking) : ""});
  }
  table.note = fmt::format(
      "ms, medians of {} interleaved rounds with 95 % intervals. First token: the prefill and its sampling, on the "
      "slower "
      "rank. Over standard, over blocking:\nspeed-ups over the blocking standard mode and over the blocking mode of "
      "the "
      "same connectivity; ideal: with all communication hidden, possible: with all that some order\ncould hide. "
      "Hidden: of "
      "the communication of a step that some order could hide; of all: of all. Compute: the same order with a free "
      "link; "
      "comm: link time.\nBound: the best order that simulation finds with the measured stage times; efficiency = bound "
      "/ "
      "first token. Per token: a decode step.",
      options.num_rounds);
  return table;
}

Table TtftResult::collectives(const PhaseFigures& phase) const {
  Table table{{"collective", "count", "total ms", "hideable", "hideable ms", "exposed ms", "hidden", "of all",
               "reason where exposed"},
              {},
              ""};
  const double steps = std::max(1, phase.num_steps);
  const OverlapRow none{};
  auto add = [&](const std::string& name, const OverlapRow& all, const OverlapRow& hideable) {
    table.rows.push_back(
        {name, fmt::format("{:.6g}", all.count / steps), fmt::format("{:.2f}", all.duration_us / 1e3 / steps),
         fmt::format("{:.6g}", hideable.count / steps), fmt::format("{:.2f}", hideable.duration_us / 1e3 / steps),
         fmt::format("{:.2f}", all.exposed_us / 1e3 / steps), percent_of(hideable), percent_of(all),
         all.reason_text()});
  };
  for (const OverlapRow& row : phase.overlap.kinds) {
    const auto found = std::find_if(phase.hideable.kinds.begin(), phase.hideable.kinds.end(),
                                    [&](const OverlapRow& other) { return other.stage == row.stage; });
    add(row.stage, row, found == phase.hideable.kinds.end() ? none : *found);
  }
  table.rows.emplace_back();
  add("all", phase.overlap.total, phase.hideable.total);
  table.note = fmt::format(
      "Order: {}. Rank 0, means over {} steps; waited {:.2f} ms a step, {:.2f} of it for a rank that "
      "had not launched yet; processor time {:.2f} ms a rank, {:.2f} of it in the transport's threads.",
      phase.schedule, phase.num_steps, phase.waited, phase.skew, phase.cpu, phase.transport_cpu);
  return table;
}

std::vector<std::string> TtftResult::remarks() const {
  constexpr size_t most_names = 4;
  std::vector<std::string> sentences;
  for (const auto& [mode, prefill, decode] : modes) {
    const auto& names = prefill.unhideable_names;
    if (mode.order == BenchOrder::blocking || names.empty()) continue;
    const auto num = static_cast<size_t>(prefill.overlap.total.count / prefill.num_steps);
    if (names.size() == num) {
      sentences.push_back(
          fmt::format("{}: no order can hide any of its {} collectives a prefill ({:.2f} ms): every computation of the "
                      "graph leads to it or needs it.",
                      mode.name, num, prefill.unhideable));
      continue;
    }
    std::string list;
    for (size_t i = 0; i < std::min(names.size(), most_names); ++i)
      list += fmt::format("{}{}", i == 0 ? "" : ", ", names[i]);
    if (names.size() > most_names) list += ", ...";
    sentences.push_back(
        fmt::format("{}: no order can hide {} of its {} collectives a prefill ({:.2f} of {:.2f} ms), beside which the "
                    "graph has nothing, or too little, to compute: {}.",
                    mode.name, names.size(), num, prefill.unhideable, prefill.comm, list));
  }
  return sentences;
}

std::string TtftResult::text() const {
  std::string text =
      fmt::format("{}, layout {}, {}; {}; routing {}; link {}", options.model, options.layout.to_string(), machine,
                  protocol(*this), options.routing.to_string(), link.to_string());
  if (options.link.share > 0) {
    text += fmt::format("\nCommunication is {:g} of the blocking {} prefill (an all-reduce is two exchanges).",
                        options.link.share, share_of);
  }
  text += "\n\nChecked before anything was timed:\n";
  for (const std::string& sentence : checked) text += fmt::format("  {}\n", sentence);
  text += fmt::format("\n{}\n", render_text(table()));
  for (const std::string& sentence : remarks()) text += fmt::format("{}\n", sentence);
  for (const auto& [mode, prefill, decode] : modes) {
    text += fmt::format("\n{}: communication of a prefill\n{}", mode.name, render_text(collectives(prefill)));
    if (decode.num_steps > 0)
      text += fmt::format("{}: communication of a decode step\n{}", mode.name, render_text(collectives(decode)));
  }
  return text;
}

void TtftResult::add_to(HtmlReport& report) const {
  report.add_paragraph(fmt::format("{}; {}; link {}", protocol(*this), machine, link.to_string()));
  report.add_table(table());
  for (const std::string& sentence : remarks()) report.add_paragraph(sentence);
  std::string all;
  for (const std::string& sentence : checked) all += fmt::format("{}\n", sentence);
  report.add_details("Checked before anything was timed", all);
  for (const auto& [mode, prefill, decode] : modes) {
    report.add_heading(mode.name);
    report.add_bar_chart(overlap_bars("Communication of a prefill", prefill.overlap, prefill.num_steps));
    if (decode.num_steps > 0)
      report.add_bar_chart(overlap_bars("Communication of a decode step", decode.overlap, decode.num_steps));
    report.add_table(collectives(prefill));
    report.add_timeline(render_svg({prefill.simulated, prefill.measured}),
                        "A prefill: simulated above, measured below, rank 0");
    if (decode.num_steps > 0)
      report.add_timeline(render_svg({decode.simulated, decode.measured}),
                          "A decode step: simulated above, measured below, rank 0");
  }
}

}  // namespace farskip
