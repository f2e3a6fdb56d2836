#include "tests/structure/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <sstream>

namespace farskip::structure {
namespace {

constexpr size_t kMaxSourceLines = 400;
constexpr size_t kMaxReadmeLines = 149;

std::vector<std::string> split_lines(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// "layer" of "src/layer/stage.cc"; empty outside src/.
std::string folder_of(const std::string& path) {
  if (path.rfind("src/", 0) != 0) return "";
  return path.substr(4, path.find('/', 4) - 4);
}

/// Folders of src/ that CMakeLists.txt does not declare: the program, which may include all of them.
bool is_program(const std::string& folder) { return folder == "cli"; }

bool may_use_torch(const std::string& path, const Folders& folders) {
  const std::string folder = folder_of(path);
  return is_program(folder) ? path.rfind("src/cli/torch_", 0) == 0 : folders.torch.count(folder) > 0;
}

class Checker {
 public:
  Checker(const Source& source, const Folders& folders)
      : source_(source), folders_(folders), lines_(split_lines(source.text)) {}

  std::vector<std::string> run() {
    check_length();
    if (source_.path.ends_with(".h")) check_header();
    if (const std::string folder = folder_of(source_.path); !folder.empty()) check_folder(folder);
    return std::move(complaints_);
  }

 private:
  template <typename... Args>
  void complain(size_t line, fmt::format_string<Args...> format, Args&&... args) {
    complaints_.push_back(
        fmt::format("{}:{}: {}", source_.path, line, fmt::format(format, std::forward<Args>(args)...)));
  }

  void check_length() {
    if (lines_.size() <= kMaxSourceLines) return;
    static const std::regex reason(R"(^// long file: \S.*)");
    const bool excused =
        std::any_of(lines_.begin(), lines_.end(), [](const auto& line) { return std::regex_match(line, reason); });
    if (!excused) {
      complain(lines_.size(), "{} lines, more than {}; split it or say why in a line `// long file: REASON`",
               lines_.size(), kMaxSourceLines);
    }
  }

  /// Before anything else: #pragma once and a comment that says what the header is for, in either order.
  void check_header() {
    bool pragma = false, comment = false;
    size_t number = 0;
    for (const auto& line : lines_) {
      ++number;
      if (line == "#pragma once") {
        pragma = true;
      } else if (line.rfind("//", 0) == 0) {
        comment = true;
      } else if (!line.empty()) {
        break;
      }
    }
    if (!pragma) complain(number, "no #pragma once at the top of the header");
    if (!comment) complain(number, "no leading comment that says what the header is for");
  }

  void check_folder(const std::string& folder) {
    const auto allowed = folders_.may_include.find(folder);
    if (!is_program(folder) && allowed == folders_.may_include.end()) {
      complain(1, "CMakeLists.txt declares no library for src/{}", folder);
      return;
    }
    static const std::regex own(R"(^\s*#\s*include\s*"([^"/]+)/[^"]*")");
    static const std::regex torch(R"(^\s*#\s*include\s*[<"](torch|ATen|c10|caffe2)/)");
    static const std::regex device(
        R"(\b(cudaStream|CUDAStream|CUDAEvent|cudaEvent|hipStream|hipEvent|HIPStream|HIPEvent))");
    const bool torch_allowed = may_use_torch(source_.path, folders_);
    const bool streams_allowed = folder == "transport" || folder == "exec";
    std::smatch match;
    for (size_t i = 0; i < lines_.size(); ++i) {
      const std::string& line = lines_[i];
      if (std::regex_search(line, match, torch)) {
        if (!torch_allowed) complain(i + 1, "includes {}/ in a part without libtorch", match[1].str());
      } else if (std::regex_search(line, match, own)) {
        check_include(i + 1, folder, match[1]);
      }
      if (!streams_allowed && std::regex_search(line, match, device)) {
        complain(i + 1, "names {}: streams and events stay inside src/transport and src/exec", match[1].str());
      }
    }
  }

  void check_include(size_t line, const std::string& folder, const std::string& target) {
    if (!is_program(folder)) {
      if (!folders_.may_include.at(folder).count(target)) {
        complain(line, "src/{} may not include \"{}/...\": it is not below it in CMakeLists.txt", folder, target);
      }
    } else if (folders_.torch.count(target) && !may_use_torch(source_.path, folders_)) {
      complain(line, "includes \"{}/...\", which needs libtorch; name the file cli/torch_*.cc", target);
    }
  }

  const Source& source_;
  const Folders& folders_;
  std::vector<std::string> lines_;
  std::vector<std::string> complaints_;
};

}  // namespace

Folders parse_folders(const std::string& cmake_lists) {
  Folders folders;
  static const std::regex library(R"(^\s*farskip_library\(([^)]*)\))");
  for (const auto& line : split_lines(cmake_lists)) {
    std::smatch match;
    if (!std::regex_search(line, match, library)) continue;
    std::istringstream words(match[1].str());
    std::string name;
    words >> name;
    auto& reachable = folders.may_include[name];
    reachable.insert(name);
    for (std::string word; words >> word;) {
      if (word == "TORCH") {
        folders.torch.insert(name);
      } else if (word != "DEPS") {
        // A library stands below its dependencies' line, so theirs are complete; an unknown one adds only itself.
        reachable.insert(word);
        if (const auto below = folders.may_include.find(word); below != folders.may_include.end()) {
          reachable.insert(below->second.begin(), below->second.end());
        }
      }
    }
  }
  return folders;
}

std::vector<std::string> check_source(const Source& source, const Folders& folders) {
  return Checker(source, folders).run();
}

std::vector<std::string> check_class_names(const std::vector<Source>& sources) {
  static const std::regex opened(R"(^(?:inline )?namespace ?([\w:]*) ?\{$)"), closed(R"(^\}  // namespace.*)");
  static const std::regex defined(R"(^(?:class|struct|enum class|enum|union) (\w+)(?: final)?(?: ?:[^:].*)? \{.*)");
  std::map<std::string, std::string> first;  // qualified name -> where
  std::vector<std::string> complaints;
  for (const auto& [path, text] : sources) {
    if (folder_of(path).empty()) continue;
    std::vector<std::string> namespaces;
    size_t number = 0;
    for (const auto& line : split_lines(text)) {
      ++number;
      std::smatch match;
      if (std::regex_match(line, match, opened)) {
        namespaces.push_back(match[1]);
      } else if (std::regex_match(line, closed)) {
        if (!namespaces.empty()) namespaces.pop_back();
      } else if (std::regex_match(line, match, defined) && !std::count(namespaces.begin(), namespaces.end(), "")) {
        const std::string name = fmt::format("{}::{}", fmt::join(namespaces, "::"), match[1].str());
        const std::string where = fmt::format("{}:{}", path, number);
        const auto [entry, is_new] = first.emplace(name, where);
        if (!is_new) complaints.push_back(fmt::format("{}: {} is also defined at {}", where, name, entry->second));
      }
    }
  }
  return complaints;
}

std::vector<std::string> check_readme(const Source& readme) {
  const size_t num_lines = split_lines(readme.text).size();
  if (num_lines <= kMaxReadmeLines) return {};
  return {fmt::format("{}: {} lines, more than {}; move something to docs/", readme.path, num_lines, kMaxReadmeLines)};
}

}  // namespace farskip::structure
