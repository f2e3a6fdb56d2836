#pragma once
// What an evaluation has done so far, on disk, so that an interrupted one goes on: OUTPUT.partial, whose first line
// says what is evaluated and each further one what came of a batch. The results themselves are written aside and
// renamed.

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace farskip {

inline constexpr const char* journal_suffix = ".partial";

/// The lines behind the first of OUTPUT.partial, a last one that is cut left out; none where there is no such file.
/// Throws Error where the first line is another than `head`, naming what differs.
std::vector<nlohmann::json> read_journal(const std::string& output, const nlohmann::json& head);
/// Throws Error where `there`, of FILE, says of an evaluation what differs from `head`.
void check_same_evaluation(const std::string& file, const nlohmann::json& there, const nlohmann::json& head);

class Journal {
 public:
  /// Goes on with OUTPUT.partial behind the lines that read_journal() gave, or begins it. Throws Error where it cannot
  /// be written.
  Journal(const std::string& output, const nlohmann::json& head, const std::vector<nlohmann::json>& lines);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  void append(const nlohmann::json& line);
  /// Writes the results under their name and removes OUTPUT.partial.
  void finish(const std::string& results);

 private:
  std::string output_;
  std::FILE* file_ = nullptr;
};

}  // namespace farskip
