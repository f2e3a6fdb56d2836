#include <algorithm>
#include <array>
#include <cctype>
#include <map>

#include "base/error.h"
#include "trace/drawing.h"
#include "trace/family.h"
#include "trace/render.h"
#include "trace/rows.h"

namespace farskip {
namespace {

constexpr char kWait = '!';
constexpr size_t kMinCells = 10;
constexpr size_t kShareWidth = 7;  ///< "| 100 %"

/// Small letters forward, capitals backward; weight gradients have one letter for all.
char letter_of(const Span& span) {
  if (is_waiting(span.kind)) return kWait;
  const StageFamily family = family_of(span);
  if (family == StageFamily::communication) return span.stage == "dispatch" ? '>' : span.stage == "combine" ? '<' : '=';
  if (span.pass == "wgrad") return 'w';
  constexpr std::array letters = {'a', 's', 'e', 'r', '=', 'h', 'o', 'x'};  // in the order of kStageFamilies
  const char letter = letters[static_cast<size_t>(family)];
  return span.pass == "bwd" ? static_cast<char>(std::toupper(letter)) : letter;
}

std::string meaning_of(const Span& span) {
  if (is_waiting(span.kind)) return "waiting";
  const StageFamily family = family_of(span);
  if (family == StageFamily::communication) {
    return span.stage == "dispatch" || span.stage == "combine" ? span.stage : "other communication";
  }
  if (span.pass == "wgrad") return "weight gradients";
  return legend_text(family);
}

/// A column shows what fills most of it, and stays blank if less than a quarter is filled.
std::string cells_of(const TimelineRow& row, double begin_us, double cell_us, size_t num_cells) {
  std::vector<std::map<char, double>> filled(num_cells);
  for (const Span* span : row.spans) {
    const double begin = (span->begin_us - begin_us) / cell_us;
    const double end = (span->end_us - begin_us) / cell_us;
    for (size_t cell = static_cast<size_t>(begin); cell < num_cells && static_cast<double>(cell) < end; ++cell) {
      const double left = static_cast<double>(cell);
      filled[cell][letter_of(*span)] += std::min(end, left + 1) - std::max(begin, left);
    }
  }
  std::string cells(num_cells, ' ');
  for (size_t cell = 0; cell < num_cells; ++cell) {
    double total = 0, largest = 0;
    char letter = ' ';
    for (const auto& [candidate, share] : filled[cell]) {
      total += share;
      if (share > largest) largest = share, letter = candidate;
    }
    if (total >= 0.25) cells[cell] = letter;
  }
  return cells;
}

double busy_share(const TimelineRow& row, double length_us) {
  double busy = 0;
  for (const Span* span : row.spans) busy += is_waiting(span->kind) ? 0 : span->end_us - span->begin_us;
  return length_us > 0 ? busy / length_us : 0;
}

std::string axis(double length_us, size_t num_cells) {
  const TimeTicks ticks = time_ticks(0, length_us, std::max<int>(2, static_cast<int>(num_cells) / 16), "us");
  std::string line;
  for (size_t i = 0; i < ticks.at_us.size(); ++i) {
    const size_t at = static_cast<size_t>(ticks.at_us[i] / length_us * static_cast<double>(num_cells));
    const std::string mark = "|" + ticks.labels[i];
    if (at < line.size() || at + mark.size() > num_cells + kShareWidth) continue;
    line += std::string(at - line.size(), ' ') + mark;
  }
  return line;
}

/// "a attention | e routed experts | ...", wrapped. Capitals are explained once for all.
std::string legend(const std::map<char, std::string>& meanings, size_t columns) {
  std::vector<std::string> entries;
  bool capitals = false;
  for (const auto& [letter, meaning] : meanings) {
    if (std::isupper(static_cast<unsigned char>(letter))) {
      capitals = true;
      const char small = static_cast<char>(std::tolower(letter));
      if (!meanings.contains(small)) entries.push_back(fmt::format("{} {}", small, meaning));
    } else {
      entries.push_back(fmt::format("{} {}", letter, meaning));
    }
  }
  if (capitals) entries.push_back("capitals: backward");
  std::string out, line;
  for (const std::string& entry : entries) {
    if (!line.empty() && line.size() + 3 + entry.size() > columns) out += line + "\n", line.clear();
    line += (line.empty() ? "" : " | ") + entry;
  }
  return out + line + "\n";
}

}  // namespace

std::string render_text(const Timeline& timeline, int columns) {
  const TimelineRows rows = rows_of(timeline);
  std::string out = timeline.title.empty() ? "" : timeline.title + ": ";
  if (rows.length_us() <= 0) return out + "empty\n";

  std::vector<std::string> labels;
  size_t label_width = 0;
  for (const TimelineRow& row : rows.rows) {
    const std::string rank = rows.num_ranks > 1 ? fmt::format("rank {} ", row.rank) : "";
    labels.push_back(row.overflow == 0 ? rank + row.lane : "");
    label_width = std::max(label_width, num_characters(labels.back()));
  }
  const size_t frame = label_width + 2 + kShareWidth;
  if (columns < 0 || static_cast<size_t>(columns) < frame + kMinCells) {
    fail("a timeline in {} columns: its lanes' names and {} letters need {}", columns, kMinCells, frame + kMinCells);
  }
  const size_t num_cells = static_cast<size_t>(columns) - frame;
  const double cell_us = rows.length_us() / static_cast<double>(num_cells);

  out += fmt::format("{}; one column is {}\n", summary_line(rows, "us"), format_us(cell_us, "us"));
  std::map<char, std::string> meanings;
  for (size_t i = 0; i < rows.rows.size(); ++i) {
    const std::string padding(label_width - num_characters(labels[i]), ' ');
    const std::string cells = cells_of(rows.rows[i], rows.begin_us, cell_us, num_cells);
    out += fmt::format("{}{} |{}| {:3.0f} %\n", labels[i], padding, cells,
                       100 * busy_share(rows.rows[i], rows.length_us()));
    for (const Span* span : rows.rows[i].spans) meanings.emplace(letter_of(*span), meaning_of(*span));
  }
  out += std::string(label_width + 1, ' ') + axis(rows.length_us(), num_cells) + "\n";
  return out + legend(meanings, static_cast<size_t>(columns));
}

}  // namespace farskip
