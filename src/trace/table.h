#pragma once
// A table of finished texts, printed on terminals here and as HTML by the report.

#include <string>
#include <vector>

namespace farskip {

struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  ///< an empty row draws a line between groups
  std::string note;                            ///< one sentence below the table, may be empty
};

/// Throws Error where a row has neither no cells nor as many as there are columns.
void check_table(const Table& table);
/// For each column: every cell that is not empty starts like a number, so it is set flush right.
std::vector<bool> numeric_columns(const Table& table);
/// Columns aligned, a line under the head; ends with a newline.
std::string render_text(const Table& table);

}  // namespace farskip
