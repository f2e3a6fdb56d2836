#include "trace/table.h"

#include <algorithm>

#include "base/error.h"
#include "trace/drawing.h"

namespace farskip {
namespace {

bool starts_like_a_number(const std::string& cell) {
  const size_t first = cell.find_first_not_of("+-<>~ ");
  if (first == std::string::npos) return cell == "-";
  return cell[first] >= '0' && cell[first] <= '9';
}

void append_row(std::string& out, const std::vector<std::string>& cells, const std::vector<size_t>& widths,
                const std::vector<bool>& numeric) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    const std::string padding(widths[i] - num_characters(cells[i]), ' ');
    line += (i ? "  " : "") + (numeric[i] ? padding + cells[i] : cells[i] + padding);
  }
  line.erase(line.find_last_not_of(' ') + 1);
  out += line + "\n";
}

}  // namespace

void check_table(const Table& table) {
  for (const auto& row : table.rows) {
    if (!row.empty() && row.size() != table.columns.size()) {
      fail("table row '{}' has {} cells, but there are {} columns", row[0], row.size(), table.columns.size());
    }
  }
}

std::vector<bool> numeric_columns(const Table& table) {
  std::vector<bool> numeric(table.columns.size(), false);
  for (size_t i = 0; i < numeric.size(); ++i) {
    bool all = true;
    for (const auto& row : table.rows) {
      if (row.empty() || row[i].empty()) continue;
      numeric[i] = true;
      all = all && starts_like_a_number(row[i]);
    }
    numeric[i] = numeric[i] && all;
  }
  return numeric;
}

std::string render_text(const Table& table) {
  check_table(table);
  const std::vector<bool> numeric = numeric_columns(table);
  std::vector<size_t> widths;
  for (const auto& column : table.columns) widths.push_back(num_characters(column));
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], num_characters(row[i]));
  }
  size_t total = widths.empty() ? 0 : 2 * (widths.size() - 1);
  for (size_t width : widths) total += width;
  const std::string line = std::string(total, '-') + "\n";

  std::string out;
  append_row(out, table.columns, widths, numeric);
  out += line;
  for (const auto& row : table.rows) {
    if (row.empty()) {
      out += line;
    } else {
      append_row(out, row, widths, numeric);
    }
  }
  if (!table.note.empty()) out += table.note + "\n";
  return out;
}

}  // namespace farskip
