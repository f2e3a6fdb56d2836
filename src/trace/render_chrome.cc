#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "trace/family.h"
#include "trace/overlap.h"
#include "trace/render.h"
#include "trace/rows.h"

namespace farskip {
namespace {

using Json = nlohmann::ordered_json;

/// The nearest of the names chrome://tracing reserves for colours; Perfetto chooses its own by the event's name.
const char* chrome_colour(const Span& span) {
  if (is_waiting(span.kind)) return "terrible";
  switch (family_of(span)) {
    case StageFamily::attention:
      return "thread_state_runnable";
    case StageFamily::shared:
      return "rail_idle";
    case StageFamily::experts:
      return "rail_animation";
    case StageFamily::router:
      return "cq_build_attempt_running";
    case StageFamily::communication:
      return "rail_load";
    case StageFamily::head:
      return "generic_work";
    case StageFamily::optimizer:
      return "detailed_memory_dump";
    case StageFamily::other:
      return "grey";
  }
  return "grey";
}

Json metadata(const char* what, int process, int thread, Json arguments) {
  return {{"name", what}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", std::move(arguments)}};
}

/// Exposed times by (rank, name, launch).
using Exposed = std::map<std::tuple<int, std::string, double>, double>;

Json event(const Span& span, int process, int thread, double zero_us, const Exposed& exposed) {
  const bool wait = is_waiting(span.kind);
  const double duration = span.end_us - span.begin_us;
  Json arguments = {{"stage", span.stage}, {"pass", span.pass}};
  if (span.kind == SpanKind::collective) {
    const double exposed_us = exposed.at({span.rank, span.name, span.begin_us});
    arguments["exposed_us"] = exposed_us;
    arguments["hidden"] = duration > 0 ? 1 - exposed_us / duration : 1;
  }
  return {{"name", wait ? "wait " + span.name : span.name},
          {"cat", wait ? "wait" : to_string(family_of(span))},
          {"ph", "X"},
          {"pid", process},
          {"tid", thread},
          {"ts", span.begin_us - zero_us},
          {"dur", duration},
          {"cname", chrome_colour(span)},
          {"args", std::move(arguments)}};
}

}  // namespace

std::string render_chrome(const std::vector<Timeline>& timelines) {
  Json events = Json::array();
  int process = -1;
  for (const Timeline& timeline : timelines) {
    const TimelineRows rows = rows_of(timeline);
    Exposed exposed;
    for (const CollectiveTiming& c : measure_overlap(timeline)) exposed[{c.rank, c.name, c.launch_us}] = c.exposed_us;
    int thread = 0;
    const TimelineRow* previous = nullptr;
    for (const TimelineRow& row : rows.rows) {
      if (previous == nullptr || previous->rank != row.rank) {
        thread = 0;
        ++process;
        const std::string title = timeline.title.empty() ? "" : timeline.title + ", ";
        events.push_back(metadata("process_name", process, 0, {{"name", title + "rank " + std::to_string(row.rank)}}));
        events.push_back(metadata("process_sort_index", process, 0, {{"sort_index", process}}));
      }
      const std::string number = row.overflow > 0 ? " (" + std::to_string(row.overflow + 1) + ")" : "";
      events.push_back(metadata("thread_name", process, thread, {{"name", row.lane + number}}));
      events.push_back(metadata("thread_sort_index", process, thread, {{"sort_index", thread}}));
      for (const Span* span : row.spans) events.push_back(event(*span, process, thread, rows.begin_us, exposed));
      ++thread;
      previous = &row;
    }
  }
  // One event a line: large traces stay readable by line-oriented tools. Broken UTF-8 is replaced, never an exception.
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  const char* separator = "\n";
  for (const Json& one : events) {
    out += separator + one.dump(-1, ' ', false, Json::error_handler_t::replace);
    separator = ",\n";
  }
  return out + "\n]}\n";
}

}  // namespace farskip
